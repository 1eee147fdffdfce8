"""The ResNets: published sizes, shapes and batch norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sizes
from flax import nnx

from kdjax import models

# Trainable parameters and multiply-accumulates of one forward pass, for 100
# classes and 32×32×3 inputs.
PUBLISHED = {
  'resnet8': (83_892, 12_507_392),
  'resnet14': (181_108, 26_663_168),
  'resnet20': (278_324, 40_818_944),
  'resnet32': (472_756, 69_130_496),
  'resnet44': (667_188, 97_442_048),
  'resnet56': (861_620, 125_753_600),
  'resnet110': (1_736_564, 253_155_584),
  'resnet8x4': (1_233_540, 177_071_104),
  'resnet32x4': (7_433_860, 1_083_040_768),
}


def _resnet8(input_shape, *, num_classes=3):
  return models.split(
    models.build(
      'resnet8', input_shape=input_shape, num_classes=num_classes, seed=0
    )
  )


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_sizes(name):
  num_params, macs, outputs = sizes.sizes(
    name, input_shape=(32, 32, 3), num_classes=100
  )
  assert (num_params, macs) == PUBLISHED[name]
  c0, c1, c2, c3 = (
    (32, 64, 128, 256) if name.endswith('x4') else (16, 16, 32, 64)
  )
  assert {k: v.shape[1:] for k, v in outputs.features.items()} == {
    'stem': (32, 32, c0),
    'stage1': (32, 32, c1),
    'stage2': (16, 16, c2),
    'stage3': (8, 8, c3),
    'pooled': (c3,),
  }
  assert outputs.logits.shape == (1, 100)


def _numpy_conv(x, kernel, stride):
  """A convolution in float64, padded alike on both sides."""
  size = kernel.shape[0]
  pad = (size - 1) // 2
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
  return np.einsum('bhwcij,ijcd->bhwd', windows[:, ::stride, ::stride], kernel)


def _numpy_resnet8(params, rest, inputs, *, train):
  """Features and new statistics of a ResNet-8, by its definition."""
  statistics = {}

  def norm(x, scope, name):
    p, s = params, rest
    for key in (*scope, name):
      p, s = p[key], s[key]
    if train:
      mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
      statistics[(*scope, name)] = (
        0.9 * s['mean'] + 0.1 * mean,
        0.9 * s['var'] + 0.1 * var,
      )
    else:
      mean, var = s['mean'], s['var']
    return (x - mean) / np.sqrt(var + 1e-5) * p['scale'] + p['bias']

  relu = lambda x: np.maximum(x, 0)
  x = _numpy_conv(inputs, params['stem']['kernel'], 1)
  x = relu(norm(x, (), 'stem_norm'))
  features = {'stem': x}
  for stage, stride in [('stage1', 1), ('stage2', 2), ('stage3', 2)]:
    scope = (stage, 'block1')
    block = params[stage]['block1']
    y = _numpy_conv(x, block['conv1']['kernel'], stride)
    y = relu(norm(y, scope, 'norm1'))
    y = norm(_numpy_conv(y, block['conv2']['kernel'], 1), scope, 'norm2')
    if 'shortcut' in block:
      x = _numpy_conv(x, block['shortcut']['kernel'], stride)
      x = norm(x, scope, 'shortcut_norm')
    x = features[stage] = relu(x + y)
  features['pooled'] = x.mean((1, 2))
  return features, statistics


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('input_shape', [(8, 8, 2), (7, 5, 2)])
def test_matches_numpy(train, input_shape):
  """Every feature, and batch norm's statistics before and after."""
  graphdef, params, rest = _resnet8(input_shape)
  rng = np.random.default_rng(0)
  perturb = lambda x: np.asarray(x + rng.uniform(0.1, 0.3, x.shape), x.dtype)
  params, rest = jax.tree.map(perturb, (params, rest))
  inputs = rng.normal(1, 2, (6, *input_shape)).astype(np.float32)
  run = jax.jit(models.apply, static_argnames=('graphdef', 'train'))
  outputs, new_rest = run(graphdef, params, rest, inputs, train=train)
  features, statistics = _numpy_resnet8(
    *jax.tree.map(np.float64, (params, rest, inputs)), train=train
  )
  assert set(outputs.features) == set(features)
  for name, value in features.items():
    np.testing.assert_allclose(
      outputs.features[name], value, rtol=1e-4, atol=1e-4, err_msg=name
    )
  assert len(statistics) == (9 if train else 0)
  for scope, (mean, var) in statistics.items():
    stored = new_rest
    for key in scope:
      stored = stored[key]
    np.testing.assert_allclose(stored['mean'], mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stored['var'], var, rtol=1e-4, atol=1e-4)


def test_eval_is_independent_of_the_batch():
  triple = _resnet8((8, 8, 2))
  inputs = np.random.default_rng(0).normal(size=(5, 8, 8, 2))
  inputs = inputs.astype(np.float32)
  run = jax.jit(models.apply, static_argnames=('graphdef', 'train'))
  together, _ = run(*triple, inputs, train=False)
  alone, _ = run(*triple, inputs[1:2], train=False)
  np.testing.assert_allclose(
    alone.logits, together.logits[1:2], rtol=1e-4, atol=1e-5
  )


def test_blocks_keep_their_order_beyond_nine():
  """In a merged model block10 runs after block9, not after block1."""
  model = models.ResNet(
    input_shape=(2, 2, 2),
    num_classes=3,
    depth=62,
    widths=(8, 8, 2, 2),
    rngs=nnx.Rngs(0),
  )
  model = models.merge(*models.split(model))

  @nnx.jit
  def run(model, inputs):
    features = model(inputs, train=False).features
    x = features['stem']
    for i in range(1, 11):
      x = model.stage1[f'block{i}'](x, train=False)
    return features['stage1'], x

  inputs = np.random.default_rng(0).normal(size=(1, 2, 2, 2))
  actual, desired = run(model, inputs.astype(np.float32))
  assert jnp.any(desired > 0)
  np.testing.assert_allclose(actual, desired, rtol=1e-4)


def test_initial_scales():
  _, params, rest = _resnet8((8, 8, 2), num_classes=100)
  conv = params['stage3']['block1']['conv1']['kernel']
  assert conv.shape == (3, 3, 32, 64)
  np.testing.assert_allclose(jnp.var(conv), 2 / (9 * 64), rtol=0.05)
  head = params['head']['kernel']
  np.testing.assert_allclose(jnp.max(jnp.abs(head)), 1 / 8, rtol=0.01)
  np.testing.assert_allclose(jnp.var(head), 1 / (3 * 64), rtol=0.05)
  norm = params['stage3']['block1']['norm2']
  assert jnp.all(norm['scale'] == 1)
  assert not jnp.any(norm['bias'])
  assert not jnp.any(rest['stem_norm']['mean'])
  assert jnp.all(rest['stem_norm']['var'] == 1)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'depth': 9}, 'depth=9 must be 6n'),
    ({'depth': 2}, 'depth=2 must be 6n'),
    ({'depth': 8.0}, 'depth=8.0 must be 6n'),
    ({'depth': 8, 'widths': (4, 4, 8)}, 'must hold four'),
    ({'depth': 8, 'widths': (4, 4, 8, 0)}, 'must hold positive'),
  ],
)
def test_rejects(options, message):
  with pytest.raises(ValueError, match=message):
    models.ResNet(
      input_shape=(8, 8, 3), num_classes=2, rngs=nnx.Rngs(0), **options
    )
