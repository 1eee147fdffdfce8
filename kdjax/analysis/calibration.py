"""Calibration: whether a network is right as often as it is sure to be.

`p` are probabilities over the K classes, the last axis, `y` the label. A label
outside 0..K-1 gives NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from kdjax import numerics
from kdjax.checks import Array, Scalar, check_positive, typed

# Bisections of log T: they narrow any range to float32's rounding.
_STEPS = 40


class Reliability(NamedTuple):
  """A reliability diagram: examples in bins of how sure the answer is.

  Attributes:
    confidence: mean probability of the likeliest class, 0 in an empty bin.
    accuracy: the fraction of right answers, 0 in an empty bin.
    count: number of examples.
  """

  confidence: Float[jax.Array, ' bins']
  accuracy: Float[jax.Array, ' bins']
  count: Integer[jax.Array, ' bins']


@typed
def reliability(
  probs: Float[Array, 'N K'],
  labels: Integer[Array, ' N'],
  *,
  num_bins: int = 15,
) -> Reliability:
  """Confidence and accuracy in bins of equal width.

  With the answer `ŷ = argmax p` and its confidence `p_ŷ`, bin m of M holds the
  examples with `(m−1)/M < p_ŷ ≤ m/M`.

  Args:
    probs: `[N, K]`, each row sums to one.
    labels: `[N]`, in 0..K-1; another one makes the accuracy of its bin NaN.
    num_bins: M ≥ 1.

  Returns:
    Confidence, accuracy (fractions) and count, `[M]` each.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `num_bins` is not positive.

  Reference: Guo et al., arXiv:1706.04599, section 2.

  >>> p = jnp.array([[0.75, 0.25], [0.125, 0.875], [0.5, 0.5]])
  >>> bins = reliability(p, jnp.array([0, 0, 0]), num_bins=2)
  >>> print(bins.confidence, bins.accuracy, bins.count)
  [0.5    0.8125] [1.  0.5] [1 2]
  """
  probs, labels = numerics.as_float(probs), jnp.asarray(labels)
  confidence = jnp.max(probs, axis=-1)
  right = (jnp.argmax(probs, axis=-1) == labels).astype(probs.dtype)
  right = numerics.nan_unless_class(right, labels, probs.shape[-1])
  return reliability_of(confidence, right, num_bins=num_bins)


@typed
def reliability_of(
  confidence: Float[Array, ' N'],
  correct: Bool[Array, ' N'] | Float[Array, ' N'],
  *,
  num_bins: int = 15,
) -> Reliability:
  """The same where the answers are known: how sure each is, and if it is right.

  Args:
    confidence: `[N]`, the probability of each answer, in [0, 1].
    correct: `[N]`, whether it is right: a bool, or 1 and 0.
    num_bins: M ≥ 1.

  Returns:
    Confidence, accuracy (fractions) and count, `[M]` each.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `num_bins` is not positive.

  Reference: Guo et al., arXiv:1706.04599, section 2.

  >>> sure, right = jnp.array([0.75, 0.875, 0.5]), jnp.array([1.0, 0.0, 1.0])
  >>> print(reliability_of(sure, right, num_bins=2).accuracy)
  [1.  0.5]
  """
  check_positive('num_bins', num_bins)
  confidence = numerics.as_float(confidence)
  right = jnp.asarray(correct).astype(confidence.dtype)
  place = jnp.ceil(confidence * num_bins).astype(jnp.int32) - 1
  place = jnp.clip(place, 0, num_bins - 1)
  total = lambda x: jax.ops.segment_sum(x, place, num_bins)
  count = total(jnp.ones_like(place))
  size = jnp.maximum(count, 1)
  return Reliability(total(confidence) / size, total(right) / size, count)


@typed
def expected_calibration_error(
  probs: Float[Array, 'N K'],
  labels: Integer[Array, ' N'],
  *,
  num_bins: int = 15,
) -> Float[jax.Array, '']:
  """The gap between how sure and how right the answers are.

  `ECE = Σ_m N_m/N · |accuracy_m − confidence_m|`, over the bins of
  `reliability`. It depends on their number.

  Args:
    probs: `[N, K]`, each row sums to one.
    labels: `[N]`, in 0..K-1.
    num_bins: M ≥ 1.

  Returns:
    A scalar in [0, 1], a fraction.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `num_bins` is not positive.

  Reference: Naeini et al. 2015; Guo et al., arXiv:1706.04599, section 2.

  >>> p = jnp.array([[0.75, 0.25], [0.125, 0.875], [0.5, 0.5]])
  >>> y = jnp.array([0, 0, 0])
  >>> ece = expected_calibration_error(p, y, num_bins=2)
  >>> round(float(ece), 4)  # 1/3 · 0.5 + 2/3 · 0.3125
  0.375
  """
  return calibration_error(reliability(probs, labels, num_bins=num_bins))


@typed
def calibration_error(bins: Reliability) -> Float[jax.Array, '']:
  """The same from a reliability diagram.

  Args:
    bins: from `reliability` or `reliability_of`.

  Returns:
    A scalar in [0, 1], a fraction.

  >>> bins = Reliability(
  ...   jnp.array([0.5, 0.75]), jnp.array([1.0, 0.5]), jnp.array([1, 3])
  ... )
  >>> float(calibration_error(bins))  # 1/4 · 0.5 + 3/4 · 0.25
  0.3125
  """
  gap = jnp.abs(bins.accuracy - bins.confidence)
  return jnp.sum(bins.count / jnp.sum(bins.count) * gap)


@typed
def brier(
  probs: Float[Array, '*batch K'], labels: Integer[Array, '*batch']
) -> Float[jax.Array, '*batch']:
  """The Brier score: the squared distance from the one-hot label.

  `Σ_i (p_i − 1[i=y])²`.

  Args:
    probs: `[..., K]`, each row sums to one.
    labels: `[...]`, in 0..K-1.

  Returns:
    `[...]`, in [0, 2], without unit.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Brier 1950, Verification of forecasts expressed in terms of
    probability.

  >>> print(brier(jnp.array([[0.5, 0.25, 0.25]]), jnp.array([0])))
  [0.375]
  """
  probs = numerics.as_float(probs)
  at_label = numerics.is_label(labels, probs.shape[-1])
  score = jnp.sum((probs - at_label) ** 2, axis=-1)
  return numerics.nan_unless_class(score, labels, probs.shape[-1])


@typed
def negative_log_likelihood(
  probs: Float[Array, '*batch K'], labels: Integer[Array, '*batch']
) -> Float[jax.Array, '*batch']:
  """How surprising the label is.

  `NLL = −log p_y`. From logits, `kdjax.losses.cross_entropy` says the same
  and stays finite where `p_y` underflows.

  Args:
    probs: `[..., K]`, each row sums to one.
    labels: `[...]`, in 0..K-1.

  Returns:
    `[...]`, in nats; `inf` where the label has probability 0.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Guo et al., arXiv:1706.04599, section 2.

  >>> p = jnp.array([[0.25, 0.75], [1.0, 0.0]])
  >>> nll = negative_log_likelihood(p, jnp.array([0, 1]))
  >>> [round(float(x), 4) for x in nll]  # log 4, and certainly wrong
  [1.3863, inf]
  """
  num_classes = probs.shape[-1]
  at_label = numerics.is_label(labels, num_classes)
  loss = -numerics.label_entry(numerics.log(probs), at_label)
  return numerics.nan_unless_class(loss, labels, num_classes)


@typed
def fit_temperature(
  logits: Float[Array, 'N K'],
  labels: Integer[Array, ' N'],
  *,
  low: Scalar = 0.05,
  high: Scalar = 50.0,
) -> Float[jax.Array, '']:
  """Temperature scaling: the temperature that calibrates the logits best.

  `T* = argmin_T mean_n −log softmax(z_n/T)_y`, in `[low, high]`. The mean is
  convex in 1/T, with derivative `mean_n Σ_i softmax(z_n/T)_i (z_i − z_y)`,
  whose sign is bisected in log T. `T* > 1` says that the logits are too sure.

  Where no minimum lies inside, the result is an end: `low` for logits that
  are right of every example, or say nothing; `high` for logits that are worse
  than none.

  Args:
    logits: `[N, K]`, reals or `-inf`.
    labels: `[N]`, in 0..K-1.
    low: the smallest temperature, positive.
    high: the largest, above `low`.

  Returns:
    A scalar; NaN if a label is no class or is masked, whose likelihood is 0
    at any temperature.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `low` and `high` are no range of positive numbers.

  Reference: Guo et al., arXiv:1706.04599, section 4.2.

  >>> odds = jnp.array([[3.0, 1.0]] * 4)  # right three times of four
  >>> sure = 2.5 * jnp.log(odds)
  >>> round(float(fit_temperature(sure, jnp.array([0, 0, 1, 0]))), 4)
  2.5
  """
  check_positive('low', low)
  check_positive('high', high)
  known = all(isinstance(x, (int, float)) for x in (low, high))
  if known and low >= high:
    raise ValueError(f'low={low} must be below high={high}')
  logits = numerics.as_float(logits)
  logits = logits - jnp.max(logits, axis=-1, keepdims=True)
  at_label = numerics.is_label(labels, logits.shape[-1])
  true = jnp.sum(jnp.where(at_label, logits, 0.0), axis=-1, keepdims=True)
  true = numerics.nan_unless_class(true, labels, logits.shape[-1])
  gap = jnp.where(jnp.isneginf(logits), 0.0, logits - true)

  def slope(log_t: jax.Array) -> jax.Array:
    """The derivative of the mean in 1/T."""
    probs = jax.nn.softmax(logits / jnp.exp(log_t), axis=-1)
    return jnp.mean(jnp.sum(probs * gap, axis=-1))

  def halve(_: int, ends: tuple) -> tuple:
    middle = (ends[0] + ends[1]) / 2
    too_sure = slope(middle) > 0
    return (
      jnp.where(too_sure, middle, ends[0]),
      jnp.where(too_sure, ends[1], middle),
    )

  ends = tuple(jnp.log(jnp.asarray(x, logits.dtype)) for x in (low, high))
  ends = jax.lax.fori_loop(0, _STEPS, halve, ends)
  middle = (ends[0] + ends[1]) / 2
  return jnp.where(jnp.isfinite(slope(middle)), jnp.exp(middle), jnp.nan)
