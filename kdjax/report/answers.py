"""Figures of how good the answers are, on held-out examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdjax.report import style

# Up to so many classes get a bar with their name.
MAX_BARS = 30


def reliability(
  diagrams: Mapping[str, Any],
  *,
  errors: Mapping[str, float],
  examples: str = 'examples',
) -> Figure:
  """Draws whether a confidence of 80 % is right 80 % of the time.

  Args:
    diagrams: by network; each with `confidence`, `accuracy` and `count`,
      `[bins]`, of bins of equal width.
    errors: expected calibration error by network, fractions; may lack some.
    examples: what they are.

  Returns:
    A panel per network, with the number of examples below.
  """
  figure = style.canvas(3.5 * len(diagrams) + 0.4, 5.0)
  figure.get_layout_engine().set(wspace=0.06)
  panels = figure.subplots(
    2,
    len(diagrams),
    sharex=True,
    sharey='row',
    squeeze=False,
    height_ratios=(3, 1),
  )
  for column, (name, diagram) in enumerate(diagrams.items()):
    upper, lower = panels[:, column]
    _reliability_bars(upper, lower, diagram)
    error = errors.get(name)
    note = '' if error is None else f', ECE {100 * error:.1f} %'
    upper.set(title=name + note, xlim=(0, 100), ylim=(0, 100))
    lower.set(xlabel='confidence (%)')
    for axes in (upper, lower):
      style.plain(axes)
  panels[0, 0].set(ylabel='accuracy (%)')
  panels[1, 0].set(ylabel=examples, yscale='log')
  panels[1, 0].set_ylim(bottom=0.7)
  style.legend(figure, panels[0, 0], columns=3)
  return figure


def class_gain(
  gains: np.ndarray,
  *,
  what: str,
  names: Sequence[str],
  title: str = 'Accuracy by class',
  classes: str = 'classes',
) -> Figure:
  """Draws which classes gain and which lose.

  Args:
    gains: `[K]`, fractions; NaN for an absent class, which is left out.
    what: a difference such as 'student − baseline', or 'teacher'.
    names: `[K]`.
    title: what these classes are.
    classes: what to call them.

  Returns:
    A bar per class up to 30, above that a sorted curve.
  """
  present = np.flatnonzero(np.isfinite(gains))
  order = present[np.argsort(-gains[present], kind='stable')]
  values = 100 * gains[order]
  signed = '−' in what
  label = f'accuracy, {what} ({"points" if signed else "%"})'
  if len(order) <= MAX_BARS:
    figure = _gain_bars(values, [names[k] for k in order], label)
  else:
    figure = _gain_curve(values, label)
  title = f'{title}: {what}'
  if signed:
    better, worse = np.sum(values > 0), np.sum(values < 0)
    title += f'\n{better} of {len(values)} {classes} gain, {worse} lose'
  figure.axes[0].set_title(title)
  return figure


def _reliability_bars(upper: Axes, lower: Axes, diagram: Any) -> None:  # noqa: ANN401
  count = np.asarray(diagram.count)
  some = np.flatnonzero(count > 0)
  accuracy = 100 * np.asarray(diagram.accuracy)[some]
  gap = 100 * np.asarray(diagram.confidence)[some] - accuracy
  width = 100 / len(count)
  place = {'x': width * some, 'width': width, 'align': 'edge'}
  upper.bar(
    **place,
    height=accuracy,
    color=style.BLUE,
    edgecolor='white',
    lw=0.6,
    label='accuracy',
  )
  upper.bar(
    **place,
    height=gap,
    bottom=accuracy,
    color='none',
    edgecolor=style.RED,
    hatch='////',
    lw=0.6,
    label='gap to the confidence',
  )
  upper.plot([0, 100], [0, 100], '--', color=style.INK, label='calibrated')
  lower.bar(**place, height=count[some], color=style.INK)


def _gain_bars(values: np.ndarray, names: list[str], label: str) -> Figure:
  figure = style.canvas(6.0, 1.5 + 0.24 * len(values))
  axes = figure.subplots()
  bars = axes.barh(range(len(values)), values, color=style.BLUE)
  for bar, value in zip(bars, values, strict=True):
    if value < 0:
      bar.set(facecolor=style.PALE, edgecolor=style.RED, hatch='////')
  axes.axvline(0, color=style.INK, lw=1)
  axes.set(xlabel=label)
  axes.set_ylim(len(values) - 0.4, -0.6)
  style.name_ticks(axes, 'y', [style.short(name) for name in names])
  style.plain(axes, grid='x')
  return figure


def _gain_curve(values: np.ndarray, label: str) -> Figure:
  figure = style.canvas(6.0, 4.0)
  axes = figure.subplots()
  rank = np.arange(1, len(values) + 1)
  mean = values.mean()
  axes.fill_between(
    rank, values, 0, where=values >= 0, step='mid', color=style.BLUE, lw=0
  )
  axes.fill_between(
    rank,
    values,
    0,
    where=values < 0,
    step='mid',
    facecolor=style.PALE,
    edgecolor=style.RED,
    hatch='////',
    lw=0,
  )
  axes.step(rank, values, where='mid', color=style.INK, lw=1)
  axes.axhline(
    mean, color=style.RED, ls='--', label=f'mean of classes: {mean:.1f}'
  )
  axes.axhline(0, color=style.INK, lw=1)
  axes.set(xlabel='class, sorted (rank)', ylabel=label, xlim=(0.5, len(rank)))
  style.plain(axes)
  style.legend(figure, axes, columns=1)
  return figure
