"""LSTM language models."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from kdjax.checks import check_positive
from kdjax.models import outputs as outputs_lib
from kdjax.models.language import Drop, Embedding, Head, LanguageModel
from kdjax.models.recurrence import recur

_Carry = dict[str, tuple[jax.Array, jax.Array]]


class LSTMLayer(nnx.Module):
  """An LSTM without peepholes, its gates in PyTorch's order: i, f, g, o.

  Args:
    num_inputs: units that come in, D.
    num_units: hidden units, H.
    init: what both kernels start from; the bias starts at 0, the forget gate's
      as well.
    rngs: where the initial parameters come from.
  """

  def __init__(
    self,
    num_inputs: int,
    num_units: int,
    *,
    init: nnx.Initializer,
    rngs: nnx.Rngs,
  ) -> None:
    gates = 4 * num_units
    self.input_kernel = nnx.Param(init(rngs.params(), (num_inputs, gates)))
    self.kernel = nnx.Param(init(rngs.params(), (num_units, gates)))
    self.bias = nnx.Param(jnp.zeros(gates))

  def __call__(
    self,
    inputs: Float[jax.Array, 'T B D'],
    state: tuple[jax.Array, jax.Array],
    keep: Bool[jax.Array, 'T B'] | None,
  ) -> tuple[Float[jax.Array, 'T B H'], tuple[jax.Array, jax.Array]]:
    """Returns the hidden units of every token, and the state after the last."""
    dtype = inputs.dtype
    hidden, cell = state
    # All tokens at once: only what depends on the last token is in the loop.
    projected = inputs @ self.input_kernel[...].astype(dtype)
    projected += self.bias[...].astype(dtype)[None, None]
    hiddens, cell = recur(
      projected,
      self.kernel[...].astype(dtype),
      hidden.astype(dtype),
      cell,
      keep,
    )
    return hiddens, (hiddens[-1].astype(jnp.float32), cell)


class LSTM(LanguageModel):
  """Zaremba's language model: embedding, LSTM layers, a linear head.

  Units are dropped where they go up, never where they go from token to token:
  on the embedding, between the layers, and before the head. All weights start
  uniform in ±`init_scale`, biases at 0. The carry is, by layer, `(h, c)`, each
  `[B, H]` in float32; no gradient flows from row to row (truncated
  backpropagation through time). The published models: `lstm_small` without
  dropout, `lstm_medium` with 0.5, `lstm_large` with 0.65.

  Features: `'layer1'` to `'layerN'`, `[B, T, widths[i]]`, before the dropout;
  `'pooled'` `[B, T, widths[-1]]`, the last of them after it, which is what the
  head reads.

  Reference: Zaremba et al. 2014, Recurrent Neural Network Regularization,
  section 3 and section 4.1 (arXiv:1409.2329).

  Args:
    input_shape: (T,), the tokens of a row.
    num_classes: size of the vocabulary, K.
    widths: hidden units of each layer; the embedding is as wide as the first.
    init_scale: the bound of the initial weights, positive.
    dropout: probability in [0, 1) that a unit is dropped in training.
    tied: whether the embedding serves as the head's weights; the first and the
      last layer are then equally wide.
    boundary: a token before which the state is set to 0, or None.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, cells,
      carry, `'pooled'` and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> model = LSTM(
  ...   input_shape=(7,), num_classes=9, widths=(4, 5), rngs=nnx.Rngs(0)
  ... )
  >>> outputs = model(jnp.zeros((2, 7), int), train=False)
  >>> outputs.logits.shape, outputs.carry['layer2'][0].shape
  ((2, 7, 9), (2, 5))
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    widths: Sequence[int] = (200, 200),
    init_scale: float = 0.1,
    dropout: float = 0.0,
    tied: bool = False,
    boundary: int | None = None,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ) -> None:
    super().__init__(
      input_shape=input_shape,
      num_classes=num_classes,
      dropout=dropout,
      tied=tied,
      boundary=boundary,
      dtype=dtype,
    )
    self.widths = widths = outputs_lib.check_sizes('widths', widths)
    check_positive('init_scale', init_scale)
    if tied and widths[0] != widths[-1]:
      raise ValueError(
        f'widths={widths} with tied=True: the last must be as wide as the '
        'first, since the embedding is'
      )

    def init(key: jax.Array, shape: tuple, dtype: str = 'float32') -> jax.Array:
      return jax.random.uniform(key, shape, dtype, -init_scale, init_scale)

    self.embedding = Embedding(
      num_classes, widths[0], embedding_init=init, rngs=rngs
    )
    num_inputs = widths[0]
    for i, width in enumerate(widths):
      layer = LSTMLayer(num_inputs, width, init=init, rngs=rngs)
      setattr(self, f'layer{i + 1}', layer)
      num_inputs = width
    self.head = Head(num_inputs, num_classes, tied=tied, init=init, rngs=rngs)

  def initial_carry(self, batch_size: int) -> _Carry:
    """Returns zeros: `h` and `c`, `[B, H]`, by layer."""
    return {
      f'layer{i + 1}': (jnp.zeros((batch_size, width)),) * 2
      for i, width in enumerate(self.widths)
    }

  def _features(
    self, inputs: Int[jax.Array, 'B T'], *, drop: Drop, carry: _Carry
  ) -> tuple[dict[str, jax.Array], _Carry]:
    tokens = inputs.T  # Time comes first, as the loop reads it.
    keep = None if self.boundary is None else tokens != self.boundary
    x = drop(self.embedding(tokens).astype(self.dtype))
    features, carried = {}, {}
    for i in range(len(self.widths)):
      name = f'layer{i + 1}'
      hidden, carried[name] = getattr(self, name)(x, carry[name], keep)
      features[name] = jnp.swapaxes(hidden, 0, 1)
      x = drop(hidden)
    features['pooled'] = jnp.swapaxes(x, 0, 1).astype(jnp.float32)
    return features, carried
