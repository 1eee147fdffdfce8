"""The rows of a study as Markdown for people and as CSV for programs."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from csv import DictWriter
from io import StringIO
from typing import Any

from kdjax.study.scores import Score
from kdjax.study.statistics import Paired, Spread
from kdjax.study.summary import (
  LEVEL,
  Row,
  describe,
  group,
  identity,
  short_keys,
)

_NOTHING = '—'
_DIVERGED = '†'
# What Markdown would take for markup; `_` inside a word it leaves alone.
_MARKUP = re.compile(r'([\\`*<>|\[\]#])')


def markdown(rows: Sequence[Row], *, title: str, note: str = '') -> str:
  """Writes rows down as tables: an overview, then one per scenario.

  Args:
    rows: of `summarise`.
    title: of the study.
    note: Markdown that follows the title: what was studied, and how; or none.

  Returns:
    Markdown; a significant win over CE is bold, and nothing else is.
  """
  scenarios = group(rows, lambda row: identity(row.scenario))
  keys = short_keys(key for row in rows for key in row.scenario)
  names = [describe(arms[0].scenario, keys) for arms in scenarios]
  parts = [f'# {_plain(title)}']
  parts += [note] if note else []
  if not rows:
    return '\n\n'.join([*parts, 'No student is finished.']) + '\n'
  score = rows[0].score
  parts += [f'{score.titled(f"Test {score.name} after the last step")}:']
  parts += [_overview(scenarios, names)]
  for arms, name in zip(scenarios, names, strict=True):
    parts += [f'## {_plain(name) or "By arm"}', _networks(arms), _details(arms)]
    parts += _divergences(arms)
  parts.append(_explanation(rows))
  return '\n\n'.join(parts) + '\n'


def csv(rows: Sequence[Row]) -> str:
  """Writes rows down with every digit, one line each.

  Args:
    rows: of `summarise`.

  Returns:
    A header and lines; accuracies and gains are fractions, gains of a text
    differences in nats, a list is JSON, and what is not known is empty.
  """
  lines = [_flat(row) for row in rows]
  scenario_keys = [key for row in rows for key in row.scenario]
  header = dict.fromkeys([*scenario_keys, *(key for x in lines for key in x)])
  # What only some arms have comes last, beside its like.
  ends = [
    *(key for key in header if key.startswith('fixed.')),
    *(key for key in header if key.startswith('setting.')),
  ]
  columns = [key for key in header if key not in ends] + ends
  file = StringIO()
  writer = DictWriter(file, columns, lineterminator='\n')
  writer.writeheader()
  writer.writerows(
    {key: _exact(value) for key, value in line.items()} for line in lines
  )
  return file.getvalue()


def _flat(row: Row) -> dict[str, Any]:
  """All of a row, by column."""
  line = row.scenario | {
    'arm': row.arm,
    'method': row.method,
    'trial': row.trial,
    'seeds': row.test.count,
    'diverged': row.diverged,
    'num_params': row.num_params,
  }
  name = row.score.name
  for key in (f'dev_{name}', f'test_{name}', 'num_params'):
    line[f'teacher.{key}'] = (row.teacher or {}).get(key)
  for name in ('dev', 'test', 'best'):
    value = getattr(row, name)
    line |= {f'{name}.mean': value.mean, f'{name}.std': value.std}
  for name in ('gain_over_ce', 'gain_over_kd'):
    gain = getattr(row, name)
    for part in Paired._fields:
      line[f'{name}.{part}'] = None if gain is None else getattr(gain, part)
  line |= {'adjusted_p': row.adjusted_p, 'significant': row.significant}
  line |= {f'fixed.{key}': value for key, value in row.fixed.items()}
  return line | {f'setting.{key}': x for key, x in row.settings.items()}


def _exact(value: Any) -> str:  # noqa: ANN401
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ''
  return value if isinstance(value, str) else json.dumps(value)


def _overview(scenarios: Sequence[Sequence[Row]], names: Sequence[str]) -> str:
  """Arms against scenarios, and the teacher below."""
  cells = [
    {row.arm: _result(row, bold=row.significant) for row in arms}
    for arms in scenarios
  ]
  arms = dict.fromkeys(arm for column in cells for arm in column)
  lines = [
    [_plain(arm), *(column.get(arm, _NOTHING) for column in cells)]
    for arm in arms
  ]
  teachers = [_teacher_score(arms) for arms in scenarios]
  if any(teachers):
    lines.append(['teacher', *(x or _NOTHING for x in teachers)])
  test = scenarios[0][0].score.titled('test')
  header = ['arm', *(_plain(name) or test for name in names)]
  return _table(header, lines)


def _result(row: Row, *, bold: bool) -> str:
  cell = _spread(row.test, row.score)
  if bold:
    cell = f'**{cell}**'
  return f'{cell} {_DIVERGED}' if row.diverged else cell


def _teacher_score(arms: Sequence[Row]) -> str:
  """On test, or the range of several teachers."""
  score = arms[0].score
  known = [score.value(row.teacher, 'test') for row in arms if row.teacher]
  return _range([f'{score.shown(x):.2f}' for x in sorted(known)])


def _range(texts: Sequence[str]) -> str:
  """From the first to the last, or the one that there is."""
  ends = list(dict.fromkeys([*texts[:1], *texts[-1:]]))
  return ' to '.join(ends)


def _networks(arms: Sequence[Row]) -> str:
  """What kind of student learns from what kind of teacher."""
  students = _range([f'{x:,}' for x in sorted(x.num_params for x in arms)])
  line = f'The student has {students} parameters'
  teachers = [row.teacher for row in arms if row.teacher]
  if not teachers:
    return f'{line}.'
  sizes = _range([f'{x:,}' for x in sorted(t['num_params'] for t in teachers)])
  score = arms[0].score
  reached = ' '.join([_teacher_score(arms), score.unit]).strip()
  return f'{line}, the teacher {sizes} and a test {score.name} of {reached}.'


def _details(arms: Sequence[Row]) -> str:
  """All of one scenario; a gain that no arm has gets no column."""
  keys = short_keys(key for row in arms for key in row.settings)
  score = arms[0].score
  columns = {
    'arm': [_plain(row.arm) for row in arms],
    'setting': [
      _plain(describe(row.settings, keys, digits=3)) or _NOTHING for row in arms
    ],
    score.titled('dev'): [_spread(row.dev, score) for row in arms],
    f'{score.titled("test")}, last': [_result(row, bold=False) for row in arms],
    f'{score.titled("test")}, best on dev': [
      _spread(row.best, score) for row in arms
    ],
  }
  for name, gains in (
    ('gain over CE', [row.gain_over_ce for row in arms]),
    ('gain over KD', [row.gain_over_kd for row in arms]),
  ):
    if any(gains):
      columns[f'{name} [95 %]'] = [_gain(gain, score) for gain in gains]
  return _table(
    list(columns), list(zip(*columns.values(), strict=True)), names=2
  )


def _divergences(arms: Sequence[Row]) -> list[str]:
  lines = [
    f'{_plain(row.arm)} ({row.diverged} of {row.test.count} students)'
    for row in arms
    if row.diverged
  ]
  if not lines:
    return []
  return [
    f'{_DIVERGED} Diverged, and counted with the last finite weights:'
    f' {", ".join(lines)}.'
  ]


def _explanation(rows: Sequence[Row]) -> str:
  """What the numbers are."""
  score = rows[0].score
  counts = sorted(row.test.count for row in rows)
  seeds = _range([str(count) for count in counts])
  if counts == [1] * len(counts):
    parts = [
      f'{score.plural.capitalize()} are of one seed, which says nothing of'
      ' their scatter.'
    ]
  else:
    parts = [
      f'{score.plural.capitalize()} are mean ± sample standard deviation over'
      f' {seeds} seeds; *last* is after the last step, *best on dev* at the'
      f' checkpoint with the {score.best} dev {score.name}.'
    ]
  gains = [row.gain_over_ce for row in rows if row.gain_over_ce]
  if gains or any(row.gain_over_kd for row in rows):
    parts.append(score.gains)
  if not gains:
    parts.append('Without an arm ce to compare with, nothing is bold.')
  elif not any(math.isfinite(gain.p_value) for gain in gains):
    parts.append('One pair is no test of a gain: nothing is bold.')
  else:
    parts.append(
      'Bold in the first table: the gain over CE is positive and significant,'
      f' p < {LEVEL:g} in a two-sided paired t test after the correction of'
      ' Holm for all arms of the same scenario; what is not bold may be chance.'
    )
  if any(row.diverged for row in rows):
    parts.append(f'{_DIVERGED}: students diverged, as said below their table.')
  return ' '.join(parts)


def _spread(value: Spread, score: Score) -> str:
  mean, std = (_number(score.shown(x), '.2f') for x in (value.mean, value.std))
  return f'{mean} ± {std}'


def _gain(gain: Paired | None, score: Score) -> str:
  if gain is None:
    return _NOTHING
  mean, low, high = (
    _number(score.gain(x), '+z.2f') for x in (gain.mean, gain.low, gain.high)
  )
  return f'{mean} [{_NOTHING if gain.count == 1 else f"{low}, {high}"}]'


def _number(value: float, form: str) -> str:
  return _NOTHING if math.isnan(value) else f'{value:{form}}'.replace('-', '−')


def _table(
  header: Sequence[str], lines: Iterable[Sequence[str]], *, names: int = 1
) -> str:
  """A pipe table: so many columns of names left, values right."""
  marks = [':--' if i < names else '--:' for i in range(len(header))]
  return '\n'.join(f'| {" | ".join(x)} |' for x in (header, marks, *lines))


def _plain(words: str) -> str:
  """Text on one line, without markup."""
  return _MARKUP.sub(r'\\\1', ' '.join(words.split()))
