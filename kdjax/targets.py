"""Teacher distributions ρ: what part of the teacher's answer is taught.

Every function returns probabilities over the K classes, the last axis. They
are the targets of `kdjax.losses.distillation`. A remaining mass is always the
sum of the remaining entries: `1 − p` loses a confident teacher's small
probabilities to rounding. A label outside 0..K-1 gives NaN.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from kdjax import numerics
from kdjax.checks import (
  Array,
  Scalar,
  check_between,
  check_fraction,
  check_positive,
  typed,
)

# Up to so many classes, comparing all pairs is faster than sorting.
_FEW = 256


@typed
def label_smoothing(
  labels: Integer[Array, '*batch'], *, num_classes: int, smoothing: Scalar
) -> Float[jax.Array, '*batch K']:
  """Label smoothing: the label mixed with the uniform distribution.

  `ρ = (1-ε) · 1[i=y] + ε/K`. Training on it is distillation from a uniform
  teacher with `T = 1` and `λ = ε`, up to a constant.

  Args:
    labels: `[...]`, in 0..K-1.
    num_classes: K ≥ 1.
    smoothing: ε in [0, 1]; 1 is the uniform distribution.

  Returns:
    `[..., K]`, probabilities.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Szegedy et al., arXiv:1512.00567, section 7.

  >>> print(label_smoothing(jnp.array([1]), num_classes=4, smoothing=0.5))
  [[0.125 0.625 0.125 0.125]]
  """
  check_positive('num_classes', num_classes)
  check_fraction('smoothing', smoothing)
  at_label = numerics.is_label(labels, num_classes)
  probs = (1 - smoothing) * at_label + smoothing / num_classes
  return numerics.nan_unless_class(probs, labels, probs.shape[-1])


@typed
def full(
  teacher_logits: Float[Array, '*batch K'], *, temperature: Scalar
) -> Float[jax.Array, '*batch K']:
  """Full distillation: all that the teacher says.

  `ρ = p̃ = softmax(t/T)`.

  Args:
    teacher_logits: `[..., K]`, reals or `-inf`.
    temperature: T > 0.

  Returns:
    `[..., K]`, probabilities, float32 for half-precision logits.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `temperature` is not positive.

  Reference: Hinton, Vinyals, Dean, arXiv:1503.02531, section 2.

  >>> print(full(jnp.array([[0.0, 0.0, -jnp.inf]]), temperature=4.0))
  [[0.5 0.5 0. ]]
  """
  check_positive('temperature', temperature)
  odds = jnp.exp(numerics.scaled(teacher_logits, temperature))
  return odds / jnp.sum(odds, axis=-1, keepdims=True)


@typed
def pt(
  teacher_probs: Float[Array, '*batch K'], labels: Integer[Array, '*batch']
) -> Float[jax.Array, '*batch K']:
  """KD-pt: only how sure the teacher is of the true class.

  `ρ_y = p̃_y`, every other class `Σ_{j≠y} p̃_j / (K−1)`. It keeps the rescaling
  of the gradient by instance and drops the class relations.

  Args:
    teacher_probs: `[..., K]`, each row sums to one.
    labels: `[...]`, in 0..K-1.

  Returns:
    `[..., K]`, probabilities.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Tang et al., arXiv:2002.03532, partial distillation, KD-pt.

  >>> print(pt(jnp.array([[0.5, 0.4, 0.1]]), jnp.array([0])))
  [[0.5  0.25 0.25]]
  """
  probs = numerics.as_float(teacher_probs)
  at_label = numerics.is_label(labels, probs.shape[-1])
  return numerics.nan_unless_class(
    keep(probs, at_label), labels, probs.shape[-1]
  )


@typed
def sim(
  class_weights: Float[Array, 'K D'],
  labels: Integer[Array, '*batch'],
  *,
  power: Scalar = 0.3,
  temperature: Scalar = 0.3,
) -> Float[jax.Array, '*batch K']:
  """KD-sim: only how the true class relates to the others.

  `ρ(y) = softmax( max(ŵ_y Ŵᵀ, 0)^α / β )`, Ŵ the rows of the teacher's last
  layer at unit norm. It drops the instance. A row of zeros is orthogonal to
  every class. Both defaults are reconstructed, not taken from the paper.

  Args:
    class_weights: `[K, D]`, one row per class.
    labels: `[...]`, in 0..K-1.
    power: α > 0.
    temperature: β > 0, of cosines; not the temperature of the logits.

  Returns:
    `[..., K]`, probabilities.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is not positive.

  Reference: Tang et al., arXiv:2002.03532, partial distillation, KD-sim.

  >>> weights = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
  >>> [round(float(p), 3) for p in sim(weights, jnp.array(0))]
  [0.491, 0.491, 0.018]
  """
  check_positive('power', power)
  check_positive('temperature', temperature)
  unit = numerics.unit_rows(numerics.as_float(class_weights))
  cosine = jnp.matmul(
    jnp.take(unit, jnp.asarray(labels), axis=0, mode='clip'),
    unit.T,
    precision=jax.lax.Precision.HIGHEST,
  )
  alike = cosine > 0
  relation = jnp.where(alike, jnp.where(alike, cosine, 1.0) ** power, 0.0)
  probs = jax.nn.softmax(relation / temperature, axis=-1)
  return numerics.nan_unless_class(probs, labels, probs.shape[-1])


@typed
def pt_sim_mixture(
  teacher_probs: Float[Array, '*batch K'],
  sim_probs: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  mix: Scalar = 0.5,
) -> Float[jax.Array, '*batch K']:
  """KD-pt+sim, read as a mixture of the two.

  `ρ = (1−η) · ρ_pt + η · ρ_sim`. The default η is reconstructed, not taken
  from the paper.

  Args:
    teacher_probs: `[..., K]`, each row sums to one.
    sim_probs: `[..., K]`, ρ_sim, from `sim`.
    labels: `[...]`, in 0..K-1.
    mix: η in [0, 1].

  Returns:
    `[..., K]`, probabilities.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `mix` lies outside [0, 1].

  Reference: Tang et al., arXiv:2002.03532, partial distillation, KD-pt+sim.

  >>> p, rho = jnp.array([[0.5, 0.4, 0.1]]), jnp.array([[0.5, 0.5, 0.0]])
  >>> print(pt_sim_mixture(p, rho, jnp.array([0])))
  [[0.5   0.375 0.125]]
  """
  check_fraction('mix', mix)
  return (1 - mix) * pt(teacher_probs, labels) + mix * numerics.as_float(
    sim_probs
  )


@typed
def pt_sim_conditional(
  teacher_probs: Float[Array, '*batch K'],
  sim_probs: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
) -> Float[jax.Array, '*batch K']:
  """KD-pt+sim, read as ρ_sim given that the class is wrong.

  `ρ_y = p̃_y`, `ρ_i = Σ_{j≠y} p̃_j · ρ_sim,i / Σ_{j≠y} ρ_sim,j`. Where ρ_sim has
  no mass off the label the rest is spread evenly, as in `pt`.

  Args:
    teacher_probs: `[..., K]`, each row sums to one.
    sim_probs: `[..., K]`, ρ_sim, from `sim`.
    labels: `[...]`, in 0..K-1.

  Returns:
    `[..., K]`, probabilities.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Tang et al., arXiv:2002.03532, partial distillation, KD-pt+sim.

  >>> p, rho = jnp.array([[0.5, 0.4, 0.1]]), jnp.array([[0.8, 0.1, 0.1]])
  >>> print(pt_sim_conditional(p, rho, jnp.array([0])))
  [[0.5  0.25 0.25]]
  """
  probs = numerics.as_float(teacher_probs)
  at_label = numerics.is_label(labels, probs.shape[-1])
  return numerics.nan_unless_class(
    keep(probs, at_label, spread=numerics.as_float(sim_probs)),
    labels,
    probs.shape[-1],
  )


@typed
def topk(
  teacher_probs: Float[Array, '*batch K'], *, k: int | Integer[Array, '']
) -> Float[jax.Array, '*batch K']:
  """KD-topk: the teacher's k likeliest classes.

  The k largest entries of `p̃` keep their value; the sum of the others is
  spread evenly over the other K−k. Of equal entries the lower class goes
  first, so exactly k are kept. `k = K` is full distillation.

  Args:
    teacher_probs: `[..., K]`, each row sums to one.
    k: in 1..K. May be traced, so that one program trains students of every k;
      a traced k has no value to check.

  Returns:
    `[..., K]`, probabilities.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `k` lies outside 1..K.

  Reference: Tang et al., arXiv:2002.03532, KD-topk.

  >>> print(topk(jnp.array([[0.0, 0.125, 0.5, 0.375]]), k=2))
  [[0.0625 0.0625 0.5    0.375 ]]
  """
  check_between('k', k, 1, teacher_probs.shape[-1])
  probs = numerics.as_float(teacher_probs)
  return keep(probs, _likeliest(probs, k))


def _likeliest(probs: jax.Array, k: int | jax.Array) -> jax.Array:
  if isinstance(k, int) and probs.shape[-1] > _FEW:
    # Sorts nothing else: seventy times as fast as ranks at 10,000 classes.
    _, classes = jax.lax.top_k(probs, k)
    none = jnp.zeros(probs.shape, bool)
    return jnp.put_along_axis(none, classes, True, axis=-1, inplace=False)
  return rank(probs) < k


def rank(values: Float[Array, '... K']) -> Integer[jax.Array, '... K']:
  """Returns each class's place, 0 for the largest value.

  Args:
    values: `[..., K]`; of equal ones the lower class goes first.

  Returns:
    `[..., K]`, a permutation of 0..K-1.

  >>> print(rank(jnp.array([0.1, 0.6, 0.3])))
  [2 0 1]
  """
  values = jnp.asarray(values)
  num_classes = values.shape[-1]
  if num_classes > _FEW:
    order = jnp.argsort(-values, axis=-1, stable=True)
    return jnp.argsort(order, axis=-1)  # a permutation, so this inverts it
  mine, other = values[..., :, None], values[..., None, :]
  classes = jnp.broadcast_to(jnp.arange(num_classes), values.shape)
  is_lower = classes[..., None, :] < classes[..., :, None]
  ahead = (other > mine) | ((other == mine) & is_lower)
  return jnp.sum(ahead, axis=-1)


def keep(
  teacher_probs: Float[Array, '... K'],
  kept: Bool[Array, '... K'],
  *,
  spread: Float[Array, '... K'] | None = None,
) -> Float[jax.Array, '... K']:
  """Keeps some of the teacher's answer: what the partial methods share.

  Kept entries have their value; the sum of the others is spread over those, in
  proportion to `spread`, or evenly where that has no mass.

  Args:
    teacher_probs: `[..., K]`, each row sums to one.
    kept: `[..., K]`, which classes are kept.
    spread: `[..., K]`, not negative, or None to spread evenly.

  Returns:
    `[..., K]`, probabilities.

  >>> kept = jnp.array([True, False, False])
  >>> print(keep(jnp.array([0.5, 0.4, 0.1]), kept))
  [0.5  0.25 0.25]
  """
  probs = numerics.as_float(teacher_probs)
  rest = jnp.sum(jnp.where(kept, 0.0, probs), axis=-1, keepdims=True)
  others = jnp.sum(~kept, axis=-1, keepdims=True)
  shares = 1 / jnp.maximum(others, 1)
  if spread is not None:
    relation = jnp.where(kept, 0.0, spread)
    mass = jnp.sum(relation, axis=-1, keepdims=True)
    related = mass != 0
    shares = jnp.where(
      related, relation / jnp.where(related, mass, 1.0), shares
    )
  return jnp.where(kept, probs, rest * shares)
