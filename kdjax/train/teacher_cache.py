"""Finished teachers, kept for every later run."""

import os
import shutil
import tempfile
import warnings
from pathlib import Path

from ml_collections import ConfigDict

from kdjax.train import checkpoint, manifest
from kdjax.train.files import read_json


def directory(config: ConfigDict) -> Path | None:
  """Where finished teachers are kept."""
  given = config.teacher.cache_dir
  if given == 'off':
    return None
  if given:
    return Path(given).expanduser()
  home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return Path(home).expanduser() / 'kdjax' / 'teachers'


def take(cached: Path, directory: Path) -> bool:
  """Copies a teacher from the cache, unless it is damaged there."""
  if cached.exists() and not directory.exists():
    try:
      for step in checkpoint.steps(cached / 'checkpoints'):
        manifest.verify(checkpoint.folder(cached / 'checkpoints', step))
      read_json(cached / 'config.json')
    except (ValueError, OSError) as error:
      aside = cached.with_name(f'{cached.name}.unusable')
      shutil.rmtree(aside, ignore_errors=True)
      cached.rename(aside)
      warnings.warn(
        f'a teacher in the cache is put aside: {error}', stacklevel=2
      )
  return copy(cached, directory)


def copy(source: Path, target: Path) -> bool:
  """Copies a folder, unless it is there; `target` is whole or not there.

  Returns:
    Whether it was copied.
  """
  if target.exists() or not source.exists():
    return False
  target.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
    copy = Path(scratch) / 'copy'
    shutil.copytree(source, copy)
    try:
      copy.rename(target)
    except OSError:
      if not target.exists():  # else another run was first
        raise
      return False
  return True
