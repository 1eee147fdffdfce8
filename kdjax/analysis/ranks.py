"""Rank correlation, of values on the host."""

import numpy as np


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
  """Spearman's rank correlation.

  The Pearson correlation of the ranks, where equal values share the mean of
  theirs. A run would wait longer for the import of `scipy.stats`.

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
