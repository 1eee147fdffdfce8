"""A list of the files of prepared data, so that damage is told from data.

TFDS and Python's `json` take a flipped bit in a count or in a class name as it
is. So the files, once prepared, are listed with their sizes and sha256s.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

NAME = 'kdjax_manifest.json'
# What kdjax itself adds to the folder.
_OURS = 'kdjax_'
# In the name of every file of records.
_RECORDS = '.array_record'


def write(folder: pathlib.Path) -> None:
  """Lists the files of prepared data; the list is written whole or not at all.

  Args:
    folder: where they are.

  Raises:
    OSError: a file cannot be read, or the list not be written.
  """
  files = {
    path.name: {'size': path.stat().st_size, 'sha256': _sha256(path)}
    for path in sorted(folder.iterdir())
    if path.is_file() and not path.name.startswith(_OURS)
  }
  partial = folder / f'{NAME}.{os.getpid()}.partial'
  try:
    partial.write_text(json.dumps({'files': files, 'sha256': _own(files)}))
    partial.replace(folder / NAME)
  finally:
    partial.unlink(missing_ok=True)


def read(folder: pathlib.Path) -> dict[str, dict[str, Any]] | None:
  """The list: size and sha256 by the name of a file.

  Args:
    folder: where the prepared data are.

  Returns:
    The list, or None if there is none: an older version wrote none.

  Raises:
    OSError: the list is damaged.
  """
  path = folder / NAME
  try:
    content = json.loads(path.read_bytes())
    if content['sha256'] == _own(content['files']):
      return content['files']
  except FileNotFoundError:
    return None
  except (ValueError, TypeError, KeyError):
    pass
  raise OSError(f'{path} is damaged; {_remedy(folder)}')


def check(folder: pathlib.Path, *, records: bool) -> None:
  """Compares the files with the list; without a list, all is well.

  Args:
    folder: where the prepared data are.
    records: whether to read the records as well; else only their sizes are
      compared, and the sha256s of the small files that describe them.

  Raises:
    OSError: a file is missing or not what was prepared; it is named.
  """
  for name, entry in (read(folder) or {}).items():
    path = folder / name
    if not path.is_file():
      raise OSError(f'{path} is missing; {_remedy(folder)}')
    size = path.stat().st_size
    if size != entry['size']:
      raise OSError(
        f'{path} holds {size} bytes, but {entry["size"]} were prepared;'
        f' {_remedy(folder)}'
      )
    is_read = records or _RECORDS not in name
    if is_read and _sha256(path) != entry['sha256']:
      raise OSError(
        f'{path} is not what was prepared: its sha256 is another;'
        f' {_remedy(folder)}'
      )


def _remedy(folder: pathlib.Path) -> str:
  return f'delete {folder} and prepare again with python -m kdjax.prepare'


def _sha256(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _own(files: Mapping[str, Any]) -> str:
  """What tells a flip in the list from one in a file."""
  text = json.dumps(files, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
