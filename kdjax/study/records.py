"""What became of each student: `runs.jsonl`, one line a student."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kdjax.study import scores
from kdjax.study.arms import Trial
from kdjax.study.population import Outcome
from kdjax.train.files import write_whole

FILE = 'runs.jsonl'

# What names a student, and what else a study reads of its line.
_NAMES = ('phase', 'scenario', 'arm', 'trial', 'seed')
_KEYS = frozenset({*_NAMES, 'data', 'metrics', 'diverged_at'})

Record = dict[str, Any]


class Records:
  """The students of a study that are trained; a kill loses none of them."""

  def __init__(self, workdir: Path) -> None:
    """Reads what is there.

    Args:
      workdir: the study's folder.

    Raises:
      ValueError: a line is damaged.
    """
    self._path = workdir / FILE
    self.rows = _read(self._path)

  def add(self, records: Iterable[Record]) -> None:
    """Writes records beside the others: all of them or none.

    A student that is there keeps its line.

    Args:
      records: of students that were trained at once.
    """
    there = {_student(row) for row in self.rows}
    self.rows += [row for row in records if _student(row) not in there]
    write_whole(
      self._path, ''.join(json.dumps(row) + '\n' for row in self.rows)
    )

  def of(self, phase: str, scenario: dict[str, Any]) -> list[Record]:
    """Returns the records of a phase in a scenario."""
    here = plain(scenario)
    return [
      row
      for row in self.rows
      if row['phase'] == phase and row['scenario'] == here
    ]


def make(
  outcome: Outcome,
  *,
  phase: str,
  scenario: dict[str, Any],
  sets: dict[str, Any],
  content: str,
  teacher: dict[str, Any] | None,
) -> Record:
  """Returns the line of a student.

  Args:
    outcome: how it came out.
    phase: 'search' or 'final'.
    scenario: what names the scenario, by dotted key.
    sets: all that it sets.
    content: identifies the data.
    teacher: its scores, or None.

  Returns:
    Plain data; `config` is what `kdjax.main` needs to train the same student.
  """
  trial = outcome.trial
  return plain(
    {
      'phase': phase,
      'scenario': scenario,
      'arm': trial.arm.name,
      'method': trial.arm.method,
      'fixed': trial.arm.fixed,
      'trial': trial.index,
      'seed': outcome.seed,
      'settings': trial.settings,
      'config': {**sets, **trial.overrides, 'seed': outcome.seed},
      'data': content,
      'teacher': teacher,
      'num_params': outcome.num_params,
      'metrics': outcome.metrics,
      'diverged_at': outcome.diverged_at,
      'wall_seconds': outcome.wall_seconds,
    }
  )


def missing(
  rows: Sequence[Record], trials: Iterable[Trial], seeds: Iterable[int]
) -> list[Trial]:
  """Returns the trials that not all seeds have been trained for.

  Args:
    rows: of one phase in one scenario.
    trials: what is to be trained.
    seeds: with which.

  Returns:
    Those left.
  """
  done = {(row['arm'], row['trial'], row['seed']) for row in rows}
  wanted = set(seeds)
  return [
    trial
    for trial in trials
    if any((trial.arm.name, trial.index, seed) not in done for seed in wanted)
  ]


def best_trials(rows: Iterable[Record], trials: Iterable[Trial]) -> list[Trial]:
  """Returns, for each arm, the trial with the best mean score on dev.

  That is the highest accuracy, or the lowest cross-entropy of a text. A trial
  of which a student diverged is taken only if there is no other; of equals the
  first is.

  Args:
    rows: of the search in one scenario.
    trials: of all arms.

  Returns:
    A trial an arm.
  """
  found: dict[tuple[str, int], list[Record]] = {}
  for row in rows:
    found.setdefault((row['arm'], row['trial']), []).append(row)

  def merit(trial: Trial) -> tuple[bool, float]:
    students = found[trial.arm.name, trial.index]
    sound = all(row['diverged_at'] is None for row in students)
    total = sum(
      scores.of_metrics(row['metrics']).merit(row['metrics'], 'dev')
      for row in students
    )
    return sound, -math.inf if math.isnan(total) else total / len(students)

  best: dict[str, Trial] = {}
  for trial in trials:
    before = best.get(trial.arm.name)
    if before is None or merit(trial) > merit(before):
      best[trial.arm.name] = trial
  return list(best.values())


def _student(row: Record) -> str:
  """Whose line it is."""
  return json.dumps([row[key] for key in _NAMES], sort_keys=True)


def _read(path: Path) -> list[Record]:
  if not path.exists():
    return []
  rows = []
  for number, line in enumerate(path.read_bytes().splitlines(), start=1):
    try:
      row = json.loads(line)
      if not isinstance(row, dict) or not row.keys() >= _KEYS:
        raise ValueError('no record of a student')
    except ValueError as error:
      raise ValueError(
        f'{path}, line {number} is damaged: delete the line, and its student '
        f'is trained again'
      ) from error
    rows.append(row)
  return rows


def plain(value: Any) -> Any:  # noqa: ANN401
  """Returns a value as it is when it was written and read.

  JSON knows no number that is not finite: it becomes None.

  >>> plain({'widths': (64, 64), 'dev_cross_entropy': float('nan')})
  {'widths': [64, 64], 'dev_cross_entropy': None}
  """
  return json.loads(json.dumps(value), parse_constant=lambda name: None)
