import handmade
import numpy as np
import pytest
from handmade import lightness
from matplotlib import colormaps

from kdjax.report import heatmaps, style


def _tables(num_classes, *names):
  rng = np.random.default_rng(0)
  return {
    name: handmade.similarity(rng.normal(size=(num_classes, 4)))
    for name in names
  }


def test_panels_share_their_colours_and_leave_the_diagonal_out():
  tables = _tables(6, 'teacher', 'student')
  figure = heatmaps.class_similarity(
    tables, correlations={'student': 0.25}, names=list('abcdef')
  )
  images = [axes.images[0] for axes in figure.axes[:2]]
  assert images[0].get_clim() == images[1].get_clim()
  for image, table in zip(images, tables.values(), strict=True):
    shown = image.get_array()
    np.testing.assert_array_equal(shown.mask, np.eye(6, dtype=bool))
    off = ~shown.mask
    np.testing.assert_allclose(shown.data[off], table[off], rtol=1e-6)
  low, high = images[0].get_clim()
  assert -1 <= low < high < 1
  titles = [axes.get_title() for axes in figure.axes[:2]]
  assert titles == ['teacher', 'student\nr = 0.25 with the teacher']


@pytest.mark.parametrize(('num', 'named'), [(20, True), (21, False)])
def test_few_classes_are_named(num, named):
  names = [f'class {k}' for k in range(num)]
  tables = _tables(num, 'teacher')
  for figure in (
    heatmaps.class_similarity(tables, correlations={}, names=names),
    heatmaps.class_relations(tables['teacher'], names=names),
  ):
    axes = figure.axes[0]
    for axis in (axes.xaxis, axes.yaxis):
      labels = [label.get_text() for label in axis.get_ticklabels()]
      assert labels == (names if named else [])


@pytest.mark.parametrize('letter', ['i', 'W'])
def test_long_names_stay_on_the_canvas(letter):
  names = [letter * 40] * 20
  figure = heatmaps.class_similarity(
    _tables(20, 'teacher', 'student', 'a', 'b'),
    correlations={'b': 0.5},
    names=names,
  )
  figure.draw_without_rendering()
  box = figure.get_tightbbox()
  assert box.x0 >= 0
  assert box.y0 >= 0
  assert box.x1 <= figure.get_figwidth()
  assert box.y1 <= figure.get_figheight()


def test_many_classes_are_drawn_in_blocks():
  num_classes, block = 401, 3
  table = _tables(num_classes, 'teacher')['teacher']
  figure = heatmaps.class_relations(table, borders=(6, 300))
  shown = figure.axes[0].images[0].get_array()
  assert shown.shape == (134, 134)
  off = np.where(np.eye(num_classes, dtype=bool), np.nan, table)
  corner = lambda i, j: off[3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
  for i, j in ((0, 1), (5, 5), (133, 7), (133, 133)):
    expected = 100 * np.nanmean(corner(i, j))
    np.testing.assert_allclose(shown[i, j], expected, rtol=1e-4)
  assert f'{block} × {block} classes' in figure.get_supxlabel()
  ends = {line.get_ydata()[0] for line in figure.axes[0].lines[::2]}
  assert ends == {1.5, 99.5}


def test_too_many_groups_are_not_separated():
  table = _tables(60, 'teacher')['teacher']
  figure = heatmaps.class_relations(table, borders=range(1, 60))
  assert not figure.axes[0].lines


def test_classes_that_are_all_alike_have_colours():
  figure = heatmaps.class_similarity(
    {'teacher': np.ones((4, 4))}, correlations={}
  )
  low, high = figure.axes[0].images[0].get_clim()
  assert high > low


def test_colours_rise_inlightness():
  colors = colormaps[style.COLORMAP](np.linspace(0, 1, 64))[:, :3]
  assert np.all(np.diff([lightness(c) for c in colors]) > 0)
