"""What the teacher does to the student's gradient.

The notation is that of `kdjax.losses.logits`: `q = softmax(s)`, and `q̃`, `p̃`
are softened by T; `e_y` is the label as a one-hot vector. The teacher's term
enters every equation with the factor `λ · Tⁿ⁻¹`. A class whose logit is `-inf`
has probability 0. A label outside 0..K-1 gives NaN. Half-precision logits are
analysed in float32, and no small probability comes from `1 − p`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer, Shaped

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
  scale = _teacher_scale(weight, temperature, temperature_power)
  num_classes = _count_classes(student_logits)
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
  scale = _teacher_scale(weight, temperature, 0)
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
  _count_classes(student_logits)
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
  num_classes = _count_classes(student_logits)
  at_label = numerics.is_label(labels, num_classes)
  total = jnp.sum(jnp.where(at_label, 0.0, gradient), axis=-1)
  log_rest, left = _log_rest(student_logits, at_label)
  half = jnp.exp(-log_rest / 2)  # the whole would overflow at half the margin
  return numerics.nan_unless_class(
    jnp.where(left, total * half * half, jnp.nan), labels, num_classes
  )


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
  scale = _teacher_scale(weight, temperature, temperature_power)
  num_classes = _count_classes(student_logits)
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


def _teacher_scale(
  weight: Scalar, temperature: Scalar, temperature_power: Scalar
) -> Scalar:
  """`λ · Tⁿ⁻¹`, of hyper-parameters that are in their range."""
  check_fraction('weight', weight)
  check_positive('temperature', temperature)
  check_not_negative('temperature_power', temperature_power)
  return weight * temperature**temperature_power / temperature


def _count_classes(student_logits: Array) -> int:
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
  scale = _teacher_scale(weight, temperature, temperature_power)
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
