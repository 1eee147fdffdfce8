"""Residual networks for 32×32 images, as published for CIFAR."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kdjax.checks import Array, typed
from kdjax.models import outputs as outputs_lib

# Kaiming-normal, fan-out: what the published recipe starts convolutions from.
_CONV_INIT = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# U(-1/√D, 1/√D): what PyTorch starts the rows of a linear layer from.
_HEAD_INIT = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def _conv(
  num_inputs: int, num_outputs: int, size: int, stride: int, rngs: nnx.Rngs
) -> nnx.Conv:
  """A convolution without bias, padded alike on both sides as in PyTorch."""
  return nnx.Conv(
    num_inputs,
    num_outputs,
    (size, size),
    strides=stride,
    padding=(size - 1) // 2,
    use_bias=False,
    kernel_init=_CONV_INIT,
    rngs=rngs,
  )


def _norm(num_features: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
  """A batch norm; momentum 0.9 is what PyTorch calls 0.1."""
  return nnx.BatchNorm(num_features, momentum=0.9, epsilon=1e-5, rngs=rngs)


class Block(nnx.Module):
  """Two 3×3 convolutions around a shortcut: `relu(shortcut(x) + f(x))`.

  A shortcut that changes shape is a 1×1 convolution and a batch norm.

  Reference: He et al. 2016, Deep Residual Learning, figure 2.
  """

  def __init__(
    self, num_inputs: int, num_outputs: int, *, stride: int, rngs: nnx.Rngs
  ) -> None:
    self.conv1 = _conv(num_inputs, num_outputs, 3, stride, rngs)
    self.norm1 = _norm(num_outputs, rngs)
    self.conv2 = _conv(num_outputs, num_outputs, 3, 1, rngs)
    self.norm2 = _norm(num_outputs, rngs)
    self.projects = stride != 1 or num_inputs != num_outputs
    if self.projects:
      self.shortcut = _conv(num_inputs, num_outputs, 1, stride, rngs)
      self.shortcut_norm = _norm(num_outputs, rngs)

  def __call__(
    self, inputs: Float[Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the block's map, after its last ReLU."""
    average = not train
    x = self.norm1(self.conv1(inputs), use_running_average=average)
    x = self.conv2(nnx.relu(x))
    x = self.norm2(x, use_running_average=average)
    if self.projects:
      inputs = self.shortcut(inputs)
      inputs = self.shortcut_norm(inputs, use_running_average=average)
    return nnx.relu(inputs + x)


class ResNet(nnx.Module):
  """A CIFAR ResNet: a stem, three stages of basic blocks, a linear head.

  Each stage holds (depth - 2) / 6 blocks; the second and third halve the map.
  Convolutions start Kaiming-normal (fan-out), the head's weights uniform in
  ±1/√D as in PyTorch, its bias at 0. In training, batch norm uses the
  statistics of the whole batch, sharded or not, and moves the stored ones a
  tenth of the way there; the stored variance is the biased one (PyTorch
  stores the unbiased one).

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
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> def build():
  ...   rngs = nnx.Rngs(0)
  ...   return ResNet(input_shape=(8, 8, 1), num_classes=10, depth=8, rngs=rngs)
  >>> model = nnx.eval_shape(build)  # shapes only: nothing is computed
  >>> model.num_blocks, model.head.kernel.shape
  (1, (64, 10))
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    depth: int,
    widths: Sequence[int] = (16, 16, 32, 64),
    rngs: nnx.Rngs,
  ) -> None:
    self.input_shape = outputs_lib.check_sizes('input_shape', input_shape)
    if len(self.input_shape) != 3:
      raise ValueError(
        f'input_shape={self.input_shape}: a ResNet needs images, '
        '(height, width, channels)'
      )
    num_classes = outputs_lib.check_size('num_classes', num_classes)
    widths = outputs_lib.check_sizes('widths', widths)
    if len(widths) != 4:
      raise ValueError(
        f'widths={widths} must hold four: the stem and three stages'
      )
    if not outputs_lib.is_integer(depth) or depth < 8 or (depth - 2) % 6:
      raise ValueError(f'depth={depth} must be 6n + 2 with n at least 1')
    self.num_blocks = (depth - 2) // 6
    self.stem = _conv(self.input_shape[-1], widths[0], 3, 1, rngs)
    self.stem_norm = _norm(widths[0], rngs)
    self.stage1 = self._stage(widths[0], widths[1], stride=1, rngs=rngs)
    self.stage2 = self._stage(widths[1], widths[2], stride=2, rngs=rngs)
    self.stage3 = self._stage(widths[2], widths[3], stride=2, rngs=rngs)
    self.head = nnx.Linear(
      widths[3], num_classes, kernel_init=_HEAD_INIT, rngs=rngs
    )

  def _stage(
    self, num_inputs: int, num_outputs: int, *, stride: int, rngs: nnx.Rngs
  ) -> nnx.Dict:
    """The blocks of one stage; the first one changes the shape."""
    blocks = {
      'block1': Block(num_inputs, num_outputs, stride=stride, rngs=rngs)
    }
    for i in range(2, self.num_blocks + 1):
      blocks[f'block{i}'] = Block(num_outputs, num_outputs, stride=1, rngs=rngs)
    return nnx.Dict(blocks)

  @property
  def class_weights(self) -> Float[jax.Array, 'K D']:
    """The head's weights, one row for each class."""
    return self.head.kernel[...].T

  @typed
  def __call__(
    self,
    inputs: Float[Array, 'B ...'],
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> outputs_lib.Outputs:
    """Returns logits and features.

    Args:
      inputs: images, `[B, *input_shape]`, normalised.
      train: whether batch norm uses the batch's statistics and stores them.
      key: unused, since nothing in a ResNet is random.

    Returns:
      The logits `[B, K]` and the features.

    Raises:
      ValueError: for inputs of another shape.
    """
    del key
    outputs_lib.check_inputs(inputs, self.input_shape)
    x = self.stem_norm(self.stem(inputs), use_running_average=not train)
    x = nnx.relu(x)
    features = {'stem': x}
    for name in ('stage1', 'stage2', 'stage3'):
      blocks = getattr(self, name)
      # By number: a merged Dict is sorted by name, block10 before block2.
      for i in range(1, self.num_blocks + 1):
        x = blocks[f'block{i}'](x, train=train)
      features[name] = x
    features['pooled'] = jnp.mean(x, axis=(1, 2))
    logits = self.head(features['pooled']).astype(jnp.float32)
    return outputs_lib.Outputs(logits, features)
