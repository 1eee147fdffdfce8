"""What holds for rare tokens and for frequent ones, as figure and as tables."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdjax.analysis.frequency import ByFrequency
from kdjax.report import style
from kdjax.report.measures import Table

# The axis of w is logarithmic beyond _BULK if something is beyond _MODEST.
_BULK, _MODEST = 2.0, 10.0
_LOOKS = {
  'teacher': (style.INK, '--', 's'),
  'student': (style.BLUE, '-', 'o'),
  'baseline': (style.RED, ':', '^'),
}


def token_frequency(
  factor: ByFrequency, nats: Mapping[str, ByFrequency]
) -> Figure:
  """Draws how much gradient and how many nats tokens get, rare to frequent.

  Args:
    factor: the rescaling factor of tokens that are taught.
    nats: of held-out tokens, by network.

  Returns:
    Two panels, a group of tokens on each tick.
  """
  figure = style.canvas(9.0, 4.2)
  left, right = figure.subplots(1, 2)
  _factors(left, factor)
  for name, found in nats.items():
    color, dash, marker = _LOOKS[name]
    places = range(len(found.mean))
    right.plot(places, found.mean, dash, color=color, marker=marker, label=name)
  right.set(title='What a held-out token costs', ylabel='nats a token, mean')
  right.set_ylim(bottom=0)
  _name_groups(right, next(iter(nats.values())).counts)
  for axes in (left, right):
    style.plain(axes, grid='y')
    axes.legend(frameon=False, fontsize='small')
  return figure


def tables(
  factor: ByFrequency, nats: Mapping[str, ByFrequency]
) -> tuple[Table, ...]:
  """Returns the same in numbers.

  Args:
    factor: as for `token_frequency`.
    nats: likewise.

  Returns:
    Two tables with a row for each group.
  """
  columns = (factor.low, factor.median, factor.high, factor.mean)
  means = [found.mean for found in nats.values()]
  header = 'times in the training text'
  return (
    Table(
      'Rescaling factor w by token frequency',
      (header, '10 %', 'median', '90 %', 'mean'),
      _rows(factor.counts, columns),
    ),
    Table(
      'Nats of a held-out token by its frequency, mean',
      (header, *nats),
      _rows(next(iter(nats.values())).counts, means),
    ),
  )


def _rows(counts: np.ndarray, columns: list[np.ndarray]) -> tuple:
  values = np.transpose(columns)
  return tuple(
    (name, *(f'{value:.4g}' for value in row))
    for name, row in zip(_names(counts), values, strict=True)
  )


def _names(counts: np.ndarray) -> list[str]:
  """How often the tokens of each group are in the training text."""
  return [
    f'{low:,}' if low == high else f'{low:,}–{high:,}' for low, high in counts
  ]


def _factors(axes: Axes, factor: ByFrequency) -> None:
  places = np.arange(len(factor.median))
  axes.vlines(
    places,
    factor.low,
    factor.high,
    color=style.BLUE,
    lw=8,
    alpha=0.45,
    label='10–90 %',
  )
  axes.plot(places, factor.median, 'o', color=style.INK, label='median')
  mean = np.where(np.isfinite(factor.mean), factor.mean, np.nan)
  axes.plot(places, mean, 'x', color=style.RED, label='mean')
  unit = 'ratio'
  drawn = np.concatenate([factor.low, factor.high, mean])
  if np.max(np.abs(drawn[np.isfinite(drawn)]), initial=0) > _MODEST:
    axes.set_yscale('symlog', linthresh=_BULK)
    unit = f'ratio, log beyond ±{_BULK:g}'
  axes.set(
    title='How tokens are rescaled', ylabel=f'rescaling factor w ({unit})'
  )
  _name_groups(axes, factor.counts)


def _name_groups(axes: Axes, counts: np.ndarray) -> None:
  axes.set_xlabel('times in the training text, a fifth of the tokens each')
  names = [name.replace('–', '–\n') for name in _names(counts)]
  axes.set_xticks(range(len(counts)), names, fontsize='small')
  axes.margins(x=0.1)
