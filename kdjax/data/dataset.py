"""What a data set is, and the ways to make a smaller one of it."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from kdjax import checks
from kdjax.data.images import Images


class Split(NamedTuple):
  """Examples on the host.

  Attributes:
    inputs: images [N, H, W, C] of uint8 or float32, or vectors [N, D] of
      float32, or encoded images of a data set that is streamed, or tokens
      [N, T] of int32.
    labels: classes [N] of int32; of a text the token after each, [N, T], −1
      where there is nothing to predict.
    ids: where in the published split each example is, [N]; None if unknown.
  """

  inputs: np.ndarray | Images
  labels: np.ndarray
  ids: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
  """What is to be known of a data set for language models.

  Attributes:
    batching: 'contiguous': rows go on from each other, so that a network may
      remember; 'padded': a sentence a row; 'packed': several sentences a row.
    boundary: the token before which there is nothing to remember; None in
      contiguous rows.
    num_characters: of the text that the labels of each split stand for.
    token_counts: how often each token is a label to train on, [K].
  """

  batching: str
  boundary: int | None
  num_characters: dict[str, int]
  token_counts: Int[np.ndarray, ' K']


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A classification data set in host memory.

  Attributes:
    name: its name in the table of data sets.
    train: what a model learns from.
    dev: held out of the training examples; models are selected on it.
    test: what results are reported on, and nothing is selected on.
    num_classes: number of classes, K.
    mean: per channel, of inputs scaled as `normalise` does.
    std: ditto.
    class_names: K names.
    groups: the super-class of each class, or None where none is known.
    text: what is known of a text, whose tokens are the classes; else None.
  """

  name: str
  train: Split
  dev: Split
  test: Split
  num_classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  class_names: tuple[str, ...]
  groups: tuple[int, ...] | None = None
  text: Text | None = None

  @property
  def input_shape(self) -> tuple[int, ...]:
    """The shape of one example, such as (32, 32, 3)."""
    return self.train.inputs.shape[1:]

  @functools.cached_property
  def _digest(self) -> str:
    digest = hashlib.sha256()
    arrays = {
      f'{split}.{field}': array
      for split in ('train', 'dev', 'test')
      for field, array in zip(
        ('inputs', 'labels'), getattr(self, split)[:2], strict=True
      )
    }
    arrays |= {'mean': np.asarray(self.mean), 'std': np.asarray(self.std)}
    for name, array in arrays.items():
      digest.update(f'{name} {array.dtype.str} {array.shape} '.encode())
      is_encoded = isinstance(array, Images)
      digest.update(
        array.content() if is_encoded else np.ascontiguousarray(array)
      )
    if self.text:
      known = dataclasses.asdict(self.text)
      known['token_counts'] = self.text.token_counts.tolist()
      digest.update(json.dumps([known, self.class_names]).encode())
    return digest.hexdigest()

  def fingerprint(self) -> str:
    """Identifies the content: what any model trained on it could see.

    Returns:
      The sha256, in hexadecimal, over names, types, shapes and bytes of the
      arrays of all splits and of `mean` and `std`. Encoded images stand in by
      the sha256s of their files and their positions there. Of a text, what is
      known of it and its tokens are in it. Computed once.
    """
    return self._digest


def permutation(size: int, *, seed: int) -> np.ndarray:
  """A permutation that depends on nothing but its arguments.

  It sorts raw bits of PCG64, whose stream NumPy guarantees; the streams of
  `Generator.permutation` may change with a version.

  Args:
    size: how many positions.
    seed: which permutation.

  Returns:
    The positions 0 to `size - 1`, [size], in another order.

  >>> permutation(5, seed=0)
  array([3, 2, 1, 0, 4])
  """
  bits = np.random.PCG64(seed).random_raw(size)
  return np.argsort(bits, kind='stable')


def take(split: Split, positions: np.ndarray) -> Split:
  """The examples at `positions`, in that order."""
  ids = None if split.ids is None else split.ids[positions]
  return Split(split.inputs[positions], split.labels[positions], ids)


def check_dev_fraction(fraction: float) -> None:
  """Raises `ValueError` unless `fraction` lies inside (0, 1)."""
  if not 0 < fraction < 1:
    raise ValueError(f'dev_fraction={fraction} must lie between 0 and 1')


def hold_out(split: Split, *, fraction: float) -> tuple[Split, Split]:
  """Holds some examples out, by one permutation that never changes.

  Args:
    split: N examples, at least 2.
    fraction: how many to hold out, in (0, 1).

  Returns:
    What is left and what was held out, both in their first order; neither is
    empty.

  Raises:
    ValueError: `fraction` is not inside (0, 1).
  """
  check_dev_fraction(fraction)
  size = len(split.labels)
  num_held = min(max(round(fraction * size), 1), size - 1)
  order = permutation(size, seed=0)
  held, left = np.sort(order[:num_held]), np.sort(order[num_held:])
  return take(split, left), take(split, held)


def thin(
  split: Split, *, num_labels: int, num_classes: int, seed: int
) -> Split:
  """Keeps `num_labels` examples, spread over the classes as evenly as it goes.

  Classes take turns until enough examples are drawn, so class counts differ
  by at most one unless a class has run out. With one seed, fewer labels are a
  subset of more.

  Args:
    split: N examples.
    num_labels: how many to keep, 1 to N.
    num_classes: number of classes, K.
    seed: which examples are drawn, and which class has the first turn.

  Returns:
    The examples kept, in their first order.

  Raises:
    ValueError: `num_labels` is not in 1..N, or a label not in 0..K-1.

  >>> split = Split(np.zeros((6, 2)), np.array([0, 0, 0, 0, 1, 1]))
  >>> thin(split, num_labels=4, num_classes=2, seed=0).labels
  array([0, 0, 1, 1])
  """
  labels = split.labels
  checks.check_between('num_labels', num_labels, 1, len(labels))
  if labels.min() < 0 or labels.max() >= num_classes:
    raise ValueError(
      f'num_classes={num_classes}, but labels lie in'
      f' {labels.min()}..{labels.max()}'
    )
  class_turn = permutation(num_classes, seed=seed)
  turn = np.empty(len(labels), np.int64)
  shuffled = permutation(len(labels), seed=seed)
  for label in range(num_classes):
    members = shuffled[labels[shuffled] == label]
    turn[members] = np.arange(len(members)) * num_classes + class_turn[label]
  return take(split, np.sort(np.argsort(turn)[:num_labels]))


def exclude_classes(split: Split, classes: Sequence[int]) -> Split:
  """Leaves out every example of some classes; the other labels stay as is.

  Args:
    split: N examples.
    classes: the classes to leave out.

  Returns:
    The examples left, in their first order.

  Raises:
    ValueError: the split has no example of one of `classes`, or of another
      class.

  >>> split = Split(np.zeros((4, 2)), np.array([0, 1, 2, 1]))
  >>> exclude_classes(split, [1]).labels
  array([0, 2])
  """
  present = sorted({int(label) for label in split.labels})
  missing = sorted(set(classes) - set(present))
  if missing:
    raise ValueError(
      f'classes {missing} cannot be left out: the examples have {present}'
    )
  if set(classes) == set(present):
    raise ValueError(f'leaving out all classes, {present}, leaves no example')
  return take(split, np.flatnonzero(~np.isin(split.labels, list(classes))))
