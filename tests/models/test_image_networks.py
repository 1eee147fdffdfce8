"""The other networks for images: published sizes, and what holds for each.

What takes a compiler long is run on networks with few and narrow blocks.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sizes
from flax import nnx

from kdjax import models
from kdjax.models import (
  mobilenet,
  shufflenet_v1,
  shufflenet_v2,
  vit,
  wide_resnet,
)

WIDE_1 = ((32, 32, 16), (32, 32, 16), (16, 16, 32), (8, 8, 64), (64,))
WIDE_2 = ((32, 32, 16), (32, 32, 32), (16, 16, 64), (8, 8, 128), (128,))
VGG = (
  (32, 32, 64),
  (16, 16, 128),
  (8, 8, 256),
  (4, 4, 512),
  (4, 4, 512),
  (512,),
)
MOBILE = (
  (16, 16, 16),
  (16, 16, 12),
  (8, 8, 16),
  (4, 4, 48),
  (2, 2, 160),
  (1280,),
)
SHUFFLE_1 = ((32, 32, 24), (16, 16, 240), (8, 8, 480), (4, 4, 960), (960,))
SHUFFLE_2 = ((32, 32, 24), (16, 16, 116), (8, 8, 232), (4, 4, 464), (1024,))
# Trainable parameters and multiply-accumulates of one forward pass, for 100
# classes and 32×32×3 inputs; the maps of the stem and the stages, and 'pooled'.
PUBLISHED = {
  'wrn_16_1': (180_916, 26_663_168, WIDE_1),
  'wrn_16_2': (703_284, 101_118_464, WIDE_2),
  'wrn_40_1': (569_780, 83_286_272, WIDE_1),
  'wrn_40_2': (2_255_156, 327_610_880, WIDE_2),
  'vgg8': (3_965_028, 96_192_512, VGG),
  'vgg13': (9_462_180, 284_936_192, VGG),
  'mobilenet_v2': (812_836, 6_523_648, MOBILE),
  'shufflenet_v1': (949_258, 38_691_456, SHUFFLE_1),
  'shufflenet_v2': (1_355_528, 44_504_448, SHUFFLE_2),
}
# Side of each map, from the stem on, for images of 28×28.
SIDES_OF_28 = {
  'wrn_16_2': (28, 28, 14, 7),
  'vgg8': (28, 14, 7, 3, 3),
  'mobilenet_v2': (14, 14, 7, 4, 2),
  'shufflenet_v1': (28, 14, 7, 4),
  'shufflenet_v2': (28, 14, 7, 4),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_sizes(name):
  num_params, macs, outputs = sizes.sizes(
    name, input_shape=(32, 32, 3), num_classes=100
  )
  *maps, pooled = PUBLISHED[name][2]
  assert (num_params, macs) == PUBLISHED[name][:2]
  assert {k: v.shape[1:] for k, v in outputs.features.items()} == {
    'stem': maps[0],
    **{f'stage{i}': shape for i, shape in enumerate(maps[1:], 1)},
    'pooled': pooled,
  }
  assert outputs.logits.shape == (1, 100)


def test_deeper_vggs_add_convolutions_of_their_widest_stages():
  """From one to the next: 3×3 convolutions with a bias, and a norm each."""
  add = lambda *widths: sum(
    9 * inputs * outputs + 3 * outputs for inputs, outputs in widths
  )
  num = {
    depth: sizes.sizes(f'vgg{depth}', input_shape=(32, 32, 3), num_classes=100)[
      0
    ]
    for depth in (8, 11, 13, 16, 19)
  }
  late = add((256, 256), (512, 512), (512, 512))
  assert num[11] - num[8] == late
  assert num[13] - num[11] == add((64, 64), (128, 128))
  assert num[16] - num[13] == late
  assert num[19] - num[16] == late


@pytest.mark.parametrize('name', SIDES_OF_28)
def test_images_of_28x28(name):
  _, _, outputs = sizes.sizes(name, input_shape=(28, 28, 1), num_classes=10)
  names = ['stem', *(f'stage{i}' for i in range(1, len(SIDES_OF_28[name])))]
  shapes = [outputs.features[name].shape[1:3] for name in names]
  assert shapes == [(side, side) for side in SIDES_OF_28[name]]


@pytest.mark.parametrize(
  ('input_shape', 'grid'), [((32, 32, 3), (8, 8)), ((28, 28, 1), (7, 7))]
)
def test_sizes_of_the_transformer(input_shape, grid):
  num_params, macs, outputs = sizes.sizes(
    'vit', input_shape=input_shape, num_classes=10
  )
  tokens, width, depth = grid[0] * grid[1], 192, 6
  pixels = 4 * 4 * input_shape[-1]
  norm, linears = 2 * width, 12 * width**2 + 9 * width
  assert num_params == (
    (pixels + 1) * width
    + tokens * width
    + depth * (2 * norm + linears)
    + norm
    + 10 * (width + 1)
  )
  attention = 2 * tokens**2 * width
  assert macs == (
    tokens * pixels * width
    + depth * (tokens * 12 * width**2 + attention)
    + 10 * width
  )
  blocks = {f'block{i}': (*grid, width) for i in range(1, depth + 1)}
  shapes = {k: v.shape[1:] for k, v in outputs.features.items()}
  assert shapes == blocks | {'pooled': (width,)}


SMALL = {
  'wrn': ('wrn_16_1', (8, 7, 2)),
  'vgg': ('vgg8', (9, 8, 2)),
  'mobilenet_v2': ('mobilenet_v2', (9, 8, 2)),
  'shufflenet_v1': ('shufflenet_v1', (9, 8, 2)),
  'shufflenet_v2': ('shufflenet_v2', (9, 8, 2)),
  'vit': ('vit', (8, 12, 2)),
}


def _filled(build):
  """What `build` returns, with numbers of NumPy's: nothing is compiled."""
  graphdef, state = nnx.split(nnx.eval_shape(build))
  rng = np.random.default_rng(0)
  fill = lambda x: (
    rng.uniform(0.5, 1.5, x.shape)
    if len(x.shape) == 1
    else rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1]))
  )
  return nnx.merge(
    graphdef, jax.tree.map(lambda x: jnp.asarray(fill(x), x.dtype), state)
  )


