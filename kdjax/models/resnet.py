"""Residual networks for 32×32 images, as published for CIFAR."""

from collections.abc import Sequence

from flax import nnx

from kdjax.models import outputs as outputs_lib
from kdjax.models.residual import BasicBlock, ResidualNetwork


class ResNet(ResidualNetwork):
  """A CIFAR ResNet: a stem, three stages of basic blocks, a linear head.

  Each stage holds (depth - 2) / 6 blocks; the second and third halve the map.
  How parameters start and how batch norm works: see `ResidualNetwork`.

  Features: `'stem'` `[B, H, W, widths[0]]`; `'stage1'` `[B, H, W,
  widths[1]]`, `'stage2'` at half, and `'stage3'` at a quarter of that size
  (rounded up), each after the stage's last ReLU; `'pooled'` `[B, widths[3]]`,
  the mean of `'stage3'` over space.

  Reference: He et al. 2016, Deep Residual Learning, section 4.2; the widths
  and the projected shortcuts as in the code of Tian et al. 2020, Contrastive
  Representation Distillation.

  Args:
    input_shape: shape of one image, (height, width, channels).
    num_classes: number of classes, K.
    depth: number of layers, 6n + 2.
    widths: channels of the stem and of the three stages.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, batch
      statistics, `'pooled'` and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> def build():
  ...   rngs = nnx.Rngs(0)
  ...   return ResNet(input_shape=(8, 8, 1), num_classes=10, depth=8, rngs=rngs)
  >>> model = nnx.eval_shape(build)  # shapes only: nothing is computed
  >>> model.num_blocks, model.head.kernel.shape
  ((1, 1, 1), (64, 10))
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    depth: int,
    widths: Sequence[int] = (16, 16, 32, 64),
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ) -> None:
    widths = outputs_lib.check_sizes('widths', widths)
    if len(widths) != 4:
      raise ValueError(
        f'widths={widths} must hold four: the stem and three stages'
      )
    if not outputs_lib.is_integer(depth) or depth < 8 or (depth - 2) % 6:
      raise ValueError(f'depth={depth} must be 6n + 2 with n at least 1')
    super().__init__(
      input_shape=input_shape,
      num_classes=num_classes,
      block=BasicBlock,
      num_blocks=((depth - 2) // 6,) * 3,
      widths=widths,
      stem_size=3,
      stem_stride=1,
      stem_pools=False,
      last_scale=1.0,
      dtype=dtype,
      rngs=rngs,
    )
