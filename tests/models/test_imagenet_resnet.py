"""The ResNets for ImageNet: published sizes, shapes, and their blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sizes
from flax import nnx

from kdjax import models
from kdjax.models import residual

# Trainable parameters for 1000 classes, and 10⁹ multiply-accumulates of one
# forward pass on 224×224×3.
PUBLISHED = {
  'resnet18': (11_689_512, 1.814),
  'resnet34': (21_797_672, 3.664),
  'resnet50': (25_557_032, 4.089),
  'resnet152': (60_192_808, 11.514),
}


def _small(*, depth=18, widths=(4, 4, 4, 6, 8), input_shape=(32, 36, 2)):
  model = models.ImageNetResNet(
    input_shape=input_shape,
    num_classes=3,
    depth=depth,
    widths=widths,
    rngs=nnx.Rngs(0),
  )
  return models.split(model)


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_sizes(name):
  num_params, macs, outputs = sizes.sizes(
    name, input_shape=(224, 224, 3), num_classes=1000
  )
  assert num_params == PUBLISHED[name][0]
  np.testing.assert_allclose(macs / 1e9, PUBLISHED[name][1], atol=5e-4)
  expansion = 1 if name in ('resnet18', 'resnet34') else 4
  assert {k: v.shape[1:] for k, v in outputs.features.items()} == {
    'stem': (112, 112, 64),
    'stage1': (56, 56, 64 * expansion),
    'stage2': (28, 28, 128 * expansion),
    'stage3': (14, 14, 256 * expansion),
    'stage4': (7, 7, 512 * expansion),
    'pooled': (512 * expansion,),
  }
  assert outputs.logits.shape == (1, 1000)


def test_trains_a_small_one():
  """The zero scales move first, and then every parameter."""
  graphdef, params, rest = _small(depth=50)
  inputs = np.random.default_rng(0).normal(size=(4, 32, 36, 2))
  inputs = inputs.astype(np.float32)

  @jax.jit
  def step(params, rest):
    def loss(params):
      outputs, new_rest = models.apply(
        graphdef, params, rest, inputs, train=True
      )
      return jnp.mean((outputs.logits - 1) ** 2), new_rest

    (loss, rest), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    return moved, rest, loss

  losses, first = [], params
  for _ in range(3):
    params, rest, loss = step(params, rest)
    losses.append(loss)
  assert losses[2] < losses[0]
  moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), params, first)
  assert all(jax.tree.leaves(moved))


def test_blocks_start_as_their_shortcuts():
  for depth, last in [(18, 'norm2'), (50, 'norm3')]:
    _, params, _ = _small(depth=depth)
    for stage in ('stage1', 'stage2', 'stage3', 'stage4'):
      for block in params[stage].values():
        assert not jnp.any(block[last]['scale'])
        assert jnp.all(block['norm1']['scale'] == 1)


def test_the_stride_is_in_the_3x3_convolution():
  model = nnx.eval_shape(
    lambda: models.build(
      'resnet50', input_shape=(224, 224, 3), num_classes=2, seed=0
    )
  )
  block = model.stage2['block1']
  assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == (
    1,
    2,
    1,
  )
  assert block.conv2.kernel.shape == (3, 3, 128, 128)
  assert model.stage1['block1'].conv2.stride == 1


def test_max_pool_takes_the_largest_of_nine():
  """The first block starts as its shortcut: stage1 reads the pooled stem."""
  graphdef, params, rest = _small(depth=18)
  inputs = np.random.default_rng(0).normal(size=(2, 32, 36, 2))
  outputs, _ = models.apply(
    graphdef, params, rest, inputs.astype(np.float32), train=False
  )
  stem = np.asarray(outputs.features['stem'])
  assert stem.shape == (2, 16, 18, 4)
  padded = np.pad(stem, ((0, 0), (1, 1), (1, 1), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
  pooled = windows[:, ::2, ::2].max((-1, -2))
  np.testing.assert_array_equal(outputs.features['stage1'], pooled)


def test_blocks_keep_their_order_beyond_nine():
  """In a merged model block10 runs after block9, not after block1."""
  model = residual.ResidualNetwork(
    input_shape=(4, 4, 2),
    num_classes=3,
    block=residual.Bottleneck,
    num_blocks=(1, 11),
    widths=(2, 2, 2),
    stem_size=7,
    stem_stride=1,
    stem_pools=False,
    last_scale=0.5,
    dtype='float32',
    rngs=nnx.Rngs(0),
  )
  model = models.merge(*models.split(model))

  @nnx.jit
  def run(model, inputs):
    features = model(inputs, train=False).features
    x = features['stage1']
    for i in range(1, 12):
      x = model.stage2[f'block{i}'](x, train=False)
    return features['stage2'], x

  inputs = np.random.default_rng(0).normal(size=(1, 4, 4, 2))
  actual, desired = run(model, inputs.astype(np.float32))
  assert jnp.any(desired > 0)
  np.testing.assert_allclose(actual, desired, rtol=1e-4)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'depth': 20}, 'depth=20 must be one of 18, 34, 50, 152'),
    ({'depth': 18.0}, 'depth=18.0 must be one of'),
    ({'depth': 18, 'widths': (4, 4, 8, 8)}, 'must hold five'),
    ({'depth': 18, 'widths': (4, 4, 8, 8, 0)}, 'must hold positive'),
    ({'depth': 18, 'input_shape': (8, 8)}, 'needs images'),
    ({'depth': 18, 'dtype': 'int8'}, "unknown dtype 'int8'"),
  ],
)
def test_rejects(options, message):
  arguments = {'input_shape': (8, 8, 3), 'num_classes': 2} | options
  with pytest.raises(ValueError, match=message):
    models.ImageNetResNet(rngs=nnx.Rngs(0), **arguments)
