"""KD in two parts: the label against the rest, and the rest among itself.

The notation, and what a masked class and a wrong label do, are those of
`kdjax.losses.logits`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from kdjax import numerics
from kdjax.checks import (
  Array,
  Scalar,
  check_not_negative,
  check_positive,
  typed,
)


@typed
def tckd(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  temperature: Scalar,
) -> Float[jax.Array, '*batch']:
  """Target-class distillation: the label against all other classes.

  `TCKD = T² · KL(b(p̃) ‖ b(q̃))` with `b(p) = (p_y, Σ_{i≠y} p_i)`.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    teacher_logits: `[..., K]`, reals or `-inf`.
    labels: `[...]`, in 0..K-1.
    temperature: T > 0.

  Returns:
    `[...]`, in nats times T².

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `temperature` is not positive.

  Reference: Zhao et al., arXiv:2203.08679, section 3.1.

  >>> s, t = jnp.array([[0.0, 0.0]]), jnp.array([[4.0, 0.0]])
  >>> loss = tckd(s, t, jnp.array([0]), temperature=2.0)
  >>> round(float(loss[0]), 4)  # with two classes it is all of KD
  1.3113
  """
  check_positive('temperature', temperature)
  num_classes = student_logits.shape[-1]
  at_label = numerics.is_label(labels, num_classes)
  divergence = numerics.kl(
    _log_binary(numerics.log_probs(teacher_logits, temperature), at_label),
    _log_binary(numerics.log_probs(student_logits, temperature), at_label),
  )
  return numerics.nan_unless_class(
    temperature**2 * divergence, labels, num_classes
  )


@typed
def nckd(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  temperature: Scalar,
) -> Float[jax.Array, '*batch']:
  """Non-target-class distillation: the relations between the other classes.

  `NCKD = T² · KL(p̂ ‖ q̂)` with `p̂_i = p̃_i / Σ_{j≠y} p̃_j` for `i ≠ y`, so that
  `KD = TCKD + (1 − p̃_y) · NCKD`.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    teacher_logits: `[..., K]`, reals or `-inf`.
    labels: `[...]`, in 0..K-1.
    temperature: T > 0.

  Returns:
    `[...]`, in nats times T². 0 where the teacher masks every other class.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `temperature` is not positive.

  Reference: Zhao et al., arXiv:2203.08679, section 3.1.

  >>> s, t = jnp.array([[9.0, 0.0, 0.0]]), jnp.array([[-9.0, 4.0, 0.0]])
  >>> loss = nckd(s, t, jnp.array([0]), temperature=2.0)
  >>> round(float(loss[0]), 4)  # the first class does not matter
  1.3113
  """
  check_positive('temperature', temperature)
  num_classes = student_logits.shape[-1]
  at_label = numerics.is_label(labels, num_classes)
  divergence = numerics.kl(
    _log_other_probs(teacher_logits, at_label, temperature),
    _log_other_probs(student_logits, at_label, temperature),
  )
  return numerics.nan_unless_class(
    temperature**2 * divergence, labels, num_classes
  )


@typed
def dkd(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  target_weight: Scalar = 1.0,
  nontarget_weight: Scalar = 8.0,
  temperature: Scalar = 4.0,
) -> Float[jax.Array, '*batch']:
  """Decoupled distillation: the two parts of KD, weighted apart.

  `DKD = α · TCKD + β · NCKD`. Training multiplies it by a linear warm-up and
  adds the cross-entropy; both are the caller's.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    teacher_logits: `[..., K]`, reals or `-inf`.
    labels: `[...]`, in 0..K-1.
    target_weight: α ≥ 0. A term of weight 0 is left out.
    nontarget_weight: β ≥ 0.
    temperature: T > 0.

  Returns:
    `[...]`, in nats times T².

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Zhao et al., arXiv:2203.08679, section 3.3.

  >>> s, t = jnp.array([[0.0, 0.0]]), jnp.array([[4.0, 0.0]])
  >>> loss = dkd(s, t, jnp.array([0]), target_weight=3.0, temperature=2.0)
  >>> round(float(loss[0]), 4)  # 3 · TCKD: one other class has no relations
  3.9338
  """
  check_not_negative('target_weight', target_weight)
  check_not_negative('nontarget_weight', nontarget_weight)
  args = student_logits, teacher_logits, labels
  return numerics.times(
    target_weight, tckd(*args, temperature=temperature)
  ) + numerics.times(nontarget_weight, nckd(*args, temperature=temperature))


def _others(
  values: jax.Array, at_label: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Masks the label's entry of logits or log-probabilities.

  Returns:
    `[..., K]`, `-inf` at the label, or zeros where no other class is left, so
    that a softmax over it has a finite gradient; and `[..., 1]`, whether any
    other class is left.
  """
  others = jnp.where(at_label, -jnp.inf, values)
  left = jnp.any(~jnp.isneginf(others), axis=-1, keepdims=True)
  return jnp.where(left, others, 0.0), left


def _log_binary(log_probs: jax.Array, at_label: jax.Array) -> jax.Array:
  """`log (p_y, Σ_{i≠y} p_i)`, `[..., 2]`; the sum, since 1 − p_y cancels."""
  others, left = _others(log_probs, at_label)
  rest = jax.nn.logsumexp(others, axis=-1, keepdims=True)
  return jnp.concatenate(
    [
      numerics.label_entry(log_probs, at_label)[..., None],
      jnp.where(left, rest, -jnp.inf),
    ],
    axis=-1,
  )


def _log_other_probs(
  logits: Array, at_label: jax.Array, temperature: Scalar
) -> jax.Array:
  """Log-probabilities among the classes other than the label."""
  others, left = _others(numerics.as_float(logits), at_label)
  return jnp.where(left, numerics.log_probs(others, temperature), -jnp.inf)
