"""Reads archives of images one by one; nothing is ever written to disk."""

import pathlib
import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO

# The most bytes of a class of ImageNet, and of an image.
_MAX_ARCHIVE = 2**30
_MAX_IMAGE = 2**25

_DAMAGE = (EOFError, OSError, tarfile.TarError, zlib.error)


def images(
  path: pathlib.Path, *, pattern: str
) -> Iterator[tuple[re.Match, bytes]]:
  """Yields the images of a .tar, in its order.

  Args:
    path: the archive.
    pattern: what every name has to match.

  Yields:
    The match of the name, and the content.

  Raises:
    ValueError: the archive is damaged, or a member has another or a second
      time the same name, is no plain file, empty or too large. Archive and
      member are named.
  """
  with open(path, 'rb') as file:
    yield from _contents(file, str(path), pattern)


def nested_images(
  path: pathlib.Path, *, outer: str, inner: str
) -> Iterator[tuple[re.Match, re.Match, bytes]]:
  """Yields the images of a .tar of .tars, in their order.

  Args:
    path: the archive.
    outer: what the name of every archive in it has to match.
    inner: what the name of every image has to match.

  Yields:
    The matches of both names, and the content.

  Raises:
    ValueError: as for `images`.
  """
  with open(path, 'rb') as file:
    for found, part in _members(file, str(path), outer, _MAX_ARCHIVE):
      place = f'{path}: {found[0]}'
      for match, content in _contents(part, place, inner):
        yield found, match, content


def _contents(
  file: IO[bytes], place: str, pattern: str
) -> Iterator[tuple[re.Match, bytes]]:
  for match, part in _members(file, place, pattern, _MAX_IMAGE):
    try:
      content = part.read()
    except _DAMAGE as error:
      raise ValueError(f'{place}: {match[0]} is damaged: {error}') from error
    yield match, content


def _members(
  file: IO[bytes], place: str, pattern: str, max_size: int
) -> Iterator[tuple[re.Match, IO[bytes]]]:
  """Yields name and file of each member; it must be read before the next."""
  seen, last = set(), 'its start'
  try:
    with tarfile.open(fileobj=file, mode='r|') as archive:
      for member in archive:
        # Names are never paths: a pattern without a slash rules them out.
        match = re.fullmatch(pattern, member.name)
        if not match:
          raise _Refused(f'{member.name!r} has no name that belongs there')
        if not member.isreg() or member.issparse():
          raise _Refused(f'{member.name} is no plain file')
        if not 0 < member.size <= max_size:
          raise _Refused(
            f'{member.name} holds {member.size} bytes, not 1 to {max_size}'
          )
        if member.name in seen:
          raise _Refused(f'{member.name} is there twice')
        seen.add(member.name)
        last = member.name
        yield match, archive.extractfile(member)
  except _Refused as error:
    raise ValueError(f'{place}: {error}') from error
  except _DAMAGE as error:
    raise ValueError(f'{place} is damaged after {last}: {error}') from error


class _Refused(Exception):
  """A member that has no place in an archive."""
