"""What all networks for images share: their stages, checks, and head."""

import abc
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kdjax.checks import Array, typed
from kdjax.models import outputs as outputs_lib

# U(-1/√D, 1/√D): what PyTorch starts the rows of a linear layer from.
_HEAD_INIT = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class Stage(nnx.Dict):
  """Blocks, one after another, `'block1'` first."""

  def __init__(self, blocks: Iterable[nnx.Module]) -> None:
    super().__init__({f'block{i + 1}': block for i, block in enumerate(blocks)})

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the last block's map."""
    x = inputs
    # By number: a merged Dict is sorted by name, block10 before block2.
    for i in range(len(self)):
      x = self[f'block{i + 1}'](x, train=train)
    return x


class Network(nnx.Module):
  """Features, the last of them pooled, and a linear head.

  A network sets `head` last in its constructor, and defines `_features`.

  Args:
    input_shape: shape of one image, (height, width, channels).
    num_classes: number of classes, K.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, batch
      statistics, `'pooled'` and logits are float32 either way.

  Raises:
    ValueError: if an argument is outside its domain.
  """

  head: nnx.Linear

  def __init__(
    self, *, input_shape: Sequence[int], num_classes: int, dtype: str
  ) -> None:
    self.input_shape = outputs_lib.check_image_shape(input_shape)
    outputs_lib.check_size('num_classes', num_classes)
    self.dtype = outputs_lib.check_dtype(dtype)

  @property
  def class_weights(self) -> Float[jax.Array, 'K D']:
    """The head's weights, one row for each class."""
    return self.head.kernel[...].T

  @typed
  def __call__(
    self,
    inputs: Float[Array, 'B ...'],
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> outputs_lib.Outputs:
    """Returns logits and features.

    Args:
      inputs: images, `[B, *input_shape]`, normalised.
      train: whether batch norm uses the batch's statistics and stores them.
      key: unused, since nothing in these networks is random.

    Returns:
      The logits `[B, K]` and the features.

    Raises:
      ValueError: for inputs of another shape.
    """
    del key
    outputs_lib.check_inputs(inputs, self.input_shape)
    features = self._features(jnp.asarray(inputs, self.dtype), train=train)
    return outputs_lib.Outputs(self.head(features['pooled']), features)

  @abc.abstractmethod
  def _features(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> dict[str, jax.Array]:
    """Returns the features by name; `'pooled'` `[B, D]` in float32."""


def linear_head(
  num_inputs: int, num_classes: int, rngs: nnx.Rngs
) -> nnx.Linear:
  """Returns the last layer: weights uniform in ±1/√D as in PyTorch, bias 0."""
  return nnx.Linear(
    num_inputs,
    num_classes,
    dtype=jnp.float32,
    kernel_init=_HEAD_INIT,
    rngs=rngs,
  )


def mean_over_space(
  inputs: Float[jax.Array, 'B H W C'],
) -> Float[jax.Array, 'B C']:
  """Returns the mean of each channel, in float32.

  >>> mean_over_space(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
  [[3.0, 4.0]]
  """
  return jnp.mean(inputs, axis=(1, 2), dtype=jnp.float32)
