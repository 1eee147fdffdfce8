"""The folder of a run: whose it is, and that nobody else is in it."""

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kdjax.train import files, hosts

# Keys that say where and how a run is carried out, not what it is: a run may
# go on in another place, on other devices, and with other means.
CIRCUMSTANCES = frozenset(
  {
    'analysis',
    'dataset.data_dir',
    'dataset.num_threads',
    'dataset.num_workers',
    'eval_batch_size',
    'heartbeat_seconds',
    'keep_checkpoints',
    'model_devices',
    'split_networks',
    'teacher.cache_dir',
    'teacher.precompute_megabytes',
    'watchdog_seconds',
  }
)
# Likewise, of a study alone.
STUDY_CIRCUMSTANCES = frozenset(
  {'study.max_settings', 'study.memory_fraction', 'study.over_members'}
)


def check(workdir: Path, config: ConfigDict) -> None:
  """Raises `ValueError` for a folder that cannot be this run's.

  Args:
    workdir: the run's folder, which need not exist yet.
    config: the run's configuration.
  """
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f'--workdir={workdir} is a file, not a folder')
  path = workdir / 'config.json'
  if path.exists():
    ours = json.loads(config.to_json())
    different = different_keys(files.read_json(path), ours)
    if different:
      raise ValueError(
        f'--workdir={workdir} holds a run of another config, give a new one; '
        f'different are {", ".join(different)}'
      )


_LOCK = '.lock'
_TRIES = 10


@contextlib.contextmanager
def claimed(workdir: Path, config: ConfigDict) -> Iterator[None]:
  """Makes the folder this run's own, for as long as the context lasts.

  The folder gets `config.json`, or the one in it is checked; a lock keeps
  other processes out, and goes with this one, however it ends.

  Args:
    workdir: the run's folder.
    config: the run's configuration.

  Yields:
    Nothing.

  Raises:
    ValueError: the folder holds a run of another configuration, or something
      that is not a folder stands there.
    OSError: it cannot be written, or another process is in it.
  """
  check(workdir, config)
  workdir.mkdir(parents=True, exist_ok=True)
  with _locked(workdir / _LOCK, workdir):
    path = workdir / 'config.json'
    if not path.exists():
      files.write_json(path, json.loads(config.to_json()))
    yield


@contextlib.contextmanager
def _locked(path: Path, workdir: Path) -> Iterator[None]:
  with path.open('a+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      holder = file.read().strip() or 'another process'
      raise BlockingIOError(
        f'--workdir={workdir} is in use by {holder}: wait for it, or give '
        f'another one'
      ) from None
    file.truncate(0)
    file.write(f'process {os.getpid()} on {platform.node()}')
    file.flush()
    yield


def check_shared(workdir: Path) -> None:
  """Raises `ValueError`, on all hosts, unless all see the same folder.

  Args:
    workdir: the run's folder, which host 0 has claimed.
  """
  path = workdir / _LOCK
  claimed_by = hosts.on_primary(path.read_text)
  for _ in range(_TRIES):  # a shared file system may take its time
    seen = path.read_text() if path.exists() else ''
    if seen == claimed_by:
      break
    time.sleep(1.0)
  if hosts.agree(stop=seen != claimed_by, num_steps=0)[0]:
    raise ValueError(
      f'--workdir={workdir} is not the same folder on all hosts: it must lie '
      f'on a file system that they share'
    )


def carried_out_as(config: ConfigDict, saved: dict) -> ConfigDict:
  """Returns a saved configuration with the circumstances of this run.

  Args:
    config: of this run.
    saved: another configuration, plain data.

  Returns:
    A configuration that differs from `saved` in no key that matters.
  """
  found = ConfigDict(saved)
  for key in CIRCUMSTANCES:
    *parents, name = key.split('.')
    here, there = config, found
    for parent in parents:
      here, there = here[parent], there[parent]
    there[name] = here[name]
  return found


def different_keys(a: dict, b: dict) -> list[str]:
  """Returns the dotted keys at which two runs differ in what they are.

  >>> different_keys({'seed': 1, 'model_devices': 1}, {'seed': 2})
  ['seed']
  """
  return sorted(differences(a, b) - CIRCUMSTANCES - STUDY_CIRCUMSTANCES)


def differences(a: Any, b: Any, prefix: str = '') -> set[str]:  # noqa: ANN401
  """Returns the dotted keys at which two nested dictionaries differ.

  >>> sorted(differences({'a': 1, 'b': {'c': 2}}, {'a': 1, 'b': {'c': 3}}))
  ['b.c']
  """
  if not (isinstance(a, dict) and isinstance(b, dict)):
    return set() if a == b else {prefix}
  found = set()
  for key in a.keys() | b.keys():
    name = f'{prefix}.{key}' if prefix else key
    found |= differences(a.get(key), b.get(key), name)
  return found
