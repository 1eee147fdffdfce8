"""Convolution, batch norm and ReLU, as the ResNets use them.

All compute in the type of their inputs, with parameters in float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kdjax.models import cpu_conv

# Kaiming-normal, fan-out: what the published recipe starts convolutions from.
_CONV_INIT = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class Conv(nnx.Module):
  """A convolution without bias, padded alike on both sides as in PyTorch."""

  def __init__(
    self,
    num_inputs: int,
    num_outputs: int,
    *,
    size: int,
    stride: int,
    rngs: nnx.Rngs,
  ) -> None:
    shape = (size, size, num_inputs, num_outputs)
    self.kernel = nnx.Param(_CONV_INIT(rngs.params(), shape))
    self.stride = stride

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C']
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the map, of the inputs' type."""
    kernel = self.kernel[...].astype(inputs.dtype)
    if jax.default_backend() == 'cpu':
      return cpu_conv.convolve(inputs, kernel, self.stride)
    pad = (kernel.shape[0] - 1) // 2
    return cpu_conv.plain(
      inputs,
      kernel,
      strides=(self.stride, self.stride),
      padding=((pad, pad), (pad, pad)),
    )


class Norm(nnx.BatchNorm):
  """A batch norm with statistics in float32, whatever the inputs' type.

  Momentum 0.9 is what PyTorch calls 0.1.
  """

  def __init__(
    self, num_features: int, *, scale: float = 1.0, rngs: nnx.Rngs
  ) -> None:
    super().__init__(
      num_features,
      momentum=0.9,
      epsilon=1e-5,
      dtype=jnp.float32,
      scale_init=nnx.initializers.constant(scale),
      rngs=rngs,
    )

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H W C']:
    """Returns the map, of the inputs' type; if `train`, moves the averages."""
    outputs = super().__call__(inputs, use_running_average=not train)
    return outputs.astype(inputs.dtype)


def relu(inputs: Float[jax.Array, '*shape']) -> Float[jax.Array, '*shape']:
  """Returns `max(inputs, 0)`, with gradient 0 at 0.

  XLA:CPU would compute a maximum anew, and all sums before it, wherever it is
  used; what is selected it keeps.

  >>> relu(jnp.array([-1.0, 0.0, 2.0])).tolist()
  [0.0, 0.0, 2.0]
  """
  return jnp.where(inputs <= 0, jnp.zeros((), inputs.dtype), inputs)