@functools.cache
def _small(name, dtype='float32'):
  """A narrow network of the kind, taken apart."""
  row, input_shape = SMALL[name]
  options = {
    'wrn': {'depth': 10},
    'vgg': {'widths': (4, 4, 6, 6, 8)},
    'mobilenet_v2': {'width_factor': 0.25, 'expansion': 2},
    'vit': {'width': 12, 'depth': 2},
  }.get(name, {})
  options |= {'input_shape': input_shape, 'num_classes': 3, 'dtype': dtype}
  with pytest.MonkeyPatch.context() as patch:
    groups = [(1, 16, 1, 1, False)]
    groups += [(stage, 32, 1, 2, True) for stage in (2, 3)]
    patch.setattr(mobilenet, '_GROUPS', (*groups, (4, 64, 2, 2, True)))
    patch.setattr(mobilenet, '_LAST', 20)
    one = {'stage1': (48, 2), 'stage2': (96, 1), 'stage3': (192, 1)}
    patch.setattr(shufflenet_v1, '_STAGES', one)
    two = {'stage1': (12, 2), 'stage2': (16, 1), 'stage3': (20, 1)}
    patch.setattr(shufflenet_v2, '_STAGES', two)
    patch.setattr(shufflenet_v2, '_LAST', 20)
    build = lambda: models.MODELS[row](**options, rngs=nnx.Rngs(0))
    return models.split(_filled(build))


def _inputs(name):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=(4, *SMALL[name][1])), jnp.float32)


def _run(graphdef, params, rest, inputs):
  """Evaluates and trains once: both outputs, the new rest, the gradient."""

  def loss(params):
    outputs, new_rest = models.apply(graphdef, params, rest, inputs, train=True)
    return jnp.mean((outputs.logits - 1) ** 2), (outputs, new_rest)

  gradient, (trained, new_rest) = jax.grad(loss, has_aux=True)(params)
  evaluated, same = models.apply(graphdef, params, rest, inputs, train=False)
  assert same is rest
  return evaluated, trained, new_rest, gradient


@functools.cache
def _runs(name):
  return jax.jit(_run, static_argnums=0)(*_small(name), _inputs(name))


@functools.cache
def _evaluated(name, dtype):
  run = jax.jit(models.apply, static_argnames=('graphdef', 'train'))
  return run(*_small(name, dtype), _inputs(name), train=False)[0]


@pytest.mark.parametrize('name', ['vgg', 'shufflenet_v1', 'vit'])
def test_jit_equals_eager(name):
  """Together these have every layer that there is."""
  eager, _ = models.apply(*_small(name), _inputs(name), train=False)
  jax.tree.map(
    lambda a, d: np.testing.assert_allclose(a, d, rtol=1e-4, atol=1e-5),
    _runs(name)[0],
    eager,
  )


@pytest.mark.parametrize('name', SMALL)
def test_every_kernel_learns(name):
  gradient = _runs(name)[3]
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert jnp.all(jnp.isfinite(leaf)), path
    assert leaf.ndim == 1 or jnp.any(leaf != 0), path


