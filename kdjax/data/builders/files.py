"""Reads published archives with the standard library, and trusts none.

Every function raises `ValueError` with the name of the file that is wrong.
"""

import gzip
import hashlib
import math
import os
import pathlib
import tarfile
import zlib
from collections.abc import Mapping

import numpy as np

# The most bytes of a list of class names.
_SHORT = 100_000

_DAMAGE = (EOFError, OSError, tarfile.TarError, zlib.error)


def sha256(path: str | os.PathLike) -> str:
  """The sha256 of a file, in hexadecimal."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def check_sha256(path: pathlib.Path, *, given: str, allowed: str) -> None:
  """Raises `ValueError` unless the two are the same."""
  if given != allowed:
    raise ValueError(
      f'{path} is not the published file: its sha256 is {given}, not {allowed}'
    )


def gunzip(path: pathlib.Path, *, size: int) -> bytes:
  """The content of a gzip file that should hold `size` bytes.

  Args:
    path: the file.
    size: of the content; no more than one byte beyond it is read.

  Returns:
    The content.

  Raises:
    ValueError: the file is damaged, or its content has another size.
  """
  try:
    with gzip.open(path) as file:
      content = file.read(size + 1)
  except _DAMAGE as error:
    raise ValueError(f'{path} is damaged: {error}') from error
  if len(content) != size:
    more = 'more' if len(content) > size else len(content)
    raise ValueError(f'{path} should hold {size} bytes, but holds {more}')
  return content


def idx_size(shape: tuple[int, ...]) -> int:
  """Bytes of an idx file of uint8: magic, dimensions and values."""
  return 4 + 4 * len(shape) + math.prod(shape)


def parse_idx(
  content: bytes, *, shape: tuple[int, ...], path: pathlib.Path
) -> np.ndarray:
  """The array in an idx file of uint8.

  Args:
    content: of the file, `idx_size(shape)` bytes.
    shape: what the header should say.
    path: of the file, for the error.

  Returns:
    The array, uint8 of `shape`.

  Raises:
    ValueError: the header says something else.
  """
  header = np.frombuffer(content, '>u4', count=1 + len(shape))
  magic = 0x0800 + len(shape)
  if header[0] != magic:
    raise ValueError(
      f'{path} is no idx file of uint8: its magic number is'
      f' {header[0]:#010x}, not {magic:#010x}'
    )
  if tuple(header[1:]) != shape:
    given = tuple(int(size) for size in header[1:])
    raise ValueError(f'{path} holds an array {given}, not {shape}')
  values = np.frombuffer(content, np.uint8, offset=header.nbytes)
  return values.reshape(shape)


def check_labels(
  labels: np.ndarray, *, num_classes: int, path: pathlib.Path
) -> None:
  """Raises `ValueError` unless the labels lie in 0..num_classes-1."""
  if labels.max() >= num_classes:
    raise ValueError(
      f'{path} has a label {labels.max()}; they should lie in'
      f' 0..{num_classes - 1}'
    )


def tar_members(
  path: pathlib.Path, *, sizes: Mapping[str, int | None]
) -> dict[str, bytes]:
  """Reads members of a .tar.gz by their names; nothing is written to disk.

  Args:
    path: the archive.
    sizes: the names wanted, and the bytes of each; None for a short text.

  Returns:
    The content of each.

  Raises:
    ValueError: the archive is damaged, or a member is missing, not a plain
      file or of another size.
  """
  found = {}
  try:
    with tarfile.open(path, 'r|gz') as archive:
      for member in archive:
        if member.name not in sizes:
          continue
        size = sizes[member.name]
        right = member.size <= _SHORT if size is None else member.size == size
        if not (member.isreg() and right):
          raise ValueError(
            f'{path}: {member.name} holds {member.size} bytes, not'
            f' {size or f"at most {_SHORT}"}, or is no plain file'
          )
        found[member.name] = archive.extractfile(member).read()
  except _DAMAGE as error:
    raise ValueError(f'{path} is damaged: {error}') from error
  missing = [name for name in sizes if name not in found]
  if missing:
    raise ValueError(f'{path} lacks {", ".join(missing)}')
  return found
