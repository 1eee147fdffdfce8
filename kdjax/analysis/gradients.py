"""What the gradient in the student's logits consists of.

The notation is that of `kdjax.losses.logits`: `q = softmax(s)`, and `q̃`, `p̃`
are softened by T; `e_y` is the label as a one-hot vector. The teacher's term
enters every equation with the factor `λ · Tⁿ⁻¹`. A class whose logit is `-inf`
has probability 0. A label outside 0..K-1 gives NaN. Half-precision logits are
analysed in float32, and no small probability comes from `1 − p`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from kdjax import numerics, targets
from kdjax.checks import (
  Array,
  Scalar,
  check_fraction,
  check_not_negative,
  check_positive,
  typed,
)


@typed
def kd_logit_gradient(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  weight: Scalar,
  temperature: Scalar,
  temperature_power: Scalar = 2,
) -> Float[jax.Array, '*batch K']:
  """Gradient of distillation from the full teacher, in the student's logits.

  `∂L/∂s_i = (1-λ) · (q_i − 1[i=y]) + λ · Tⁿ⁻¹ · (q̃_i − p̃_i)`. It is finite
  also where a masked class makes the loss infinite.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    teacher_logits: `[..., K]`, reals or `-inf`.
    labels: `[...]`, in 0..K-1.
    weight: λ in [0, 1].
    temperature: T > 0.
    temperature_power: n ≥ 0, 2 (Hinton et al.) or 0 (Tang et al.).

  Returns:
    `[..., K]`, in nats per logit; each row sums to zero.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Tang et al., arXiv:2002.03532, gradient of the distillation loss.

  >>> s, t, y = jnp.zeros((1, 2)), jnp.array([[0.0, -jnp.inf]]), jnp.array([0])
  >>> print(kd_logit_gradient(s, t, y, weight=0.5, temperature=2.0))
  [[-0.75  0.75]]
  """
  from_label, from_teacher = _terms(
    student_logits,
    teacher_logits,
    labels,
    weight=weight,
    temperature=temperature,
    temperature_power=temperature_power,
  )
  return from_label + from_teacher


@typed
def teacher_share(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  weight: Scalar,
  temperature: Scalar,
  temperature_power: Scalar = 2,
) -> Float[jax.Array, '*batch']:
  """How much of the pull on the student is the teacher's.

  `‖g_t‖ / (‖g_y‖ + ‖g_t‖)` with `g_y = (1-λ) · (q − e_y)` and
  `g_t = λ · Tⁿ⁻¹ · (q̃ − p̃)`, in the Euclidean norm.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    teacher_logits: `[..., K]`, reals or `-inf`.
    labels: `[...]`, in 0..K-1.
    weight: λ in [0, 1].
    temperature: T > 0.
    temperature_power: n ≥ 0, 2 (Hinton et al.) or 0 (Tang et al.).

  Returns:
    `[...]`, in [0, 1]; 0 where neither pulls.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  >>> s, t, y = jnp.zeros((1, 2)), jnp.array([[0.0, -jnp.inf]]), jnp.array([0])
  >>> print(teacher_share(s, t, y, weight=0.5, temperature=3.0))
  [0.75]
  """
  from_label, from_teacher = _terms(
    student_logits,
    teacher_logits,
    labels,
    weight=weight,
    temperature=temperature,
    temperature_power=temperature_power,
  )
  return _share(from_label, from_teacher)


@typed
def teacher_share_from(
  gradient: Float[Array, '*batch K'],
  student_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  label_weight: Scalar,
) -> Float[jax.Array, '*batch']:
  """The same for any loss that only sees a softmax, from its gradient.

  `‖g_t‖ / (‖g_y‖ + ‖g_t‖)` with `g_y = μ · (q − e_y)` and `g_t = g − g_y`. Rows
  of such a gradient sum to zero, so its entry at the label, a small difference
  from one, is taken from the others.

  Args:
    gradient: `[..., K]`, g: of the loss in the student's logits.
    student_logits: `[..., K]`, reals or `-inf`.
    labels: `[...]`, in 0..K-1.
    label_weight: μ ≥ 0, what plain cross-entropy weighs in the loss.

  Returns:
    `[...]`, in [0, 1]; 0 where neither pulls.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `label_weight` is negative.

  >>> g, s = jnp.array([[-0.75, 0.75]]), jnp.zeros((1, 2))
  >>> print(teacher_share_from(g, s, jnp.array([0]), label_weight=0.5).round(4))
  [0.6667]
  """
  check_not_negative('label_weight', label_weight)
  probs = targets.full(student_logits, temperature=1.0)
  at_label = numerics.is_label(labels, probs.shape[-1])
  from_label = label_weight * jnp.where(at_label, 0.0, probs)
  from_teacher = jnp.where(at_label, 0.0, gradient) - from_label
  parts = (
    jnp.where(at_label, -jnp.sum(part, axis=-1, keepdims=True), part)
    for part in (from_label, from_teacher)
  )
  return numerics.nan_unless_class(_share(*parts), labels, probs.shape[-1])


def teacher_scale(
  weight: Scalar, temperature: Scalar, temperature_power: Scalar
) -> Scalar:
  """`λ · Tⁿ⁻¹`, of hyper-parameters that are in their range."""
  check_fraction('weight', weight)
  check_positive('temperature', temperature)
  check_not_negative('temperature_power', temperature_power)
  return weight * temperature**temperature_power / temperature


def count_classes(student_logits: Array) -> int:
  """Returns K; raises `ValueError` where there is no incorrect class."""
  num_classes = student_logits.shape[-1]
  if num_classes < 2:
    raise ValueError(
      f'student_logits of shape {student_logits.shape} has no incorrect class;'
      ' the last axis needs at least 2 classes'
    )
  return num_classes


def difference(probs: jax.Array, others: jax.Array) -> jax.Array:
  """`p − p'`; of two numbers near one, from the other classes."""
  difference = probs - others
  sure = jnp.minimum(probs, others) > 0.75  # at most one class
  rest = jnp.sum(jnp.where(sure, 0.0, difference), axis=-1, keepdims=True)
  return jnp.where(sure, -rest, difference)


def label_pull(student_logits: Array, one_hot: jax.Array) -> jax.Array:
  """`q − e_y`."""
  return difference(targets.full(student_logits, temperature=1.0), one_hot)


def _terms(
  student_logits: Array,
  teacher_logits: Array,
  labels: Array,
  *,
  weight: Scalar,
  temperature: Scalar,
  temperature_power: Scalar,
) -> tuple[jax.Array, jax.Array]:
  """The label's and the teacher's term of the gradient, `[..., K]` each."""
  scale = teacher_scale(weight, temperature, temperature_power)
  soft = targets.full(student_logits, temperature=temperature)
  teacher = targets.full(teacher_logits, temperature=temperature)
  num_classes = soft.shape[-1]
  one_hot = numerics.is_label(labels, num_classes).astype(soft.dtype)
  from_label = (1 - weight) * label_pull(student_logits, one_hot)
  from_teacher = scale * difference(soft, teacher)
  return (
    numerics.nan_unless_class(from_label, labels, num_classes),
    numerics.nan_unless_class(from_teacher, labels, num_classes),
  )


def _share(from_label: jax.Array, from_teacher: jax.Array) -> jax.Array:
  """`‖g_t‖ / (‖g_y‖ + ‖g_t‖)`, and 0 where both are 0."""
  largest = jnp.max(
    jnp.maximum(jnp.abs(from_label), jnp.abs(from_teacher)),
    axis=-1,
    keepdims=True,
  )
  still = largest == 0
  # The share knows no scale, but squares of small numbers underflow.
  scale = jax.lax.stop_gradient(jnp.where(still, 1.0, largest))
  ours, theirs = _norm(from_label / scale), _norm(from_teacher / scale)
  return theirs / jnp.where(still[..., 0], 1.0, ours + theirs)


def _norm(x: jax.Array) -> jax.Array:
  """The length of each row; its gradient at zero is zero."""
  square = jnp.sum(x**2, axis=-1)
  zero = square == 0
  return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))
