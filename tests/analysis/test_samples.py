"""Against SciPy, and against the functions that compile."""

import numpy as np
import pytest
from scipy import stats

from kdjax import analysis
from kdjax.analysis.samples import calibration_error, rank_correlation


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


@pytest.mark.parametrize('num_bins', [1, 4, 15])
def test_calibration_error(num_bins):
  rng = np.random.default_rng(0)
  probs = rng.dirichlet(np.ones(4), 300).astype(np.float32)
  probs[:3] = np.eye(4)[:3]  # sure
  labels = rng.integers(0, 4, 300)
  wanted = analysis.expected_calibration_error(probs, labels, num_bins=num_bins)
  found = calibration_error(
    probs.max(-1), probs.argmax(-1) == labels, num_bins=num_bins
  )
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
