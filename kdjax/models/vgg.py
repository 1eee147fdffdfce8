"""VGG networks with batch norm, for 32×32 images."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Float

from kdjax.models import outputs as outputs_lib
from kdjax.models.layers import ConvNorm, halve_by_max, relu
from kdjax.models.network import (
  Network,
  Stage,
  linear_head,
  mean_over_space,
)

# By depth: how many convolutions each of the five stages has.
_NUM_CONVS = {
  8: (1, 1, 1, 1, 1),
  11: (1, 1, 2, 2, 2),
  13: (2, 2, 2, 2, 2),
  16: (2, 2, 3, 3, 3),
  19: (2, 2, 4, 4, 4),
}
# The first is called the stem, so that stages have their names in all networks.
_NAMES = ('stem', 'stage1', 'stage2', 'stage3', 'stage4')
# Three pools halve it to one pixel.
_LEAST_SIZE = 2**3


class ConvBlock(nnx.Module):
  """A 3×3 convolution with a bias, batch norm, ReLU."""

  def __init__(self, num_inputs: int, width: int, *, rngs: nnx.Rngs) -> None:
    self.layer = ConvNorm(num_inputs, width, size=3, bias=True, rngs=rngs)

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H W C2']:
    """Returns the block's map, after its ReLU."""
    return relu(self.layer(inputs, train=train))


class VGG(Network):
  """A VGG: five stages of 3×3 convolutions and one linear layer, the head.

  A 2×2 max-pool stands before the second, third and fourth stage; the last two
  stages share a size, as 32×32 images have it. Convolutions start
  Kaiming-normal (fan-out) with biases at 0, the head as in `linear_head`.

  Features, each after the stage's last ReLU: `'stem'` `[B, H, W, widths[0]]`,
  which is the first stage; `'stage1'`, `'stage2'` and `'stage3'` at a half, a
  quarter and an eighth of that size (rounded down); `'stage4'` of `'stage3'`'s
  size; `'pooled'` `[B, widths[4]]`, the mean of `'stage4'` over space.

  Reference: Simonyan & Zisserman 2015, Very Deep Convolutional Networks, table
  1; depth 8, the norms, the pools and the single linear layer as in the code
  of Tian et al. 2020, Contrastive Representation Distillation.

  Args:
    input_shape: shape of one image, (height, width, channels), at least 8×8.
    num_classes: number of classes, K.
    depth: number of layers of the published network: 8, 11, 13, 16 or 19.
    widths: channels of the five stages.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, batch
      statistics, `'pooled'` and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> def build():
  ...   rngs = nnx.Rngs(0)
  ...   return VGG(input_shape=(32, 32, 3), num_classes=9, depth=13, rngs=rngs)
  >>> model = nnx.eval_shape(build)  # shapes only: nothing is computed
  >>> len(model.stage1), model.head.kernel.shape
  (2, (512, 9))
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    depth: int,
    widths: Sequence[int] = (64, 128, 256, 512, 512),
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ) -> None:
    super().__init__(
      input_shape=input_shape, num_classes=num_classes, dtype=dtype
    )
    if min(self.input_shape[:2]) < _LEAST_SIZE:
      raise ValueError(
        f'input_shape={self.input_shape}: three pools halve the map; a VGG '
        f'needs images of at least {_LEAST_SIZE}×{_LEAST_SIZE}'
      )
    if not outputs_lib.is_integer(depth) or depth not in _NUM_CONVS:
      allowed = ', '.join(map(str, _NUM_CONVS))
      raise ValueError(f'depth={depth} must be one of {allowed}')
    widths = outputs_lib.check_sizes('widths', widths)
    if len(widths) != 5:
      raise ValueError(f'widths={widths} must hold five, one for each stage')
    num_inputs = self.input_shape[-1]
    for name, width, number in zip(
      _NAMES, widths, _NUM_CONVS[depth], strict=True
    ):
      blocks = []
      for _ in range(number):
        blocks.append(ConvBlock(num_inputs, width, rngs=rngs))
        num_inputs = width
      setattr(self, name, Stage(blocks))
    self.head = linear_head(num_inputs, num_classes, rngs)

  def _features(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> dict[str, jax.Array]:
    features = {}
    x = inputs
    for name in _NAMES:
      if name in ('stage1', 'stage2', 'stage3'):
        x = halve_by_max(x)
      x = features[name] = getattr(self, name)(x, train=train)
    features['pooled'] = mean_over_space(x)
    return features
