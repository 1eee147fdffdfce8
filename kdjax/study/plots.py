"""Figures of scores, of how they came about, and of what is rescaled."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdjax.report import style
from kdjax.study import panels, scores
from kdjax.study.panels import Look
from kdjax.study.scores import Score
from kdjax.study.statistics import spread
from kdjax.study.summary import (
  Record,
  Row,
  describe,
  group,
  identity,
  short_keys,
)

_SHADE = 0.12  # opacity of a band
_MARKS = 6  # markers along a learning curve
_PERCENTILES = ('5', '25', '50', '75', '95')
# The axis of w is logarithmic if all are positive and span such a ratio; or
# if one is above _MODEST, but then linear up to _BULK either way.
_LOG_FROM = 100
_MODEST, _BULK = 10.0, 2.0
_MAX_DECADES = 4


def score_by(
  rows: Sequence[Row], key: str, looks: Mapping[str, Look]
) -> Figure | None:
  """Draws the score on test against what arms of a method hold fixed.

  Args:
    rows: of `summarise`.
    key: of `Row.fixed`.
    looks: of the arms; a line has the look of its first arm.

  Returns:
    A panel per scenario, with ± one standard deviation and the other arms as
    level lines; None if no method has two numbers there.
  """
  lines = [
    line
    for line in group(
      (row for row in rows if panels.is_number(row.fixed.get(key))),
      lambda row: _line_label(row, key),
    )
    if len({row.fixed[key] for row in line}) > 1
  ]
  if not lines:
    return None
  swept = [row for line in lines for row in line]
  arms = {row.arm for row in swept}
  scenarios = group(rows, lambda row: identity(row.scenario))
  shown = panels.some(scenarios)
  name = short_keys(k for row in rows for k in row.fixed)[key]
  score = rows[0].score
  figure, grid = panels.panels(
    _titles([panel[0].scenario for panel in shown]),
    title=f'Test {score.name} by {name}',
    of=len(scenarios),
    xlabel=name,
    ylabel=f'{score.titled(f"test {score.name}")}, ± one std',
  )
  for axes, panel in zip(grid, shown, strict=True):
    for row in panel:
      if row.arm not in arms:
        _level(axes, row, looks[row.arm])
    here = [row for row in panel if row.arm in arms]
    for line in group(here, lambda row: _line_label(row, key)):
      _sweep(axes, line, key, looks)
  panels.number_axis(grid, [row.fixed[key] for row in swept])
  panels.legend(figure, grid)
  return figure


def learning_curves(
  students: Sequence[Record], looks: Mapping[str, Look]
) -> Figure | None:
  """Draws the score on dev against steps.

  Args:
    students: final records.
    looks: of the arms.

  Returns:
    A panel per scenario, with the mean over seeds and ± one standard deviation
    of each arm; None if nothing was evaluated twice.
  """
  if not any(len(x['metrics']['curve']['step']) > 1 for x in students):
    return None
  scenarios = group(students, lambda x: identity(x['scenario']))
  shown = panels.some(scenarios)
  score = scores.of_metrics(students[0]['metrics'])
  figure, grid = panels.panels(
    _titles([panel[0]['scenario'] for panel in shown]),
    title='Learning curves',
    of=len(scenarios),
    xlabel='step',
    ylabel=f'{score.titled(f"dev {score.name}")}, ± one std',
  )
  for axes, panel in zip(grid, shown, strict=True):
    for of_arm in group(panel, _arm):
      steps, mean, std = _curve(of_arm, score)
      arm = of_arm[0]['arm']
      _band(axes, steps, mean, std, looks[arm])
      every = max(len(steps) // _MARKS, 1)
      start = list(looks).index(arm) % every  # markers beside each other
      axes.plot(steps, mean, label=arm, markevery=(start, every), **looks[arm])
  panels.legend(figure, grid)
  return figure


def rescaling_factors(
  students: Sequence[Record], looks: Mapping[str, Look]
) -> Figure | None:
  """Draws how arms rescale the gradient of cross-entropy.

  Args:
    students: final records.
    looks: of the arms.

  Returns:
    A panel per scenario and a box per arm: 5, 25, 50, 75 and 95 % of the dev
    examples, means over seeds; None if no arm has any.
  """
  students = [x for x in students if x['metrics']['rescaling_factor']]
  if not students:
    return None
  scenarios = group(students, lambda x: identity(x['scenario']))
  shown = panels.some(scenarios)
  boxes = [
    {of_arm[0]['arm']: _factors(of_arm) for of_arm in group(panel, _arm)}
    for panel in shown
  ]
  arms = list(dict.fromkeys(arm for panel in boxes for arm in panel))
  values = [x for panel in boxes for box in panel.values() for x in box]
  scale, note = _scale(values)
  figure, grid = panels.panels(
    _titles([panel[0]['scenario'] for panel in shown]),
    title='Rescaling of the gradient of cross-entropy, by instance',
    of=len(scenarios),
    xlabel='',
    ylabel=f'rescaling factor w, 5–25–50–75–95 %{note}',
    below=style.longest(arms),
  )
  for axes, panel in zip(grid, boxes, strict=True):
    label = 'cross-entropy: w = 1'
    axes.axhline(1, color=style.INK, lw=1.2, ls='--', label=label)
    for arm, factors in panel.items():
      _box(axes, arms.index(arm), factors, looks[arm])
  if scale == 'log':
    grid[0].set_yscale('log')
  elif scale == 'symlog':
    _tame_tails(grid[0], values)
  grid[0].yaxis.set_major_formatter('{x:g}')
  panels.name_axis(grid, arms)
  panels.legend(figure, grid)
  return figure


def _arm(student: Record) -> str:
  return student['arm']


def _titles(scenarios: Sequence[Mapping[str, object]]) -> list[str]:
  names = short_keys(key for scenario in scenarios for key in scenario)
  return [describe(scenario, names) for scenario in scenarios]


def _line_label(row: Row, key: str) -> str:
  """The arm, without what varies along the line."""
  rest = {k: value for k, value in row.fixed.items() if k != key}
  return ' '.join([row.method, *(f'{k}={value}' for k, value in rest.items())])


def _sweep(
  axes: Axes, line: list[Row], key: str, looks: Mapping[str, Look]
) -> None:
  label, look = _line_label(line[0], key), looks[line[0].arm]
  line = sorted(line, key=lambda row: row.fixed[key])
  x = [row.fixed[key] for row in line]
  mean, std = np.transpose([_test(row) for row in line])
  _band(axes, x, mean, std, look)
  axes.plot(x, mean, label=label, **look)


def _test(row: Row) -> tuple[float, float]:
  """Mean and deviation on test, as they are shown."""
  return row.score.shown(row.test.mean), row.score.shown(row.test.std)


def _level(axes: Axes, row: Row, look: Look) -> None:
  mean, std = _test(row)
  line = look | {'marker': ''}
  axes.axhline(mean, label=row.arm, **line)
  if not math.isnan(std):
    axes.axhspan(
      mean - std, mean + std, color=look['color'], alpha=_SHADE, lw=0
    )


def _band(
  axes: Axes,
  x: Sequence[float],
  mean: Sequence[float],
  std: Sequence[float],
  look: Look,
) -> None:
  """± one standard deviation."""
  low, high = np.subtract(mean, std), np.add(mean, std)
  axes.fill_between(x, low, high, color=look['color'], alpha=_SHADE, lw=0)


def _curve(
  students: Sequence[Record], score: Score
) -> tuple[list[int], np.ndarray, np.ndarray]:
  """Steps, and mean and deviation of the students that got there, as shown."""
  found = {}
  for student in students:
    curve = student['metrics']['curve']
    values = curve[f'dev_{score.name}']
    for step, value in zip(curve['step'], values, strict=True):
      found.setdefault(step, []).append(score.shown(scores.number(value)))
  steps = sorted(found)
  spreads = [spread(found[step]) for step in steps]
  return (
    steps,
    np.array([x.mean for x in spreads]),
    np.array([x.std for x in spreads]),
  )


def _factors(students: Sequence[Record]) -> list[float]:
  """Percentiles, from small to large; means over seeds."""
  return [
    spread([x['metrics']['rescaling_factor'][q] for x in students]).mean
    for q in _PERCENTILES
  ]


def _scale(factors: Sequence[float]) -> tuple[str, str]:
  """How an axis shows all factors and their bulk, and what to say of it."""
  if panels.is_wide(factors, ratio=_LOG_FROM):
    return 'log', ''
  if max(abs(x) for x in factors) > _MODEST:
    return 'symlog', f'\n(log beyond ±{_BULK:g})'
  return 'linear', ''


def _tame_tails(axes: Axes, factors: Sequence[float]) -> None:
  """Linear where the bulk is, logarithmic beyond."""
  axes.set_yscale('symlog', linthresh=_BULK, linscale=1.2)
  reach = max(abs(x) for x in factors)
  decades = np.arange(1, np.ceil(np.log10(reach)) + 1)
  decades = 10.0 ** decades[:: -(-len(decades) // _MAX_DECADES)]
  bulk = np.arange(-_BULK, _BULK + 1)
  axes.set_yticks(np.concatenate([-decades[::-1], bulk, decades]))
  axes.set_yticks([], minor=True)
  axes.set_ylim(1.5 * min(0, *factors) - 0.2, 1.5 * max(1, *factors))


def _box(axes: Axes, place: int, factors: Sequence[float], look: Look) -> None:
  names = ('whislo', 'q1', 'med', 'q3', 'whishi')
  dark = {'color': style.INK, 'lw': 1}
  axes.bxp(
    [dict(zip(names, factors, strict=True))],
    positions=[place],
    widths=0.6,
    showfliers=False,
    manage_ticks=False,
    patch_artist=True,
    boxprops={'facecolor': look['color'], 'alpha': 0.6, 'lw': 1},
    whiskerprops=dark,
    capprops=dark,
    medianprops=dark | {'lw': 2},
  )
  axes.plot(
    place, factors[2], marker=look['marker'], mfc='white', mec=style.INK
  )
