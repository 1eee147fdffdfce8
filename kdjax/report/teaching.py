"""Figures of what the teacher's term does to the student's gradient."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from kdjax.report import style

_MAX_POINTS = 4000
_FEW_POINTS = 400  # these are drawn larger
_SEED = 0
# The running quantiles are of so many examples or more, in so many bins.
_EXAMPLES_PER_BIN = 40
_MAX_BINS = 25
# The axis of w: linear up to _BULK either way, logarithmic beyond, unless all
# values are below _MODEST.
_BULK, _MODEST = 2.0, 10.0
_MAX_DECADES = 4
_LOG_FROM_CLASSES = 50

# Label, colour, colour of its text, hatch.
_PARTS = {
  'label': ('label', '#26344f', 'white', ''),
  'smoothing': ('smoothing (universe)', '#b3566a', 'white', '////'),
  'class_relations': ('class relations (domain)', '#e3a94f', 'black', '....'),
  'instance': ('instance', '#dde7ef', 'black', 'xxx'),
}
# Room for a percentage inside a bar, as a share of it.
_ROOM = 0.07


def rescaling_factor(
  confidence: np.ndarray,
  factor: np.ndarray,
  *,
  weight: float,
  has_student: bool,
  example: str = 'an example',
) -> Figure:
  """Draws the rescaling factor of each example against p̃_y.

  Args:
    confidence: `[N]`, p̃_y, fractions.
    factor: `[N]`, w; what is not finite is left out.
    weight: λ.
    has_student: whether w is a real student's.
    example: what each point is.

  Returns:
    At most 4,000 points, drawn by lot, with median and 10–90 % band of all.
  """
  finite = np.isfinite(factor) & np.isfinite(confidence)
  confidence, factor = confidence[finite], factor[finite]
  figure = style.canvas(6.2, 4.4)
  axes = figure.subplots()
  some = _sample(len(factor))
  axes.scatter(
    confidence[some],
    factor[some],
    s=7 if len(some) > _FEW_POINTS else 25,
    color=style.BLUE,
    alpha=0.35,
    linewidths=0,
    rasterized=True,
    label=f'{example} ({len(some):,} of {len(factor):,})',
  )
  _running_band(axes, confidence, factor)
  label = 'cross-entropy: w = 1'
  axes.axhline(1, color=style.INK, lw=1.2, ls='--', label=label)
  if weight > 0:
    label = f'label alone: w = 1 − λ = {1 - weight:.3g}'
    axes.axhline(1 - weight, color=style.INK, lw=1.2, ls=':', label=label)
  scale = _tame_tails(axes, factor)
  whose = 'student' if has_student else 'untrained student'
  axes.set(
    xlabel="teacher's confidence in the true class, at T (fraction)",
    ylabel=f'rescaling factor w ({scale})',
    title=f'Rescaling of the gradient, {whose}',
  )
  style.plain(axes)
  style.legend(figure, axes, columns=2)
  return figure


def topk_mass(
  mass: np.ndarray,
  mass_untempered: np.ndarray,
  *,
  temperature: float,
  kept_classes: float | None = None,
) -> Figure:
  """Draws how much probability the teacher's k likeliest classes hold.

  Args:
    mass: `[K]`, mean mass of the k largest, at T; fractions.
    mass_untempered: `[K]`, the same at T = 1.
    temperature: T.
    kept_classes: a k to mark, or none.

  Returns:
    One or two rising lines.
  """
  figure = style.canvas(6.0, 4.0)
  axes = figure.subplots()
  k = np.arange(1, len(mass) + 1)
  marker = 'o' if len(k) <= style.MAX_NAMED else ''
  lines = {  # one line if T is 1
    f'T = {temperature:g}': (mass, style.RED, '-'),
    'T = 1': (mass_untempered, style.INK, '--'),
  }
  for label, (values, color, dash) in lines.items():
    axes.plot(k, 100 * values, dash, color=color, marker=marker, label=label)
  if kept_classes is not None and np.isfinite(kept_classes):
    label = f'the tail begins beyond k = {kept_classes:.0f}'
    axes.axvline(kept_classes, color=style.BLUE, ls=':', lw=2, label=label)
  if len(k) > _LOG_FROM_CLASSES:
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter('{x:g}')
  else:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set(
    xlabel='likeliest classes k',
    ylabel='mass of the top k (%)',
    ylim=(0, 104),
    title="Where the teacher's probability is",
  )
  style.plain(axes)
  style.legend(figure, axes, columns=3)
  return figure


def gradient_shares(shares: Mapping[str, float]) -> Figure:
  """Draws what the student's gradient consists of.

  Args:
    shares: of the mean norm by part: label, smoothing, class_relations and
      instance, fractions.

  Returns:
    A stacked bar, with percentages.
  """
  figure = style.canvas(6.2, 2.3)
  axes = figure.subplots()
  left = 0.0
  for part, (label, color, text, hatch) in _PARTS.items():
    share = shares.get(part, 0.0)
    axes.barh(
      0,
      100 * share,
      left=100 * left,
      color=color,
      hatch=hatch,
      edgecolor=style.INK,
      linewidth=0.8,
      label=f'{label}: {share:.1%}',
    )
    if share >= _ROOM:
      axes.text(
        100 * (left + share / 2),
        0,
        f'{share:.0%}',
        ha='center',
        va='center',
        color=text,
        bbox={'facecolor': color, 'edgecolor': 'none', 'pad': 3},
      )
    left += share
  axes.set(
    xlim=(0, 100),
    xlabel="share of the gradient's mean norm (%)",
    yticks=(),
    title="What the student's gradient consists of",
  )
  axes.spines[['top', 'right', 'left']].set_visible(False)
  style.legend(figure, axes, columns=2)
  return figure


def _sample(size: int) -> np.ndarray:
  generator = np.random.default_rng(_SEED)
  return generator.choice(size, size=min(size, _MAX_POINTS), replace=False)


def _running_band(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
  """Median and 10–90 % band in bins of equally many examples."""
  num_bins = min(len(x) // _EXAMPLES_PER_BIN, _MAX_BINS)
  if num_bins < 2:
    return
  bins = np.array_split(np.argsort(x, kind='stable'), num_bins)
  centre = [np.median(x[part]) for part in bins]
  low, median, high = np.transpose(
    [np.quantile(y[part], [0.1, 0.5, 0.9]) for part in bins]
  )
  axes.fill_between(
    centre, low, high, color=style.RED, alpha=0.2, lw=0, label='10–90 %'
  )
  axes.plot(centre, median, color=style.RED, lw=2, label='median')


def _tame_tails(axes: Axes, factor: np.ndarray) -> str:
  """Draws what is far from the bulk on a logarithmic scale; names it."""
  low, high = float(factor.min(initial=0)), float(factor.max(initial=1))
  reach = max(-low, high)
  if reach <= _MODEST:
    return 'ratio'
  axes.set_yscale('symlog', linthresh=_BULK, linscale=1.2)
  decades = np.arange(1, np.ceil(np.log10(reach)) + 1)
  decades = 10.0 ** decades[:: -(-len(decades) // _MAX_DECADES)]
  ticks = np.concatenate([-decades, np.arange(-_BULK, _BULK + 1), decades])
  axes.yaxis.set_major_locator(FixedLocator(ticks))
  axes.yaxis.set_minor_locator(FixedLocator([]))
  axes.yaxis.set_major_formatter('{x:g}')
  axes.set_ylim(1.5 * low - 0.2, 1.5 * high)
  return f'ratio, log beyond ±{_BULK:g}'
