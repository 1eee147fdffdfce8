"""What the gradient in the student's logits consists of.

The notation is that of `kdjax.losses.logits`: `q = softmax(s)`, and `q̃`, `p̃`
are softened by T; `e_y` is the label as a one-hot vector. The teacher's term
enters every equation with the factor `λ · Tⁿ⁻¹`. A class whose logit is `-inf`
has probability 0. A label outside 0..K-1 gives NaN. Half-precision logits are
analysed in float32, and no small probability comes from `1 − p`.
"""

from typing import NamedTuple

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


class GradientParts(NamedTuple):
  """What moves the student, `[..., K]` each, in nats per logit."""

  label: Float[jax.Array, '... K']
  smoothing: Float[jax.Array, '... K']
  class_relations: Float[jax.Array, '... K']
  instance: Float[jax.Array, '... K']


@typed
def gradient_parts(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  class_probs: Float[Array, 'K K'],
  smoothing: Scalar,
  weight: Scalar,
  temperature: Scalar,
  temperature_power: Scalar = 2,
) -> GradientParts:
  """Splits the gradient by what the teacher knows.

  With `f = λ · Tⁿ⁻¹`, the smoothed label
  `ρ_ε = (1-ε) · e_y + ε · (1 − e_y)/(K−1)` and the class mean ρ̄_y:

  - label, what labels alone would pull in both terms:
    `(1-λ) · (q − e_y) + f · (q̃ − e_y)`
  - smoothing, the universe: `f · (e_y − ρ_ε)`
  - class_relations, the domain: `f · (ρ_ε − ρ̄_y)`
  - instance, what is special to the example, its confidence included:
    `f · (ρ̄_y − p̃)`

  They add up to `kd_logit_gradient` for any ε and ρ̄. The three levels are the
  paper's; this split of the gradient along them is ours.

  Args:
    student_logits: `[..., K]`, reals or `-inf`; K ≥ 2.
    teacher_logits: `[..., K]`, reals or `-inf`.
    labels: `[...]`, in 0..K-1.
    class_probs: `[K, K]`, ρ̄: row y is the mean of p̃ over the examples of
      class y, from `class_mean_probs`.
    smoothing: ε in [0, 1], the mean of 1 − p̃_y.
    weight: λ in [0, 1].
    temperature: T > 0, also that of `class_probs`.
    temperature_power: n ≥ 0, 2 (Hinton et al.) or 0 (Tang et al.).

  Returns:
    The four parts, `[..., K]`, in nats per logit.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range, or K < 2.

  Reference: Tang et al., arXiv:2002.03532, the three levels of knowledge.

  >>> s, t, y = jnp.zeros((1, 2)), jnp.array([[3.0, 3.0]]), jnp.array([0])
  >>> setting = {'smoothing': 0.25, 'weight': 0.5, 'temperature': 2.0}
  >>> parts = gradient_parts(s, t, y, class_probs=jnp.eye(2), **setting)
  >>> for name, part in parts._asdict().items():
  ...   print(name, part)
  label [[-0.75  0.75]]
  smoothing [[ 0.25 -0.25]]
  class_relations [[-0.25  0.25]]
  instance [[ 0.5 -0.5]]
  """
  check_fraction('smoothing', smoothing)
  scale = teacher_scale(weight, temperature, temperature_power)
  num_classes = count_classes(student_logits)
  soft = targets.full(student_logits, temperature=temperature)
  teacher = targets.full(teacher_logits, temperature=temperature)
  one_hot = numerics.is_label(labels, num_classes).astype(soft.dtype)
  spread = one_hot - (1 - one_hot) / (num_classes - 1)  # e_y − ρ_1
  mean = jnp.take(
    numerics.as_float(class_probs), jnp.asarray(labels), axis=0, mode='clip'
  )
  parts = GradientParts(
    label=(1 - weight) * _label_pull(student_logits, one_hot)
    + scale * _difference(soft, one_hot),
    smoothing=scale * smoothing * spread,
    class_relations=scale * (one_hot - smoothing * spread - mean),
    instance=scale * (mean - teacher),
  )
  return GradientParts(
    *(numerics.nan_unless_class(part, labels, num_classes) for part in parts)
  )


@typed
def class_mean_probs(
  teacher_probs: Float[Array, 'N K'], labels: Integer[Array, 'N']
) -> Float[jax.Array, 'K K']:
  """What the teacher says about a class on average.

  `ρ̄_y = mean of p̃ over the examples of class y`.

  Args:
    teacher_probs: `[N, K]`, p̃; each row sums to one.
    labels: `[N]`, in 0..K-1. One outside belongs to no mean, so all are NaN.

  Returns:
    `[K, K]`, probabilities, a row per class; uniform for one without examples.

  Raises:
    TypeError: shapes or dtypes do not fit.

  >>> p = jnp.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
  >>> print(class_mean_probs(p, jnp.array([0, 0, 2])))
  [[0.75       0.25       0.        ]
   [0.33333334 0.33333334 0.33333334]
   [0.         0.25       0.75      ]]
  """
  probs = numerics.as_float(teacher_probs)
  num_classes = probs.shape[-1]
  rows = jnp.asarray(labels, jnp.int32)
  total = lambda values: jax.ops.segment_sum(values, rows, num_classes)
  count = total(jnp.ones_like(rows))[:, None]
  size = jnp.maximum(count, 1).astype(probs.dtype)
  means = total(probs) / size
  # Once more, of what is left: a long sum in float32 drifts.
  rest = probs - jnp.take(means, rows, axis=0, mode='clip')
  means = jnp.where(count > 0, means + total(rest) / size, 1 / num_classes)
  return jnp.where(jnp.sum(count) == rows.size, means, jnp.nan)


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


def _difference(probs: jax.Array, others: jax.Array) -> jax.Array:
  """`p − p'`; of two numbers near one, from the other classes."""
  difference = probs - others
  sure = jnp.minimum(probs, others) > 0.75  # at most one class
  rest = jnp.sum(jnp.where(sure, 0.0, difference), axis=-1, keepdims=True)
  return jnp.where(sure, -rest, difference)


def _label_pull(student_logits: Array, one_hot: jax.Array) -> jax.Array:
  """`q − e_y`."""
  return _difference(targets.full(student_logits, temperature=1.0), one_hot)


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
  from_label = (1 - weight) * _label_pull(student_logits, one_hot)
  from_teacher = scale * _difference(soft, teacher)
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
