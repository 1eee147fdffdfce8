"""Rank correlation, against SciPy."""

import numpy as np
import pytest
from scipy import stats

from kdjax.analysis.ranks import rank_correlation


@pytest.mark.parametrize('num_values', [1, 4, 100])
def test_rank_correlation(num_values):
  x, y = np.random.default_rng(0).integers(0, 30, (2, 100)).astype(float)
  x = np.where(x < num_values, x, num_values - 1.0)
  if num_values == 1:
    assert np.isnan(rank_correlation(x, y))
    return
  wanted = stats.spearmanr(x, y).statistic
  np.testing.assert_allclose(rank_correlation(x, y), wanted)
  np.testing.assert_allclose(rank_correlation(x, x), 1.0)
  np.testing.assert_allclose(rank_correlation(x, -x), -1.0)
