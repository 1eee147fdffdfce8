"""The gradient, split by what the teacher knows.

Notation and conventions are those of `kdjax.analysis.gradients`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from kdjax import numerics, targets
from kdjax.analysis.gradients import (
  count_classes,
  difference,
  label_pull,
  teacher_scale,
)
from kdjax.checks import Array, Scalar, check_fraction, typed


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
  count_classes(student_logits)
  mean = jnp.take(
    numerics.as_float(class_probs), jnp.asarray(labels), axis=0, mode='clip'
  )
  return parts_about(
    student_logits,
    teacher_logits,
    labels,
    mean_probs=mean,
    smoothing=smoothing,
    scale=scale,
    weight=weight,
    temperature=temperature,
  )


def parts_about(
  student_logits: Array,
  teacher_logits: Array,
  labels: Array,
  *,
  mean_probs: Array,
  smoothing: Scalar,
  scale: jax.Array,
  weight: Scalar,
  temperature: Scalar,
) -> GradientParts:
  """Splits it about means that are given, `[..., K]`; `scale` is f."""
  num_classes = student_logits.shape[-1]
  soft = targets.full(student_logits, temperature=temperature)
  teacher = targets.full(teacher_logits, temperature=temperature)
  one_hot = numerics.is_label(labels, num_classes).astype(soft.dtype)
  spread = one_hot - (1 - one_hot) / (num_classes - 1)  # e_y − ρ_1
  parts = GradientParts(
    label=(1 - weight) * label_pull(student_logits, one_hot)
    + scale * difference(soft, one_hot),
    smoothing=scale * smoothing * spread,
    class_relations=scale * (one_hot - smoothing * spread - mean_probs),
    instance=scale * (mean_probs - teacher),
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
