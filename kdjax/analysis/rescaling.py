"""Gradient rescaling: what the teacher does to each example's weight.

Notation and conventions are those of `kdjax.analysis.gradients`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer, Shaped

from kdjax import numerics
from kdjax.analysis.gradients import count_classes, teacher_scale
from kdjax.checks import Array, Scalar, check_fraction, typed


@typed
def rescaling_factor(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  weight: Scalar,
  temperature: Scalar,
  temperature_power: Scalar = 2,
) -> Float[jax.Array, '*batch']:
  """How much distillation enlarges an example's gradient.

  `w = (∂L/∂s_y) / (∂CE/∂s_y) = (1-λ) + λ · Tⁿ⁻¹ · (p̃_y − q̃_y) / (1 − q_y)`,
  and the same from the sums over the incorrect classes. It is above 1 where
  the teacher is much surer of the label than the student.

  Args:
    student_logits: `[..., K]`, reals or `-inf`; K ≥ 2.
    teacher_logits: `[..., K]`, reals or `-inf`.
    labels: `[...]`, in 0..K-1.
    weight: λ in [0, 1].
    temperature: T > 0.
    temperature_power: n ≥ 0, 2 (Hinton et al.) or 0 (Tang et al.).

  Returns:
    `[...]`, without unit; infinite where float32 ends. NaN (0/0) where the
    student masks every class but the label.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range, or K < 2.

  Reference: Tang et al., arXiv:2002.03532, gradient rescaling.

  >>> s, t, y = jnp.zeros((1, 2)), jnp.array([[0.0, -jnp.inf]]), jnp.array([0])
  >>> print(rescaling_factor(s, t, y, weight=0.5, temperature=2.0))
  [1.5]
  """
  scale = teacher_scale(weight, temperature, temperature_power)
  num_classes = count_classes(student_logits)
  at_label = numerics.is_label(labels, num_classes)
  log_rest, left = _log_rest(student_logits, at_label)
  gap = _relative_gap(
    student_logits, teacher_logits, at_label, log_rest, temperature
  )
  factor = (1 - weight) + numerics.times(scale, gap)
  return numerics.nan_unless_class(
    jnp.where(left, factor, jnp.nan), labels, num_classes
  )


@typed
def expected_rescaling_factor(
  student_confidence: Float[Array, '*batch'] | Scalar,
  confidence_gap: Float[Array, '*batch'] | Scalar,
  *,
  weight: Scalar,
  temperature: Scalar,
) -> Float[jax.Array, '*batch']:
  """The proposition: what the factor is when the teacher is right on average.

  `E[w] = (1-λ) + (λ/T) · c / (1 − q_y)`, for n = 0 and a teacher with
  `p̃_y = q̃_y + c + η`, `E[η] = 0`.

  Args:
    student_confidence: `[...]` or a number, q_y in [0, 1).
    confidence_gap: `[...]` or a number, c in [-1, 1].
    weight: λ in [0, 1].
    temperature: T > 0.

  Returns:
    `[...]`, without unit; not finite at q_y = 1, which is what float32 makes
    of a confidence within 3e-8 of it.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a confidence or a hyper-parameter is out of its range.

  Reference: Tang et al., arXiv:2002.03532, the proposition on rescaling.

  >>> print(expected_rescaling_factor(0.5, 0.25, weight=0.5, temperature=1.0))
  0.75
  """
  check_fraction('student_confidence', student_confidence)
  scale = teacher_scale(weight, temperature, 0)
  rest = 1 - numerics.as_float(student_confidence)
  return (1 - weight) + scale * numerics.as_float(confidence_gap) / rest


@typed
def rescaling_factor_of(
  loss: Callable[..., jax.Array],
  student_logits: Float[Array, 'B K'],
  labels: Integer[Array, 'B'],
  *others: Shaped[Array, 'B ...'],
) -> Float[jax.Array, 'B']:
  """How much any loss enlarges an example's gradient.

  `w = Σ_{i≠y} ∂L/∂s_i / Σ_{i≠y} q_i`. The ratio at the label is the same
  number where a row of the gradient sums to zero, as it does for every loss
  that only sees a softmax; but both its sides are small differences from one.

  Args:
    loss: `loss(student_logits [K], label [], *rows of others)`, a scalar.
    student_logits: `[B, K]`, reals or `-inf`; K ≥ 2.
    labels: `[B]`, in 0..K-1.
    *others: `[B, ...]`, what else the loss sees, such as teacher logits.

  Returns:
    `[B]`, in units of the loss per nat. NaN (0/0) where the student masks
    every class but the label.

  Raises:
    TypeError: shapes or dtypes do not fit, or the loss is no scalar.
    ValueError: K < 2.

  Reference: Tang et al., arXiv:2002.03532, gradient rescaling.

  >>> from kdjax import losses
  >>> s, t, y = jnp.zeros((1, 2)), jnp.array([[0.0, -jnp.inf]]), jnp.array([0])
  >>> kd = lambda s, y, t: losses.kd(s, t, temperature=2.0)
  >>> print(rescaling_factor_of(kd, s, y, t).round(4))
  [2.]
  """
  count_classes(student_logits)
  logits = numerics.as_float(student_logits)
  gradient = jax.vmap(jax.grad(loss))(logits, jnp.asarray(labels), *others)
  return rescaling_factor_from(gradient, logits, labels)


@typed
def rescaling_factor_from(
  gradient: Float[Array, '*batch K'],
  student_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
) -> Float[jax.Array, '*batch']:
  """The same from the gradient, where the loss does not come by the example.

  `w = Σ_{i≠y} g_i / Σ_{i≠y} q_i`.

  Args:
    gradient: `[..., K]`, g: of the loss in the student's logits.
    student_logits: `[..., K]`, reals or `-inf`; K ≥ 2.
    labels: `[...]`, in 0..K-1.

  Returns:
    `[...]`, as `rescaling_factor_of`.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: K < 2.

  Reference: Tang et al., arXiv:2002.03532, gradient rescaling.

  >>> g, s = jnp.array([[-1.5, 1.0, 0.5]]), jnp.zeros((1, 3))
  >>> print(rescaling_factor_from(g, s, jnp.array([0])).round(4))
  [2.25]
  """
  num_classes = count_classes(student_logits)
  at_label = numerics.is_label(labels, num_classes)
  total = jnp.sum(jnp.where(at_label, 0.0, gradient), axis=-1)
  log_rest, left = _log_rest(student_logits, at_label)
  half = jnp.exp(-log_rest / 2)  # the whole would overflow at half the margin
  return numerics.nan_unless_class(
    jnp.where(left, total * half * half, jnp.nan), labels, num_classes
  )


def _log_rest(
  student_logits: Array, at_label: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """`log Σ_{i≠y} q_i`, or 0 where none is left; and whether any is."""
  log_q = numerics.log_probs(student_logits, 1.0)
  others = jnp.where(at_label, -jnp.inf, log_q)
  left = jnp.any(~jnp.isneginf(others), axis=-1)
  safe = jnp.where(left[..., None], others, 0.0)
  return jnp.where(left, jax.nn.logsumexp(safe, axis=-1), 0.0), left


def _relative_gap(
  student_logits: Array,
  teacher_logits: Array,
  at_label: jax.Array,
  log_rest: jax.Array,
  temperature: Scalar,
) -> jax.Array:
  """`(p̃_y − q̃_y) / (1 − q_y)`, without a difference of near numbers.

  Since `Σ q̃ = Σ p̃ = 1`, it is `Σ_{i≠y} (p̃_y q̃_i − q̃_y p̃_i) / (1 − q_y)`; the
  odds of the two products are `exp ((s_i − t_i − s_y + t_y) / T)`, and near
  logits subtract exactly.
  """

  def label_entry(values: jax.Array) -> jax.Array:
    return numerics.label_entry(values, at_label)[..., None]

  student = numerics.as_float(student_logits)
  teacher = numerics.as_float(teacher_logits)
  log_q = numerics.log_probs(student, temperature)
  log_p = numerics.log_probs(teacher, temperature)
  plus = label_entry(log_p) + log_q - log_rest[..., None]
  minus = label_entry(log_q) + log_p - log_rest[..., None]
  shift = student - teacher
  log_odds = (shift - label_entry(shift)) / temperature
  # Where both mask a class the shift is NaN, and both products are 0.
  log_odds = jnp.where(jnp.isneginf(plus), -jnp.inf, log_odds)
  sign = jnp.where(log_odds < 0, -1.0, 1.0)
  larger = jnp.where(log_odds < 0, minus, plus)
  gap = -sign * jnp.exp(larger) * jnp.expm1(-sign * log_odds)
  return jnp.sum(jnp.where(at_label, 0.0, gap), axis=-1)
