"""Statistics of samples on the host, which need no compiler or large import.

What a training logs is these, a few thousand values at a time: in a run of
seconds compiling would take the longest.
"""

import numpy as np


def calibration_error(
  confidence: np.ndarray, correct: np.ndarray, *, num_bins: int = 15
) -> float:
  """The expected calibration error, as `calibration` has it.

  Args:
    confidence: `[N]`, of each answer, in [0, 1].
    correct: `[N]`, whether it is right.
    num_bins: M ≥ 1.

  Returns:
    In [0, 1]; NaN if a confidence is.

  >>> calibration_error(np.array([0.75, 0.875]), np.array([True, False]))
  0.5625
  """
  place = np.nan_to_num(np.ceil(confidence * num_bins))
  gap = confidence.astype(np.float64) - correct
  gaps = np.bincount(np.clip(place, 1, num_bins).astype(int), weights=gap)
  return float(np.sum(np.abs(gaps)) / len(gap))


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
  """Spearman's rank correlation.

  The Pearson correlation of the ranks, where equal values share the mean of
  theirs.

  Args:
    x: `[N]`.
    y: `[N]`.

  Returns:
    In [-1, 1]; NaN if either is constant.

  >>> rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3]))
  1.0
  """
  x, y = (ranks - np.mean(ranks) for ranks in (_ranks(x), _ranks(y)))
  square = np.sum(x**2) * np.sum(y**2)
  return float(np.sum(x * y) / np.sqrt(square)) if square else float('nan')


def _ranks(x: np.ndarray) -> np.ndarray:
  """1 for the smallest; equal values share the mean of their ranks."""
  _, place, count = np.unique(x, return_inverse=True, return_counts=True)
  return (np.cumsum(count) - (count - 1) / 2)[place]
