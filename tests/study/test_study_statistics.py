import math

import numpy as np
import pytest
from scipy import stats

from kdjax.study import statistics
from kdjax.study.statistics import holm, paired_difference, spread


def test_spread_is_of_a_sample():
  assert spread([2.0, 4.0, 9.0]) == (5.0, math.sqrt(13), 3)


def test_one_value_has_no_spread():
  mean, std, count = spread([0.25])
  assert (mean, count) == (0.25, 1)
  assert math.isnan(std)


@pytest.mark.parametrize('values', [[], [[1.0, 2.0]], 1.0])
def test_spread_needs_a_row_of_values(values):
  with pytest.raises(ValueError, match='values has shape'):
    spread(values)


@pytest.mark.parametrize('count', [2, 3, 5, 30])
@pytest.mark.parametrize('confidence', [0.9, 0.95])
def test_paired_difference_is_that_of_scipy(count, confidence):
  rng = np.random.default_rng(count)
  a, b = rng.normal(0.3, 1, count), rng.normal(size=count)
  reference = stats.ttest_rel(a, b)
  low, high = reference.confidence_interval(confidence)
  found = paired_difference(a, b, confidence=confidence)
  np.testing.assert_allclose(
    found,
    (np.mean(a - b), low, high, reference.pvalue, count),
    rtol=1e-10,
  )


def test_paired_difference_by_hand():
  # d = 1, 2, 3: s = 1, t = 2 √3; of 2 degrees, P(T > t) = ½ (1 − t / √(2 + t²))
  found = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
  t = 2 * math.sqrt(3)
  assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t**2))
  assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3))
  assert found.mean - found.low == pytest.approx(4.302653 / math.sqrt(3))


def test_one_pair_says_nothing_of_chance():
  found = paired_difference([0.75], [0.5])
  assert (found.mean, found.count) == (0.25, 1)
  assert all(map(math.isnan, (found.low, found.high, found.p_value)))


@pytest.mark.parametrize(
  ('difference', 'p_value'), [(0.25, 0), (-0.1, 0), (0.0, 1)]
)
def test_equal_differences_are_certain(difference, p_value):
  found = paired_difference([difference] * 3, [0.0] * 3)
  assert found == (difference, difference, difference, p_value, 3)


def test_differences_too_small_to_square():
  found = paired_difference([1e-200, 2e-200], [0.0, 0.0])
  assert found == (1e-200, 1e-200, 1e-200, 0, 2)


def test_what_cannot_be_paired():
  with pytest.raises(ValueError, match='a has 2 values and b has 3'):
    paired_difference([1, 2], [1, 2, 3])
  for confidence in (0, 1, 95):
    with pytest.raises(ValueError, match=f'confidence={confidence} must be'):
      paired_difference([1, 2], [2, 2], confidence=confidence)


def test_holm_by_hand():
  # 3 × 0.01; 2 × 0.02; 1 × 0.03 is less than the one before.
  np.testing.assert_allclose(holm([0.03, 0.01, 0.02]), [0.04, 0.03, 0.04])
  np.testing.assert_allclose(holm([0.6, 0.01, 0.7]), [1, 0.03, 1])
  assert holm([]) == []


def test_what_was_not_tested_does_not_count():
  nan = float('nan')
  np.testing.assert_array_equal(
    holm([nan, 0.25, nan, 0.125]),
    [
      nan,
      0.25,
      nan,
      0.25,
    ],
  )


def test_holm_keeps_the_rate_of_false_alarms():
  rng = np.random.default_rng(0)
  alarms = [min(holm(rng.random(6))) < 0.05 for _ in range(4000)]
  assert np.mean(alarms) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize('p_value', [-0.1, 1.5])
def test_a_p_value_is_a_probability(p_value):
  with pytest.raises(ValueError, match='must be in'):
    holm([0.5, p_value])


def test_nothing_is_certain_of_what_is_not_a_number():
  found = statistics.paired_difference([0.5, float('nan')], [0.25, 0.25])
  assert math.isnan(found.mean)
  assert math.isnan(found.p_value)
