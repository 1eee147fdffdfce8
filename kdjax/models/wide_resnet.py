"""Wide residual networks for 32×32 images."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Float

from kdjax.models import outputs as outputs_lib
from kdjax.models.layers import Conv, Norm, relu
from kdjax.models.network import (
  Network,
  Stage,
  linear_head,
  mean_over_space,
)


class PreActivationBlock(nnx.Module):
  """Norm and ReLU before each of two 3×3 convolutions: `shortcut(x) + f(x)`.

  A shortcut that changes shape is a 1×1 convolution without a norm, of what
  the first convolution reads, too: `x` after the first norm and ReLU.

  Reference: Zagoruyko & Komodakis 2016, Wide Residual Networks, figure 1.

  Args:
    num_inputs: channels of what comes in.
    width: channels of what comes out.
    stride: of the first convolution and of the shortcut.
    rngs: where the initial parameters come from.
  """

  def __init__(
    self, num_inputs: int, width: int, *, stride: int, rngs: nnx.Rngs
  ) -> None:
    self.norm1 = Norm(num_inputs, rngs=rngs)
    self.conv1 = Conv(num_inputs, width, size=3, stride=stride, rngs=rngs)
    self.norm2 = Norm(width, rngs=rngs)
    self.conv2 = Conv(width, width, size=3, stride=1, rngs=rngs)
    self.projects = stride != 1 or num_inputs != width
    if self.projects:
      self.shortcut = Conv(num_inputs, width, size=1, stride=stride, rngs=rngs)

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the block's map: a sum, which the next norm reads."""
    active = relu(self.norm1(inputs, train=train))
    x = relu(self.norm2(self.conv1(active), train=train))
    x = self.conv2(x)
    return x + (self.shortcut(active) if self.projects else inputs)


class WideResNet(Network):
  """A wide ResNet: a convolution, three stages, a norm and ReLU, the head.

  Each stage holds (depth - 4) / 6 blocks, of 16, 32 and 64 times
  `width_factor` channels; the second and third halve the map. Convolutions
  start Kaiming-normal (fan-out), the head as in `linear_head`.

  Features: `'stem'` `[B, H, W, 16]`; `'stage1'` `[B, H, W, 16·k]` and
  `'stage2'` at half that size (rounded up) are sums, before any norm or ReLU;
  `'stage3'` at a quarter is after the last norm and ReLU, which is what is
  pooled; `'pooled'` `[B, 64·k]`, its mean over space.

  Reference: Zagoruyko & Komodakis 2016, Wide Residual Networks, table 1,
  without dropout.

  Args:
    input_shape: shape of one image, (height, width, channels).
    num_classes: number of classes, K.
    depth: number of layers, 6n + 4.
    width_factor: k, the factor on the widths of the stages.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, batch
      statistics, `'pooled'` and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> def build():
  ...   shape, rngs = (32, 32, 3), nnx.Rngs(0)
  ...   return WideResNet(
  ...     input_shape=shape, num_classes=9, depth=16, width_factor=2, rngs=rngs
  ...   )
  >>> model = nnx.eval_shape(build)  # shapes only: nothing is computed
  >>> len(model.stage1), model.head.kernel.shape
  (2, (128, 9))
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    depth: int,
    width_factor: int,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ) -> None:
    super().__init__(
      input_shape=input_shape, num_classes=num_classes, dtype=dtype
    )
    if not outputs_lib.is_integer(depth) or depth < 10 or (depth - 4) % 6:
      raise ValueError(f'depth={depth} must be 6n + 4 with n at least 1')
    factor = outputs_lib.check_size('width_factor', width_factor)
    num_blocks = (depth - 4) // 6
    num_inputs = 16
    self.stem = Conv(
      self.input_shape[-1], num_inputs, size=3, stride=1, rngs=rngs
    )
    for stage, width in enumerate((16 * factor, 32 * factor, 64 * factor)):
      blocks = []
      for i in range(num_blocks):
        stride = 2 if stage > 0 and i == 0 else 1
        blocks.append(
          PreActivationBlock(num_inputs, width, stride=stride, rngs=rngs)
        )
        num_inputs = width
      setattr(self, f'stage{stage + 1}', Stage(blocks))
    self.last_norm = Norm(num_inputs, rngs=rngs)
    self.head = linear_head(num_inputs, num_classes, rngs)

  def _features(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> dict[str, jax.Array]:
    features = {'stem': self.stem(inputs)}
    features['stage1'] = self.stage1(features['stem'], train=train)
    features['stage2'] = self.stage2(features['stage1'], train=train)
    x = self.stage3(features['stage2'], train=train)
    features['stage3'] = relu(self.last_norm(x, train=train))
    features['pooled'] = mean_over_space(features['stage3'])
    return features
