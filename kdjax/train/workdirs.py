"""The folder of a run, and whose it is."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kdjax.train.files import read_json, write_json

# Keys that say where things are, not what they are.
_PLACES = frozenset({'dataset.data_dir', 'teacher.cache_dir'})


def claim(workdir: Path, config: ConfigDict) -> None:
  """Makes the folder and writes `config.json`, or checks the one in it.

  Args:
    workdir: the run's folder.
    config: the run's configuration.

  Raises:
    ValueError: the folder holds a run of another configuration, or something
      that is not a folder stands there.
  """
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f'--workdir={workdir} is a file, not a folder')
  path = workdir / 'config.json'
  ours = json.loads(config.to_json())
  if path.exists():
    different = sorted(differences(read_json(path), ours) - _PLACES)
    if different:
      raise ValueError(
        f'--workdir={workdir} holds a run of another config, give a new one; '
        f'different are {", ".join(different)}'
      )
    return
  workdir.mkdir(parents=True, exist_ok=True)
  write_json(path, ours)


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
