"""What all ResNets share: blocks, stages, and the way through them."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Float

from kdjax.checks import Array
from kdjax.models.layers import Conv, Norm, relu
from kdjax.models.network import (
  Network,
  Stage,
  linear_head,
  mean_over_space,
)


class BasicBlock(nnx.Module):
  """Two 3×3 convolutions around a shortcut: `relu(shortcut(x) + f(x))`.

  A shortcut that changes shape is a 1×1 convolution and a batch norm.

  Reference: He et al. 2016, Deep Residual Learning, figure 2.

  Args:
    num_inputs: channels of what comes in.
    width: channels of what comes out.
    stride: of the first convolution and of the shortcut.
    last_scale: what the last norm's scale starts from.
    rngs: where the initial parameters come from.
  """

  expansion = 1  # channels that come out, per width

  def __init__(
    self,
    num_inputs: int,
    width: int,
    *,
    stride: int,
    last_scale: float = 1.0,
    rngs: nnx.Rngs,
  ) -> None:
    self.conv1 = Conv(num_inputs, width, size=3, stride=stride, rngs=rngs)
    self.norm1 = Norm(width, rngs=rngs)
    self.conv2 = Conv(width, width, size=3, stride=1, rngs=rngs)
    self.norm2 = Norm(width, scale=last_scale, rngs=rngs)
    self.projects = stride != 1 or num_inputs != width
    if self.projects:
      self.shortcut = Conv(num_inputs, width, size=1, stride=stride, rngs=rngs)
      self.shortcut_norm = Norm(width, rngs=rngs)

  def __call__(
    self, inputs: Float[Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the block's map, after its last ReLU."""
    x = relu(self.norm1(self.conv1(inputs), train=train))
    x = self.norm2(self.conv2(x), train=train)
    if self.projects:
      inputs = self.shortcut_norm(self.shortcut(inputs), train=train)
    return relu(inputs + x)


class Bottleneck(nnx.Module):
  """1×1, 3×3 and 1×1 convolutions around a shortcut, as in `BasicBlock`.

  The 3×3 convolution has the stride (the variant known as v1.5), and the block
  gives four times its width.

  Reference: He et al. 2016, Deep Residual Learning, figure 5.

  Args:
    num_inputs: channels of what comes in.
    width: channels between the 1×1 convolutions.
    stride: of the 3×3 convolution and of the shortcut.
    last_scale: what the last norm's scale starts from.
    rngs: where the initial parameters come from.
  """

  expansion = 4

  def __init__(
    self,
    num_inputs: int,
    width: int,
    *,
    stride: int,
    last_scale: float = 1.0,
    rngs: nnx.Rngs,
  ) -> None:
    num_outputs = self.expansion * width
    self.conv1 = Conv(num_inputs, width, size=1, stride=1, rngs=rngs)
    self.norm1 = Norm(width, rngs=rngs)
    self.conv2 = Conv(width, width, size=3, stride=stride, rngs=rngs)
    self.norm2 = Norm(width, rngs=rngs)
    self.conv3 = Conv(width, num_outputs, size=1, stride=1, rngs=rngs)
    self.norm3 = Norm(num_outputs, scale=last_scale, rngs=rngs)
    self.projects = stride != 1 or num_inputs != num_outputs
    if self.projects:
      self.shortcut = Conv(
        num_inputs, num_outputs, size=1, stride=stride, rngs=rngs
      )
      self.shortcut_norm = Norm(num_outputs, rngs=rngs)

  def __call__(
    self, inputs: Float[Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the block's map, after its last ReLU."""
    x = relu(self.norm1(self.conv1(inputs), train=train))
    x = relu(self.norm2(self.conv2(x), train=train))
    x = self.norm3(self.conv3(x), train=train)
    if self.projects:
      inputs = self.shortcut_norm(self.shortcut(inputs), train=train)
    return relu(inputs + x)


class ResidualNetwork(Network):
  """A stem, stages of residual blocks, a mean over space, a linear head.

  Every stage but the first halves the map. Convolutions start Kaiming-normal
  (fan-out), the head's weights uniform in ±1/√D as in PyTorch, its bias at 0.
  In training, batch norm uses the statistics of the whole batch, sharded or
  not, and moves the stored ones a tenth of the way there; the stored variance
  is the biased one (PyTorch stores the unbiased one).

  Args:
    input_shape: shape of one image, (height, width, channels).
    num_classes: number of classes, K.
    block: `BasicBlock` or `Bottleneck`.
    num_blocks: of each stage.
    widths: of the stem and of the blocks of each stage.
    stem_size: side of the stem's kernel.
    stem_stride: stride of the stem.
    stem_pools: whether a 3×3 max-pool of stride 2 follows the stem.
    last_scale: what the scale of each block's last norm starts from.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, batch
      statistics, `'pooled'` and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    block: type[BasicBlock] | type[Bottleneck],
    num_blocks: Sequence[int],
    widths: Sequence[int],
    stem_size: int,
    stem_stride: int,
    stem_pools: bool,
    last_scale: float,
    dtype: str,
    rngs: nnx.Rngs,
  ) -> None:
    super().__init__(
      input_shape=input_shape, num_classes=num_classes, dtype=dtype
    )
    self.num_blocks = tuple(num_blocks)
    self.stem_pools = stem_pools
    num_inputs, *widths = widths
    self.stem = Conv(
      self.input_shape[-1],
      num_inputs,
      size=stem_size,
      stride=stem_stride,
      rngs=rngs,
    )
    self.stem_norm = Norm(num_inputs, rngs=rngs)
    for stage, width in enumerate(widths):
      blocks = []
      for i in range(self.num_blocks[stage]):
        stride = 2 if stage > 0 and i == 0 else 1
        blocks.append(
          block(
            num_inputs, width, stride=stride, last_scale=last_scale, rngs=rngs
          )
        )
        num_inputs = block.expansion * width
      setattr(self, f'stage{stage + 1}', Stage(blocks))
    self.head = linear_head(num_inputs, num_classes, rngs)

  def _features(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> dict[str, jax.Array]:
    x = relu(self.stem_norm(self.stem(inputs), train=train))
    features = {'stem': x}
    if self.stem_pools:
      x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    for stage in range(len(self.num_blocks)):
      name = f'stage{stage + 1}'
      x = features[name] = getattr(self, name)(x, train=train)
    features['pooled'] = mean_over_space(x)
    return features
