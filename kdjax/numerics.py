"""Arithmetic that losses and targets share: log space, labels, finite ends."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from kdjax.checks import Array, Scalar


def as_float(logits: Array) -> jax.Array:
  """Float32, or float64 where it is given and enabled."""
  logits = jnp.asarray(logits)
  return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def scaled(logits: Array, temperature: Scalar) -> jax.Array:
  """`logits / T`, from the largest, which becomes 0."""
  logits = as_float(logits)
  # Shifted before it is divided, the largest logit is 0 without rounding.
  return (logits - peak(logits)) / temperature


@jax.custom_jvp
def log_total(logits: jax.Array) -> jax.Array:
  """`log Σ exp z` of logits whose largest is 0.

  Its slope is `softmax z = exp(z − log Σ exp z)`. Written out, it needs the
  result alone: no `exp z`, `[..., K]`, is kept for the way back.
  """
  return jnp.log(jnp.sum(jnp.exp(logits), axis=-1))


@log_total.defjvp
def _log_total_slope(primals: tuple, tangents: tuple) -> tuple:
  (logits,), (step,) = primals, tangents
  total = log_total(logits)
  probs = jnp.exp(logits - total[..., None])
  return total, jnp.sum(probs * step, axis=-1)


def log_probs(logits: Array, temperature: Scalar) -> jax.Array:
  """`log softmax(logits / T)`."""
  logits = scaled(logits, temperature)
  return logits - jnp.log(jnp.sum(jnp.exp(logits), axis=-1, keepdims=True))


def peak(logits: jax.Array) -> jax.Array:
  """The largest, `[..., 1]`, to be taken off: its gradient would cancel."""
  return jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))


def log(probs: Array) -> jax.Array:
  """`log p`, `-inf` at 0 without an infinite gradient there."""
  probs = as_float(probs)
  zero = probs == 0
  return jnp.where(zero, -jnp.inf, jnp.log(jnp.where(zero, 1.0, probs)))


def kl(log_target: jax.Array, log_student: jax.Array) -> jax.Array:
  """`KL(p ‖ q)` over the last axis; where `p = 0` nothing is added."""
  target = jnp.exp(log_target)
  gap = jnp.where(target > 0, log_target - log_student, 0.0)
  return jnp.sum(target * gap, axis=-1)


def mean_gap(probs: jax.Array, high: jax.Array, low: jax.Array) -> jax.Array:
  """`Σ p (a − b)`; where `p = 0` nothing is added, even of `∞ − ∞`."""
  gap = jnp.where(probs > 0, high - low, 0.0)
  # Chosen once more, the product is made where the gap is: one array less.
  return jnp.sum(jnp.where(probs == 0, 0.0, probs * gap), axis=-1)


def times(weight: Scalar, loss: jax.Array) -> jax.Array:
  """`weight · loss`, and 0 at weight 0 even where the loss is infinite."""
  off = weight == 0
  return jnp.where(off, 0.0, weight * jnp.where(off, 0.0, loss))


def is_label(labels: Array, num_classes: int) -> Bool[jax.Array, '... K']:
  """Whether a class is the label."""
  return jax.nn.one_hot(jnp.asarray(labels, jnp.int32), num_classes, dtype=bool)


def nan_unless_class(
  values: jax.Array, labels: Array, num_classes: int
) -> jax.Array:
  """NaN where a label is no class: it must not train silently.

  `values` is `[...]` as `labels`, or `[..., K]`.
  """
  labels = jnp.asarray(labels)
  is_class = (labels >= 0) & (labels < num_classes)
  if values.ndim > labels.ndim:
    is_class = is_class[..., None]
  return jnp.where(is_class, values, jnp.nan)


def label_entry(values: jax.Array, at_label: jax.Array) -> jax.Array:
  """The label's entry of the last axis."""
  return jnp.sum(jnp.where(at_label, values, 0.0), axis=-1)


def unit_rows(x: jax.Array) -> jax.Array:
  """Rows at norm 1; a row of zeros stays."""
  square = jnp.sum(x**2, axis=-1, keepdims=True)
  zero = square == 0
  return jnp.where(zero, 0.0, x) / jnp.sqrt(jnp.where(zero, 1.0, square))
