"""All examples of a prepared data set, and a cache of their arrays."""

import contextlib
import io
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kdjax.data.images import Images
from kdjax.data.shards import Shards


class Arrays(NamedTuple):
  """All examples of a prepared data set.

  Attributes:
    train_inputs: [N, ...]; `Images` of a streamed data set.
    train_labels: [N] of int32.
    test_inputs: [M, ...]; `Images` of a streamed data set.
    test_labels: [M] of int32.
    class_names: [K] of text.
    groups: super-class of each class [K], of int32; empty if unknown.
  """

  train_inputs: np.ndarray | Images
  train_labels: np.ndarray
  test_inputs: np.ndarray | Images
  test_labels: np.ndarray
  class_names: np.ndarray
  groups: np.ndarray


def read_records(records: Mapping[str, Shards], *, streamed: bool) -> Arrays:
  """Reads every record of a prepared data set.

  Args:
    records: those of `train` and of `test`.
    streamed: whether images stay encoded; then all but labels is left.

  Returns:
    The arrays, in the order of the records.

  Raises:
    OSError: a record is damaged, which is named.
  """
  found, groups = {}, {}
  for split, part in records.items():
    inputs, labels = [], []
    for example in part:
      labels.append(example['label'])
      if 'coarse_label' in example:
        groups[example['label']] = example['coarse_label']
      if not streamed:
        inputs.append(_input(example))
    found[f'{split}_labels'] = np.asarray(labels, np.int32)
    found[f'{split}_inputs'] = (
      _all_images(part, labels) if streamed else np.stack(inputs)
    )
  names = records['train'].features['label'].names
  known = [groups[k] for k in range(len(names))] if groups else []
  return Arrays(
    **found,
    class_names=np.asarray(names),
    groups=np.asarray(known, np.int32),
  )


def _all_images(records: Shards, labels: Sequence[int]) -> Images:
  return Images(records, np.arange(len(labels)))


def _input(example: Mapping[str, Any]) -> np.ndarray:
  if 'image' not in example:
    return example['input']
  pixels = np.asarray(Image.open(io.BytesIO(example['image'])))
  return pixels[..., None] if pixels.ndim == 2 else pixels


def read_cache(
  path: pathlib.Path, records: Mapping[str, Shards], *, streamed: bool
) -> Arrays | None:
  """The cached arrays, or None if there are none that can be trusted.

  Args:
    path: of the cache.
    records: those of `train` and of `test`; none is read.
    streamed: whether images stay encoded; then the cache holds none.

  Returns:
    The arrays.
  """
  found = read_npz(path)
  if found is None:
    return None
  try:
    if streamed:
      for split, part in records.items():
        images = _all_images(part, found[f'{split}_labels'])
        found[f'{split}_inputs'] = images
    arrays = Arrays(**found)
  except Exception:  # Whatever ails a cache, the records are still there.
    return None
  whole = all(
    len(inputs) == len(labels) > 0 and inputs.dtype in (np.uint8, np.float32)
    for inputs, labels in (arrays[:2], arrays[2:4])
  )
  return arrays if whole else None


def write_cache(path: pathlib.Path, arrays: Arrays) -> None:
  """Writes the cache whole or not at all; a folder may be read-only."""
  kept = {
    field: array
    for field, array in arrays._asdict().items()
    if isinstance(array, np.ndarray)
  }
  write_npz(path, kept)


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray] | None:
  """The arrays of a cache, or None if it is missing or damaged."""
  try:
    with open(path, 'rb') as file:
      # NumPy stops where a header says so, short of zipfile's own check.
      if zipfile.ZipFile(file).testzip() is not None:
        return None
      file.seek(0)
      return dict(np.load(file, allow_pickle=False))
  except Exception:  # Whatever ails a cache, the records are still there.
    return None


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes arrays whole or not at all; a folder may be read-only."""
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    with open(partial, 'wb') as file:
      np.savez(file, **arrays)
    partial.replace(path)
  except OSError:
    with contextlib.suppress(OSError):
      partial.unlink()
