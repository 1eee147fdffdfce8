"""What a checkpoint is: a list of its files with their digests.

Orbax restores a flipped bit without a word. So every checkpoint carries
`manifest.json`, written as the last file before its folder gets its name: what
is not listed there, or not as it is listed there, is not trusted.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax

from kdjax.train import workdirs
from kdjax.train.files import write_json
from kdjax.train.state import PyTree

NAME = 'manifest.json'
# What Orbax writes after the manifest: times and marks, which nothing reads.
_UNLISTED = frozenset({NAME, '_CHECKPOINT_METADATA', 'commit_success.txt'})


def leaves(tree: PyTree) -> dict[str, str]:
  """Returns the path of every array, and its type and shape.

  >>> import numpy as np
  >>> leaves({'kernel': np.zeros((3, 2), np.float32)})
  {'kernel': 'float32[3,2]'}
  """
  found = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): (
      f'{leaf.dtype}[{",".join(map(str, leaf.shape))}]'
    )
    for path, leaf in found
  }


def write(folder: Path, facts: dict[str, Any]) -> None:
  """Lists the files of a checkpoint, with what else is known of it.

  Args:
    folder: the checkpoint's.
    facts: plain data: `step`, `score`, `config`, `leaves`.
  """
  files = {
    str(path.relative_to(folder)): {
      'bytes': path.stat().st_size,
      'sha256': _digest(path),
    }
    for path in sorted(folder.rglob('*'))
    if path.is_file() and path.name not in _UNLISTED
  }
  content = {**facts, 'files': files}
  write_json(folder / NAME, {**content, 'sha256': _digest_of(content)})


def read(folder: Path) -> dict[str, Any]:
  """Returns the manifest of a checkpoint.

  Args:
    folder: the checkpoint's.

  Returns:
    What `write` was given, and `files`.

  Raises:
    ValueError: it is missing or damaged; the message names the file.
  """
  path = folder / NAME
  try:
    content = json.loads(path.read_bytes())
    digest = content.pop('sha256')
    whole = digest == _digest_of(content)
  except (OSError, ValueError, AttributeError, KeyError, TypeError):
    whole = False
  if not whole:
    raise ValueError(f'{path} is missing or damaged')
  return content


def verify(folder: Path) -> dict[str, Any]:
  """Returns the manifest of a checkpoint whose files are all as listed.

  Args:
    folder: the checkpoint's.

  Returns:
    The manifest.

  Raises:
    ValueError: a file is missing or damaged; the message names it.
  """
  content = read(folder)
  for name, listed in content['files'].items():
    path = folder / name
    if not path.is_file():
      raise ValueError(f'{path} is missing')
    size = path.stat().st_size
    if size != listed['bytes']:
      raise ValueError(f'{path} has {size} bytes, not {listed["bytes"]}')
    if _digest(path) != listed['sha256']:
      raise ValueError(f'{path} is damaged: its sha256 is not the one saved')
  return content


def check_ours(
  content: dict[str, Any], expected: dict[str, str], config: dict
) -> None:
  """Raises `ValueError` for a checkpoint of another training.

  Args:
    content: its manifest.
    expected: `leaves` of what is to be restored.
    config: the configuration of this training, plain data.
  """
  saved = content['leaves']
  for name in sorted(saved.keys() | expected.keys()):
    theirs, ours = saved.get(name, 'absent'), expected.get(name, 'absent')
    if theirs != ours:
      raise ValueError(
        f'it is of another network: {name} is {theirs}, not {ours}'
      )
  different = workdirs.different_keys(content['config'], config)
  if different:
    raise ValueError(f'it is of another config: {", ".join(different)} differ')


def _digest(path: Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _digest_of(content: dict[str, Any]) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
