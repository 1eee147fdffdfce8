"""MobileNetV2 for 32×32 images."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Float

from kdjax.checks import check_positive
from kdjax.models import outputs as outputs_lib
from kdjax.models.layers import ConvNorm, relu
from kdjax.models.network import (
  Network,
  Stage,
  linear_head,
  mean_over_space,
)

# Of each group of blocks: the stage that it is in; channels at full width; how
# many blocks; the stride of the first; whether they expand.
_GROUPS = (
  (1, 16, 1, 1, False),
  (1, 24, 2, 1, True),
  (2, 32, 3, 2, True),
  (3, 64, 4, 2, True),
  (3, 96, 3, 1, True),
  (4, 160, 3, 2, True),
  (4, 320, 1, 1, True),
)
_STEM, _LAST = 32, 1280


class InvertedResidual(nnx.Module):
  """1×1, depthwise 3×3 and 1×1 convolutions, wide in the middle.

  ReLU follows the first two; the last is linear. The input is added where the
  shape stays.

  Reference: Sandler et al. 2018, MobileNetV2, table 1.

  Args:
    num_inputs: channels of what comes in.
    width: channels of what comes out.
    stride: of the depthwise convolution.
    expansion: channels in the middle, per channel that comes in.
    rngs: where the initial parameters come from.
  """

  def __init__(
    self,
    num_inputs: int,
    width: int,
    *,
    stride: int,
    expansion: int,
    rngs: nnx.Rngs,
  ) -> None:
    hidden = expansion * num_inputs
    self.expand = ConvNorm(num_inputs, hidden, rngs=rngs)
    self.depthwise = ConvNorm(
      hidden, hidden, size=3, stride=stride, num_groups=hidden, rngs=rngs
    )
    self.project = ConvNorm(hidden, width, rngs=rngs)
    self.adds = stride == 1 and num_inputs == width

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the block's map, which no ReLU follows."""
    x = relu(self.expand(inputs, train=train))
    x = relu(self.depthwise(x, train=train))
    x = self.project(x, train=train)
    return inputs + x if self.adds else x


class MobileNetV2(Network):
  """A MobileNetV2: a stem, 17 inverted residuals, a 1×1 convolution, the head.

  The stem, the second, third and fourth stage halve the map; the paper, for
  larger images, halves it in the first stage, too. Convolutions start
  Kaiming-normal (fan-out), the head as in `linear_head`.

  Features: `'stem'` at half the size of the image (rounded up), after its
  ReLU; `'stage1'` of the same size; `'stage2'`, `'stage3'` and `'stage4'` at a
  half, a quarter and an eighth of that, before any ReLU, with 24, 32, 96 and
  320 times `width_factor` channels; `'pooled'` `[B, 1280]`, the mean over space
  of the last convolution's map.

  Reference: Sandler et al. 2018, MobileNetV2, table 2; the strides, ReLU in
  place of ReLU6, an expanding convolution in the first block and channels
  rounded down, not to a multiple of 8, as in the code of Tian et al. 2020,
  Contrastive Representation Distillation.

  Args:
    input_shape: shape of one image, (height, width, channels).
    num_classes: number of classes, K.
    width_factor: the factor on the channels of all blocks, at least 1/16; on
      those of the last convolution where it is above 1.
    expansion: of all blocks but the first, which has 1.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, batch
      statistics, `'pooled'` and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> def build():
  ...   rngs = nnx.Rngs(0)
  ...   return MobileNetV2(input_shape=(32, 32, 3), num_classes=9, rngs=rngs)
  >>> model = nnx.eval_shape(build)  # shapes only: nothing is computed
  >>> len(model.stage3), model.head.kernel.shape
  (7, (1280, 9))
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    width_factor: float = 0.5,
    expansion: int = 6,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ) -> None:
    super().__init__(
      input_shape=input_shape, num_classes=num_classes, dtype=dtype
    )
    check_positive('width_factor', width_factor)
    if width_factor < 1 / 16:
      raise ValueError(f'width_factor={width_factor} must be at least 1/16')
    expansion = outputs_lib.check_size('expansion', expansion)
    num_inputs = int(_STEM * width_factor)
    self.stem = ConvNorm(
      self.input_shape[-1], num_inputs, size=3, stride=2, rngs=rngs
    )
    stages = {f'stage{i + 1}': [] for i in range(4)}
    for stage, channels, number, first_stride, expands in _GROUPS:
      width = int(channels * width_factor)
      for i in range(number):
        stages[f'stage{stage}'].append(
          InvertedResidual(
            num_inputs,
            width,
            stride=first_stride if i == 0 else 1,
            expansion=expansion if expands else 1,
            rngs=rngs,
          )
        )
        num_inputs = width
    for name, blocks in stages.items():
      setattr(self, name, Stage(blocks))
    last = int(_LAST * max(width_factor, 1))
    self.last = ConvNorm(num_inputs, last, rngs=rngs)
    self.head = linear_head(last, num_classes, rngs)

  def _features(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> dict[str, jax.Array]:
    x = relu(self.stem(inputs, train=train))
    features = {'stem': x}
    for name in ('stage1', 'stage2', 'stage3', 'stage4'):
      x = features[name] = getattr(self, name)(x, train=train)
    features['pooled'] = mean_over_space(relu(self.last(x, train=train)))
    return features
