"""Losses toward a sparse teacher: a few classes, and the mass of the others.

Of `p̃ = softmax(t/T)` only k classes are known, `p_i` for `i ∈ S`, and `r`, the
sum of the others. The student's logits are dense, `q̃ = softmax(s/T)`. What is
assumed of the rest is what tells the losses apart. `kdjax.targets_sparse` makes
such teachers. The notation, and what a masked class does, are those of
`kdjax.losses.logits`; an index outside 0..K-1 gives NaN.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from kdjax import numerics
from kdjax.checks import (
  Array,
  Scalar,
  check_between,
  check_not_negative,
  check_positive,
  typed,
)


@typed
def kl_uniform_tail(
  student_logits: Float[Array, '*batch K'],
  indices: Integer[Array, '*batch k'],
  probs: Float[Array, '*batch k'],
  tail: Float[Array, '*batch'],
  *,
  temperature: Scalar,
  temperature_power: Scalar = 2,
) -> Float[jax.Array, '*batch']:
  """The rest is spread evenly over the other classes: KD-topk.

  `Tⁿ · KL(ρ ‖ q̃)` with `ρ_i = p_i` in S and `r / (K−k)` elsewhere; its gradient
  is `Tⁿ⁻¹ · (q̃ − ρ)`.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    indices: `[..., k]`, S: different classes, in 0..K-1.
    probs: `[..., k]`, p ≥ 0; with `tail` they sum to one.
    tail: `[...]`, r ≥ 0; 0 for k = K. A student that masks a class is
      infinitely far from any r > 0.
    temperature: T > 0.
    temperature_power: n ≥ 0.

  Returns:
    `[...]`, in nats times Tⁿ.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: k > K, or a hyper-parameter is out of its range.

  Reference: Tang et al., arXiv:2002.03532, KD-topk.

  >>> s, i, p = jnp.zeros((1, 4)), jnp.array([[2]]), jnp.array([[0.7]])
  >>> loss = kl_uniform_tail(s, i, p, jnp.array([0.3]), temperature=1.0)
  >>> round(float(loss[0]), 4)  # from 0.7 and three times 0.1
  0.4458
  """
  _check(student_logits, indices, temperature, temperature_power)
  logits = numerics.scaled(student_logits, temperature)
  log_total = numerics.log_total(logits)
  kept = _gather(logits, indices)
  others = logits.shape[-1] - indices.shape[-1]
  # Of the others: what all classes sum up to, without S.
  masked = jnp.isneginf(kept)
  log_q_others = jnp.sum(logits, axis=-1) - others * log_total
  log_q_others -= jnp.sum(jnp.where(masked, 0.0, kept), axis=-1)
  share = numerics.as_float(tail) / max(others, 1)
  has_rest = share != 0
  gap = others * numerics.log(share) - log_q_others
  spread = share * jnp.where(has_rest, gap, 0.0)
  divergence = spread + numerics.kl(
    numerics.log(probs), kept - log_total[..., None]
  )
  return temperature**temperature_power * divergence


@typed
def kl_bucket_tail(
  student_logits: Float[Array, '*batch K'],
  indices: Integer[Array, '*batch k'],
  probs: Float[Array, '*batch k'],
  tail: Float[Array, '*batch'],
  *,
  temperature: Scalar,
  temperature_power: Scalar = 2,
) -> Float[jax.Array, '*batch']:
  """The rest is one class more: the student may share it out as it likes.

  `Tⁿ · KL((p, r) ‖ (q̃_S, Σ_{j∉S} q̃_j))`. Its gradient is `Tⁿ⁻¹ · (q̃_i − p_i)`
  in S and `Tⁿ⁻¹ · q̃_i · (1 − r / Σ_{j∉S} q̃_j)` elsewhere. The student's rest is
  a sum of its entries, since `1 − Σ_S q̃` would cancel.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    indices: `[..., k]`, S: different classes, in 0..K-1.
    probs: `[..., k]`, p ≥ 0; with `tail` they sum to one.
    tail: `[...]`, r ≥ 0; 0 for k = K.
    temperature: T > 0.
    temperature_power: n ≥ 0.

  Returns:
    `[...]`, in nats times Tⁿ.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: k > K, or a hyper-parameter is out of its range.

  >>> s, i, p = jnp.zeros((1, 4)), jnp.array([[2]]), jnp.array([[0.7]])
  >>> loss = kl_bucket_tail(s, i, p, jnp.array([0.3]), temperature=1.0)
  >>> round(float(loss[0]), 4)  # from 0.7 and 0.3 to a quarter and the rest
  0.4458
  """
  _check(student_logits, indices, temperature, temperature_power)
  logits = numerics.scaled(student_logits, temperature)
  rest = jnp.put_along_axis(
    logits, indices, -jnp.inf, axis=-1, inplace=False, mode='clip'
  )
  log_q = _normalised(_append(_gather(logits, indices), _logsumexp(rest)), 1.0)
  log_p = numerics.log(_append(probs, tail))
  return temperature**temperature_power * numerics.kl(log_p, log_q)


@typed
def kl_renormalised(
  student_logits: Float[Array, '*batch K'],
  indices: Integer[Array, '*batch k'],
  probs: Float[Array, '*batch k'],
  tail: Float[Array, '*batch'],
  *,
  temperature: Scalar,
  temperature_power: Scalar = 2,
) -> Float[jax.Array, '*batch']:
  """The rest is dropped, from both: only the relations within S are taught.

  `Tⁿ · KL(p / Σ_S p ‖ q̃ / Σ_S q̃)`, with gradient `Tⁿ⁻¹ · (q̃_i / Σ_S q̃ − p_i /
  Σ_S p)` in S and 0 elsewhere. Both are normalised over the same classes: a
  teacher without its rest against all of `q̃` would teach the student to be
  surer than the teacher is.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    indices: `[..., k]`, S: different classes, in 0..K-1.
    probs: `[..., k]`, p ≥ 0.
    tail: `[...]`; not read.
    temperature: T > 0.
    temperature_power: n ≥ 0.

  Returns:
    `[...]`, in nats times Tⁿ. 0 where all of p is.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: k > K, or a hyper-parameter is out of its range.

  >>> s, i = jnp.array([[1.0, 1.0, 9.0]]), jnp.array([[0, 1]])
  >>> p, tail = jnp.array([[0.3, 0.3]]), jnp.array([0.4])
  >>> round(float(kl_renormalised(s, i, p, tail, temperature=1.0)[0]), 4)
  0.0
  """
  _check(student_logits, indices, temperature, temperature_power)
  kept = _gather(numerics.as_float(student_logits), indices)
  return temperature**temperature_power * numerics.kl(
    _normalised(numerics.log(probs), 1.0), _normalised(kept, temperature)
  )


@typed
def kl_samples(
  student_logits: Float[Array, '*batch K'],
  indices: Integer[Array, '*batch m'],
  probs: Float[Array, '*batch m'],
  tail: Float[Array, '*batch'],
  *,
  temperature: Scalar,
  temperature_power: Scalar = 2,
) -> Float[jax.Array, '*batch']:
  """From classes that the teacher drew: KL in expectation, but for a constant.

  `−Tⁿ · Σ_i w_i log q̃_i` over the draws i, with gradient `Tⁿ⁻¹ · (Σ_i w_i · q̃ −
  Σ_i w_i 1[i])`. If the draws are unbiased (`E Σ_i w_i 1[i] = p̃`), the gradient
  is that of `Tⁿ · KL(p̃ ‖ q̃)` in expectation, and the value is that of `Tⁿ ·
  (KL(p̃ ‖ q̃) + H(p̃))`, H the teacher's entropy: it does not end at 0.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    indices: `[..., m]`, in 0..K-1; a class may come more than once.
    probs: `[..., m]`, w ≥ 0; what has w = 0 is left out.
    tail: `[...]`; not read.
    temperature: T > 0.
    temperature_power: n ≥ 0.

  Returns:
    `[...]`, in nats times Tⁿ.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Anshumann et al., arXiv:2503.16870, Random Sampling Knowledge
  Distillation.

  >>> s, i, w = jnp.zeros((1, 4)), jnp.array([[2, 2]]), jnp.array([[0.5, 0.5]])
  >>> loss = kl_samples(s, i, w, jnp.array([0.0]), temperature=1.0)
  >>> round(float(loss[0]), 4)  # log 4
  1.3863
  """
  check_positive('temperature', temperature)
  check_not_negative('temperature_power', temperature_power)
  logits = numerics.scaled(student_logits, temperature)
  weights = numerics.as_float(probs)
  drawn = jnp.where(weights != 0, _gather(logits, indices), 0.0)
  log_total = jnp.sum(weights, axis=-1) * numerics.log_total(logits)
  loss = log_total - jnp.sum(weights * drawn, axis=-1)
  return temperature**temperature_power * loss


def _check(
  student_logits: Array,
  indices: Array,
  temperature: Scalar,
  temperature_power: Scalar,
) -> None:
  check_between('k', indices.shape[-1], 1, student_logits.shape[-1])
  check_positive('temperature', temperature)
  check_not_negative('temperature_power', temperature_power)


def _gather(logits: jax.Array, indices: Array) -> jax.Array:
  indices = jnp.asarray(indices, jnp.int32)
  found = jnp.take_along_axis(logits, indices, axis=-1, mode='clip')
  return numerics.nan_unless_class(found, indices, logits.shape[-1])


def _logsumexp(logits: jax.Array) -> jax.Array:
  """Of any logits; `-inf`, without a gradient, where all of them are."""
  peak = numerics.peak(logits)
  left = ~jnp.isneginf(peak)
  odds = jnp.exp(logits - jnp.where(left, peak, 0.0))
  total = jnp.sum(odds, axis=-1, keepdims=True)
  found = jnp.where(left, jnp.log(jnp.where(left, total, 1.0)) + peak, -jnp.inf)
  return found[..., 0]


def _normalised(logits: jax.Array, temperature: Scalar) -> jax.Array:
  """Log-probabilities; `-inf`, without a gradient, where all logits are."""
  left = jnp.any(~jnp.isneginf(logits), axis=-1, keepdims=True)
  safe = jnp.where(left, logits, 0.0)
  return jnp.where(left, numerics.log_probs(safe, temperature), -jnp.inf)


def _append(values: Array, last: Array) -> jax.Array:
  last = numerics.as_float(last)[..., None]
  return jnp.concatenate([numerics.as_float(values), last], axis=-1)
