import numpy as np
import pytest
from handmade import legend, lightness

from kdjax.report import teaching

SHARES = {
  'label': 0.5,
  'smoothing': 0.25,
  'class_relations': 0.2,
  'instance': 0.05,
}


def _rescaling(factor, confidence=None, *, weight=0.9, has_student=True):
  factor = np.asarray(factor, float)
  if confidence is None:
    confidence = np.linspace(0, 1, len(factor))
  return teaching.rescaling_factor(
    confidence, factor, weight=weight, has_student=has_student
  )


def test_marks_cross_entropy_and_the_label_alone():
  figure = _rescaling([0.5, 2.0, 1.0])
  heights = [line.get_ydata()[0] for line in figure.axes[0].lines]
  np.testing.assert_allclose(heights, [1, 0.1])
  dashes = {line.get_linestyle() for line in figure.axes[0].lines}
  assert len(dashes) == 2
  assert 'label alone: w = 1 − λ = 0.1' in legend(figure)
  assert figure.axes[0].get_xlabel().endswith('(fraction)')
  assert figure.axes[0].get_ylabel().endswith('(ratio)')


def test_says_whose_factor_it_is():
  title = lambda has: _rescaling([1, 2], has_student=has).axes[0].get_title()
  assert title(True).endswith(', student')
  assert title(False).endswith(', untrained student')


def test_draws_some_of_many_always_the_same():
  values = np.random.default_rng(0).random(9000)
  points = [
    _rescaling(values).axes[0].collections[0].get_offsets() for _ in 'ab'
  ]
  assert len(points[0]) == 4000
  assert len(np.unique(points[0], axis=0)) == 4000
  np.testing.assert_array_equal(*points)


def test_median_and_band_are_of_all():
  confidence = np.linspace(0, 1, 4000)
  factor = 2 * confidence + np.tile(np.linspace(-1, 1, 80), 50)
  shuffled = np.random.default_rng(0).permutation(4000)
  figure = _rescaling(factor[shuffled], confidence[shuffled])
  median = figure.axes[0].lines[0]
  x = median.get_xdata()
  assert len(x) == 25
  np.testing.assert_allclose(median.get_ydata(), 2 * x, atol=0.05)
  (band,) = figure.axes[0].collections[1].get_paths()
  above, below = (
    band.vertices[np.sign(band.vertices[:, 1] - 2 * band.vertices[:, 0]) == s]
    for s in (1, -1)
  )
  np.testing.assert_allclose(above[:, 1], 2 * above[:, 0] + 0.8, atol=0.05)
  np.testing.assert_allclose(below[:, 1], 2 * below[:, 0] - 0.8, atol=0.05)
  assert {'median', '10–90 %'} < set(legend(figure))


def test_few_examples_have_no_median():
  assert 'median' not in legend(_rescaling(np.arange(60) / 60))


def test_tails_are_logarithmic():
  assert _rescaling([0.0, 1.0, 3.0]).axes[0].get_yscale() == 'linear'
  axes = _rescaling(np.float32([-5e4, 0.0, 1.0, 3e38])).axes[0]
  assert axes.get_yscale() == 'symlog'
  low, high = axes.get_ylim()
  assert low < -5e4
  assert high > 3e38
  assert 'log beyond ±2' in axes.get_ylabel()
  assert {-2, -1, 0, 1, 2} < set(axes.get_yticks())
  assert len(axes.get_yticks()) <= 13


def test_what_is_not_finite_is_left_out():
  figure = _rescaling([np.inf, 1.0, np.nan, 2.0])
  assert len(figure.axes[0].collections[0].get_offsets()) == 2
  assert 'an example (2 of 2)' in legend(figure)


def _topk(num_classes, **arguments):
  mass = np.linspace(0.5, 1, num_classes)
  arguments = {'temperature': 4.0, **arguments}
  return teaching.topk_mass(mass, mass**0.1, **arguments)


def test_draws_both_temperatures_in_percent():
  figure = _topk(11)
  hot, cold = figure.axes[0].lines
  np.testing.assert_allclose(hot.get_ydata(), np.linspace(50, 100, 11))
  np.testing.assert_array_equal(hot.get_xdata(), np.arange(1, 12))
  assert hot.get_linestyle() != cold.get_linestyle()
  assert legend(figure) == ['T = 4', 'T = 1']


def test_one_temperature_is_drawn_once():
  assert legend(_topk(11, temperature=1.0)) == ['T = 1']


def test_marks_where_the_tail_begins():
  figure = _topk(11, kept_classes=3.0)
  assert list(figure.axes[0].lines[-1].get_xdata()) == [3.0, 3.0]
  assert legend(figure)[-1].endswith('k = 3')


@pytest.mark.parametrize(('num', 'scale'), [(50, 'linear'), (51, 'log')])
def test_many_classes_are_on_a_logarithmic_axis(num, scale):
  assert _topk(num).axes[0].get_xscale() == scale


def test_parts_are_stacked():
  bars = teaching.gradient_shares(SHARES).axes[0].patches
  np.testing.assert_allclose([b.get_width() for b in bars], [50, 25, 20, 5])
  np.testing.assert_allclose([b.get_x() for b in bars], [0, 50, 75, 95])


def test_every_percentage_is_given():
  figure = teaching.gradient_shares(SHARES)
  assert legend(figure) == [
    'label: 50.0%',
    'smoothing (universe): 25.0%',
    'class relations (domain): 20.0%',
    'instance: 5.0%',
  ]
  inside = [text.get_text() for text in figure.axes[0].texts]
  assert inside == ['50%', '25%', '20%']


def test_parts_differ_without_colour():
  bars = teaching.gradient_shares(SHARES).axes[0].patches
  shades = [lightness(bar.get_facecolor()[:3]) for bar in bars]
  assert np.all(np.diff(sorted(shades)) > 0.15)
  assert len({bar.get_hatch() for bar in bars}) == 4
