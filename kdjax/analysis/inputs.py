"""Logits and labels from anywhere: what is wrong with them, and in which row.

Host code: arrays may be memory-mapped and are read in pieces.
"""

import numpy as np

from kdjax.analysis.pieces import pieces

_PADDING = -1  # a label where a text has nothing to predict
_UNIT = 1e-2  # how near to one rows of probabilities sum, in half precision


def in_rows(
  logits: dict[str, np.ndarray],
  labels: np.ndarray,
  *,
  labels_name: str = 'labels',
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray | None]:
  """Puts the tokens of a text in rows, without padding; else changes nothing.

  Args:
    logits: `[N, T, K]` each, by the name to use in messages; where there is no
      padding they stay memory-mapped.
    labels: `[N, T]`, −1 where there is nothing to predict.
    labels_name: what to call the labels.

  Returns:
    Logits `[M, K]` and labels `[M]` of the tokens to predict, row after row,
    and `[K]`, how often each token is a label; None for what is no text.

  Raises:
    ValueError: shapes do not fit, or a label is no token.

  >>> logits, labels, counts = in_rows(
  ...   {'logits': np.zeros((1, 3, 4))}, np.array([[2, 2, -1]])
  ... )
  >>> logits['logits'].shape, labels, counts
  ((2, 4), array([2, 2]), array([0, 0, 2, 0]))
  """
  first = next(iter(logits.values()))
  if labels.ndim != 2 or first.ndim != 3 or labels.dtype.kind not in 'iu':
    return logits, labels, None
  for name, array in logits.items():
    if array.shape != (*labels.shape, first.shape[-1]):
      raise ValueError(
        f'{name} has shape {array.shape}, but {labels_name} has {labels.shape}:'
        f' logits of a text must be [N, T, K], labels [N, T]'
      )
  num_classes = first.shape[-1]
  wrong = np.argwhere((labels < _PADDING) | (labels >= num_classes))
  if len(wrong):
    row, place = wrong[0]
    raise ValueError(
      f'{labels_name}, row {row}, token {place}: {labels[row, place]} is no '
      f'class, allowed is 0..{num_classes - 1}, and {_PADDING} for padding'
    )
  flat = np.reshape(labels, -1)
  found = {k: np.reshape(x, (-1, num_classes)) for k, x in logits.items()}
  is_token = flat != _PADDING
  if not is_token.all():
    flat = flat[is_token]
    found = {name: array[is_token] for name, array in found.items()}
  return found, flat, _count(flat, num_classes)


def _count(labels: np.ndarray, num_classes: int) -> np.ndarray:
  return np.bincount(labels.astype(np.int64), minlength=num_classes)


def check(
  logits: dict[str, np.ndarray],
  labels: np.ndarray,
  *,
  labels_name: str = 'labels',
) -> None:
  """Raises `ValueError` or `TypeError` for what cannot be diagnosed.

  The message names the array, and the row where there is one.

  Args:
    logits: `[N, K]` each, by the name to use in messages; K ≥ 2.
    labels: `[N]`, of at least two classes in 0..K-1.
    labels_name: what to call the labels.
  """
  shapes = {name: np.shape(array) for name, array in logits.items()}
  first, shape = next(iter(shapes.items()))
  for name, array in logits.items():
    _check_form(name, array, np.floating, ('N', 'K'))
    if array.shape[1] < 2:
      raise ValueError(
        f'{name} has shape {array.shape}: at least two classes are needed'
      )
    if array.shape != shape:
      raise ValueError(
        f'{name} has shape {array.shape}, but {first} has {shape}: rows and '
        f'classes must be the same'
      )
  _check_form(labels_name, labels, np.integer, ('N',))
  if len(labels) != shape[0]:
    raise ValueError(
      f'{labels_name} has {len(labels)} rows, but {first} has {shape[0]}'
    )
  _check_labels(labels, shape[1], labels_name)
  for name, array in logits.items():
    _check_values(name, array)


def check_weights(weights: np.ndarray, num_classes: int, *, name: str) -> None:
  """Raises `ValueError` or `TypeError` for what are no class weights.

  Args:
    weights: `[K, D]`, finite.
    num_classes: K.
    name: what to call them.
  """
  _check_form(name, weights, np.floating, ('K', 'D'))
  if len(weights) != num_classes:
    raise ValueError(
      f'{name} has {len(weights)} rows for {num_classes} classes'
    )
  wrong = np.flatnonzero(~np.isfinite(weights).all(axis=1))
  if len(wrong):
    raise ValueError(f'{name}, row {wrong[0]}: every weight must be finite')


def _check_form(
  name: str, array: np.ndarray, kind: type, axes: tuple[str, ...]
) -> None:
  expected = f'[{", ".join(axes)}]'
  if not np.issubdtype(array.dtype, kind):
    wanted = 'floating point' if kind is np.floating else 'integers'
    raise TypeError(f'{name} is of {array.dtype}: {wanted} {expected} needed')
  if not array.dtype.isnative or array.dtype.itemsize > 8:
    raise TypeError(
      f'{name} is of {array.dtype.str}: the byte order of this machine and at '
      f'most 64 bits needed'
    )
  if array.ndim != len(axes):
    if (array.ndim, len(axes)) == (3, 2):
      expected += ', or labels [N, T] with logits [N, T, K] of a text,'
    raise ValueError(f'{name} has shape {array.shape}: {expected} needed')
  if not array.size:
    raise ValueError(f'{name} has shape {array.shape}: it is empty')


def _check_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
  wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if len(wrong):
    row = wrong[0]
    raise ValueError(
      f'{name}, row {row}: {labels[row]} is no class, allowed is '
      f'0..{num_classes - 1}'
    )
  if labels.min() == labels.max():
    raise ValueError(
      f'{name}: all {len(labels)} rows are of class {labels[0]}, at least two '
      f'classes are needed'
    )


def _check_values(name: str, logits: np.ndarray) -> None:
  """Raises `ValueError` for NaN, inf, and probabilities."""
  are_probs = True
  for part in pieces(*logits.shape):
    values = np.asarray(logits[part])
    finite = np.abs(values) <= np.finfo(np.float32).max  # NaN is not
    if not finite.all():
      row, column = np.argwhere(~finite)[0]
      raise ValueError(
        f'{name}, row {part.start + row}: {values[row, column]} in column '
        f'{column}, every logit must be finite in float32'
      )
    are_probs = are_probs and _are_probabilities(values)
  if are_probs:
    raise ValueError(
      f'{name}: every row, from row 0 on, is positive and sums to one. These '
      f'are probabilities; logits are needed, or their logarithms'
    )


def _are_probabilities(values: np.ndarray) -> bool:
  if values.min() < 0 or values.max() > 1 + _UNIT:
    return False
  total = np.sum(values, axis=1, dtype=np.float32)
  return bool(np.all(np.abs(total - 1) < _UNIT))
