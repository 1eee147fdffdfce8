"""What the figures share: canvas, colours, dashes, hatches, class names.

Everything differs in lightness, dash or hatch, not in hue alone: a figure
reads the same when it is printed in grey.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

INK = '#222222'
RED = '#b3283c'
BLUE = '#5b8fb9'
PALE = '#dde7ef'
# From small values to large; its lightness rises evenly.
COLORMAP = 'cividis'

# Up to so many classes are named on an axis.
MAX_NAMED = 20
_MAX_LETTERS = 22
_NAME_SIZE = 'x-small'
_DPI = 150


def canvas(width: float, height: float) -> Figure:
  """An empty figure.

  Args:
    width: in inches.
    height: in inches.

  Returns:
    A figure that finds room for labels by itself.
  """
  figure = Figure(figsize=(width, height), layout='constrained')
  FigureCanvasAgg(figure)
  return figure


def plain(axes: Axes, *, grid: str = 'both') -> None:
  """Leaves an axis its left and bottom line and a faint grid.

  Args:
    axes: what to draw on.
    grid: 'x', 'y' or 'both'.
  """
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(axis=grid, alpha=0.25)
  axes.set_axisbelow(True)


def legend(figure: Figure, axes: Axes, *, columns: int) -> None:
  """Puts a legend below the axes, where no data are.

  Args:
    figure: what to draw on.
    axes: what the legend is about.
    columns: entries beside each other.
  """
  figure.legend(
    *axes.get_legend_handles_labels(),
    loc='outside lower center',
    ncols=columns,
    frameon=False,
    fontsize='small',
  )


def short(name: str) -> str:
  """A class name that fits on an axis.

  >>> short('garbage truck, dustcart, refuse lorry')
  'garbage truck, dustca…'
  """
  name = ' '.join(str(name).split())
  return name if len(name) <= _MAX_LETTERS else name[: _MAX_LETTERS - 1] + '…'


def visible(token: str) -> str:
  r"""A token as one reads it: quoted where there is nothing to see.

  >>> [visible(token) for token in ('the', ' ', '\n')]
  ['the', "' '", "'\\n'"]
  """
  is_seen = token and token.isprintable() and not any(map(str.isspace, token))
  return token if is_seen else repr(token)


def name_ticks(axes: Axes, which: str, names: Sequence[str]) -> None:
  """Names the positions 0, 1, … of an axis.

  Args:
    axes: what to draw on.
    which: 'x' or 'y'; names on x are upright.
    names: one per position, `short`; a `$` in them is a `$`.
  """
  axis = {'x': axes.xaxis, 'y': axes.yaxis}[which]
  axis.set_ticks(
    range(len(names)),
    labels=names,
    fontsize=_NAME_SIZE,
    rotation=90 if which == 'x' else 0,
    parse_math=False,
  )


def longest(names: Sequence[str]) -> float:
  """The length of the longest name on an axis, in inches.

  Args:
    names: as for `name_ticks`.

  Returns:
    0 if there is none.
  """
  figure = canvas(1, 1)
  font = FontProperties(size=_NAME_SIZE)
  measure = figure.canvas.get_renderer().get_text_width_height_descent
  with _any_script():
    lengths = [measure(name, font, False)[0] for name in names]
  return max(lengths, default=0) / figure.dpi


def save(figure: Figure, path: Path) -> None:
  """Writes a figure as a PNG.

  Args:
    figure: what was drawn.
    path: the file.
  """
  with _any_script():
    figure.savefig(path, dpi=_DPI)


@contextlib.contextmanager
def _any_script() -> Iterator[None]:
  """Draws boxes for a script that the font lacks, without complaint."""
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', message='Glyph .* missing from')
    yield
