"""Figures of what arms gain over cross-entropy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from kdjax.report import style
from kdjax.study import panels
from kdjax.study.panels import Look
from kdjax.study.summary import (
  Row,
  describe,
  group,
  identity,
  short_keys,
  text,
)

# Loss is red and gain blue; the middle is pale.
_COLORMAP = 'RdBu'
# The colours reach to here of the sizes of the gains; an arm that fails would
# wash out the rest.
_SPAN = 0.9
_LEAST_SPAN = 0.1  # points, or % of a perplexity
_SHADE = 0.08  # opacity of a band
_CELL = (0.52, 0.36)  # inches, wide and high
_MAX_COLUMNS = 4
_DARK = 0.6  # of the span; on darker cells the text is white


def by_key(
  rows: Sequence[Row], key: str, looks: Mapping[str, Look]
) -> Figure | None:
  """Draws the gain against a key of the scenarios.

  Args:
    rows: of `summarise`.
    key: dotted; numbers are joined by lines, other values are categories.
    looks: of the arms.

  Returns:
    A panel per combination of the other keys, with 95 % intervals; None where
    the key has fewer than two values, or there is no gain.
  """
  rows = [row for row in rows if row.gain_over_ce and key in row.scenario]
  names = short_keys(k for row in rows for k in row.scenario)
  combinations = [
    panel
    for panel in group(rows, lambda row: identity(_others(row, key)))
    if len({identity(row.scenario) for row in panel}) > 1
  ]
  if not combinations:
    return None
  shown = panels.some(combinations)
  values = [row.scenario[key] for panel in shown for row in panel]
  numeric = all(panels.is_number(value) for value in values)
  labels = [] if numeric else list(dict.fromkeys(text(x) for x in values))
  figure, grid = panels.panels(
    [describe(_others(panel[0], key), names) for panel in shown],
    title=f'Gain over cross-entropy by {names[key]}',
    of=len(combinations),
    xlabel=names[key],
    ylabel=f'{_label(rows[0])}, 95 % intervals',
    below=style.longest(labels),
  )
  arms = list(dict.fromkeys(row.arm for panel in shown for row in panel))
  for axes, panel in zip(grid, shown, strict=True):
    axes.axhline(0, color=style.INK, lw=1)
    for points in group(panel, lambda row: row.arm):
      look = looks[points[0].arm]
      if numeric:
        _line(axes, points, key, look)
        continue
      places = [labels.index(text(row.scenario[key])) for row in points]
      beside = _dodge(arms.index(points[0].arm), len(arms))
      _categories(axes, points, np.add(places, beside), look)
  if numeric:
    panels.number_axis(grid, values)
  else:
    panels.name_axis(grid, labels)
  panels.legend(figure, grid)
  return figure


def heat_map(rows: Sequence[Row]) -> Figure | None:
  """Draws all gains at once.

  Args:
    rows: of `summarise`.

  Returns:
    Arms against scenarios; or, where just two keys vary, and their values are
    numbers, a map of these per arm. None for one scenario, or without gains.
  """
  rows = [row for row in rows if row.gain_over_ce]
  scenarios = [x[0] for x in group(rows, lambda row: identity(row.scenario))]
  if len(scenarios) < 2:
    return None
  keys = dict.fromkeys(key for row in scenarios for key in row.scenario)
  varying = [
    key
    for key in keys
    if len({identity({key: row.scenario.get(key)}) for row in scenarios}) > 1
  ]
  numeric = all(
    panels.is_number(row.scenario.get(key))
    for row in scenarios
    for key in varying
  )
  if numeric and len(varying) == 2:
    return _maps(rows, varying, short_keys(keys))
  return _arms_by_scenario(rows, scenarios, short_keys(keys))


def _label(row: Row) -> str:
  return f'gain over ce ({row.score.gain_unit})'


def _others(row: Row, key: str) -> dict[str, Any]:
  return {k: value for k, value in row.scenario.items() if k != key}


def _line(axes: Axes, points: list[Row], key: str, look: Look) -> None:
  points = sorted(points, key=lambda row: row.scenario[key])
  x = [row.scenario[key] for row in points]
  mean, low, high = _intervals(points)
  axes.fill_between(x, low, high, color=look['color'], alpha=_SHADE, lw=0)
  edge = {'color': look['color'], 'ls': look['linestyle'], 'lw': 0.7}
  for end in (low, high):  # else bands that overlap could not be told apart
    axes.plot(x, end, **edge, alpha=0.5)
  axes.plot(x, mean, label=points[0].arm, **look)


def _categories(
  axes: Axes, points: list[Row], places: np.ndarray, look: Look
) -> None:
  mean, low, high = _intervals(points)
  axes.errorbar(
    places,
    mean,
    yerr=(mean - low, high - mean),
    label=points[0].arm,
    **look | {'linestyle': ''},
  )


def _intervals(points: Sequence[Row]) -> np.ndarray:
  """`[3, N]`, mean and ends, as they are shown."""
  gains = [row.gain_over_ce for row in points]
  ends = np.transpose([(g.mean, g.low, g.high) for g in gains])
  return points[0].score.gain(ends)


def _dodge(place: int, count: int) -> float:
  """What an arm stands beside its category, to hide no other."""
  return 0.8 * ((place + 0.5) / count - 0.5)


def _maps(
  rows: Sequence[Row], keys: list[str], names: Mapping[str, str]
) -> Figure:
  """A map per arm: the key with more values across, the other upwards."""
  values = {key: sorted({row.scenario[key] for row in rows}) for key in keys}
  y, x = sorted(keys, key=lambda key: len(values[key]))
  arms = group(rows, lambda row: row.arm)
  columns = min(len(arms), _MAX_COLUMNS)
  lines = -(-len(arms) // columns)
  figure = style.canvas(
    max(columns * (len(values[x]) * _CELL[0] + 0.3) + 1.8, 6.0),
    lines * (len(values[y]) * _CELL[1] + 0.7) + 1.2,
  )
  grid = figure.subplots(
    lines, columns, sharex=True, sharey=True, squeeze=False
  ).ravel()
  limit = _limit(rows)
  for axes, arm in zip(grid, arms, strict=False):
    place = {
      (values[y].index(row.scenario[y]), values[x].index(row.scenario[x])): row
      for row in arm
    }
    image = _cells(axes, place, (len(values[y]), len(values[x])), limit)
    axes.set_title(arm[0].arm, fontsize='small', parse_math=False)
    axes.set_xticks(range(len(values[x])), [text(v) for v in values[x]])
    axes.set_yticks(range(len(values[y])), [text(v) for v in values[y]])
  grid[0].invert_yaxis()
  for axes in grid[len(arms) :]:
    axes.set_visible(False)
  figure.supxlabel(names[x], fontsize='medium')
  figure.supylabel(names[y], fontsize='medium')
  return _explained(figure, grid, image, _label(rows[0]))


def _arms_by_scenario(
  rows: Sequence[Row], scenarios: Sequence[Row], names: Mapping[str, str]
) -> Figure:
  arms = list(dict.fromkeys(row.arm for row in rows))
  tasks = [identity(row.scenario) for row in scenarios]
  labels = [describe(row.scenario, names) for row in scenarios]
  figure = style.canvas(
    len(tasks) * _CELL[0] + style.longest(arms) + 1.9,
    len(arms) * _CELL[1] + style.longest(labels) + 1.2,
  )
  axes = figure.subplots()
  place = {
    (arms.index(row.arm), tasks.index(identity(row.scenario))): row
    for row in rows
  }
  image = _cells(axes, place, (len(arms), len(tasks)), _limit(rows))
  style.name_ticks(axes, 'y', arms)
  style.name_ticks(axes, 'x', labels)
  return _explained(figure, [axes], image, _label(rows[0]))


def _limit(rows: Sequence[Row]) -> float:
  """What the colours span to either side of 0."""
  sizes = np.abs([_shown(row) for row in rows])
  known = sizes[np.isfinite(sizes)]
  reach = float(np.quantile(known, _SPAN)) if len(known) else 0.0
  return max(reach, _LEAST_SPAN)


def _shown(row: Row) -> float:
  return row.score.gain(row.gain_over_ce.mean)


def _cells(
  axes: Axes,
  place: Mapping[tuple[int, int], Row],
  shape: tuple[int, int],
  limit: float,
) -> AxesImage:
  """Colours the cells that have a row and writes its gain into each."""
  table = np.full(shape, np.nan)
  for (i, j), row in place.items():
    table[i, j] = _shown(row)
    if np.isnan(table[i, j]):  # of a student that diverged
      continue
    axes.text(
      j,
      i,
      f'{table[i, j]:+z.1f}'.replace('-', '−'),
      ha='center',
      va='center',
      fontsize='small',
      fontweight='bold' if row.significant else 'normal',
      color='white' if abs(table[i, j]) > _DARK * limit else 'black',
    )
  axes.spines[:].set_visible(False)
  axes.tick_params(length=0, labelsize='x-small')
  return axes.imshow(
    np.ma.masked_invalid(table),
    cmap=_COLORMAP,
    vmin=-limit,
    vmax=limit,
    aspect='auto',
  )


def _explained(
  figure: Figure, grid: Sequence[Axes], image: AxesImage, label: str
) -> Figure:
  figure.suptitle(
    'Gain over cross-entropy (bold: significant)', fontsize='medium'
  )
  figure.colorbar(image, ax=list(grid), label=label, extend='both')
  return figure
