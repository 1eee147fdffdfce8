import handmade
import numpy as np
from handmade import legend

from kdjax.report import answers

WHAT = 'student − baseline'


def test_a_panel_per_network():
  diagrams = {'teacher': handmade.bins(), 'student': handmade.bins()}
  figure = answers.reliability(diagrams, errors={'teacher': 0.0625})
  upper, lower = figure.axes[:2], figure.axes[2:]
  assert [a.get_title() for a in upper] == ['teacher, ECE 6.2 %', 'student']
  assert upper[0].get_ylabel() == 'accuracy (%)'
  assert [a.get_xlabel() for a in lower] == ['confidence (%)'] * 2
  assert legend(figure) == [
    'calibrated',
    'accuracy',
    'gap to the confidence',
  ]


def test_bars_are_the_bins_that_have_examples():
  figure = answers.reliability({'teacher': handmade.bins()}, errors={})
  upper, lower = figure.axes
  accuracy, gap = np.reshape(upper.patches, (2, 3))
  np.testing.assert_allclose([b.get_x() for b in accuracy], [0, 50, 75])
  np.testing.assert_allclose([b.get_height() for b in accuracy], [10, 70, 90])
  tops = [b.get_y() + b.get_height() for b in gap]
  np.testing.assert_allclose(tops, [20, 60, 90])
  np.testing.assert_allclose(
    [b.get_height() for b in lower.patches], [3, 5, 90]
  )
  np.testing.assert_allclose(upper.lines[0].get_xydata(), [[0, 0], [100] * 2])


def test_bars_are_sorted_and_named():
  gains = np.array([0.1, np.nan, -0.2, 0.3])
  figure = answers.class_gain(
    gains, what=WHAT, names=['a', 'b', '$c', 'd' * 40]
  )
  axes = figure.axes[0]
  widths = [bar.get_width() for bar in axes.patches]
  np.testing.assert_allclose(widths, [30, 10, -20])
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert labels == ['d' * 21 + '…', 'a', '$c']
  assert [bool(bar.get_hatch()) for bar in axes.patches] == [False] * 2 + [True]
  assert '2 of 3 classes gain, 1 lose' in axes.get_title()
  assert axes.get_xlabel().endswith('(points)')


def test_many_classes_are_a_curve():
  gains = np.linspace(-0.1, 0.3, 31)
  names = [str(k) for k in range(31)]
  axes = answers.class_gain(gains, what=WHAT, names=names).axes[0]
  np.testing.assert_allclose(axes.lines[0].get_ydata(), 100 * gains[::-1])
  assert not axes.patches
  assert 'mean of classes: 10.0' in legend(axes.figure)


def test_a_teacher_alone_has_no_gain():
  accuracy = np.array([0.5, 0.75])
  figure = answers.class_gain(accuracy, what='teacher', names='ab')
  axes = figure.axes[0]
  assert axes.get_xlabel() == 'accuracy, teacher (%)'
  assert 'gain' not in axes.get_title()
