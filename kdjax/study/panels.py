"""What the figures of a study share: panels, and how an arm looks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdjax.report import style

MAX_PANELS = 8
# An axis is logarithmic from so large a ratio of its ends.
_LOG_FROM = 10
_PANEL = (3.3, 2.7)  # inches, wide and high
_ONE_PANEL = (6.4, 3.6)
_TICK_ROOM = 0.022  # of a panel, for a digit
# Hues that the colour-blind tell apart, dark and light in turn; neighbours
# differ in marker and dash as well.
_COLORS = (
  '#222222',
  '#d98a1f',
  '#b3283c',
  '#56a9dc',
  '#332288',
  '#2fa58b',
  '#aa4499',
  '#117733',
  '#e08fa0',
  '#7a4a1e',
  '#88909a',
)
_MARKERS = 'osD^vP*X<>hdp'
_DASHES = ('-', '--', '-.', (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)))

Look = Mapping[str, Any]


def looks(arms: Iterable[str]) -> dict[str, Look]:
  """How arms are drawn: the same in every figure of a study.

  Args:
    arms: all arms of the study; a name that comes again is left out.

  Returns:
    Colour, marker and dash by arm, which for 143 arms differ.
  """
  return {
    arm: {
      'color': _COLORS[i % len(_COLORS)],
      'marker': _MARKERS[i % len(_MARKERS)],
      'linestyle': _DASHES[i % len(_DASHES)],
    }
    for i, arm in enumerate(dict.fromkeys(arms))
  }


def some(items: Sequence[Any]) -> list[Any]:
  """As many as there is room for, from the first to the last.

  >>> some('abcdefghijklmnop')
  ['a', 'c', 'e', 'g', 'j', 'l', 'n', 'p']
  """
  if len(items) <= MAX_PANELS:
    return list(items)
  places = np.linspace(0, len(items) - 1, MAX_PANELS).round().astype(int)
  return [items[i] for i in places]


def panels(
  names: Sequence[str],
  *,
  title: str,
  of: int,
  xlabel: str,
  ylabel: str,
  below: float = 0.0,
) -> tuple[Figure, list[Axes]]:
  """A panel per name, all with the same axes.

  Args:
    names: titles of the panels, at most 8; '' for none.
    title: of the figure.
    of: how many there would be if all were drawn.
    xlabel: below the lowest panels.
    ylabel: left of all panels.
    below: room for what stands on the lower axis, in inches.

  Returns:
    A figure and its panels, in the order of the names.
  """
  rows = 1 if len(names) < 4 else 2
  columns = math.ceil(len(names) / rows)
  width, height = _PANEL if len(names) > 1 else _ONE_PANEL
  figure = style.canvas(
    max(width * columns, _ONE_PANEL[0]), height * rows + below + 1.3
  )
  grid = figure.subplots(
    rows, columns, sharex=True, sharey=True, squeeze=False
  ).ravel()
  for axes in grid[len(names) :]:
    axes.set_visible(False)
  drawn = list(grid[: len(names)])
  for i, (axes, name) in enumerate(zip(drawn, names, strict=True)):
    axes.set_title(name, fontsize='small', parse_math=False)
    if i + columns >= len(names):  # nothing stands below it
      axes.set_xlabel(xlabel)
      axes.tick_params(labelbottom=True)
    style.plain(axes)
  if of > len(names):
    title += f'\n({len(names)} of {of} panels)'
  figure.suptitle(title, parse_math=False)
  figure.supylabel(ylabel, fontsize='medium')
  return figure, drawn


def legend(figure: Figure, drawn: Sequence[Axes]) -> None:
  """Names what is in any of the panels, once, below them."""
  entries = {}
  for axes in drawn:
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
      entries.setdefault(label, handle)
  room = style.longest(list(entries)) * 1.25 + 0.75
  columns = max(1, min(len(entries), int(figure.get_figwidth() / room)))
  figure.legend(
    entries.values(),
    entries.keys(),
    loc='outside lower center',
    # As many lines as it takes, and these evenly filled.
    ncols=math.ceil(len(entries) / math.ceil(len(entries) / columns)),
    frameon=False,
    fontsize='small',
    handlelength=3.2,
  )


def is_number(value: Any) -> bool:  # noqa: ANN401
  """Whether a value of a key has a place on an axis."""
  return isinstance(value, int | float) and not isinstance(value, bool)


def is_wide(values: Sequence[float], *, ratio: float = _LOG_FROM) -> bool:
  """Whether values are positive and span a ratio."""
  return min(values) > 0 and max(values) >= ratio * min(values)


def number_axis(drawn: Sequence[Axes], values: Iterable[float]) -> None:
  """Makes the lower axes those of these values, with a tick at each.

  Args:
    drawn: panels that share their lower axis.
    values: numbers; one too close to the one before has no label.
  """
  values = sorted(set(values))
  scale = np.log if is_wide(values) else np.asarray
  places = (scale(values) - scale(values[0])) / np.ptp(scale(values))
  labels, free = [], 0.0
  for value, place in zip(values, places, strict=True):
    label = f'{value:g}' if place >= free else ''
    free = place + _TICK_ROOM * (len(label) + 1) if label else free
    labels.append(label)
  for axes in drawn:
    if is_wide(values):
      axes.set_xscale('log')
    axes.set_xticks(values, labels, fontsize='small')
    axes.set_xticks([], minor=True)


def name_axis(drawn: Sequence[Axes], names: Sequence[str]) -> None:
  """Names the places 0, 1, … of the lower axes, upright if they are long.

  Args:
    drawn: panels that share their lower axis.
    names: one per place.
  """
  upright = len(names) * (style.longest(names) + 0.1) > _PANEL[0] - 0.5
  for axes in drawn:
    style.name_ticks(axes, 'x', names)
    axes.tick_params(axis='x', labelrotation=90 if upright else 0)
  drawn[0].set_xlim(-0.5, len(names) - 0.5)
