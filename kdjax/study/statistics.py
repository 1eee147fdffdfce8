"""What a few seeds allow to say: spread, paired differences, many tests."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Spread(NamedTuple):
  """Where values are and how far they scatter.

  Attributes:
    mean: their mean.
    std: their sample standard deviation, of N − 1; NaN for one value.
    count: N.
  """

  mean: float
  std: float
  count: int


class Paired(NamedTuple):
  """A difference of pairs, and how sure it is.

  Attributes:
    mean: of the differences.
    low: lower end of the confidence interval; NaN for one pair.
    high: upper end; NaN for one pair.
    p_value: two-sided, of no difference; NaN for one pair.
    count: number of pairs.
  """

  mean: float
  low: float
  high: float
  p_value: float
  count: int


def spread(values: Sequence[float]) -> Spread:
  """Mean and sample standard deviation.

  Args:
    values: `[N]`, at least one.

  Returns:
    Of N values.

  Raises:
    ValueError: there is no value.

  >>> spread([1.0, 2.0, 3.0])
  Spread(mean=2.0, std=1.0, count=3)
  """
  values = _vector('values', values)
  std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
  return Spread(float(np.mean(values)), std, len(values))


def paired_difference(
  a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95
) -> Paired:
  """Student's t on the differences `a − b`.

  With mean d̄ and sample standard deviation s of N differences,
  `t = d̄ / (s / √N)` has N − 1 degrees of freedom. Differences that are all
  the same have an interval of width 0, and p is 0, or 1 if they are 0.

  Args:
    a: `[N]`, at least one.
    b: `[N]`; `b[i]` belongs to `a[i]`.
    confidence: of the interval, in (0, 1).

  Returns:
    Of N pairs; one pair has neither an interval nor a p value.

  Raises:
    ValueError: nothing to pair, or `confidence` is out of range.

  Reference:
    Student, The probable error of a mean, Biometrika 6 (1908).

  >>> gain = paired_difference([0.5, 0.625, 0.75], [0.25, 0.25, 0.25])
  >>> gain.mean, round(gain.low, 4), round(gain.p_value, 4)
  (0.375, 0.0645, 0.0351)
  """
  a, b = _vector('a', a), _vector('b', b)
  if len(a) != len(b):
    raise ValueError(f'a has {len(a)} values and b has {len(b)}; pair them')
  if not 0 < confidence < 1:
    raise ValueError(f'confidence={confidence} must be in (0, 1)')
  differences = a - b
  count, mean = len(a), float(np.mean(differences))
  if count == 1:
    return Paired(mean, math.nan, math.nan, math.nan, count)
  error = float(np.std(differences, ddof=1)) / math.sqrt(count)
  if np.ptp(differences) == 0 or error == 0:
    mean = float(differences[0])
    return Paired(mean, mean, mean, float(mean == 0), count)
  margin = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * error
  p_value = 2 * float(stats.t.sf(abs(mean) / error, count - 1))
  return Paired(mean, mean - margin, mean + margin, p_value, count)


def holm(p_values: Sequence[float]) -> list[float]:
  """Adjusts p values for being many, after Holm and Bonferroni.

  The k-th smallest of m counts m − k + 1 times, and no less than a smaller one
  does: `max over j ≤ k of (m − j + 1) p₍ⱼ₎`, at most 1. Below α after that, the
  chance that any of them is a false alarm is at most α.

  Args:
    p_values: in [0, 1]; NaN for what was not tested, which does not count.

  Returns:
    Adjusted, in the same order; NaN stays.

  Raises:
    ValueError: one is not in [0, 1].

  Reference:
    Holm, A simple sequentially rejective multiple test procedure, Scand. J.
    Statist. 6 (1979).

  >>> holm([0.03, 0.01, float('nan'), 0.04])
  [0.06, 0.03, nan, 0.06]
  """
  for p_value in p_values:
    if p_value < 0 or p_value > 1:
      raise ValueError(f'a p value is {p_value}; it must be in [0, 1]')
  tested = [i for i, p_value in enumerate(p_values) if not math.isnan(p_value)]
  tested.sort(key=lambda i: p_values[i])
  adjusted = [math.nan] * len(p_values)
  least = 0.0
  for rank, i in enumerate(tested):
    least = max(least, (len(tested) - rank) * float(p_values[i]))
    adjusted[i] = min(least, 1.0)
  return adjusted


def _vector(name: str, values: Sequence[float]) -> np.ndarray:
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not len(values):
    raise ValueError(
      f'{name} has shape {values.shape}; it must be a row of one or more'
    )
  return values
