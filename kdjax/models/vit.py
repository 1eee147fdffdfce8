"""A small vision transformer for 32×32 images."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kdjax.models import outputs as outputs_lib
from kdjax.models.network import Network, linear_head

INIT = nnx.initializers.truncated_normal(0.02)
_EXPANSION = 4  # hidden units of a block's MLP, per channel


class Attention(nnx.Module):
  """Every token reads all tokens: `softmax(Q Kᵀ / √(D/heads)) V`, by heads.

  Reference: Vaswani et al. 2017, Attention Is All You Need, section 3.2.

  Args:
    width: channels of a token, D.
    num_heads: divides D.
    rngs: where the initial parameters come from.
  """

  def __init__(self, width: int, *, num_heads: int, rngs: nnx.Rngs) -> None:
    self.num_heads = num_heads
    self.reads = _Linear(width, 3 * width, rngs=rngs)
    self.writes = _Linear(width, width, rngs=rngs)

  def __call__(
    self,
    tokens: Float[jax.Array, 'B N D'],
    read: Callable[..., jax.Array] = jax.nn.dot_product_attention,
  ) -> Float[jax.Array, 'B N D']:
    """Returns what each token reads.

    Args:
      tokens: what is read.
      read: of queries, keys and values, `[B, N, heads, D/heads]`, what each
        query reads.

    Returns:
      As many tokens.
    """
    batch, number, width = tokens.shape
    heads = (batch, number, 3, self.num_heads, width // self.num_heads)
    query, key, value = jnp.moveaxis(
      jnp.reshape(self.reads(tokens), heads), 2, 0
    )
    return self.writes(jnp.reshape(read(query, key, value), tokens.shape))


class TransformerBlock(nnx.Module):
  """Attention and an MLP, each after a norm and beside a shortcut.

  Reference: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, equations
  2 and 3.

  Args:
    width: channels of a token, D.
    num_heads: divides D.
    rngs: where the initial parameters come from.
  """

  def __init__(self, width: int, *, num_heads: int, rngs: nnx.Rngs) -> None:
    self.norm1 = LayerNorm(width, rngs=rngs)
    self.attention = Attention(width, num_heads=num_heads, rngs=rngs)
    self.norm2 = LayerNorm(width, rngs=rngs)
    self.widen = _Linear(width, _EXPANSION * width, rngs=rngs)
    self.narrow = _Linear(_EXPANSION * width, width, rngs=rngs)

  def __call__(
    self,
    tokens: Float[jax.Array, 'B N D'],
    *,
    read: Callable[..., jax.Array] = jax.nn.dot_product_attention,
    drop: Callable[[jax.Array], jax.Array] = lambda x: x,
  ) -> Float[jax.Array, 'B N D']:
    """Returns the tokens after the block.

    Args:
      tokens: those before it.
      read: as in `Attention`.
      drop: drops units of what is added to the tokens, anew at every call.

    Returns:
      As many tokens.
    """
    tokens += drop(self.attention(self.norm1(tokens), read))
    hidden = jax.nn.gelu(self.widen(self.norm2(tokens)))
    return tokens + drop(self.narrow(hidden))


class ViT(Network):
  """A vision transformer: patches, positions, blocks, a mean, a linear head.

  The image is cut into square patches, which a linear layer turns into tokens;
  a learned vector is added for each place. After the blocks and a last norm,
  the mean of all tokens is classified: there is no token for the class.
  Weights and positions start truncated normal (σ = 0.02), biases at 0, the head
  as in `linear_head`. Layer norm keeps no statistics.

  Features: `'block1'` to `'blockN'`, `[B, h, w, D]`, the tokens after each
  block, before any norm, laid out as their patches are in the image;
  `'pooled'` `[B, D]`, the mean of the tokens after the last norm.

  Reference: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, figure 1;
  the mean in place of a class token as in Beyer et al. 2022, Better plain ViT
  baselines for ImageNet-1k; the width and heads of DeiT-Ti (Touvron et al.
  2021), half as deep.

  Args:
    input_shape: shape of one image, (height, width, channels), its sides
      multiples of `patch_size`.
    num_classes: number of classes, K.
    patch_size: side of a patch, in pixels.
    width: channels of a token, D.
    depth: number of blocks.
    num_heads: divides D.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, norms,
      `'pooled'` and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> def build():
  ...   rngs = nnx.Rngs(0)
  ...   return ViT(input_shape=(28, 28, 1), num_classes=10, rngs=rngs)
  >>> model = nnx.eval_shape(build)  # shapes only: nothing is computed
  >>> model.positions.shape, model.head.kernel.shape
  ((7, 7, 192), (192, 10))
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    patch_size: int = 4,
    width: int = 192,
    depth: int = 6,
    num_heads: int = 3,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ) -> None:
    super().__init__(
      input_shape=input_shape, num_classes=num_classes, dtype=dtype
    )
    self.patch_size = outputs_lib.check_size('patch_size', patch_size)
    width = outputs_lib.check_size('width', width)
    self.depth = outputs_lib.check_size('depth', depth)
    num_heads = outputs_lib.check_size('num_heads', num_heads)
    if width % num_heads:
      raise ValueError(
        f'width={width} must be a multiple of num_heads={num_heads}'
      )
    *sides, channels = self.input_shape
    if any(side % self.patch_size for side in sides):
      raise ValueError(
        f'input_shape={self.input_shape}: the sides of an image must be '
        f'multiples of patch_size={self.patch_size}'
      )
    self.grid = tuple(side // self.patch_size for side in sides)
    self.embed = _Linear(self.patch_size**2 * channels, width, rngs=rngs)
    self.positions = nnx.Param(INIT(rngs.params(), (*self.grid, width)))
    for i in range(self.depth):
      block = TransformerBlock(width, num_heads=num_heads, rngs=rngs)
      setattr(self, f'block{i + 1}', block)
    self.last_norm = LayerNorm(width, rngs=rngs)
    self.head = linear_head(width, num_classes, rngs)

  def _features(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> dict[str, jax.Array]:
    del train  # Layer norm is the same in training.
    positions = self.positions[...].astype(inputs.dtype)
    x = self.embed(self._patches(inputs)) + positions[None]
    layout = x.shape
    x = jnp.reshape(x, (layout[0], -1, layout[-1]))
    features = {}
    for i in range(self.depth):
      x = getattr(self, f'block{i + 1}')(x)
      features[f'block{i + 1}'] = jnp.reshape(x, layout)
    x = self.last_norm(x)
    features['pooled'] = jnp.mean(x, axis=1, dtype=jnp.float32)
    return features

  def _patches(
    self, inputs: Float[jax.Array, 'B H W C']
  ) -> Float[jax.Array, 'B h w P']:
    """Returns the pixels of each patch, row by row."""
    rows, columns = self.grid
    size, channels = self.patch_size, inputs.shape[-1]
    x = jnp.reshape(inputs, (-1, rows, size, columns, size, channels))
    x = jnp.swapaxes(x, 2, 3)
    return jnp.reshape(x, (-1, rows, columns, size * size * channels))


class _Linear(nnx.Linear):
  """A linear layer that computes in the type of its inputs."""

  def __init__(
    self, num_inputs: int, num_outputs: int, *, rngs: nnx.Rngs
  ) -> None:
    super().__init__(num_inputs, num_outputs, kernel_init=INIT, rngs=rngs)

  def __call__(
    self, inputs: Float[jax.Array, '*batch C']
  ) -> Float[jax.Array, '*batch D']:
    kernel = self.kernel[...].astype(inputs.dtype)
    bias = self.bias[...].astype(inputs.dtype)
    return inputs @ kernel + jnp.expand_dims(bias, range(inputs.ndim - 1))


class LayerNorm(nnx.LayerNorm):
  """A layer norm in float32, whatever the inputs' type."""

  def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
    super().__init__(width, dtype=jnp.float32, rngs=rngs)

  def __call__(
    self, inputs: Float[jax.Array, '*batch D']
  ) -> Float[jax.Array, '*batch D']:
    """Returns them normed, of the inputs' type."""
    return super().__call__(inputs).astype(inputs.dtype)
