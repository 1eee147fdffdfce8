"""What a person sees: a bar in a terminal, a few plain lines elsewhere."""

import abc
import os
import sys
import time

from rich.console import Console
from rich.progress import (
  BarColumn,
  Progress,
  SpinnerColumn,
  TextColumn,
  TimeRemainingColumn,
)
from rich.table import Table

_SECONDS_BETWEEN_LINES = 10.0


class Reporter:
  """Shows phases and their progress on stdout."""

  def __init__(self, *, quiet: bool = False) -> None:
    """Opens stdout.

    Args:
      quiet: show nothing, as all hosts but one do.
    """
    self._console = _Console(
      file=sys.stdout, highlight=False, soft_wrap=True, quiet=quiet
    )

  def say(self, text: str) -> None:
    """Prints a line."""
    self._console.print(text, markup=False)

  def phase(
    self, name: str, *, num_steps: int, start: int, unit: str = 'images'
  ) -> 'Phase':
    """Returns the display of a training phase, a context manager.

    Args:
      name: such as 'teacher' or 'student'.
      num_steps: steps in the whole phase.
      start: the step that it goes on from.
      unit: of which the rate is so many a second.

    Returns:
      A bar where stdout is a terminal, else plain lines.
    """
    kind = _BarPhase if self._console.is_terminal else _PlainPhase
    return kind(self._console, name, num_steps, start, unit)

  def table(self, title: str, header: list[str], rows: list[list[str]]) -> None:
    """Prints a table.

    Args:
      title: above it.
      header: column names.
      rows: cells.
    """
    table = Table(title=title, title_justify='left')
    for index, name in enumerate(header):
      table.add_column(name, justify='right' if index else 'left')
    for row in rows:
      table.add_row(*row)
    self._console.print(table)


class _Console(Console):
  """A console that nobody may be reading any more: that ends no training."""

  def on_broken_pipe(self) -> None:
    self.quiet = True
    # Python would complain at its exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Phase(abc.ABC):
  """Progress of one training phase."""

  def __init__(
    self,
    console: Console,
    name: str,
    num_steps: int,
    start: int,
    unit: str,
  ) -> None:
    self._console, self._name, self._num_steps = console, name, num_steps
    self._start, self._begin = start, time.monotonic()
    self._unit = unit

  def __enter__(self) -> 'Phase':
    return self

  def __exit__(self, *_: object) -> None:
    return None

  def _rate(self, rate: float) -> str:
    digits = 0 if rate >= 10 else 1
    return f'{rate:,.{digits}f} {self._unit}/s'

  @abc.abstractmethod
  def update(self, step: float, rate: float, note: str) -> None:
    """Shows how far the phase is.

    Args:
      step: how much is done.
      rate: units a second.
      note: the last figures.
    """


class _BarPhase(Phase):
  """A bar with examples a second and the time left."""

  def __enter__(self) -> 'Phase':
    self._progress = Progress(
      SpinnerColumn(finished_text='✓'),
      TextColumn(f'[bold]{self._name:<9}'),
      BarColumn(bar_width=24),
      TextColumn('{task.completed:.0f}/{task.total}'),
      TextColumn('{task.fields[rate]}'),
      TimeRemainingColumn(compact=True, elapsed_when_finished=True),
      TextColumn('{task.fields[note]}'),
      console=self._console,
    )
    self._task = self._progress.add_task(
      self._name,
      total=self._num_steps,
      completed=self._start,
      rate='compiling',
      note='',
    )
    self._progress.start()
    return self

  def __exit__(self, *_: object) -> None:
    self._progress.stop()

  def update(self, step: float, rate: float, note: str) -> None:
    self._progress.update(
      self._task, completed=step, rate=self._rate(rate), note=note
    )


class _PlainPhase(Phase):
  """A line now and then, and one at the end."""

  def __init__(self, *args: object) -> None:
    super().__init__(*args)
    self._last = self._begin
    self._line = ''
    self._first = None  # step and time of the first update, which compiles

  def __exit__(self, *_: object) -> None:
    seconds = time.monotonic() - self._begin
    self._console.print(f'{self._line}  {seconds:.0f}s', markup=False)

  def update(self, step: float, rate: float, note: str) -> None:
    self._line = (
      f'{self._name:<9} step {step:.0f}/{self._num_steps}  '
      f'{self._rate(rate)}  {note}'
    )
    now = time.monotonic()
    self._first = self._first or (step, now)
    if now - self._last > _SECONDS_BETWEEN_LINES and step > self._first[0]:
      self._last = now
      pace = (now - self._first[1]) / (step - self._first[0])
      left = pace * (self._num_steps - step)
      self._console.print(f'{self._line}  {left:.0f}s left', markup=False)


def show_results(reporter: Reporter, results: dict) -> None:
  """Prints teacher, baseline and student as a table.

  Args:
    reporter: where to print.
    results: what `results.json` holds.
  """
  networks = {
    name: results[name]
    for name in ('teacher', 'baseline', 'student')
    if results.get(name)
  }
  columns = {
    'parameters': lambda found: f'{found["num_params"]:,}',
    'test accuracy': lambda found: _percent(found, 'test_accuracy'),
    'test at best dev': lambda found: _percent(
      found.get('best', {}), 'test_accuracy'
    ),
    'test perplexity': lambda found: _number(found, 'test_perplexity'),
    'at best dev': lambda found: _number(
      found.get('best', {}), 'test_perplexity'
    ),
    'bits per character': lambda found: _number(
      found, 'test_bits_per_character', 3
    ),
    'on excluded classes': lambda found: _percent(
      found, 'test_accuracy_excluded_classes'
    ),
  }
  cells = {
    header: [cell(found) for found in networks.values()]
    for header, cell in columns.items()
  }
  cells = {header: column for header, column in cells.items() if any(column)}
  reporter.table(
    f'finished in {results["wall_seconds"]:.0f} seconds',
    ['network', *cells],
    [list(row) for row in zip(networks, *cells.values(), strict=True)],
  )


def _number(found: dict, key: str, digits: int = 2) -> str:
  return f'{found[key]:,.{digits}f}' if key in found else ''


def _percent(found: dict, key: str) -> str:
  return f'{found[key]:.2%}' if key in found else ''
