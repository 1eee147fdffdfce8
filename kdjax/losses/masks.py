"""Masks: what a position without a token may do to a loss, which is nothing."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from kdjax import numerics
from kdjax.checks import Array, typed


@typed
def masked_mean(
  values: Float[Array, '*batch'], mask: Bool[Array, '*batch']
) -> Float[jax.Array, '']:
  """Mean over the real positions.

  `Σ_i 1[real] v_i / Σ_i 1[real]`, and 0 where nothing is real. What a masked
  position holds, be it NaN, is not read, and its gradient is 0. Of an array
  that devices share it is the mean over all of them, however many real
  positions each has.

  Args:
    values: `[...]`.
    mask: `[...]`, where a position is real.

  Returns:
    A scalar, in the unit of `values`.

  Raises:
    TypeError: shapes or dtypes do not fit.

  >>> values = jnp.array([1.0, 3.0, jnp.nan])
  >>> round(float(masked_mean(values, jnp.array([True, True, False]))), 4)
  2.0
  """
  values, mask = numerics.as_float(values), jnp.asarray(mask)
  total = jnp.sum(jnp.where(mask, values, 0.0))
  return total / jnp.maximum(jnp.sum(mask), 1)


@typed
def blank(
  logits: Float[Array, '*batch K'], mask: Bool[Array, '*batch']
) -> Float[jax.Array, '*batch K']:
  """Zeros in place of masked logits, before a loss reads them.

  A mask on the loss alone is too late: the gradient of a NaN is NaN, even
  times 0. Blanked logits reach neither value nor gradient.

  Args:
    logits: `[..., K]`, anything at masked positions.
    mask: `[...]`, where a position is real.

  Returns:
    `[..., K]`, of the same dtype.

  Raises:
    TypeError: shapes or dtypes do not fit.

  >>> logits = jnp.array([[1.0, 2.0], [jnp.nan, 0.0]])
  >>> print(blank(logits, jnp.array([True, False])))
  [[1. 2.]
   [0. 0.]]
  """
  logits = jnp.asarray(logits)
  real = jnp.asarray(mask)[..., None]
  return jnp.where(real, logits, jnp.zeros_like(logits))
