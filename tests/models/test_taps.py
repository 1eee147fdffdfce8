"""Any module's output is a feature, and the network stays what it is."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kdjax import models
from kdjax.models.layers import ConvNorm, relu
from kdjax.models.taps import tapped

INPUTS = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)


class Block(nnx.Module):
  def __init__(self, num_inputs, num_outputs, rngs):
    self.conv = ConvNorm(num_inputs, num_outputs, size=3, rngs=rngs)
    self.gate = nnx.Linear(num_outputs, num_outputs, rngs=rngs)

  def __call__(self, x, *, train):
    x = relu(self.conv(x, train=train))
    return x * self.gate(x)


class Pairs(nnx.Module):
  """Gives something else than an array."""

  def __call__(self, x):
    return x, x


class Nested(nnx.Module):
  def __init__(self, rngs):
    self.blocks = nnx.List([Block(2, 5, rngs), Block(5, 6, rngs)])
    self.parts = nnx.Dict({'pairs': Pairs(), 'unused': Pairs()})
    self.head = nnx.Linear(6, 3, rngs=rngs)
    self.width = 6

  @property
  def class_weights(self):
    return self.head.kernel[...].T

  def __call__(self, inputs, *, train, key=None):
    x = inputs
    for block in self.blocks:
      x = block(x, train=train)
    x, _ = self.parts['pairs'](x)
    pooled = jnp.mean(x, axis=(1, 2))
    # A network may read its own parts while it is looked at.
    logits = self.head(pooled) + jnp.sum(self.class_weights) * 0
    return models.Outputs(logits, {'pooled': pooled})


@pytest.fixture
def model():
  return Nested(nnx.Rngs(0))


def seen_by(model, *paths):
  with tapped(model, paths) as seen:
    model(INPUTS, train=False)
  return seen


PATHS = ('blocks/0', 'blocks/0/conv/norm', 'blocks/0/conv', 'head')


@pytest.mark.parametrize('paths', [*itertools.permutations(PATHS[:3])])
def test_what_modules_return_at_every_depth_in_any_order(paths, model):
  seen = seen_by(model, *paths, 'head')
  norm = model.blocks[0].conv(INPUTS, train=False)
  block = model.blocks[0](INPUTS, train=False)
  assert set(seen) == set(PATHS)
  np.testing.assert_array_equal(seen['blocks/0/conv/norm'], norm)
  np.testing.assert_array_equal(seen['blocks/0/conv'], norm)
  np.testing.assert_array_equal(seen['blocks/0'], block)
  np.testing.assert_array_equal(seen['head'], model(INPUTS, train=False).logits)


def test_the_model_is_as_it_was(model):
  before = models.split(model)
  before = before[0], jax.tree.map(jnp.copy, before[1:])
  inner = model.blocks[0].conv
  seen_by(model, *PATHS)
  graphdef, *values = models.split(model)
  assert graphdef == before[0]
  assert hash(graphdef) == hash(before[0])
  chex.assert_trees_all_equal(tuple(values), before[1])
  assert model.blocks[0].conv is inner


def test_the_model_is_as_it_was_after_an_error(model):
  before = models.split(model)[0]
  with pytest.raises(ValueError, match='no feature or module'):
    seen_by(model, 'blocks/0', 'blocks/7')
  with pytest.raises(ZeroDivisionError), tapped(model, PATHS):
    raise ZeroDivisionError
  assert models.split(model)[0] == before


def test_apply_adds_them_to_the_features(model):
  outputs, _ = models.apply(
    *models.split(model), INPUTS, train=False, taps=PATHS
  )
  assert set(outputs.features) == {'pooled', *PATHS}
  plain, _ = models.apply(*models.split(model), INPUTS, train=False)
  np.testing.assert_array_equal(outputs.logits, plain.logits)


def test_under_jit_and_grad(model):
  graphdef, params, rest = models.split(model)

  def total(params):
    outputs, _ = models.apply(
      graphdef, params, rest, INPUTS, train=False, taps=('blocks/1/gate',)
    )
    return jnp.sum(outputs.features['blocks/1/gate'])

  value, gradient = jax.jit(jax.value_and_grad(total))(params)
  np.testing.assert_allclose(value, total(params), rtol=1e-5)
  assert np.abs(gradient['blocks'][0]['conv']['conv']['kernel']).max() > 0
  # Of what comes after it there is no gradient: the feature is its own.
  np.testing.assert_array_equal(gradient['head']['kernel'], np.zeros((6, 3)))
  np.testing.assert_allclose(
    gradient['blocks'][1]['gate']['bias'], np.full(6, 3 * 16), rtol=1e-6
  )


def test_batch_statistics_still_move(model):
  plain = models.apply(*models.split(model), INPUTS, train=True)
  found = models.apply(*models.split(model), INPUTS, train=True, taps=PATHS)
  chex.assert_trees_all_equal(found[1], plain[1])
  before = models.split(model)[2]
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), found[1], before)
  assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('blok', "'blok': no feature or module 'blok'; did you mean 'blocks'?"),
    ('blocks/2', "'blocks/2': no feature or module '2'; there are 0, 1"),
    ('blocks/0/cnv', "no feature or module 'cnv'; did you mean 'conv'?"),
    ('head/kernel', "no feature or module 'kernel'; there are none"),
    ('width', "no feature or module 'width'"),
    ('', "no feature or module ''; there are blocks, head, parts"),
    (
      'parts/pairs',
      "'parts/pairs' gives no feature: the module returned tuple",
    ),
    ('parts/unused', "'parts/unused' gives no feature"),
    (
      'blocks',
      "'blocks' gives no feature: .*inside are blocks/0",
    ),
    (
      'parts',
      "'parts' gives no feature: .*inside are parts/pairs",
    ),
  ],
)
def test_a_path_that_gives_no_feature(path, message, model):
  with pytest.raises(ValueError, match=message.replace('?', r'\?')):
    models.apply(*models.split(model), INPUTS, train=False, taps=(path,))


def test_every_network_of_the_table_can_be_looked_into():
  resnet = nnx.eval_shape(
    lambda: models.build(
      'resnet8', input_shape=(8, 8, 1), num_classes=4, seed=0
    )
  )
  graphdef, params, rest = models.split(resnet)
  inputs = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)

  def ask(params, rest, inputs):
    taps = 'stage2/block1/norm1', 'stage3', 'stem'
    outputs, _ = models.apply(
      graphdef, params, rest, inputs, train=False, taps=taps
    )
    return {name: outputs.features[name] for name in taps}

  found = jax.eval_shape(ask, params, rest, inputs)
  assert {name: a.shape for name, a in found.items()} == {
    'stage2/block1/norm1': (2, 4, 4, 32),
    'stage3': (2, 2, 2, 64),
    'stem': (2, 8, 8, 16),
  }
