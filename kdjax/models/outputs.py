"""What every model returns, and the checks that every model makes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from kdjax.checks import Array, check_known


class Outputs(NamedTuple):
  """What a model says about a batch.

  Attributes:
    logits: one row for each example, before any temperature; float32.
    features: hidden activations by name. `'pooled'` `[B, D]` is always there:
      it is what the last linear layer reads. The model's docstring lists the
      other names and their shapes; maps are `[B, H, W, C]`.
    carry: what a network with a memory remembers for the next rows, a pytree
      of arrays `[B, ...]`; `()` for all others.

  A language model says it for every token: logits are `[B, T, K]`, `'pooled'`
  is `[B, T, D]`.
  """

  logits: Float[Array, 'B *tokens K']
  features: dict[str, jax.Array]
  carry: Any = ()


def is_integer(value: object) -> bool:
  """Says whether `value` is an integer of Python or NumPy, and no bool.

  >>> is_integer(3), is_integer(3.0), is_integer(True)
  (True, False, False)
  """
  return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_size(name: str, size: int) -> int:
  """Returns `size`, or raises `ValueError` unless it is a positive integer.

  >>> check_size('num_classes', 0)
  Traceback (most recent call last):
  ...
  ValueError: num_classes=0 must be a positive integer
  """
  if not is_integer(size) or size < 1:
    raise ValueError(f'{name}={size} must be a positive integer')
  return int(size)


def check_sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
  """Returns `sizes` as a tuple of Python integers.

  Args:
    name: the argument's name, for the message.
    sizes: at least one size, each a positive integer.

  Returns:
    The same sizes.

  Raises:
    ValueError: if there is no size, or one is not a positive integer.

  >>> check_sizes('widths', [256, 0])
  Traceback (most recent call last):
  ...
  ValueError: widths=[256, 0] must hold positive integers, at least one
  """
  is_sequence = isinstance(sizes, Sequence) and not isinstance(sizes, str)
  if (
    not is_sequence
    or not sizes
    or not all(is_integer(size) and size > 0 for size in sizes)
  ):
    raise ValueError(
      f'{name}={sizes} must hold positive integers, at least one'
    )
  return tuple(int(size) for size in sizes)


def check_image_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
  """Returns `input_shape`, or raises `ValueError` unless it is an image's.

  >>> check_image_shape((8, 8))
  Traceback (most recent call last):
  ...
  ValueError: input_shape=(8, 8): the network needs images, (height, width, \
channels)
  """
  input_shape = check_sizes('input_shape', input_shape)
  if len(input_shape) != 3:
    raise ValueError(
      f'input_shape={input_shape}: the network needs images, '
      '(height, width, channels)'
    )
  return input_shape


def check_row_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
  """Returns `input_shape`, or raises `ValueError` unless it is a row's.

  >>> check_row_shape((8, 8))
  Traceback (most recent call last):
  ...
  ValueError: input_shape=(8, 8): the network reads rows of tokens, (tokens,)
  """
  input_shape = check_sizes('input_shape', input_shape)
  if len(input_shape) != 1:
    raise ValueError(
      f'input_shape={input_shape}: the network reads rows of tokens, (tokens,)'
    )
  return input_shape


def check_dtype(dtype: str) -> str:
  """Returns `dtype`, or raises `ValueError` unless a model computes in it.

  >>> check_dtype('float16')
  Traceback (most recent call last):
  ...
  ValueError: unknown dtype 'float16'; did you mean 'bfloat16'?
  """
  check_known('dtype', dtype, ('float32', 'bfloat16'))
  return dtype


def check_inputs(inputs: Array, input_shape: tuple[int, ...]) -> None:
  """Raises `ValueError` unless `inputs` has the shape `[B, *input_shape]`.

  >>> import jax.numpy as jnp
  >>> check_inputs(jnp.zeros((2, 8)), (4,))
  Traceback (most recent call last):
  ...
  ValueError: inputs of shape (2, 8) must have shape [B, 4], as the model \
was built
  """
  if inputs.shape[1:] != input_shape:
    allowed = ', '.join(str(size) for size in input_shape)
    raise ValueError(
      f'inputs of shape {inputs.shape} must have shape [B, {allowed}], as the '
      'model was built'
    )


def check_rows(inputs: Array) -> None:
  """Raises `ValueError` unless `inputs` has the shape `[B, T]`, with T > 0.

  >>> check_rows(np.zeros((2, 8, 1), int))
  Traceback (most recent call last):
  ...
  ValueError: inputs of shape (2, 8, 1) must have shape [B, T], at least one \
token a row
  """
  if inputs.ndim != 2 or not inputs.shape[1]:
    raise ValueError(
      f'inputs of shape {inputs.shape} must have shape [B, T], at least one '
      'token a row'
    )
