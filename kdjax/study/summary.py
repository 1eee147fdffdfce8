"""What the records of a study amount to, a row per scenario and arm."""

import json
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kdjax.study import scores
from kdjax.study.scores import Score
from kdjax.study.statistics import (
  Paired,
  Spread,
  holm,
  paired_difference,
  spread,
)

# A gain is significant if its adjusted p value is below.
LEVEL = 0.05

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
  """An arm in a scenario, over seeds.

  Its score is an accuracy, a fraction, or the perplexity of a text.

  Attributes:
    scenario: dotted configuration keys that the study varies, and their values.
    arm: name of what is compared.
    method: its method.
    fixed: what of it is held fixed.
    settings: what the search chose.
    trial: which trial of the search that was.
    num_params: parameters of the student.
    teacher: its scores, as `dev_accuracy` and `test_accuracy`, and
      `num_params`; or None.
    dev: the score on dev after the last step.
    test: the score on test after the last step.
    best: the score on test at the checkpoint that is best on dev.
    gain_over_ce: test accuracy after the last step, less that of the arm 'ce'
      with the same seed; of a text the cross-entropy of that arm in nats, less
      this one's; None for 'ce', or if there is no pair.
    gain_over_kd: the same, of the arm 'kd'.
    adjusted_p: p value of the gain over CE, after Holm over the arms of the
      scenario; NaN if there is none.
    significant: whether the gain over CE is positive and `adjusted_p` < 0.05.
    diverged: students that diverged; they count with their last finite weights.
    score: what it is.
  """

  scenario: dict[str, Any]
  arm: str
  method: str
  fixed: dict[str, Any]
  settings: dict[str, Any]
  trial: int
  num_params: int
  teacher: dict[str, float] | None
  dev: Spread
  test: Spread
  best: Spread
  gain_over_ce: Paired | None
  gain_over_kd: Paired | None
  adjusted_p: float
  significant: bool
  diverged: int
  score: Score = scores.ACCURACY


def summarise(records: Iterable[Record]) -> list[Row]:
  """Sums up the final students of a study.

  Args:
    records: one per student; those of the search are left out.

  Returns:
    A row per scenario and arm, in the order in which they first appear.

  Raises:
    ValueError: an arm has two students of one seed, or of two trials, in one
      scenario.
  """
  final = [record for record in records if record['phase'] == 'final']
  rows = []
  for students in group(final, lambda r: identity(r['scenario'])):
    rows += _scenario_rows(group(students, lambda r: r['arm']))
  return rows


def identity(scenario: Mapping[str, Any]) -> str:
  """What is equal for equal scenarios, be they read from a file or not.

  >>> identity({'b': (1, 2), 'a': 0.5}) == identity({'a': 0.5, 'b': [1, 2]})
  True
  """
  return json.dumps(scenario, sort_keys=True)


def group(
  items: Iterable[Any], key: Callable[[Any], Hashable]
) -> list[list[Any]]:
  """Items with the same key, together, in the order of the first of them.

  >>> group('abAcB', str.lower)
  [['a', 'A'], ['b', 'B'], ['c']]
  """
  groups = {}
  for item in items:
    groups.setdefault(key(item), []).append(item)
  return list(groups.values())


def short_keys(keys: Iterable[str]) -> dict[str, str]:
  """What dotted keys are called: their last part, where these differ.

  >>> short_keys(['dataset.options.correlation'])
  {'dataset.options.correlation': 'correlation'}
  >>> list(short_keys(['teacher.name', 'student.name', 'seed']).values())
  ['teacher.name', 'student.name', 'seed']
  """
  keys = list(dict.fromkeys(keys))
  last = [key.rpartition('.')[2] for key in keys]
  return {
    key: name if last.count(name) == 1 else key
    for key, name in zip(keys, last, strict=True)
  }


def describe(
  values: Mapping[str, Any], names: Mapping[str, str], *, digits: int = 6
) -> str:
  """A scenario or settings, for people.

  Args:
    values: by dotted key.
    names: what the keys are called.
    digits: significant ones, of what is not an integer.

  >>> describe({'a.weight': 0.5, 'topk': 2}, {'a.weight': 'w', 'topk': 'topk'})
  'w 0.5, topk 2'
  """
  return ', '.join(
    f'{names[key]} {text(value, digits=digits)}'
    for key, value in values.items()
  )


