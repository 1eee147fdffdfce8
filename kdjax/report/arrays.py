"""Arrays from `.npy` files that anyone may have written."""

from pathlib import Path

import numpy as np

from kdjax.analysis import Answers, inputs

_MAGIC = b'\x93NUMPY'


def read(path: Path) -> np.ndarray:
  """Maps the array of a `.npy` file into memory; nothing in it is executed.

  Args:
    path: the file.

  Returns:
    The array, read-only.

  Raises:
    ValueError: it is not a whole `.npy` file, or holds Python objects.
    OSError: it cannot be read.
  """
  with path.open('rb') as file:
    start = file.read(len(_MAGIC))
  if not start:
    raise ValueError(f'{path} is empty')
  if start != _MAGIC:
    raise ValueError(f'{path} is no .npy file: write it by numpy.save')
  try:
    return np.load(path, mmap_mode='r', allow_pickle=False)
  except (ValueError, EOFError) as error:
    if 'object' in str(error).lower():
      raise ValueError(
        f'{path} holds Python objects, a pickle, which is never opened: save '
        f'numbers'
      ) from error
    raise ValueError(f'{path} is damaged: {error}') from error


def read_weights(path: Path, num_classes: int) -> np.ndarray:
  """Reads class weights, and checks them.

  Args:
    path: the file.
    num_classes: K.

  Returns:
    `[K, D]`.

  Raises:
    TypeError: they are of the wrong type; the file is named.
    ValueError: they are not of K classes, or not finite; the file is named.
    OSError: the file cannot be read.
  """
  weights = read(path)
  inputs.check_weights(weights, num_classes, name=str(path))
  return weights


def read_answers(paths: dict[str, Path]) -> Answers:
  """Reads what networks say, and checks it.

  Args:
    paths: files of 'teacher_logits' and 'labels', and where there are of
      'student_logits' and 'baseline_logits'.

  Returns:
    The answers, memory-mapped. The tokens of a text are in rows, without
    padding; where there was some they are no longer mapped.

  Raises:
    TypeError: an array is of the wrong type; the file is named.
    ValueError: as `diagnose`; the file and the row are named.
    OSError: a file cannot be read.
  """
  arrays = {name: read(path) for name, path in paths.items()}
  labels = arrays.pop('labels')
  labels_name = str(paths['labels'])
  named = {str(paths[name]): array for name, array in arrays.items()}
  named, labels, _ = inputs.in_rows(named, labels, labels_name=labels_name)
  inputs.check(named, labels, labels_name=labels_name)
  found = {name: named[str(paths[name])] for name in arrays}
  return Answers(labels=labels, **found)
