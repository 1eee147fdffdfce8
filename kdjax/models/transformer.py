"""Small decoder-only transformers."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from kdjax.models import outputs as outputs_lib
from kdjax.models.language import Drop, Embedding, Head, LanguageModel
from kdjax.models.vit import INIT, LayerNorm, TransformerBlock

_SLOWEST = 10_000.0
_Heads = Float[jax.Array, 'B T N H']


def rotate(heads: _Heads) -> _Heads:
  """Turns pairs of channels by the token's place: RoPE.

  Channels j and j + H/2 of token t turn by `t · 10000^(-2j/H)`. The product of
  a turned query and a turned key depends on the distance of their places, not
  on the places.

  Args:
    heads: queries or keys; H is even.

  Returns:
    The same, turned.

  Reference: Su et al. 2021, RoFormer, section 3.2.2.

  >>> rotate(jnp.ones((1, 2, 1, 2)))[0, 0, 0].tolist()
  [1.0, 1.0]
  """
  num_tokens, half = heads.shape[1], heads.shape[3] // 2
  speeds = _SLOWEST ** (-jnp.arange(half) / half)
  angles = jnp.arange(num_tokens)[:, None] * speeds[None]
  cos, sin = (f(angles)[None, :, None] for f in (jnp.cos, jnp.sin))
  a, b = jnp.split(heads, 2, axis=-1)
  turned = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
  return turned.astype(heads.dtype)


def _read_the_past(
  query: _Heads, key: _Heads, value: _Heads, *, mask: jax.Array | None
) -> _Heads:
  """What each token reads from itself and from those before it."""
  return jax.nn.dot_product_attention(
    rotate(query), rotate(key), value, mask=mask, is_causal=True
  )


class Transformer(LanguageModel):
  """A decoder: embedding, blocks, a norm, a linear head.

  A block is attention and an MLP, each after a layer norm and beside a
  shortcut; a token reads itself and those before it, whose distance it knows
  by RoPE. Units are dropped on the embedding and on what each half of a block
  adds. Weights start truncated normal (σ = 0.02), biases at 0. Nothing is
  carried from row to row.

  Features: `'block1'` to `'blockN'`, `[B, T, D]`, after each block, before any
  norm; `'pooled'` `[B, T, D]`, after the last norm, is what the head reads.

  Reference: Vaswani et al. 2017, Attention Is All You Need, section 3, with
  the norms of Radford et al. 2019, Language Models are Unsupervised Multitask
  Learners, section 2.3, and the positions of Su et al. 2021, RoFormer.

  Args:
    input_shape: (T,), the tokens of a row.
    num_classes: size of the vocabulary, K.
    width: channels of a token, D.
    depth: number of blocks.
    num_heads: divides D into even numbers of channels.
    dropout: probability in [0, 1) that a unit is dropped in training.
    tied: whether the embedding serves as the head's weights.
    boundary: a token that begins a segment, or None; a token reads only its
      own segment.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, norms,
      `'pooled'` and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> model = Transformer(
  ...   input_shape=(7,),
  ...   num_classes=9,
  ...   width=8,
  ...   depth=2,
  ...   num_heads=2,
  ...   rngs=nnx.Rngs(0),
  ... )
  >>> model(jnp.zeros((2, 5), int), train=False).logits.shape
  (2, 5, 9)
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    width: int,
    depth: int,
    num_heads: int,
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
    width = outputs_lib.check_size('width', width)
    self.depth = outputs_lib.check_size('depth', depth)
    num_heads = outputs_lib.check_size('num_heads', num_heads)
    if width % (2 * num_heads):
      raise ValueError(
        f'width={width} must be a multiple of twice num_heads={num_heads}: '
        'RoPE turns pairs of channels'
      )
    self.embedding = Embedding(
      num_classes, width, embedding_init=INIT, rngs=rngs
    )
    for i in range(self.depth):
      block = TransformerBlock(width, num_heads=num_heads, rngs=rngs)
      setattr(self, f'block{i + 1}', block)
    self.last_norm = LayerNorm(width, rngs=rngs)
    self.head = Head(width, num_classes, tied=tied, init=INIT, rngs=rngs)

  def _features(
    self, inputs: Int[jax.Array, 'B T'], *, drop: Drop, carry: tuple
  ) -> tuple[dict[str, jax.Array], tuple]:
    read = partial(_read_the_past, mask=self._segments(inputs))
    x = drop(self.embedding(inputs).astype(self.dtype))
    features = {}
    for i in range(self.depth):
      name = f'block{i + 1}'
      x = features[name] = getattr(self, name)(x, read=read, drop=drop)
    features['pooled'] = self.last_norm(x).astype(jnp.float32)
    return features, carry

  def _segments(
    self, inputs: Int[jax.Array, 'B T']
  ) -> Bool[jax.Array, 'B 1 T T'] | None:
    """Whether two tokens lie in one segment; None where there is but one."""
    if self.boundary is None:
      return None
    segments = jnp.cumsum(inputs == self.boundary, axis=1)
    return segments[:, None, :, None] == segments[:, None, None, :]
