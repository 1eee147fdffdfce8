"""Residual networks for 224×224 images, as published for ImageNet."""

from collections.abc import Sequence

from flax import nnx

from kdjax.models import outputs as outputs_lib
from kdjax.models.residual import BasicBlock, Bottleneck, ResidualNetwork

# By depth: the kind of block, and how many of it in each stage.
_STAGES = {
  18: (BasicBlock, (2, 2, 2, 2)),
  34: (BasicBlock, (3, 4, 6, 3)),
  50: (Bottleneck, (3, 4, 6, 3)),
  152: (Bottleneck, (3, 8, 36, 3)),
}


class ImageNetResNet(ResidualNetwork):
  """An ImageNet ResNet: a stem, a max-pool, four stages, a linear head.

  The stem is a 7×7 convolution of stride 2; the max-pool and every stage but
  the first halve the map again. Depths 18 and 34 have basic blocks, 50 and 152
  bottlenecks, with the stride in the 3×3 convolution. The last norm's scale of
  each block starts at 0, so that the block starts as its shortcut. How the
  other parameters start and how batch norm works: see `ResidualNetwork`.

  Features, for H×W images: `'stem'` `[B, H/2, W/2, widths[0]]`, after the ReLU
  and before the max-pool; `'stage1'` `[B, H/4, W/4, E·widths[1]]` to
  `'stage4'` `[B, H/32, W/32, E·widths[4]]` (rounded up), each after the stage's
  last ReLU, where E is 1 for basic blocks and 4 for bottlenecks; `'pooled'`
  `[B, E·widths[4]]`, the mean of `'stage4'` over space.

  Reference: He et al. 2016, Deep Residual Learning, table 1; the stride's place
  as in torchvision (v1.5); the zero scales of Goyal et al. 2017, Accurate,
  Large Minibatch SGD, section 5.1.

  Args:
    input_shape: shape of one image, (height, width, channels).
    num_classes: number of classes, K.
    depth: number of layers: 18, 34, 50 or 152.
    widths: of the stem and of the blocks of the four stages.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, batch
      statistics, `'pooled'` and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> def build():
  ...   shape, rngs = (224, 224, 3), nnx.Rngs(0)
  ...   return ImageNetResNet(
  ...     input_shape=shape, num_classes=1000, depth=50, rngs=rngs
  ...   )
  >>> model = nnx.eval_shape(build)  # shapes only: nothing is computed
  >>> model.num_blocks, model.head.kernel.shape
  ((3, 4, 6, 3), (2048, 1000))
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    depth: int,
    widths: Sequence[int] = (64, 64, 128, 256, 512),
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ) -> None:
    widths = outputs_lib.check_sizes('widths', widths)
    if len(widths) != 5:
      raise ValueError(
        f'widths={widths} must hold five: the stem and four stages'
      )
    if not outputs_lib.is_integer(depth) or depth not in _STAGES:
      allowed = ', '.join(map(str, _STAGES))
      raise ValueError(f'depth={depth} must be one of {allowed}')
    block, num_blocks = _STAGES[depth]
    super().__init__(
      input_shape=input_shape,
      num_classes=num_classes,
      block=block,
      num_blocks=num_blocks,
      widths=widths,
      stem_size=7,
      stem_stride=2,
      stem_pools=True,
      last_scale=0.0,
      dtype=dtype,
      rngs=rngs,
    )
