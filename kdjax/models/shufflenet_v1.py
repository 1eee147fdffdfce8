"""ShuffleNet V1 for 32×32 images."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kdjax.models.layers import ConvNorm, halve_by_mean, relu, shuffle
from kdjax.models.network import (
  Network,
  Stage,
  linear_head,
  mean_over_space,
)

_STEM = 24
_NUM_GROUPS = 3
# By stage: channels, and how many blocks, the first of which halves the map.
_STAGES = {
  'stage1': (240, 4),
  'stage2': (480, 8),
  'stage3': (960, 4),
}


class GroupedBlock(nnx.Module):
  """The unit of ShuffleNet V1: grouped 1×1, shuffle, depthwise, grouped 1×1.

  A block that halves the map has its input, averaged, beside its outputs;
  another adds it.

  Reference: Zhang et al. 2018, ShuffleNet, figure 2; the ReLU after the
  depthwise convolution as in the code of Tian et al. 2020.

  Args:
    num_inputs: channels of what comes in.
    width: channels of what comes out, the input's with them if it halves.
    halves: whether it halves the map.
    first_groups: groups of the first convolution.
    rngs: where the initial parameters come from.
  """

  def __init__(
    self,
    num_inputs: int,
    width: int,
    *,
    halves: bool,
    first_groups: int,
    rngs: nnx.Rngs,
  ) -> None:
    self.halves = halves
    self.first_groups = first_groups
    num_outputs = width - num_inputs if halves else width
    hidden = num_outputs // 4
    self.first = ConvNorm(
      num_inputs, hidden, num_groups=first_groups, rngs=rngs
    )
    self.depthwise = ConvNorm(
      hidden,
      hidden,
      size=3,
      stride=2 if halves else 1,
      num_groups=hidden,
      rngs=rngs,
    )
    self.last = ConvNorm(hidden, num_outputs, num_groups=_NUM_GROUPS, rngs=rngs)

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the block's map, after its last ReLU."""
    x = relu(self.first(inputs, train=train))
    x = shuffle(x, num_groups=self.first_groups)
    x = relu(self.depthwise(x, train=train))
    x = self.last(x, train=train)
    if self.halves:
      return relu(jnp.concatenate([x, halve_by_mean(inputs)], axis=-1))
    return relu(inputs + x)


class ShuffleNetV1(Network):
  """A ShuffleNet of three groups: a 1×1 stem, three stages, the head.

  Every stage halves the map. Convolutions start Kaiming-normal (fan-out), the
  head as in `linear_head`.

  Features, each after a ReLU: `'stem'` `[B, H, W, 24]`; `'stage1'`, `'stage2'`
  and `'stage3'` at a half, a quarter and an eighth of that size (rounded up),
  with 240, 480 and 960 channels; `'pooled'` `[B, 960]`, the mean of `'stage3'`
  over space.

  Reference: Zhang et al. 2018, ShuffleNet, table 1, g = 3; the stem as in the
  code of Tian et al. 2020, Contrastive Representation Distillation.

  Args:
    input_shape: shape of one image, (height, width, channels).
    num_classes: number of classes, K.
    dtype: what is computed in, 'float32' or 'bfloat16'; parameters, batch
      statistics, `'pooled'` and logits are float32 either way.
    rngs: where the initial parameters come from.

  Raises:
    ValueError: if an argument is outside its domain.

  >>> def build():
  ...   rngs = nnx.Rngs(0)
  ...   return ShuffleNetV1(input_shape=(32, 32, 3), num_classes=9, rngs=rngs)
  >>> model = nnx.eval_shape(build)  # shapes only: nothing is computed
  >>> len(model.stage2), model.head.kernel.shape
  (8, (960, 9))
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ) -> None:
    super().__init__(
      input_shape=input_shape, num_classes=num_classes, dtype=dtype
    )
    self.stem = ConvNorm(self.input_shape[-1], _STEM, rngs=rngs)
    num_inputs = _STEM
    for name, (width, number) in _STAGES.items():
      blocks = []
      for i in range(number):
        # The stem's channels are too few to be worth groups.
        groups = 1 if num_inputs == _STEM else _NUM_GROUPS
        blocks.append(
          GroupedBlock(
            num_inputs, width, halves=i == 0, first_groups=groups, rngs=rngs
          )
        )
        num_inputs = width
      setattr(self, name, Stage(blocks))
    self.head = linear_head(num_inputs, num_classes, rngs)

  def _features(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> dict[str, jax.Array]:
    x = relu(self.stem(inputs, train=train))
    features = {'stem': x}
    for name in _STAGES:
      x = features[name] = getattr(self, name)(x, train=train)
    features['pooled'] = mean_over_space(x)
    return features
