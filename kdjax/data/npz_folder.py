"""A data set of the user's own: a folder of `.npz` files."""

import math
import os
from pathlib import Path

import numpy as np

from kdjax.data import dataset, npz, table

_REQUIRED = ('inputs', 'labels')
_OPTIONAL = ('class_names', 'groups')
_MAX_LABEL = 2**31 - 1
_PART = 2**24  # bytes of inputs that become float64 at a time


def load(data_dir: str, *, dev_fraction: float) -> dataset.Dataset:
  """Reads `train.npz`, `test.npz` and, where there is one, `dev.npz`.

  Each holds `inputs` and `labels`, and may hold `class_names` and `groups`, of
  which those in `train.npz` count. K is the number of class names, without them
  one more than the largest label. A name that is none of these is refused: it
  may be a misspelt one.

  Args:
    data_dir: the folder.
    dev_fraction: share of the training examples held out where there is no
      `dev.npz`, in (0, 1).

  Returns:
    The data set. `mean` and `std` are those of each channel, or of each feature
    of a vector, over the examples to train on; `std` is 1 where none varies.

  Raises:
    ValueError: a file is damaged, or holds what is no data set; the file and
      the array are named, and the row where there is one.
    OSError: the folder or a file is missing, or cannot be read.

  >>> import tempfile
  >>> images, labels = np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   for split in ('train', 'test'):
  ...     np.savez(f'{folder}/{split}.npz', inputs=images, labels=labels)
  ...   mine = load(folder, dev_fraction=0.5)
  >>> mine.input_shape, mine.num_classes, len(mine.dev.labels)
  ((8, 8, 1), 2, 2)
  """
  paths = _paths(data_dir)
  found = {
    name: npz.read(path, required=_REQUIRED, optional=_OPTIONAL)
    for name, path in paths.items()
  }
  splits = {name: _split(arrays, paths[name]) for name, arrays in found.items()}
  train, dev = splits['train'], splits.get('dev')
  for name, split in splits.items():
    _check_alike(split.inputs, train.inputs, paths[name])
  names, groups = (found['train'].get(name) for name in _OPTIONAL)
  num_classes = _num_classes(splits, names, paths)
  if dev is None:
    train, dev = dataset.hold_out(train, fraction=dev_fraction)
  mean, std = _mean_and_std(train.inputs)
  return dataset.Dataset(
    name=table.OWN,
    train=train,
    dev=dev,
    test=splits['test'],
    num_classes=num_classes,
    mean=mean,
    std=std,
    class_names=_class_names(names, num_classes, paths['train']),
    groups=_groups(groups, num_classes, paths['train']),
  )


def _paths(data_dir: str) -> dict[str, Path]:
  """The file of each split."""
  needs = (
    f'data set {table.OWN!r} needs a data_dir with train.npz and test.npz, and'
    ' dev.npz if none of train is to be held out'
  )
  if not data_dir:
    raise ValueError(f"data_dir='' names no folder: {needs}")
  folder = Path(data_dir).expanduser()
  if not folder.is_dir():
    raise FileNotFoundError(f'there is no folder {folder}: {needs}')
  paths = {name: folder / f'{name}.npz' for name in ('train', 'dev', 'test')}
  if not os.path.lexists(paths['dev']):
    del paths['dev']
  for path in paths.values():
    if not path.is_file():
      raise FileNotFoundError(f'there is no file {path}: {needs}')
  return paths


def _split(arrays: dict[str, np.ndarray], path: Path) -> dataset.Split:
  inputs = _inputs(arrays['inputs'], f'{path}: inputs')
  labels, place = arrays['labels'], f'{path}: labels'
  _check_list(labels, place, kinds='iu', of='integers', length=len(inputs))
  _check_labels(labels, place, _MAX_LABEL)
  return dataset.Split(inputs, labels.astype(np.int32), np.arange(len(labels)))


