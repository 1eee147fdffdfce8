"""Finds and reads the text files of a user."""

import codecs
import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Sequence

from kdjax.data.corpus import Document

# What the name of a file begins with, whatever part it is of.
_PARTS = {
  'train': 'train',
  'training': 'train',
  'valid': 'dev',
  'validation': 'dev',
  'val': 'dev',
  'dev': 'dev',
  'test': 'test',
}
_SUFFIXES = ('.txt', '.tokens')
_SHOWN = 10  # names of files


@dataclasses.dataclass(frozen=True)
class TextFiles:
  """Texts of the user's own, as an option of a data set.

  Attributes:
    path: a file, or a folder of files that end in .txt or .tokens. Where a word
      of their names is train, valid or dev, or test, they are these parts, and
      others are left alone; where none has such a word, all are one text, in
      the order of their names.
  """

  path: str

  @functools.cached_property
  def files(self) -> tuple[tuple[str, pathlib.Path], ...]:
    """Part and path of each file."""
    path = pathlib.Path(os.path.expanduser(self.path))
    needs = (
      "data set 'text_file' needs a text file, or a folder with files that end"
      f' in {" or ".join(_SUFFIXES)}'
    )
    if not self.path:
      raise ValueError(
        f'{needs}: name it by config.dataset.data_dir, or by --manual_dir of'
        ' kdjax.prepare'
      )
    if not path.exists():
      raise FileNotFoundError(f'there is no {path}: {needs}')
    if not path.is_dir():
      return (('train', path),)
    found = sorted(
      file
      for file in path.iterdir()
      if file.suffix in _SUFFIXES
      and file.is_file()
      and not file.name.startswith('.')
    )
    if not found:
      raise FileNotFoundError(f'{path} holds {shown(path)}: {needs}')
    return _by_part(path, found)

  @functools.cached_property
  def _digest(self) -> str:
    digest = hashlib.sha256()
    for part, path in self.files:
      with open(path, 'rb') as file:
        content = hashlib.file_digest(file, 'sha256').hexdigest()
      digest.update(f'{part} {content} {path.name}\n'.encode())
    return digest.hexdigest()

  def folder(self) -> str:
    """A name that differs wherever a text does."""
    stem = pathlib.Path(os.path.expanduser(self.path)).stem
    return f'{re.sub("[^A-Za-z0-9]+", "-", stem)[:32]}_{self._digest[:16]}'

  def documents(self) -> list[Document]:
    """The texts.

    Raises:
      ValueError: a file holds no text, or has changed since it was named.
      OSError: a file cannot be read.
    """
    found = [Document(path.name, part, read(path)) for part, path in self.files]
    if TextFiles(self.path)._digest != self._digest:
      raise ValueError(f'{self.path} changed while it was read')
    return found


def _by_part(
  folder: pathlib.Path, found: Sequence[pathlib.Path]
) -> tuple[tuple[str, pathlib.Path], ...]:
  parts = [_part(path) for path in found]
  if not any(parts):
    return tuple(('train', path) for path in found)
  if 'train' not in parts:
    raise FileNotFoundError(
      f'{folder} holds {shown(folder)}: beside files for dev or test, one is'
      ' needed with the word train in its name'
    )
  return tuple(
    (part, path)
    for wanted in ('train', 'dev', 'test')
    for part, path in zip(parts, found, strict=True)
    if part == wanted
  )


def _part(path: pathlib.Path) -> str:
  """The part that the name of a file says, such as that of ptb.train.txt."""
  words = re.findall('[a-z]+', path.stem.lower())
  return next((_PARTS[word] for word in words if word in _PARTS), '')


def shown(folder: pathlib.Path) -> str:
  """Names some of what a folder holds.

  Args:
    folder: one that exists.

  Returns:
    The names, or that there are none.
  """
  names = sorted(path.name for path in folder.iterdir())
  more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
  return (', '.join(names[:_SHOWN]) or 'nothing') + more


def read(path: pathlib.Path) -> str:
  """The text of a file in UTF-8; a mark at its start is no part of it.

  Args:
    path: of the file.

  Returns:
    The text, at least one character.

  Raises:
    ValueError: the file is empty, not UTF-8, or binary; it says where.
    OSError: it cannot be read.
  """
  content = path.read_bytes()
  mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
  if not content[mark:].strip():
    raise ValueError(f'{path} is empty: it holds no text')
  if b'\0' in content:
    raise ValueError(
      f'{path} is no text in UTF-8: its byte {content.index(0)} is 0, as in'
      ' binary files'
    )
  try:
    return content[mark:].decode('utf-8')
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{path} is not UTF-8: byte {mark + error.start} is'
      f' {error.object[error.start]:#04x} ({error.reason})'
    ) from error
