"""ShuffleNet V2 for 32×32 images."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kdjax.models.layers import ConvNorm, relu, shuffle
from kdjax.models.network import (
  Network,
  Stage,
  linear_head,
  mean_over_space,
)

_STEM = 24
_LAST = 1024
# By stage: channels, and how many blocks, the first of which halves the map.
_STAGES = {
  'stage1': (116, 4),
  'stage2': (232, 8),
  'stage3': (464, 4),
}


class SplitBlock(nnx.Module):
  """The unit of ShuffleNet V2: half of the channels pass as they are.

  The other half goes through 1×1, depthwise 3×3 and 1×1 convolutions, with
  ReLU after the 1×1 ones; then both are shuffled.

  Reference: Ma et al. 2018, ShuffleNet V2, figure 3 (c).

  Args:
    width: channels, even.
    rngs: where the initial parameters come from.
  """

  def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
    self.branch = _Branch(width // 2, width // 2, stride=1, rngs=rngs)

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H W C']:
    """Returns the block's map."""
    kept, changed = jnp.split(inputs, 2, axis=-1)
    changed = self.branch(changed, train=train)
    return shuffle(jnp.concatenate([kept, changed], axis=-1), num_groups=2)


class HalvingBlock(nnx.Module):
  """The unit of ShuffleNet V2 that halves the map: two branches, shuffled.

  Reference: Ma et al. 2018, ShuffleNet V2, figure 3 (d).

  Args:
    num_inputs: channels of what comes in.
    width: channels of what comes out, even.
    rngs: where the initial parameters come from.
  """

  def __init__(self, num_inputs: int, width: int, *, rngs: nnx.Rngs) -> None:
    self.depthwise = ConvNorm(
      num_inputs,
      num_inputs,
      size=3,
      stride=2,
      num_groups=num_inputs,
      rngs=rngs,
    )
    self.pointwise = ConvNorm(num_inputs, width // 2, rngs=rngs)
    self.branch = _Branch(num_inputs, width // 2, stride=2, rngs=rngs)

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    """Returns the block's map."""
    left = self.depthwise(inputs, train=train)
    left = relu(self.pointwise(left, train=train))
    right = self.branch(inputs, train=train)
    return shuffle(jnp.concatenate([left, right], axis=-1), num_groups=2)


class _Branch(nnx.Module):
  """1×1, depthwise 3×3 and 1×1 convolutions, ReLU after the 1×1 ones."""

  def __init__(
    self, num_inputs: int, width: int, *, stride: int, rngs: nnx.Rngs
  ) -> None:
    self.first = ConvNorm(num_inputs, width, rngs=rngs)
    self.depthwise = ConvNorm(
      width, width, size=3, stride=stride, num_groups=width, rngs=rngs
    )
    self.last = ConvNorm(width, width, rngs=rngs)

  def __call__(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> Float[jax.Array, 'B H2 W2 C2']:
    x = relu(self.first(inputs, train=train))
    x = self.depthwise(x, train=train)
    return relu(self.last(x, train=train))


class ShuffleNetV2(Network):
  """A ShuffleNet V2 (1×): a 1×1 stem, three stages, a 1×1 layer, the head.

  Every stage halves the map. Convolutions start Kaiming-normal (fan-out), the
  head as in `linear_head`.

  Features: `'stem'` `[B, H, W, 24]`; `'stage1'`, `'stage2'` and `'stage3'` at a
  half, a quarter and an eighth of that size (rounded up), with 116, 232 and 464
  channels, each after ReLU and shuffle; `'pooled'` `[B, 1024]`, the mean over
  space of the last convolution's map.

  Reference: Ma et al. 2018, ShuffleNet V2, table 5, 1×; the stem as in the
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
  ...   return ShuffleNetV2(input_shape=(32, 32, 3), num_classes=9, rngs=rngs)
  >>> model = nnx.eval_shape(build)  # shapes only: nothing is computed
  >>> len(model.stage2), model.head.kernel.shape
  (8, (1024, 9))
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
      halving = HalvingBlock(num_inputs, width, rngs=rngs)
      others = [SplitBlock(width, rngs=rngs) for _ in range(number - 1)]
      setattr(self, name, Stage([halving, *others]))
      num_inputs = width
    self.last = ConvNorm(num_inputs, _LAST, rngs=rngs)
    self.head = linear_head(_LAST, num_classes, rngs)

  def _features(
    self, inputs: Float[jax.Array, 'B H W C'], *, train: bool
  ) -> dict[str, jax.Array]:
    x = relu(self.stem(inputs, train=train))
    features = {'stem': x}
    for name in _STAGES:
      x = features[name] = getattr(self, name)(x, train=train)
    features['pooled'] = mean_over_space(relu(self.last(x, train=train)))
    return features
