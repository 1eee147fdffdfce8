"""What all language models share: tokens in, a vocabulary of logits out."""

import abc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int, Integer

from kdjax.checks import Array, typed
from kdjax.models import outputs as outputs_lib

# A pytree of arrays `[B, ...]`.
Carry = Any
Drop = Callable[[jax.Array], jax.Array]


class Embedding(nnx.Embed):
  """A trained vector for each token of the vocabulary.

  A token above K-1 reads not-a-number, a negative one counts from the end.
  """


class Head(nnx.Module):
  """The last layer, `hidden @ kernel + bias`, in float32.

  Args:
    width: of what it reads, D.
    num_classes: number of classes, K.
    tied: whether the kernel is that of the embedding, transposed, in place of
      one of its own.
    init: what the kernel starts from; the bias starts at 0.
    rngs: where the initial parameters come from.
  """

  def __init__(
    self,
    width: int,
    num_classes: int,
    *,
    tied: bool,
    init: nnx.Initializer,
    rngs: nnx.Rngs,
  ) -> None:
    self.tied = tied
    if not tied:
      self.kernel = nnx.Param(init(rngs.params(), (width, num_classes)))
    self.bias = nnx.Param(jnp.zeros(num_classes))

  def __call__(
    self, hidden: Float[jax.Array, '*batch D'], embedding: Embedding
  ) -> Float[jax.Array, '*batch K']:
    """Returns the logits."""
    kernel = embedding.embedding[...].T if self.tied else self.kernel[...]
    bias = jnp.expand_dims(self.bias[...], range(hidden.ndim - 1))
    return hidden @ kernel + bias


class LanguageModel(nnx.Module):
  """Embedded tokens, features of them, and a linear layer over the vocabulary.

  A model sets `embedding` and `head` in its constructor, and defines
  `_features`. Every token of a row says what it expects the next one to be. A
  token outside 0..K-1 cannot be seen under `jit`: above it, its logits, and all
  that come after it in its row, are not-a-number; below it counts from the end.

  Args:
    input_shape: (T,), the tokens of a row; a row that is read may have more or
      fewer.
    num_classes: size of the vocabulary, K.
    dropout: probability in [0, 1) that a unit is dropped in training.
    tied: whether the embedding serves as the last layer's weights.
    boundary: a token before which everything is forgotten, or None.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters,
      `'pooled'` and logits are float32 either way.

  Raises:
    ValueError: if an argument is outside its domain.
  """

  embedding: Embedding
  head: Head

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    dropout: float,
    tied: bool,
    boundary: int | None,
    dtype: str,
  ) -> None:
    self.input_shape = outputs_lib.check_row_shape(input_shape)
    num_classes = outputs_lib.check_size('num_classes', num_classes)
    if not 0 <= dropout < 1:
      raise ValueError(f'dropout={dropout} must lie in [0, 1)')
    if not isinstance(tied, bool):
      raise ValueError(f'tied={tied!r} must be True or False')
    if boundary is not None and (
      not outputs_lib.is_integer(boundary) or not 0 <= boundary < num_classes
    ):
      raise ValueError(
        f'boundary={boundary!r} must be None or a token, an integer in '
        f'0..{num_classes - 1}'
      )
    self.dropout = nnx.Dropout(dropout)
    self.boundary = None if boundary is None else int(boundary)
    self.dtype = outputs_lib.check_dtype(dtype)

  @property
  def class_weights(self) -> Float[jax.Array, 'K D']:
    """The head's weights, one row for each token of the vocabulary."""
    if self.head.tied:
      return self.embedding.embedding[...]
    return self.head.kernel[...].T

  @property
  def class_biases(self) -> Float[jax.Array, ' K']:
    """What the head adds to the logit of each token of the vocabulary."""
    return self.head.bias[...]

  def initial_carry(self, batch_size: int) -> Carry:
    """Returns what is carried into the first row: `()`, for no memory."""
    del batch_size
    return ()

  @typed
  def __call__(
    self,
    inputs: Integer[Array, 'B ...'],
    *,
    train: bool,
    key: jax.Array | None = None,
    carry: Carry = None,
  ) -> outputs_lib.Outputs:
    """Returns logits, features, and what is carried on.

    Args:
      inputs: tokens, integers in 0..K-1, `[B, T]` with any T.
      train: whether units are dropped.
      key: a PRNG key for the dropout; needed if `train` and `dropout > 0`.
      carry: as the rows before these left it; None: as `initial_carry`. No
        gradient flows into it.

    Returns:
      The logits `[B, T, K]`, the features and the new carry.

    Raises:
      ValueError: for inputs of another shape, where a key is missing, or for
        the carry of another batch.
    """
    outputs_lib.check_rows(inputs)
    drops = train and self.dropout.rate > 0
    if drops and key is None:
      raise ValueError(
        f'dropout={self.dropout.rate} needs a key when train=True'
      )
    features, carry = self._features(
      jnp.asarray(inputs, jnp.int32),
      drop=partial(
        self.dropout,
        deterministic=not drops,
        rngs=nnx.Rngs(dropout=key) if drops else None,
      ),
      carry=self._checked(carry, inputs.shape[0]),
    )
    logits = self.head(features['pooled'], self.embedding)
    return outputs_lib.Outputs(logits, features, carry)

  def _checked(self, carry: Carry, batch_size: int) -> Carry:
    """Returns a carry that fits the batch, cut off from what made it."""
    initial = self.initial_carry(batch_size)
    if carry is None:
      return initial
    shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)
    if shapes(carry) != shapes(initial):
      raise ValueError(
        f'a carry of shapes {shapes(carry)} does not fit a batch of '
        f'{batch_size}, which needs {shapes(initial)}'
      )
    return jax.lax.stop_gradient(carry)

  @abc.abstractmethod
  def _features(
    self, inputs: Int[jax.Array, 'B T'], *, drop: Drop, carry: Carry
  ) -> tuple[dict[str, jax.Array], Carry]:
    """Returns features by name, `'pooled'` in float32, and the new carry."""
