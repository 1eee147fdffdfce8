"""Convolution for CPUs: the same numbers from forms that XLA:CPU is fast at.

XLA:CPU has fast kernels for a plain convolution (`NHWC`, `HWIO`) alone. It
brings JAX's gradients into that form outside loops only; in the body of a loop,
where training runs, those of a kernel take a hundred times as long. Here both
gradients are plain convolutions from the start.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float

# Fewer output channels than this leave the fast kernels half empty.
_FULL = 32

_Map = Float[jax.Array, 'B H W C']
_Kernel = Float[jax.Array, 'S S C D']


def plain(
  inputs: _Map,
  kernel: _Kernel,
  *,
  strides: tuple[int, int] = (1, 1),
  padding: tuple[tuple[int, int], tuple[int, int]],
  input_dilation: int = 1,
  kernel_dilation: int = 1,
  num_groups: int = 1,
) -> Float[jax.Array, 'B H2 W2 D']:
  """The convolution of `jax.lax`, channels last."""
  return jax.lax.conv_general_dilated(
    inputs,
    kernel,
    window_strides=strides,
    padding=padding,
    lhs_dilation=(input_dilation, input_dilation),
    rhs_dilation=(kernel_dilation, kernel_dilation),
    feature_group_count=num_groups,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
  inputs: _Map, kernel: _Kernel, stride: int
) -> Float[jax.Array, 'B H2 W2 D']:
  """A convolution padded alike on both sides, by `(S - 1) // 2`.

  Only reverse-mode derivatives are defined.

  Args:
    inputs: maps.
    kernel: of odd side S.
    stride: in both directions.

  Returns:
    Maps of `ceil(H / stride)` by `ceil(W / stride)`.

  >>> inputs, kernel = jnp.ones((2, 5, 4, 3)), jnp.ones((3, 3, 3, 6))
  >>> convolve(inputs, kernel, 2).shape
  (2, 3, 2, 6)
  """
  size, num_outputs = kernel.shape[0], kernel.shape[-1]
  if stride == 1 and size > 1 and num_outputs < _FULL and not _odd(inputs):
    return _two_at_once(inputs, kernel)
  pad = (size - 1) // 2
  return plain(
    inputs, kernel, strides=(stride, stride), padding=((pad, pad), (pad, pad))
  )


def _odd(inputs: _Map) -> bool:
  return inputs.shape[2] % 2 == 1


def _two_at_once(inputs: _Map, kernel: _Kernel) -> Float[jax.Array, 'B H W D']:
  """Neighbours in a row are the channels of one output of a wider kernel."""
  size, num_outputs = kernel.shape[0], kernel.shape[-1]
  left, right = (
    jnp.pad(kernel, ((0, 0), sides, (0, 0), (0, 0)))
    for sides in ((0, 1), (1, 0))
  )
  both = jnp.concatenate([left, right], axis=-1)
  pad = (size - 1) // 2
  pairs = plain(inputs, both, strides=(1, 2), padding=((pad, pad), (pad, pad)))
  return jnp.reshape(
    pairs,
    (*inputs.shape[:3], num_outputs),
    out_sharding=jax.typeof(inputs).sharding,
  )


def _forward(
  inputs: _Map, kernel: _Kernel, stride: int
) -> tuple[Float[jax.Array, 'B H2 W2 D'], tuple[_Map, _Kernel]]:
  return convolve(inputs, kernel, stride), (inputs, kernel)


def _backward(
  stride: int,
  saved: tuple[_Map, _Kernel],
  gradient: Float[jax.Array, 'B H2 W2 D'],
) -> tuple[_Map, _Kernel]:
  inputs, kernel = saved
  of_inputs = _input_gradient(gradient, kernel, stride, inputs.shape[1:3])
  of_kernel = _kernel_gradient(gradient, inputs, stride, kernel.shape[0])
  return of_inputs, of_kernel


convolve.defvjp(_forward, _backward)


def _input_gradient(
  gradient: Float[jax.Array, 'B H2 W2 D'],
  kernel: _Kernel,
  stride: int,
  shape: tuple[int, int],
) -> _Map:
  """The gradient, spread by the stride, under the kernel turned round."""
  turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
  if stride == 1:
    return convolve(gradient, turned, 1)
  size = kernel.shape[0]
  pad = (size - 1) // 2
  spread = [(n - 1) * stride + 1 for n in gradient.shape[1:3]]
  padding = [
    (size - 1 - pad, whole - n + pad)
    for n, whole in zip(spread, shape, strict=True)
  ]
  return plain(gradient, turned, padding=tuple(padding), input_dilation=stride)


def _kernel_gradient(
  gradient: Float[jax.Array, 'B H2 W2 D'],
  inputs: _Map,
  stride: int,
  size: int,
) -> _Kernel:
  """The inputs under the gradient, with examples as what is summed over."""
  pad = (size - 1) // 2
  spread = [(n - 1) * stride + 1 for n in gradient.shape[1:3]]
  padding = [
    (pad, size - 1 + n - whole - pad)
    for n, whole in zip(spread, inputs.shape[1:3], strict=True)
  ]
  kernel = plain(
    jnp.transpose(inputs, (3, 1, 2, 0)),
    jnp.transpose(gradient, (1, 2, 0, 3)),
    padding=tuple(padding),
    kernel_dilation=stride,
  )
  return jnp.transpose(kernel, (1, 2, 0, 3))
