"""Metrics as files: one JSON object a line, and TensorBoard events."""

import json
import math
from pathlib import Path

from tensorboardX import SummaryWriter

from kdjax.train.files import write_whole


class MetricsWriter:
  """Appends rows to `metrics.jsonl` and to an event file beside it."""

  def __init__(self, directory: Path, *, resume_step: int) -> None:
    """Opens the files; rows after `resume_step` will be written again.

    Args:
      directory: the run's folder.
      resume_step: the step that training goes on from.
    """
    path = directory / 'metrics.jsonl'
    kept = [row for row in read_metrics(path) if row['step'] <= resume_step]
    write_whole(path, ''.join(json.dumps(row) + '\n' for row in kept))
    self._file = path.open('a')
    self._events = SummaryWriter(
      str(directory), purge_step=resume_step + 1, flush_secs=30
    )

  def __enter__(self) -> 'MetricsWriter':
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()
    self._events.close()

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Writes a row; a value that is not finite becomes `null`.

    Args:
      step: updates so far.
      metrics: scalars by name.
    """
    row = {'step': step}
    for name, value in metrics.items():
      finite = math.isfinite(value)
      row[name] = value if finite else None
      if finite:
        self._events.add_scalar(name, value, step)
    self._file.write(json.dumps(row) + '\n')
    self._file.flush()


def read_metrics(path: Path) -> list[dict]:
  """Returns the rows of a `metrics.jsonl`, up to the first damaged line.

  Args:
    path: the file, which need not exist.

  Returns:
    A dictionary a line.
  """
  if not path.exists():
    return []
  rows = []
  for line in path.read_text().splitlines(keepends=True):
    if not line.endswith('\n'):
      break
    try:
      rows.append(json.loads(line))
    except ValueError:
      break
  return rows
