"""Depthwise and 1×1 convolutions for CPUs, as products and sums.

XLA:CPU runs a convolution of groups a hundred times slower than the same
numbers take as shifted products (depthwise) or matrix products (1×1), and most
1×1 convolutions of one group, too, are faster as matrix products. These forms
and their gradients are fast in the body of a loop as well.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kdjax.models import cpu_conv

_Map = Float[jax.Array, 'B H W C']

# With fewer input channels than this a convolution is the faster form.
_FULL = 32


def depthwise(
  inputs: _Map, kernel: Float[jax.Array, 'S S 1 C'], stride: int
) -> Float[jax.Array, 'B H2 W2 C']:
  """A convolution of each channel by its own kernel, padded by `(S - 1) // 2`.

  `out[h, w] = Σ_ij kernel[i, j] · inputs[stride·h + i, stride·w + j]`, over
  padded inputs: S² shifted products.

  Args:
    inputs: maps.
    kernel: of odd side S.
    stride: in both directions.

  Returns:
    Maps of `ceil(H / stride)` by `ceil(W / stride)`.

  >>> inputs, kernel = jnp.ones((2, 5, 4, 3)), jnp.ones((3, 3, 1, 3))
  >>> depthwise(inputs, kernel, 2)[0, :, :, 0].tolist()
  [[4.0, 6.0], [6.0, 9.0], [4.0, 6.0]]
  """
  size = kernel.shape[0]
  pad = (size - 1) // 2
  height, width = inputs.shape[1:3]
  padded = jnp.pad(inputs, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  return sum(
    padded[:, i : i + height : stride, j : j + width : stride]
    * kernel[i, j, 0][None, None, None]
    for i in range(size)
    for j in range(size)
  )


def pointwise(
  inputs: _Map, kernel: Float[jax.Array, '1 1 C_group D'], num_groups: int
) -> Float[jax.Array, 'B H W D']:
  """A 1×1 convolution: of each group of channels, a matrix product.

  Args:
    inputs: maps; their channels are as many groups, one after the other.
    kernel: its outputs are as many groups, too.
    num_groups: divides C and D.

  Returns:
    Maps of D channels.

  >>> inputs, kernel = jnp.ones((2, 5, 4, 6)), jnp.ones((1, 1, 3, 8))
  >>> pointwise(inputs, kernel, 2).shape
  (2, 5, 4, 8)
  """
  if num_groups == 1 and inputs.shape[-1] < _FULL:
    return cpu_conv.convolve(inputs, kernel, 1)
  groups = zip(
    jnp.split(inputs, num_groups, axis=-1),
    jnp.split(kernel[0, 0], num_groups, axis=-1),
    strict=True,
  )
  return jnp.concatenate([x @ weights for x, weights in groups], axis=-1)