@pytest.mark.parametrize('name', SMALL)
def test_only_training_moves_the_statistics(name):
  evaluated, trained, new_rest, _ = _runs(name)
  rest = _small(name)[2]
  moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), new_rest, rest)
  assert all(jax.tree.leaves(moved))
  assert bool(rest) == (name != 'vit')
  uses_batch = jnp.any(evaluated.logits != trained.logits)
  assert uses_batch == (name != 'vit')


@pytest.mark.parametrize('name', SMALL)
def test_logits_are_those_of_class_weights(name):
  graphdef, params, rest = _small(name)
  class_weights = models.merge(graphdef, params, rest).class_weights
  outputs = _runs(name)[0]
  bias = np.asarray(params['head']['bias'])
  assert class_weights.shape == (3, outputs.features['pooled'].shape[1])
  np.testing.assert_allclose(
    outputs.logits,
    np.asarray(outputs.features['pooled']) @ np.asarray(class_weights).T + bias,
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.parametrize('name', SMALL)
def test_bfloat16_is_near_and_stores_float32(name):
  outputs = _evaluated(name, 'bfloat16')
  exact = _runs(name)[0]
  for key, feature in outputs.features.items():
    expected = jnp.float32 if key == 'pooled' else jnp.bfloat16
    assert feature.dtype == expected, key
    scale = np.abs(exact.features[key]).max()
    np.testing.assert_allclose(
      np.float32(feature), exact.features[key], rtol=0, atol=0.03 * scale
    )
  assert jnp.any(outputs.logits != exact.logits)
  triple = _small(name, 'bfloat16')
  run = lambda *trees: _run(triple[0], *trees)
  evaluated, trained, *stored = jax.eval_shape(run, *triple[1:], _inputs(name))
  stored += [triple[1], evaluated.logits, trained.logits]
  assert {x.dtype for x in jax.tree.leaves(stored)} == {jnp.dtype('float32')}


def _without(norm, build):
  """The block that `build` returns, with a norm of it that gives 0."""
  block = _filled(build)
  norm(block).scale[...] *= 0
  norm(block).bias[...] *= 0
  return block


_call = nnx.jit(lambda block, inputs: block(inputs, train=False))


def _map(channels):
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.normal(size=(2, 4, 4, channels)), jnp.float32)


def test_a_wide_block_adds_to_its_raw_or_its_active_input():
  block = lambda width, stride: _without(
    lambda block: block.norm2,
    lambda: wide_resnet.PreActivationBlock(
      4, width, stride=stride, rngs=nnx.Rngs(0)
    ),
  )
  same, wider, x = block(4, 1), block(6, 2), _map(4)
  np.testing.assert_array_equal(_call(same, x), x)
  active = jnp.maximum(wider.norm1(x, train=False), 0)
  kernel = wider.shortcut.kernel[...][0, 0]
  np.testing.assert_allclose(
    _call(wider, x), active[:, ::2, ::2] @ kernel, rtol=1e-5, atol=1e-6
  )


def test_an_inverted_residual_adds_where_the_shape_stays():
  block = lambda width, stride: _without(
    lambda block: block.project.norm,
    lambda: mobilenet.InvertedResidual(
      4, width, stride=stride, expansion=2, rngs=nnx.Rngs(0)
    ),
  )
  x = _map(4)
  np.testing.assert_array_equal(_call(block(4, 1), x), x)
  assert not jnp.any(_call(block(6, 1), x))
  assert not jnp.any(_call(block(4, 2), x))


def test_a_grouped_block_adds_its_input_or_puts_its_mean_beside():
  block = lambda width, halves: _without(
    lambda block: block.last.norm,
    lambda: shufflenet_v1.GroupedBlock(
      24, width, halves=halves, first_groups=3, rngs=nnx.Rngs(0)
    ),
  )
  x = _map(24)
  np.testing.assert_array_equal(_call(block(24, False), x), jnp.maximum(x, 0))
  halved = _call(block(48, True), x)
  assert not jnp.any(halved[..., :24])
  np.testing.assert_allclose(
    halved[:, 1, 1, 24:],
    jnp.maximum(x[:, 1:4, 1:4].mean((1, 2)), 0),
    rtol=1e-5,
    atol=1e-6,
  )


def test_a_split_block_passes_half_of_its_channels_on():
  block = _filled(lambda: shufflenet_v2.SplitBlock(8, rngs=nnx.Rngs(0)))
  x = _map(8)
  y = _call(block, x)
  np.testing.assert_array_equal(y[..., ::2], x[..., :4])
  assert jnp.all(y[..., 1::2] >= 0)
  moved = _call(block, x.at[..., :4].add(1))
  np.testing.assert_array_equal(moved[..., 1::2], y[..., 1::2])


