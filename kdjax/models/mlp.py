"""Multilayer perceptrons."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kdjax.checks import Array, typed
from kdjax.models import outputs as outputs_lib


class MLP(nnx.Module):
  """Linear layers with ReLU between them, and dropout after each ReLU.

  Images are flattened. Hidden layers start from Kaiming-normal (fan-in)
  weights, the head from LeCun-normal weights; biases start at 0.

  Features: `'hidden1'` to `'hiddenN'`, `[B, widths[i]]`, after the ReLU and
  before the dropout; `'pooled'` is the last of them.

  Args:
    input_shape: shape of one example: a vector's or an image's.
    num_classes: number of classes, K.
    widths: units of each hidden layer, at least one layer.
    dropout: probability in [0, 1) that a hidden unit is dropped in training.
    dtype: what hidden layers compute in, 'float32' or 'bfloat16'; parameters
      and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> model = MLP(
  ...   input_shape=(8, 8, 1), num_classes=10, widths=(32,), rngs=nnx.Rngs(0)
  ... )
  >>> outputs = model(jnp.zeros((2, 8, 8, 1)), train=False)
  >>> outputs.logits.shape, outputs.features['pooled'].shape
  ((2, 10), (2, 32))
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    widths: Sequence[int] = (256, 256),
    dropout: float = 0.0,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ) -> None:
    self.input_shape = outputs_lib.check_sizes('input_shape', input_shape)
    num_classes = outputs_lib.check_size('num_classes', num_classes)
    widths = outputs_lib.check_sizes('widths', widths)
    if not 0 <= dropout < 1:
      raise ValueError(f'dropout={dropout} must lie in [0, 1)')
    dtype = outputs_lib.check_dtype(dtype)
    self.names = tuple(f'hidden{i + 1}' for i in range(len(widths)))
    sizes = (math.prod(self.input_shape), *widths)
    self.hidden = nnx.Dict(
      {
        name: nnx.Linear(
          sizes[i],
          sizes[i + 1],
          dtype=dtype,
          kernel_init=nnx.initializers.kaiming_normal(),
          rngs=rngs,
        )
        for i, name in enumerate(self.names)
      }
    )
    self.dropout = nnx.Dropout(dropout)
    self.head = nnx.Linear(sizes[-1], num_classes, dtype=jnp.float32, rngs=rngs)

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
      inputs: examples, `[B, *input_shape]`.
      train: whether units are dropped.
      key: a PRNG key for the dropout; needed if `train` and `dropout > 0`.

    Returns:
      The logits `[B, K]` and the features.

    Raises:
      ValueError: for inputs of another shape, or where a key is missing.
    """
    outputs_lib.check_inputs(inputs, self.input_shape)
    drops = train and self.dropout.rate > 0
    if drops and key is None:
      raise ValueError(
        f'dropout={self.dropout.rate} needs a key when train=True'
      )
    features = {}
    hidden = jnp.reshape(inputs, (-1, math.prod(self.input_shape)))
    for i, name in enumerate(self.names):
      hidden = features[name] = nnx.relu(self.hidden[name](hidden))
      if drops:
        layer_key = jax.random.fold_in(key, i)
        hidden = self.dropout(hidden, deterministic=False, rngs=layer_key)
    features['pooled'] = features[self.names[-1]]
    return outputs_lib.Outputs(self.head(hidden), features)
