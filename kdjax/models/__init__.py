"""Flax NNX networks; every one returns `Outputs(logits, features)`.

Outside a jitted function a model is an `nnx.Module`; inside it is the triple
`(graphdef, params, rest)` that `split` gives and `apply` takes.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from flax import nnx

from kdjax.checks import Array, check_known
from kdjax.models.ensemble import Ensemble
from kdjax.models.imagenet_resnet import ImageNetResNet
from kdjax.models.language import Carry, LanguageModel
from kdjax.models.lstm import LSTM
from kdjax.models.mlp import MLP
from kdjax.models.mobilenet import MobileNetV2
from kdjax.models.outputs import Outputs, is_integer
from kdjax.models.resnet import ResNet
from kdjax.models.shufflenet_v1 import ShuffleNetV1
from kdjax.models.shufflenet_v2 import ShuffleNetV2
from kdjax.models.taps import tapped
from kdjax.models.transformer import Transformer
from kdjax.models.vgg import VGG
from kdjax.models.vit import ViT
from kdjax.models.wide_resnet import WideResNet

__all__ = [
  'LSTM',
  'MLP',
  'MODELS',
  'VGG',
  'Ensemble',
  'ImageNetResNet',
  'MobileNetV2',
  'Outputs',
  'ResNet',
  'ShuffleNetV1',
  'ShuffleNetV2',
  'Transformer',
  'ViT',
  'WideResNet',
  'apply',
  'build',
  'initial_carry',
  'merge',
  'num_params',
  'reads_tokens',
  'split',
]

# Nested dicts of arrays.
Tree = dict[str, Any]

_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)
_VGG = (64, 128, 256, 512, 512)
_IMAGENET = (64, 64, 128, 256, 512)

# The names and widths of the networks for CIFAR are those of Tian et al. 2020,
# Contrastive Representation Distillation.
MODELS: dict[str, Callable[..., nnx.Module]] = {
  'mlp': MLP,
  'resnet8': partial(ResNet, depth=8, widths=_NARROW),
  'resnet14': partial(ResNet, depth=14, widths=_NARROW),
  'resnet20': partial(ResNet, depth=20, widths=_NARROW),
  'resnet32': partial(ResNet, depth=32, widths=_NARROW),
  'resnet44': partial(ResNet, depth=44, widths=_NARROW),
  'resnet56': partial(ResNet, depth=56, widths=_NARROW),
  'resnet110': partial(ResNet, depth=110, widths=_NARROW),
  'resnet8x4': partial(ResNet, depth=8, widths=_WIDE),
  'resnet32x4': partial(ResNet, depth=32, widths=_WIDE),
  'wrn_16_1': partial(WideResNet, depth=16, width_factor=1),
  'wrn_16_2': partial(WideResNet, depth=16, width_factor=2),
  'wrn_40_1': partial(WideResNet, depth=40, width_factor=1),
  'wrn_40_2': partial(WideResNet, depth=40, width_factor=2),
  'vgg8': partial(VGG, depth=8, widths=_VGG),
  'vgg11': partial(VGG, depth=11, widths=_VGG),
  'vgg13': partial(VGG, depth=13, widths=_VGG),
  'vgg16': partial(VGG, depth=16, widths=_VGG),
  'vgg19': partial(VGG, depth=19, widths=_VGG),
  'mobilenet_v2': partial(MobileNetV2, width_factor=0.5, expansion=6),
  'shufflenet_v1': ShuffleNetV1,
  'shufflenet_v2': ShuffleNetV2,
  # Ours.
  'vit': partial(ViT, patch_size=4, width=192, depth=6, num_heads=3),
  # For ImageNet.
  'resnet18': partial(ImageNetResNet, depth=18, widths=_IMAGENET),
  'resnet34': partial(ImageNetResNet, depth=34, widths=_IMAGENET),
  'resnet50': partial(ImageNetResNet, depth=50, widths=_IMAGENET),
  'resnet152': partial(ImageNetResNet, depth=152, widths=_IMAGENET),
  # For text: those of Zaremba et al. 2014, and ours.
  'lstm': LSTM,
  'lstm_small': partial(LSTM, widths=(200, 200), init_scale=0.1),
  'lstm_medium': partial(LSTM, widths=(650, 650), init_scale=0.05),
  'lstm_large': partial(LSTM, widths=(1500, 1500), init_scale=0.04),
  'transformer_tiny': partial(Transformer, width=128, depth=2, num_heads=4),
  'transformer_small': partial(Transformer, width=256, depth=4, num_heads=4),
}


def reads_tokens(name: str) -> bool:
  """Says whether a network reads rows of tokens, rather than numbers.

  Args:
    name: a name in `MODELS`.

  Returns:
    Whether its inputs are integers `[B, T]`, and its logits `[B, T, K]`.

  Raises:
    ValueError: for an unknown name (with the nearest right one).

  >>> reads_tokens('lstm_small'), reads_tokens('mlp')
  (True, False)
  """
  check_known('model', name, MODELS)
  row = MODELS[name]
  kind = row.func if isinstance(row, partial) else row
  return isinstance(kind, type) and issubclass(kind, LanguageModel)


def _option_names(name: str) -> list[str]:
  """The keywords that a row of the table leaves open to the user."""
  row = MODELS[name]
  taken = {'self', 'input_shape', 'num_classes', 'rngs'}
  if isinstance(row, partial):
    taken |= set(row.keywords)
    row = row.func
  # Not of the class itself: nnx's metaclass hides the signature.
  names = inspect.signature(row.__init__).parameters
  return [x for x in names if x not in taken]


def build(
  name: str,
  *,
  input_shape: Sequence[int],
  num_classes: int,
  seed: int,
  **options: Any,  # noqa: ANN401
) -> nnx.Module:
  """Returns a model with fresh parameters.

  Args:
    name: a name in `MODELS`.
    input_shape: shape of one example: (inputs,), (height, width, channels) or
      (tokens,).
    num_classes: number of classes, K; of a language model, the vocabulary's
      size.
    seed: an integer; the same seed gives the same parameters.
    **options: what else the model takes: `dtype`; `widths` and `dropout` for
      `'mlp'`; for text `dropout`, `tied` and `boundary`, and for `'lstm'`
      `widths` and `init_scale`.

  Returns:
    The model; call it as `model(inputs, train=..., key=...)`.

  Raises:
    ValueError: for an unknown name (with the nearest right one), for an
      option that the model does not take, or for a value outside its domain.

  >>> build('mpl', input_shape=(64,), num_classes=10, seed=0)
  Traceback (most recent call last):
  ...
  ValueError: unknown model 'mpl'; did you mean 'mlp'?
  """
  check_known('model', name, MODELS)
  allowed = _option_names(name)
  for option in options:
    check_known(f'option of {name}', option, allowed)
  if not is_integer(seed):
    raise ValueError(f'seed={seed!r} must be an integer')
  return MODELS[name](
    input_shape=input_shape,
    num_classes=num_classes,
    rngs=nnx.Rngs(seed),
    **options,
  )


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
  """Takes a model apart.

  Args:
    model: a model of this package.

  Returns:
    The structure, which is hashable and holds no arrays; the trainable
    parameters; the rest: batch norm's running statistics, memories. The last
    two are nested dicts of arrays with strings as keys.

  >>> model = build('mlp', input_shape=(4,), num_classes=2, seed=0, widths=(3,))
  >>> graphdef, params, rest = split(model)
  >>> jax.tree.map(lambda x: x.shape, params['head']), rest
  ({'bias': (2,), 'kernel': (3, 2)}, {})
  """
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)
  return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)


def merge(graphdef: nnx.GraphDef, params: Tree, rest: Tree) -> nnx.Module:
  """Puts together what `split` took apart.

  Args:
    graphdef: the structure.
    params: the trainable parameters.
    rest: batch norm's running statistics.

  Returns:
    A new model; using it leaves `params` and `rest` as they are.
  """
  return nnx.merge(graphdef, params, rest)


def apply(
  graphdef: nnx.GraphDef,
  params: Tree,
  rest: Tree,
  inputs: Array,
  *,
  train: bool,
  key: jax.Array | None = None,
  taps: Sequence[str] = (),
  carry: Carry = None,
) -> tuple[Outputs, Tree]:
  """Runs a model as a pure function, for use in `jit`, `grad` and `scan`.

  Args:
    graphdef: the structure.
    params: the trainable parameters.
    rest: batch norm's running statistics.
    inputs: examples, `[B, *input_shape]`, floating point; tokens, `[B, T]`,
      integers.
    train: whether units are dropped and batch norm uses this batch.
    key: a PRNG key; needed only by a model with dropout, when `train`.
    taps: paths of modules inside the model, as in `'stage2/block1/norm1'`;
      what each returns is a feature of that name.
    carry: what a model with a memory gave for the rows before these; None or
      `()`: nothing came before.

  Returns:
    The outputs, and the new `rest`: `rest` itself unless `train`.

  Raises:
    ValueError: for inputs of another shape, where a key is missing, for a path
      without a module that returns an array, or for another batch's carry.
    TypeError: for inputs that are not floating point, or not integers.

  >>> model = build('mlp', input_shape=(4,), num_classes=2, seed=0, widths=(3,))
  >>> inputs = jax.numpy.ones((5, 4))
  >>> outputs, _ = apply(*split(model), inputs, train=False)
  >>> outputs.logits.shape
  (5, 2)
  """
  model = merge(graphdef, params, rest)
  inner = model.inner if isinstance(model, Ensemble) else model
  memory = {'carry': carry} if jax.tree.leaves(carry) else {}
  with tapped(inner, taps) as seen:
    outputs = model(inputs, train=train, key=key, **memory)
  outputs = outputs._replace(features={**outputs.features, **seen})
  return outputs, split(model)[2] if train else rest


def initial_carry(
  graphdef: nnx.GraphDef, params: Tree, rest: Tree, *, batch_size: int
) -> Carry:
  """Returns what a model remembers before it has read anything.

  Args:
    graphdef: the structure.
    params: the trainable parameters, or their shapes.
    rest: batch norm's running statistics, or their shapes.
    batch_size: rows of a batch, B.

  Returns:
    A pytree of zeros, `[B, ...]`; `()` for a model without a memory.

  >>> model = build(
  ...   'lstm', input_shape=(5,), num_classes=9, seed=0, widths=(3,)
  ... )
  >>> carry = initial_carry(*split(model), batch_size=2)
  >>> jax.tree.map(lambda x: x.shape, carry)
  {'layer1': ((2, 3), (2, 3))}
  """
  model = merge(graphdef, params, rest)
  if not hasattr(model, 'initial_carry'):
    return ()
  return model.initial_carry(batch_size)


def num_params(params: Tree) -> int:
  """Returns how many numbers are trained.

  Args:
    params: the trainable parameters, or their shapes (`jax.eval_shape`).

  Returns:
    The number of parameters.

  >>> model = build('mlp', input_shape=(4,), num_classes=2, seed=0, widths=(3,))
  >>> num_params(split(model)[1])
  23
  """
  return sum(math.prod(x.shape) for x in jax.tree.leaves(params))