def test_tokens_are_laid_out_as_their_patches():
  """Without attention a token depends on its own patch alone."""
  graphdef, params, rest = _small('vit')
  for block in ('block1', 'block2'):
    writes = params[block]['attention']['writes']
    quiet = {'writes': jax.tree.map(jnp.zeros_like, writes)}
    attention = params[block]['attention'] | quiet
    params = params | {block: params[block] | {'attention': attention}}
  inputs = _inputs('vit')
  run = lambda x: models.apply(graphdef, params, rest, x, train=False)[0]
  changed = inputs.at[:, 5, 9].add(1)  # in row 1, column 2 of the patches
  block2 = [run(x).features['block2'] for x in (inputs, changed)]
  touched = jnp.any(block2[0] != block2[1], axis=(0, 3))
  assert touched.tolist() == [[False, False, False], [False, False, True]]


def test_tokens_know_their_place_by_the_positions_alone():
  graphdef, params, rest = _small('vit')
  run = lambda params, x: models.apply(graphdef, params, rest, x, train=False)[
    0
  ].features['pooled']
  inputs = _inputs('vit')
  turned = jnp.concatenate([inputs[:, 4:], inputs[:, :4]], axis=1)
  assert jnp.max(jnp.abs(run(params, inputs) - run(params, turned))) > 1e-3
  lost = params | {'positions': jnp.zeros_like(params['positions'])}
  np.testing.assert_allclose(
    run(lost, inputs), run(lost, turned), rtol=1e-4, atol=1e-5
  )


def test_attention_matches_numpy():
  attention = _filled(lambda: vit.Attention(6, num_heads=2, rngs=nnx.Rngs(0)))
  tokens = np.random.default_rng(0).normal(size=(2, 5, 6))
  linear = lambda layer, x: (
    x @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])
  )
  query, key, value = np.split(linear(attention.reads, tokens), 3, axis=-1)
  heads = []
  for i in range(2):
    q, k, v = (x[..., 3 * i : 3 * i + 3] for x in (query, key, value))
    scores = np.exp(np.einsum('bnd,bmd->bnm', q, k) / np.sqrt(3))
    heads.append(scores / scores.sum(-1, keepdims=True) @ v)
  desired = linear(attention.writes, np.concatenate(heads, -1))
  actual = attention(jnp.asarray(tokens, jnp.float32))
  np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('cls', 'options', 'message'),
  [
    (models.WideResNet, {'depth': 18}, r'depth=18 must be 6n \+ 4'),
    (models.WideResNet, {'depth': 4}, 'depth=4 must be'),
    (models.WideResNet, {'depth': 16.0}, 'depth=16.0 must be'),
    (models.WideResNet, {'width_factor': 0}, 'width_factor=0 must be a posi'),
    (models.VGG, {'depth': 9}, 'depth=9 must be one of 8, 11, 13, 16, 19'),
    (models.VGG, {'widths': (4, 4)}, 'must hold five'),
    (models.VGG, {'widths': (4, 4, 0, 4, 4)}, 'must hold positive'),
    (models.VGG, {'input_shape': (8, 7, 3)}, 'images of at least 8×8'),
    (models.MobileNetV2, {'width_factor': 0.0}, 'width_factor=0.0 must be pos'),
    (models.MobileNetV2, {'width_factor': 0.05}, 'must be at least 1/16'),
    (models.MobileNetV2, {'expansion': 1.5}, 'expansion=1.5 must be'),
    (models.ShuffleNetV1, {'dtype': 'int8'}, "unknown dtype 'int8'"),
    (models.ShuffleNetV1, {'input_shape': (8, 8)}, 'needs images'),
    (models.ShuffleNetV2, {'num_classes': 0}, 'num_classes=0 must be'),
    (models.ViT, {'input_shape': (8, 6, 3)}, 'multiples of patch_size=4'),
    (models.ViT, {'input_shape': (2, 2, 3)}, 'multiples of patch_size=4'),
    (models.ViT, {'num_heads': 5}, 'width=192 must be a multiple of num_heads'),
    (models.ViT, {'depth': 0}, 'depth=0 must be'),
  ],
)
def test_rejects(cls, options, message):
  arguments = {'input_shape': (8, 8, 3), 'num_classes': 2}
  if cls is models.WideResNet:
    arguments |= {'depth': 10, 'width_factor': 1}
  elif cls is models.VGG:
    arguments |= {'depth': 8}
  with pytest.raises(ValueError, match=message):
    cls(**(arguments | options), rngs=nnx.Rngs(0))
