"""Arrays from an `.npz` file that anyone may have written."""

import contextlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kdjax import checks

# `savez` stores, `savez_compressed` deflates. With other methods zipfile sets
# no bound on what it unpacks at once.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# An array that unpacks to more than these bytes may not unpack to more than so
# many times what it takes in the file: zeros unpack to 1000 times as much.
_HARMLESS = 2**28
_MAX_RATIO = 200
# By the version of a header; that of 3.0 is for records, which are not taken.
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
_SHOWN = 10  # names of arrays


def read(
  path: Path, *, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
  """Reads the arrays of an `.npz` file; nothing in it is executed.

  The size of the file bounds the memory that is taken.

  Args:
    path: the file.
    required: names of arrays that must be there.
    optional: names of those that may be. Any other is refused: it may be a
      misspelt one of these.

  Returns:
    The arrays, by their names.

  Raises:
    ValueError: the file is damaged, no `.npz` file, or a bomb, an array is
      missing or not known, or holds Python objects. The file is named, and the
      array where there is one.
    OSError: the file cannot be opened.
  """
  with open(path, 'rb') as file:
    with _damage_in(path):
      archive = zipfile.ZipFile(file)
      if any(info.comment for info in archive.infolist()):
        raise ValueError('a comment, which may hide the arrays after it')
    there = [name.removesuffix('.npy') for name in archive.namelist()]
    for name in required:
      if name not in there:
        shown = ', '.join(map(repr, there[:_SHOWN])) or 'none'
        raise ValueError(f'{path} has no array {name!r}; it has {shown}')
    known = [*required, *optional]
    for name in there:
      checks.check_known(f'array of {path}', name, known)
    return {
      name: _array(archive, name, path) for name in known if name in there
    }


@contextlib.contextmanager
def _damage_in(place: object) -> Iterator[None]:
  """Names the place of whatever zipfile, zlib and NumPy make of damage."""
  try:
    yield
  except Exception as error:
    raise ValueError(
      f'{place} cannot be read: it is damaged, or not written by numpy.savez'
      f' ({type(error).__name__}: {error})'
    ) from error


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
  """Reads an array if its header and its size are sound."""
  place = f'{path}: {name}'
  with _damage_in(place):
    info = archive.getinfo(f'{name}.npy')
  if info.compress_type not in _METHODS:
    raise ValueError(f'{place} is compressed, but not as numpy.savez does it')
  packed = min(info.compress_size, path.stat().st_size)
  if info.file_size > max(_HARMLESS, _MAX_RATIO * packed):
    raise ValueError(
      f'{place} would unpack from {packed} to {info.file_size} bytes, over'
      f' {_MAX_RATIO} times as many: write it by numpy.savez, uncompressed'
    )
  with _damage_in(place), archive.open(info) as file:
    shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    size = file.tell() + math.prod(shape) * dtype.itemsize
  if dtype.hasobject:
    raise ValueError(
      f'{place} holds Python objects, a pickle, which is never opened: save'
      ' numbers or text'
    )
  if size != info.file_size:
    raise ValueError(
      f'{place} is damaged: its header promises {size} bytes, the file has'
      f' {info.file_size}'
    )
  with _damage_in(place), archive.open(info) as file:
    return np.lib.format.read_array(file, allow_pickle=False)