def text(value: Any, *, digits: int = 6) -> str:  # noqa: ANN401
  """A value of a key, for people.

  Args:
    value: a number, a text, or a list of them.
    digits: significant ones, of what is not an integer.

  >>> text(0.25), text((64, 64)), text('ls'), text(2.71828, digits=3)
  ('0.25', '(64, 64)', 'ls', '2.72')
  """
  if isinstance(value, float):
    return f'{value:.{digits}g}'
  if isinstance(value, list | tuple):
    return f'({", ".join(text(x, digits=digits) for x in value)})'
  return str(value)


def _scenario_rows(arms: list[list[Record]]) -> list[Row]:
  """Rows of the arms of one scenario, which are tested together."""
  merits = {students[0]['arm']: _merits(students) for students in arms}
  gains = {arm: _gain(merits, arm, 'ce') for arm in merits}
  adjusted = holm([g.p_value if g else math.nan for g in gains.values()])
  return [
    _row(
      students,
      gain_over_ce=gain,
      gain_over_kd=_gain(merits, arm, 'kd'),
      adjusted_p=p_value,
    )
    for students, (arm, gain), p_value in zip(
      arms, gains.items(), adjusted, strict=True
    )
  ]


def _merits(students: list[Record]) -> dict[int, float]:
  """What is compared on test, higher is better, by seed."""
  of = f'arm {students[0]["arm"]!r} in scenario {students[0]["scenario"]}'
  seeds = [student['seed'] for student in students]
  trials = sorted({student['trial'] for student in students})
  if len(set(seeds)) < len(seeds):
    raise ValueError(f'{of} has seeds {seeds}; a seed may occur once')
  if len(trials) > 1:
    raise ValueError(f'{of} has trials {trials}; one of them can be chosen')
  score = scores.of_metrics(students[0]['metrics'])
  return {s['seed']: score.merit(s['metrics'], 'test') for s in students}


def _gain(
  merits: Mapping[str, Mapping[int, float]], arm: str, other: str
) -> Paired | None:
  """What an arm gains over another with the seeds that both have."""
  if arm == other or other not in merits:
    return None
  seeds = [seed for seed in merits[arm] if seed in merits[other]]
  if not seeds:
    return None
  return paired_difference(
    [merits[arm][seed] for seed in seeds],
    [merits[other][seed] for seed in seeds],
  )


def _row(
  students: list[Record],
  *,
  gain_over_ce: Paired | None,
  gain_over_kd: Paired | None,
  adjusted_p: float,
) -> Row:
  first = students[0]
  metrics = [student['metrics'] for student in students]
  score = scores.of_metrics(metrics[0])
  wins = gain_over_ce is not None and gain_over_ce.mean > 0
  return Row(
    scenario=dict(first['scenario']),
    arm=first['arm'],
    method=first['method'],
    fixed=dict(first['fixed']),
    settings=dict(first['settings']),
    trial=first['trial'],
    num_params=first['num_params'],
    teacher=_teacher([student['teacher'] for student in students]),
    dev=spread([score.value(m, 'dev') for m in metrics]),
    test=spread([score.value(m, 'test') for m in metrics]),
    best=spread([score.value(m['best'], 'test') for m in metrics]),
    gain_over_ce=gain_over_ce,
    gain_over_kd=gain_over_kd,
    adjusted_p=adjusted_p,
    significant=wins and adjusted_p < LEVEL,
    diverged=sum(s['diverged_at'] is not None for s in students),
    score=score,
  )


def _teacher(
  teachers: list[Mapping[str, float] | None],
) -> dict[str, float] | None:
  """The teacher of an arm; the mean of several."""
  known = [teacher for teacher in teachers if teacher is not None]
  if not known:
    return None
  if all(teacher == known[0] for teacher in known):
    return dict(known[0])
  return {
    key: spread([teacher[key] for teacher in known]).mean for key in known[0]
  }
