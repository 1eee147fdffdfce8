"""What holds for rare tokens, and what for frequent ones.

Tokens are sorted by their count in the training text and cut into groups of
equal size, so that each stands for as much of the text that is looked at.
With the rescaling factor `w` of each token as the value, a group says whether
distillation teaches rare words more, or frequent ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kdjax import checks

_GROUPS = 5


class ByFrequency(NamedTuple):
  """A value in G groups of ever more frequent tokens, of equal size.

  Attributes:
    counts: `[G, 2]`, of the rarest and of the most frequent token of a group,
      in the training text.
    low: `[G]`, the tenth percentile.
    median: `[G]`.
    high: `[G]`, the ninetieth percentile.
    mean: `[G]`, infinite where a value is.
  """

  counts: np.ndarray
  low: np.ndarray
  median: np.ndarray
  high: np.ndarray
  mean: np.ndarray


def by_frequency(values: np.ndarray, counts: np.ndarray) -> ByFrequency:
  """Describes a value in five groups of tokens, or in N where N is less.

  Args:
    values: `[N]`, of each token that is predicted.
    counts: `[N]`, how often the token is in the training text.

  Returns:
    What the value is like in each group. What is not a number is left out.

  Raises:
    ValueError: the arrays differ in length, or are empty.

  >>> by_frequency(np.array([3.0, 1.0]), np.array([9, 2])).counts.tolist()
  [[2, 2], [9, 9]]
  """
  num_groups = min(_GROUPS, len(counts))
  groups = frequency_groups(counts, num_groups=num_groups)
  low, median, high, mean = (
    _by_frequency(statistic, values, counts, num_groups)
    for statistic in (_tenth, np.median, _ninetieth, np.mean)
  )
  ends = [(np.min(counts[g]), np.max(counts[g])) for g in groups]
  return ByFrequency(np.array(ends), low, median, high, mean)


def frequency_groups(
  counts: np.ndarray, *, num_groups: int
) -> list[np.ndarray]:
  """Returns groups of ever more frequent tokens.

  Args:
    counts: `[N]`, how often each token that is predicted is in the training
      text. Of equally frequent ones the first go first.
    num_groups: of the groups, 1..N.

  Returns:
    The positions in `counts` of each group, from the rarest to the most
    frequent; sizes differ by one at most.

  Raises:
    ValueError: there are too many groups, or too few.

  >>> frequency_groups(np.array([1, 9, 2, 7]), num_groups=2)
  [array([0, 2]), array([3, 1])]
  """
  counts = np.asarray(counts)
  if counts.ndim != 1:
    raise ValueError(f'counts of shape {counts.shape} must be [N]')
  checks.check_between('num_groups', num_groups, 1, len(counts))
  return np.array_split(np.argsort(counts, kind='stable'), num_groups)


def medians_by_frequency(
  values: np.ndarray, counts: np.ndarray, *, num_groups: int
) -> np.ndarray:
  """Returns the median of a value in groups of ever more frequent tokens.

  Args:
    values: `[N]`, of each token that is predicted, such as what
      `rescaling_factor` returns.
    counts: `[N]`, how often the token is in the training text.
    num_groups: of the groups, 1..N.

  Returns:
    `[num_groups]`, from the rarest to the most frequent. What is not a number
    is left out; the median of nothing is not a number.

  Raises:
    ValueError: the arrays differ in length, or there are too many groups.

  Reference:
    Tang et al. 2020, Understanding and Improving Knowledge Distillation,
    arXiv:2002.03532, section 3 (the instance).

  >>> medians_by_frequency(
  ...   np.array([3.0, 1.0, 2.0, 1.0]), np.array([1, 9, 2, 7]), num_groups=2
  ... )
  array([2.5, 1. ])
  """
  return _by_frequency(np.median, values, counts, num_groups)


def means_by_frequency(
  values: np.ndarray, counts: np.ndarray, *, num_groups: int
) -> np.ndarray:
  """Returns the mean of a value in groups of ever more frequent tokens.

  Of the rescaling factor, how much more of a gradient a group gets, a few
  tokens that get very much included, which the median does not see.

  Args:
    values: as in `medians_by_frequency`.
    counts: likewise.
    num_groups: likewise.

  Returns:
    As `medians_by_frequency`; infinite where a value is.

  Raises:
    ValueError: as `medians_by_frequency`.

  Reference:
    Tang et al. 2020, arXiv:2002.03532, section 3 (the instance).

  >>> means_by_frequency(
  ...   np.array([3.0, 1.0, 2.0, 5.0]), np.array([1, 9, 2, 7]), num_groups=2
  ... )
  array([2.5, 3. ])
  """
  return _by_frequency(np.mean, values, counts, num_groups)


def _by_frequency(
  statistic: Callable[[np.ndarray], float],
  values: np.ndarray,
  counts: np.ndarray,
  num_groups: int,
) -> np.ndarray:
  values, counts = np.asarray(values, np.float64), np.asarray(counts)
  if values.ndim != 1 or values.shape != counts.shape:
    raise ValueError(
      f'values of shape {values.shape} and counts of shape {counts.shape} '
      f'must both be [N]'
    )
  groups = frequency_groups(counts, num_groups=num_groups)
  found = [values[group][~np.isnan(values[group])] for group in groups]
  # A sure student's factor may be infinite: of both signs there is no mean.
  with np.errstate(invalid='ignore'):
    return np.array(
      [float(statistic(some)) if len(some) else np.nan for some in found]
    )


def _tenth(values: np.ndarray) -> float:
  return np.quantile(values, 0.1, method='nearest')


def _ninetieth(values: np.ndarray) -> float:
  return np.quantile(values, 0.9, method='nearest')
