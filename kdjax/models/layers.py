"""Convolution, batch norm and what needs no parameters, as networks use them.

All compute in the type of their inputs, with parameters in float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kdjax.models import cpu_conv, cpu_products

# Kaiming-normal, fan-out: what the published recipe starts convolutions from.
_CONV_INIT = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class Conv(nnx.Module):
  """A convolution, padded alike on both sides as in PyTorch.

  Args:
    num_inputs: channels that come in.
    num_outputs: channels that come out.
    size: side of the kernel, odd.
    stride: in both directions.
    num_groups: groups of channels that don't mix: 1; all, which is a depthwise
      convolution; or, for a 1×1 convolution of stride 1, any number between.
    bias: whether one is added to each channel, at first 0.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: for groups between 1 and all of another convolution.
  """

  def __init__(
    self,
    num_inputs: int,
    num_outputs: int,
    *,
    size: int,
    stride: int,
    num_groups: int = 1,
    bias: bool = False,
    rngs: nnx.Rngs,
  ) -> None:
    self.stride = stride
    self.num_groups = num_groups
    self.is_depthwise = num_groups == num_inputs == num_outputs > 1
    self.is_pointwise = size == stride == 1
    if num_groups > 1 and not (self.is_depthwise or self.is_pointwise):
      raise ValueError(
        f'num_groups={num_groups} with {num_inputs} inputs, {num_outputs} '
        f'outputs, size {size} and stride {stride}: more than one group needs '
        'a depthwise convolution, or a 1×1 one of stride 1'
      )
    shape = (size, size, num_inputs // num_groups, num_outputs)
    self.kernel = nnx.Param(_CONV_INIT(rngs.params(), shape))
    self.has_bias = bias
    if bias:
      self.bias = nnx.Param(jnp.zeros(num_outputs))

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C']
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the map, of the inputs' type."""
    outputs = self._convolve(inputs, self.kernel[...].astype(inputs.dtype))
    if self.has_bias:
      outputs += self.bias[...].astype(inputs.dtype)[None, None, None]
    return outputs

  def _convolve(
    self,
    inputs: Float[jax.Array, 'B H W C'],
    kernel: Float[jax.Array, 'S S C_group C2'],
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    if jax.default_backend() != 'cpu':
      pad = (kernel.shape[0] - 1) // 2
      return cpu_conv.plain(
        inputs,
        kernel,
        strides=(self.stride, self.stride),
        padding=((pad, pad), (pad, pad)),
        num_groups=self.num_groups,
      )
    if self.is_depthwise:
      return cpu_products.depthwise(inputs, kernel, self.stride)
    if self.is_pointwise:
      return cpu_products.pointwise(inputs, kernel, self.num_groups)
    return cpu_conv.convolve(inputs, kernel, self.stride)


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


class ConvNorm(nnx.Module):
  """A convolution and a batch norm; the arguments are those of `Conv`."""

  def __init__(
    self,
    num_inputs: int,
    num_outputs: int,
    *,
    size: int = 1,
    stride: int = 1,
    num_groups: int = 1,
    bias: bool = False,
    rngs: nnx.Rngs,
  ) -> None:
    self.conv = Conv(
      num_inputs,
      num_outputs,
      size=size,
      stride=stride,
      num_groups=num_groups,
      bias=bias,
      rngs=rngs,
    )
    self.norm = Norm(num_outputs, rngs=rngs)

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the map, of the inputs' type; if `train`, moves the averages."""
    return self.norm(self.conv(inputs), train=train)


def relu(inputs: Float[jax.Array, '*shape']) -> Float[jax.Array, '*shape']:
  """Returns `max(inputs, 0)`, with gradient 0 at 0.

  XLA:CPU would compute a maximum anew, and all sums before it, wherever it is
  used; what is selected it keeps.

  >>> relu(jnp.array([-1.0, 0.0, 2.0])).tolist()
  [0.0, 0.0, 2.0]
  """
  return jnp.where(inputs <= 0, jnp.zeros((), inputs.dtype), inputs)


def halve_by_max(
  inputs: Float[jax.Array, 'B H W C'],
) -> Float[jax.Array, 'B H2 W2 C']:
  """Returns the largest of each 2×2 square; an odd last row or column is cut.

  As maxima of slices, whose gradient XLA:CPU is fast at; equal ones share it.

  >>> halve_by_max(jnp.arange(10.0).reshape(1, 2, 5, 1)).ravel().tolist()
  [6.0, 8.0]
  """
  height, width = (size // 2 * 2 for size in inputs.shape[1:3])
  rows = (inputs[:, i:height:2] for i in range(2))
  rows = jnp.maximum(*rows)
  return jnp.maximum(*(rows[:, :, j:width:2] for j in range(2)))


def halve_by_mean(
  inputs: Float[jax.Array, 'B H W C'],
) -> Float[jax.Array, 'B H2 W2 C']:
  """Returns the means of 3×3 squares, two apart, over the map padded with 0.

  A square at the border counts its padding, as in PyTorch.

  >>> halve_by_mean(jnp.ones((1, 4, 4, 1)) * 9)[0, :, :, 0].tolist()
  [[4.0, 6.0], [6.0, 9.0]]
  """
  ninth = jnp.full((3, 3, 1, inputs.shape[-1]), 1 / 9, inputs.dtype)
  return cpu_products.depthwise(inputs, ninth, 2)


def shuffle(
  inputs: Float[jax.Array, 'B H W C'], *, num_groups: int
) -> Float[jax.Array, 'B H W C']:
  """Mixes groups of channels: the first of each, then the second of each.

  Args:
    inputs: maps; their channels are as many groups, one after the other.
    num_groups: divides C.

  Returns:
    The same channels in another order.

  Reference: Zhang et al. 2018, ShuffleNet, figure 1.

  >>> shuffle(jnp.arange(6).reshape(1, 1, 1, 6), num_groups=2).ravel().tolist()
  [0, 3, 1, 4, 2, 5]
  """
  groups = jnp.reshape(inputs, (*inputs.shape[:3], num_groups, -1))
  return jnp.reshape(jnp.swapaxes(groups, 3, 4), inputs.shape)