def _inputs(array: np.ndarray, place: str) -> np.ndarray:
  """Images [N, H, W, C] of uint8 or float32, or vectors [N, D] of float32."""
  given = f'{place} is of {array.dtype} and shape {array.shape}'
  is_float = array.dtype.kind == 'f' and array.dtype.itemsize <= 8
  if not is_float and array.dtype != np.uint8:
    raise ValueError(f'{given}: uint8, float16, float32 or float64 needed')
  if array.ndim == 3:
    array = array[..., None]
  is_image = array.ndim == 4 and array.shape[-1] <= 4
  if not is_image and not (array.ndim == 2 and is_float):
    raise ValueError(
      f'{given}: needed are images [N, H, W] or [N, H, W, C], of 1 to 4'
      ' channels, or vectors [N, D] of floats'
    )
  if not array.size:
    raise ValueError(f'{given}: it is empty')
  with np.errstate(over='ignore'):  # found below
    array = np.ascontiguousarray(array, np.float32 if is_float else np.uint8)
  finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
  if not finite.all():
    raise ValueError(
      f'{place}, row {finite.argmin()}: every number must be finite in float32'
    )
  return array


def _check_list(
  array: np.ndarray, place: str, *, kinds: str, of: str, length: int
) -> None:
  if array.dtype.kind not in kinds or array.shape != (length,):
    raise ValueError(
      f'{place} is of {array.dtype} and shape {array.shape}: {of} [{length}]'
      ' needed'
    )


def _check_labels(labels: np.ndarray, place: str, largest: int) -> None:
  wrong = np.flatnonzero((labels < 0) | (labels > largest))
  if wrong.size:
    raise ValueError(
      f'{place}, row {wrong[0]}: {labels[wrong[0]]} is no class, allowed is'
      f' 0..{largest}'
    )


def _check_alike(inputs: np.ndarray, train: np.ndarray, path: Path) -> None:
  """One network takes all inputs, and pixels are scaled by their type."""
  ours, theirs = ((x.dtype.name, x.shape[1:]) for x in (inputs, train))
  if ours != theirs:
    raise ValueError(
      f'{path}: an input is of {ours[0]} and shape {ours[1]}, one of train.npz'
      f' of {theirs[0]} and {theirs[1]}'
    )


def _num_classes(
  splits: dict[str, dataset.Split],
  names: np.ndarray | None,
  paths: dict[str, Path],
) -> int:
  """K, if every class has an example to learn it from."""
  if names is None:
    found = 1 + max(int(split.labels.max()) for split in splits.values())
  else:
    place = f'{paths["train"]}: class_names'
    _check_list(names, place, kinds='U', of='text', length=names.size)
    found = len(names)
  if found < 2:
    raise ValueError(
      f'{paths["train"]}: number of classes is {found}, at least 2 needed'
    )
  for name, split in splits.items():
    _check_labels(split.labels, f'{paths[name]}: labels', found - 1)
  seen = np.unique(splits['train'].labels)
  # Also what tells labels that count from 1.
  missing = int(np.argmin(np.append(seen, -1) == np.arange(len(seen) + 1)))
  if missing < found:
    raise ValueError(
      f'{paths["train"]}: labels have no example of class {missing}; each of'
      f' the {found} classes 0..{found - 1} needs one'
    )
  return found


def _class_names(
  array: np.ndarray | None, num_classes: int, path: Path
) -> tuple[str, ...]:
  if array is None:
    return tuple(str(label) for label in range(num_classes))
  try:  # NumPy itself fails badly at what is no character
    array.astype(array.dtype.newbyteorder('<')).tobytes().decode('utf-32-le')
  except UnicodeDecodeError as error:
    raise ValueError(f'{path}: class_names is no text: {error}') from error
  return tuple(array.tolist())


def _groups(
  array: np.ndarray | None, num_classes: int, path: Path
) -> tuple[int, ...] | None:
  if array is None:
    return None
  place = f'{path}: groups'
  _check_list(array, place, kinds='iu', of='integers', length=num_classes)
  return tuple(array.tolist())


def _mean_and_std(
  inputs: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Of each entry of the last axis, scaled as `normalise` scales inputs."""
  scale = 255.0 if inputs.dtype == np.uint8 else 1.0
  axes, count = tuple(range(inputs.ndim - 1)), math.prod(inputs.shape[:-1])
  parts = np.array_split(inputs, math.ceil(inputs.nbytes / _PART))
  mean = sum(part.sum(axes, np.float64) for part in parts) / count
  square = sum(np.square(part - mean).sum(axes) for part in parts) / count
  std = np.sqrt(square)
  # What float32 cannot tell apart does not vary.
  limits = np.finfo(np.float32)
  std = np.where(std > limits.eps * np.abs(mean) + limits.tiny, std, scale)
  # `normalise` takes float32; the last bits of float64 vary with the machine.
  mean, std = (np.float32(x / scale).tolist() for x in (mean, std))
  return tuple(mean), tuple(std)
