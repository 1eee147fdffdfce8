"""Metrics as files: one JSON object a line, and TensorBoard events."""

import contextlib
import json
import math
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from kdjax.train import hosts
from kdjax.train.files import write_whole


class MetricsWriter:
  """Appends rows to `metrics.jsonl` and to an event file beside it.

  Host 0 alone writes; on the others nothing happens.
  """

  def __init__(
    self, directory: Path, *, resume_step: int, is_scored: bool = True
  ) -> None:
    """Opens the files; rows that will be written again are left out.

    Args:
      directory: the run's folder.
      resume_step: the step that training goes on from.
      is_scored: whether that step has been evaluated.
    """
    self._file = self._events = None
    if not hosts.is_primary():
      return
    path = directory / 'metrics.jsonl'
    kept = [
      row
      for row in read_metrics(path)
      if row['step'] < resume_step
      or (row['step'] == resume_step and (is_scored or _is_of_training(row)))
    ]
    write_whole(path, ''.join(json.dumps(row) + '\n' for row in kept))
    self._file = path.open('a')
    self._events = _Events(directory, purge_step=resume_step + 1)

  def __enter__(self) -> 'MetricsWriter':
    return self

  def __exit__(self, *_: object) -> None:
    if self._file:
      self._file.close()
      self._events.close()

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Writes a row; a value that is not finite becomes `null`.

    Args:
      step: updates so far.
      metrics: scalars by name.

    Raises:
      OSError: the row cannot be written.
    """
    if not self._file:
      return
    finite = {k: v for k, v in metrics.items() if math.isfinite(v)}
    row = {'step': step, **{k: finite.get(k) for k in metrics}}
    self._file.write(json.dumps(row) + '\n')
    self._file.flush()
    self._events.write(step, finite)

  def sync(self) -> None:
    """Returns when all rows are on disk."""
    if self._file:
      os.fsync(self._file.fileno())
      self._events.flush()


class _Events:
  """Events for TensorBoard. They are a view: losing them ends no training."""

  def __init__(self, directory: Path, *, purge_step: int) -> None:
    self._writer = None
    start = SessionLog(status=SessionLog.START)
    with self._forgiven():
      # Two that begin in one second would have one name.
      prefix, suffix = str(directory / 'events'), f'.{purge_step}'
      self._writer = EventsWriter(prefix, suffix)
      self._add(Event(step=purge_step, session_log=start))

  def write(self, step: int, metrics: dict[str, float]) -> None:
    with self._forgiven():
      for name, value in metrics.items() if self._writer else ():
        self._add(Event(step=step, summary=scalar(name, value)))

  def flush(self) -> None:
    with self._forgiven():
      if self._writer:
        self._writer.flush()

  def close(self) -> None:
    with self._forgiven():
      if self._writer:
        self._writer.close()

  def _add(self, event: Event) -> None:
    if self._writer:
      event.wall_time = time.time()
      self._writer.write_event(event)

  @contextlib.contextmanager
  def _forgiven(self) -> Iterator[None]:
    """Turns a failure into one warning, and stops writing."""
    try:
      yield
    except Exception as error:
      writer, self._writer = self._writer, None
      with contextlib.suppress(Exception):
        writer.close()
      warnings.warn(f'no more TensorBoard events: {error}', stacklevel=4)


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
  for line in path.read_bytes().splitlines(keepends=True):
    row = _parse(line)
    if row is None:
      break
    rows.append(row)
  return rows


def _parse(line: bytes) -> dict | None:
  """A row, or None if the line is not a whole one."""
  try:
    row = json.loads(line)
    is_row = line.endswith(b'\n') and isinstance(row['step'], int)
  except (ValueError, TypeError, KeyError):
    return None
  return row if is_row else None


def _is_of_training(row: dict) -> bool:
  return not any(name.startswith('dev_') for name in row)
