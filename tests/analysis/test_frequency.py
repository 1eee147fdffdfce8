"""Groups of tokens by how frequent they are."""

import itertools

import numpy as np
import pytest

from kdjax import analysis

COUNTS = np.array([7, 1, 9, 1, 3, 7, 2])
VALUES = np.array([0.5, 4.0, -1.0, np.nan, 2.0, 1.5, 8.0])


def test_groups_rise_and_have_one_size():
  rng = np.random.default_rng(0)
  counts = rng.integers(1, 50, 103)
  groups = analysis.frequency_groups(counts, num_groups=5)
  assert sorted(np.concatenate(groups)) == list(range(103))
  assert {len(group) for group in groups} == {20, 21}
  for rarer, rather in itertools.pairwise(groups):
    assert counts[rarer].max() <= counts[rather].min()


def test_equally_frequent_tokens_stay_in_their_order():
  groups = analysis.frequency_groups(COUNTS, num_groups=7)
  assert np.concatenate(groups).tolist() == [1, 3, 6, 4, 0, 5, 2]


def test_medians_and_means_leave_out_what_is_no_number():
  groups = [[4.0, 8.0], [2.0, 0.5], [1.5, -1.0]]
  arguments = VALUES, COUNTS
  medians = analysis.medians_by_frequency(*arguments, num_groups=3)
  means = analysis.means_by_frequency(*arguments, num_groups=3)
  np.testing.assert_allclose(medians, [np.median(g) for g in groups])
  np.testing.assert_allclose(means, [np.mean(g) for g in groups])
  assert analysis.means_by_frequency(
    np.array([1.0, 2.0, 6.0]), np.array([1, 1, 1]), num_groups=1
  ) == [3.0]


def test_a_group_of_nothing_has_no_median():
  values = np.array([np.nan, np.nan, 1.0, 3.0])
  counts = np.arange(4)
  for function in (analysis.medians_by_frequency, analysis.means_by_frequency):
    found = function(values, counts, num_groups=2)
    np.testing.assert_array_equal(found, [np.nan, 2.0])


def test_infinite_factors():
  values = np.array([1.0, np.inf, np.inf, -np.inf, 0.0, 2.0])
  counts = np.array([1, 1, 1, 2, 2, 2])
  medians = analysis.medians_by_frequency(values, counts, num_groups=2)
  np.testing.assert_array_equal(medians, [np.inf, 0.0])
  means = analysis.means_by_frequency(values, counts, num_groups=2)
  np.testing.assert_array_equal(means, [np.inf, -np.inf])


def test_a_description_of_fifths():
  rng = np.random.default_rng(1)
  counts, values = np.arange(100) // 2, rng.normal(size=100)
  found = analysis.by_frequency(values, counts)
  np.testing.assert_array_equal(found.counts[1], [10, 19])
  parts = values.reshape(5, 20)
  np.testing.assert_allclose(found.median, np.median(parts, axis=1))
  np.testing.assert_allclose(found.mean, parts.mean(axis=1))
  ordered = np.sort(parts, axis=1)
  np.testing.assert_allclose(found.low, ordered[:, 2])
  np.testing.assert_allclose(found.high, ordered[:, 17])
  assert len(analysis.by_frequency(values[:3], counts[:3]).mean) == 3


@pytest.mark.parametrize(
  ('values', 'counts', 'num_groups', 'text'),
  [
    (VALUES, COUNTS[1:], 2, r'shape \(7,\) and counts of shape \(6,\)'),
    (VALUES[None], COUNTS[None], 1, r'must both be \[N\]'),
    (VALUES, COUNTS, 8, 'num_groups=8'),
    (VALUES, COUNTS, 0, 'num_groups=0'),
  ],
)
def test_what_does_not_fit_is_refused(values, counts, num_groups, text):
  for function in (analysis.medians_by_frequency, analysis.means_by_frequency):
    with pytest.raises(ValueError, match=text):
      function(values, counts, num_groups=num_groups)
  with pytest.raises(ValueError, match=r'counts of shape \(1, 7\)'):
    analysis.frequency_groups(COUNTS[None], num_groups=1)
