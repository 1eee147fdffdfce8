"""Files that are there whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
  """Writes a file so that a kill leaves the old one or the new one.

  Args:
    path: the file.
    text: its new content.
  """
  scratch = path.with_name(f'.{path.name}.{os.getpid()}')
  with scratch.open('w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  scratch.replace(path)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
  """Writes a value as indented JSON."""
  write_whole(path, json.dumps(value, indent=2) + '\n')


def read_json(path: Path) -> Any:  # noqa: ANN401
  """Reads a JSON file; raises `ValueError` that names a damaged one."""
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f'{path} is damaged: {error}') from error
