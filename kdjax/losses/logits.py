"""Losses on logits: what the student says about each class.

`s` and `t` are the logits of student and teacher, `q̃ = softmax(s/T)` and
`p̃ = softmax(t/T)`, `y` the label. A class whose logit is `-inf` is masked: it
has probability 0 and gradient 0. A target with mass on a class that the
student masks is infinitely far away, and the loss says so: `+inf`. A label
outside 0..K-1 gives NaN. Half-precision logits are scored in float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from kdjax import numerics
from kdjax.checks import (
  Array,
  Scalar,
  check_fraction,
  check_not_negative,
  check_positive,
  typed,
)
from kdjax.losses import masks

# Deviations with a norm up to this are rounding, and count as constant.
_EPSILON = 1e-8


@typed
def cross_entropy(
  student_logits: Float[Array, '*batch K'], labels: Integer[Array, '*batch']
) -> Float[jax.Array, '*batch']:
  """Cross-entropy with the label.

  `CE(y, q) = -log softmax(s)_y`, with gradient `q_i − 1[i=y]`.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    labels: `[...]`, in 0..K-1.

  Returns:
    `[...]`, in nats.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Hinton, Vinyals, Dean, arXiv:1503.02531, section 2.

  >>> ce = cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))
  >>> round(float(ce[0]), 4)  # log 4
  1.3863
  """
  logits, labels = numerics.as_float(student_logits), jnp.asarray(labels)
  peak = numerics.peak(logits)
  total = jnp.sum(jnp.exp(logits - peak), axis=-1)
  at_label = jnp.take_along_axis(
    logits, labels[..., None].astype(jnp.int32), axis=-1, mode='clip'
  )
  loss = jnp.log(total) - (at_label - peak)[..., 0]
  return numerics.nan_unless_class(loss, labels, logits.shape[-1])


@typed
def kd(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  *,
  temperature: Scalar,
) -> Float[jax.Array, '*batch']:
  """Knowledge distillation: the divergence from the teacher's soft answer.

  `KD = T² · KL(p̃ ‖ q̃)`, with gradient `T · (q̃ − p̃)`.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    teacher_logits: `[..., K]`, reals or `-inf`.
    temperature: T > 0.

  Returns:
    `[...]`, in nats times T².

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `temperature` is not positive.

  Reference: Hinton, Vinyals, Dean, arXiv:1503.02531, section 2.

  >>> s, t = jnp.array([[0.0, 0.0]]), jnp.array([[4.0, 0.0]])
  >>> round(float(kd(s, t, temperature=2.0)[0]), 4)
  1.3113
  """
  check_positive('temperature', temperature)
  # KL(p̃ ‖ q̃) = Σ p̃ (t − s)/T + log Σ exp(s/T) − log Σ exp(t/T)
  student = numerics.scaled(student_logits, temperature)
  teacher = numerics.scaled(teacher_logits, temperature)
  total = numerics.log_total(teacher)
  probs = jnp.exp(teacher - total[..., None])
  gap = numerics.mean_gap(probs, teacher, student)
  return temperature**2 * (gap + (numerics.log_total(student) - total))


@typed
def distillation(
  student_logits: Float[Array, '*batch K'],
  target_probs: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  weight: Scalar,
  temperature: Scalar,
  temperature_power: Scalar = 2,
) -> Float[jax.Array, '*batch']:
  """The label's term and the teacher's, for any teacher distribution ρ.

  `L = (1-λ) · CE(y, q) + λ · Tⁿ · KL(ρ ‖ q̃)`; for `ρ = p̃` its gradient is
  `(1-λ)(q_i − 1[i=y]) + λ · Tⁿ⁻¹ · (q̃_i − p̃_i)`.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    target_probs: `[..., K]`, ρ: non-negative, each row sums to one.
    labels: `[...]`, in 0..K-1; they do not matter at λ = 1.
    weight: λ in [0, 1]. A term of weight 0 is left out, even an infinite one.
    temperature: T > 0, of the teacher's term.
    temperature_power: n ≥ 0. 2 keeps the size of the gradient at any T
      (Hinton et al.); 0 is the equation of Tang et al.

  Returns:
    `[...]`, in nats.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Tang et al., arXiv:2002.03532, the distillation loss.

  >>> s, rho, y = jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]), jnp.array([0])
  >>> loss = distillation(s, rho, y, weight=0.5, temperature=1.0)
  >>> round(float(loss[0]), 4)  # both terms are log 2
  0.6931
  """
  check_fraction('weight', weight)
  check_positive('temperature', temperature)
  check_not_negative('temperature_power', temperature_power)
  # KL(ρ ‖ q̃) = Σ ρ (log ρ − s/T) + Σ ρ · log Σ exp(s/T)
  probs = numerics.as_float(target_probs)
  student = numerics.scaled(student_logits, temperature)
  gap = numerics.mean_gap(probs, numerics.log(probs), student)
  mass = jnp.sum(probs, axis=-1)
  # A NaN is in the gap; here it would be in the gradient, even at λ = 0.
  mass = jnp.where(mass > 0, mass, 0.0)
  divergence = gap + mass * numerics.log_total(student)
  return numerics.times(
    1 - weight, cross_entropy(student_logits, labels)
  ) + numerics.times(weight, temperature**temperature_power * divergence)


@typed
def dist(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  *,
  inter_weight: Scalar = 1.0,
  intra_weight: Scalar = 1.0,
  temperature: Scalar = 1.0,
  mask: Bool[Array, '*batch'] | None = None,
) -> Float[jax.Array, '']:
  """DIST: keep the order of the classes, and of the examples, not the values.

  With Pearson's correlation ρ between `q̃` and `p̃`,
  `DIST = T² · (β · (1 − mean_b ρ(q̃_b,:, p̃_b,:)) + γ · (1 − mean_k ρ(q̃_:,k,
  p̃_:,k)))`. The factor T² is the published code's; the paper leaves it out. A
  constant row or column correlates with nothing (ρ = 0, no gradient), so a
  batch of one has an intra-class term of 1. Tokens are examples: all leading
  axes are one batch.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    teacher_logits: `[..., K]`, reals or `-inf`.
    inter_weight: β ≥ 0, of the rows (between the classes of an example).
    intra_weight: γ ≥ 0, of the columns (within a class, between examples).
    temperature: T > 0.
    mask: `[...]`, where an example is real; the others, whatever they hold,
      are in neither relation. All are if None.

  Returns:
    A scalar of the batch; without unit, times T². 0 where nothing is real.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Huang et al., arXiv:2205.10536, section 3.

  >>> s = jnp.array([[2.0, 0.0], [0.0, 2.0]])
  >>> round(float(dist(s, 3 * s)), 4)  # the same order in rows and columns
  0.0
  >>> round(float(dist(s, -s)), 4)  # the opposite order
  4.0
  """
  check_not_negative('inter_weight', inter_weight)
  check_not_negative('intra_weight', intra_weight)
  check_positive('temperature', temperature)
  num_classes = student_logits.shape[-1]
  real = jnp.ones(student_logits.shape[:-1], bool) if mask is None else mask
  real = jnp.asarray(real).reshape(-1)

  def probs(logits: Array) -> jax.Array:
    rows = masks.blank(jnp.reshape(logits, (-1, num_classes)), real)
    return jnp.exp(numerics.log_probs(rows, temperature))

  student, teacher = probs(student_logits), probs(teacher_logits)
  inter = masks.masked_mean(1 - _pearson(student, teacher, axis=1), real)
  # Deviations leave out what is -inf.
  student, teacher = (
    jnp.where(real[:, None], x, -jnp.inf) for x in (student, teacher)
  )
  intra = jnp.where(
    jnp.any(real), 1 - _pearson(student, teacher, axis=0).mean(), 0.0
  )
  return temperature**2 * (inter_weight * inter + intra_weight * intra)


@typed
def standardise(
  logits: Float[Array, '*batch K'],
) -> Float[jax.Array, '*batch K']:
  """Logit standardisation: the z-score of each row.

  `z = (s − mean(s)) / std(s)` with `std(s)² = mean (s − mean(s))²`, to be used
  as `kd(standardise(s), standardise(t), temperature=T)`. The published code
  divides by K−1 inside the root instead; that is the same as a temperature
  larger by `√(K/(K−1))`. Masked classes stay `-inf` and do not count; a
  constant row becomes 0, without gradient.

  Args:
    logits: `[..., K]`, reals or `-inf`.

  Returns:
    `[..., K]`, without unit; mean 0 and variance 1.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Sun et al., arXiv:2403.01427, section 4.

  >>> print(standardise(jnp.array([[1.0, 5.0], [3.0, 3.0]])).round(3))
  [[-1.  1.]
   [ 0.  0.]]
  """
  logits = numerics.as_float(logits)
  masked = jnp.isneginf(logits)
  count = jnp.sum(~masked, axis=-1, keepdims=True).astype(logits.dtype)
  scores = jnp.sqrt(count) * _unit_deviations(logits, axis=-1)
  return jnp.where(masked, -jnp.inf, scores)


def _unit_deviations(x: jax.Array, axis: int) -> jax.Array:
  """Deviations from the mean, scaled to norm 1; 0 if constant or masked."""
  masked = jnp.isneginf(x)
  count = jnp.maximum(jnp.sum(~masked, axis=axis, keepdims=True), 1)
  # Seen from its maximum a constant is exactly 0, without rounding.
  x = jnp.where(masked, 0.0, x - jnp.max(x, axis=axis, keepdims=True))
  mean = jnp.sum(x, axis=axis, keepdims=True) / count
  deviations = jnp.where(masked, 0.0, x - mean)
  square = jnp.sum(deviations**2, axis=axis, keepdims=True)
  varies = ~(square <= _EPSILON**2)
  return jnp.where(varies, deviations, 0.0) / jnp.sqrt(
    jnp.where(varies, square, 1.0)
  )


def _pearson(x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
  return jnp.sum(
    _unit_deviations(x, axis) * _unit_deviations(y, axis), axis=axis
  )
