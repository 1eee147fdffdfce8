"""Figures of how classes relate: tables of classes against classes.

With more than 200 classes a cell is the mean of a block of neighbours: a
screen has no more points, and the file would be large.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdjax.report import style

_MAX_COLUMNS = 3
_PANEL = 2.9  # inches, a side, or more for many names
_LINE = 0.12  # inches, of a name
# More super-classes than these would hide the classes behind their borders.
_MAX_GROUPS = 25
# The colours span this much of the entries; a few outliers would wash out
# the rest.
_SPAN = (0.005, 0.995)
_LEAST_SPAN = 0.01  # what differs by less is alike
_MAX_CELLS = 200  # a side
_SHARP = {'cmap': style.COLORMAP, 'interpolation': 'nearest'}


def class_similarity(
  tables: Mapping[str, np.ndarray],
  *,
  correlations: Mapping[str, float],
  names: Sequence[str] | None = None,
  borders: Sequence[int] = (),
  note: str = '',
  max_named: int = style.MAX_NAMED,
) -> Figure:
  """Draws the similarity of classes, a panel per network.

  Args:
    tables: `[K, K]` cosines by network, all in one order of classes.
    correlations: with the teacher's, by network; may lack some.
    names: `[K]`, in that order, or none.
    borders: positions at which a new super-class begins.
    note: what else to know about these classes.
    max_named: names are drawn for at most so many classes.

  Returns:
    Heat maps with one colour bar; the diagonal is left out.
  """
  rows = -(-len(tables) // _MAX_COLUMNS)
  columns = -(-len(tables) // rows)
  names = _drawn(names, max_named)
  room, side = style.longest(names), max(_PANEL, _LINE * len(names))
  figure = style.canvas(
    (side + 0.1) * columns + room + 1.1, (side + room + 0.7) * rows
  )
  panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
  block = _block(len(next(iter(tables.values()))))
  cells = {name: _off_diagonal(x, block) for name, x in tables.items()}
  low, high = _limits(list(cells.values()))
  for axes, (name, cell) in zip(panels, cells.items(), strict=False):
    image = axes.imshow(cell, vmin=low, vmax=high, **_SHARP)
    _mark(axes, names, [border / block for border in borders])
    title = style.short(name)
    if name in correlations:
      title += f'\nr = {correlations[name]:.2f} with the teacher'
    axes.set_title(title, fontsize='medium', parse_math=False)
  for axes in panels[len(tables) :]:
    axes.set_visible(False)
  figure.colorbar(
    image,
    ax=list(panels),
    label='similarity of two classes (cosine)',
    extend='both',
    shrink=0.85,
  )
  _annotate(figure, block, note)
  return figure


def class_relations(
  table: np.ndarray,
  *,
  names: Sequence[str] | None = None,
  borders: Sequence[int] = (),
  note: str = '',
  max_named: int = style.MAX_NAMED,
) -> Figure:
  """Draws to which wrong classes the teacher's probability goes.

  Args:
    table: `[K, K]`, a row per true class, fractions.
    names: `[K]`, in the order of the table, or none.
    borders: positions at which a new super-class begins.
    note: what else to know about these classes.
    max_named: names are drawn for at most so many classes.

  Returns:
    A heat map; the diagonal is left out.
  """
  names = _drawn(names, max_named)
  room, side = style.longest(names), max(_PANEL, _LINE * len(names))
  figure = style.canvas(1.3 * side + room + 1.5, 1.3 * side + room + 0.7)
  axes = figure.subplots()
  block = _block(len(table))
  cells = 100 * _off_diagonal(table, block)
  _, high = _limits([cells])
  image = axes.imshow(cells, vmin=0, vmax=high, **_SHARP)
  _mark(axes, names, [border / block for border in borders])
  axes.set(
    xlabel='wrong class',
    ylabel='true class',
    title="Where the teacher's wrong mass goes",
  )
  figure.colorbar(
    image, ax=axes, label='share of the wrong mass, at T = 1 (%)', extend='max'
  )
  _annotate(figure, block, note)
  return figure


def _block(num_classes: int) -> int:
  """Classes a side of a cell."""
  return -(-num_classes // _MAX_CELLS)


def _off_diagonal(table: np.ndarray, block: int) -> np.ma.MaskedArray:
  """Means of blocks, without the similarity of a class to itself."""
  num_classes = len(table)
  pad = (0, -num_classes % block)
  left_out = np.eye(num_classes, dtype=bool)
  cells = np.ma.masked_array(
    np.pad(np.asarray(table, np.float32), pad),
    np.pad(left_out, pad, constant_values=True),
  )
  side = len(cells) // block
  return cells.reshape(side, block, side, block).mean(axis=(1, 3))


def _limits(cells: Sequence[np.ma.MaskedArray]) -> tuple[float, float]:
  """What the colours span, from the entries off the diagonal."""
  entries = np.concatenate([cell.compressed() for cell in cells])
  low, high = np.quantile(entries, _SPAN)
  return float(low), float(max(high, low + _LEAST_SPAN))


def _annotate(figure: Figure, block: int, note: str) -> None:
  notes = [note] if note else []
  if block > 1:
    notes.append(f'a cell is the mean of {block} × {block} classes')
  figure.supxlabel('; '.join(notes), fontsize='small')


def _drawn(names: Sequence[str] | None, max_named: int) -> list[str]:
  """The names that an axis has room for: all, or none."""
  few = names is not None and len(names) <= max_named
  return [style.short(name) for name in names] if few else []


def _mark(axes: Axes, names: list[str], borders: Sequence[float]) -> None:
  """Names the classes, and separates super-classes."""
  if names:
    style.name_ticks(axes, 'x', names)
    style.name_ticks(axes, 'y', names)
  else:
    axes.set(xticks=(), yticks=())
  for border in borders if len(borders) < _MAX_GROUPS else ():
    for line in (axes.axhline, axes.axvline):
      line(border - 0.5, color='white', lw=0.6)
