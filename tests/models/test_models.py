"""What holds for every model: the table, `build`, `split` and `apply`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kdjax import models

SMALL = {
  'mlp': {'input_shape': (6,), 'num_classes': 3, 'widths': (5, 4)},
  'resnet8': {'input_shape': (8, 8, 2), 'num_classes': 3},
}


def _inputs(name, *, num_examples=4, seed=0):
  shape = (num_examples, *SMALL[name]['input_shape'])
  inputs = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(inputs, jnp.float32)


def _triple(name, *, seed=0):
  return models.split(models.build(name, seed=seed, **SMALL[name]))


def _assert_close(actual, desired, **tolerances):
  jax.tree.map(
    lambda a, d: np.testing.assert_allclose(a, d, **tolerances), actual, desired
  )


def _run(graphdef, *, train):
  def run(params, rest, inputs):
    return models.apply(graphdef, params, rest, inputs, train=train)

  return run


@pytest.mark.parametrize('name', SMALL)
def test_outputs_and_class_weights(name):
  graphdef, params, rest = _triple(name, seed=3)
  params['head']['bias'] = jnp.arange(3.0)
  run = jax.jit(_run(graphdef, train=False))
  outputs, _ = run(params, rest, _inputs(name))
  class_weights = models.merge(graphdef, params, rest).class_weights
  pooled = outputs.features['pooled']
  assert isinstance(outputs, models.Outputs)
  assert outputs.logits.dtype == jnp.float32
  assert class_weights.shape == (3, pooled.shape[1])
  np.testing.assert_allclose(
    outputs.logits,
    np.asarray(pooled) @ np.asarray(class_weights).T + np.arange(3.0),
    rtol=1e-5,
    atol=1e-5,
  )


def _train(name, **options):
  """A loss, its gradient, the outputs and the new rest of a training step."""
  graphdef, params, rest = models.split(
    models.build(name, seed=0, **SMALL[name], **options)
  )

  def loss(params):
    outputs, new_rest = models.apply(
      graphdef, params, rest, _inputs(name), train=True
    )
    return jnp.mean(jnp.square(outputs.logits - 1)), (outputs, new_rest)

  return params, *jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.parametrize('name', SMALL)
def test_bfloat16_computes_near_float32_and_stores_float32(name):
  params, (loss, (outputs, rest)), gradient = _train(name, dtype='bfloat16')
  same, (loss32, (outputs32, rest32)), gradient32 = _train(name)
  _assert_close(params, same, rtol=0)
  stored = (params, rest, gradient, loss, outputs.logits)
  assert {x.dtype for x in jax.tree.leaves(stored)} == {jnp.dtype('float32')}
  hidden = 'hidden1' if name == 'mlp' else 'stage3'
  assert outputs.features[hidden].dtype == jnp.bfloat16
  assert outputs32.features[hidden].dtype == jnp.float32
  # bfloat16 has 8 bits: 0.4 % an operation. Exact agreement would mean that
  # nothing was computed in it.
  assert jnp.any(outputs.logits != outputs32.logits)
  _assert_close(outputs.logits, outputs32.logits, rtol=0.05, atol=0.05)
  _assert_close(loss, loss32, rtol=0.05)
  _assert_close(rest, rest32, rtol=0.02, atol=0.02)
  error = jax.tree.map(jnp.subtract, gradient, gradient32)
  assert optax.tree.norm(error) < 0.1 * optax.tree.norm(gradient32)


@pytest.mark.parametrize('name', SMALL)
def test_float32_is_the_default(name):
  _assert_close(_train(name, dtype='float32'), _train(name), rtol=0)


@pytest.mark.parametrize('name', SMALL)
def test_split_gives_plain_trees_and_merge_takes_them(name):
  model = models.build(name, seed=0, **SMALL[name])
  graphdef, params, rest = models.split(model)
  leaves = jax.tree_util.tree_leaves_with_path((params, rest))
  assert all(type(leaf) is type(jnp.zeros(())) for _, leaf in leaves)
  # String keys: checkpoints and exported weights come back as they were.
  assert all(isinstance(k.key, str) for path, _ in leaves for k in path[1:])
  merged = models.merge(graphdef, params, rest)
  assert type(merged) is type(model)
  again = models.split(merged)
  assert again[0] == graphdef
  assert hash(again[0]) == hash(graphdef)
  _assert_close(again[1:], (params, rest), rtol=0)
  inputs = _inputs(name)
  _assert_close(merged(inputs, train=False), model(inputs, train=False), rtol=0)


@pytest.mark.parametrize('name', SMALL)
def test_rest_holds_batch_statistics_only(name):
  rest = _triple(name)[2]
  names = {
    path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(rest)
  }
  assert names == ({'mean', 'var'} if name == 'resnet8' else set())


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('name', SMALL)
def test_jit_equals_eager(name, train):
  graphdef, *trees = _triple(name)
  run = _run(graphdef, train=train)
  eager = run(*trees, _inputs(name))
  _assert_close(
    jax.jit(run)(*trees, _inputs(name)), eager, rtol=1e-4, atol=1e-5
  )


def test_graphdef_may_be_static():
  graphdef, *trees = _triple('mlp')
  run = jax.jit(models.apply, static_argnames=('graphdef', 'train'))
  sizes = []
  for seed in (0, 1):
    run(graphdef, *trees, _inputs('mlp', seed=seed), train=False)
    sizes.append(run._cache_size())
    graphdef = models.split(models.merge(graphdef, *trees))[0]
  assert sizes[0] == sizes[1]


def test_apply_is_pure_inside_scan_and_grad():
  """Two steps in a scan are two steps; the trees passed in stay as they are."""
  graphdef, params, rest = _triple('resnet8')
  before = jax.tree.map(np.array, (params, rest))
  batches = jnp.stack([_inputs('resnet8', seed=seed) for seed in (0, 1)])

  def step(carry, inputs):
    def loss(params):
      outputs, new_rest = models.apply(
        graphdef, params, carry[1], inputs, train=True
      )
      return jnp.mean(outputs.logits**2), new_rest

    grads, new_rest = jax.grad(loss, has_aux=True)(carry[0])
    params = jax.tree.map(lambda p, g: p - 0.01 * g, carry[0], grads)
    return (params, new_rest), None

  scanned, _ = jax.jit(lambda c, b: jax.lax.scan(step, c, b))(
    (params, rest), batches
  )
  one = jax.jit(step)
  looped = one(one((params, rest), batches[0])[0], batches[1])[0]
  _assert_close(scanned, looped, rtol=1e-4, atol=1e-5)
  _assert_close((params, rest), before, rtol=0)
  moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), scanned, before)
  assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize('name', SMALL)
def test_eval_returns_the_rest_it_was_given(name):
  graphdef, params, rest = _triple(name)
  inputs = jnp.zeros((1, *SMALL[name]['input_shape']))
  _, new_rest = models.apply(graphdef, params, rest, inputs, train=False)
  assert new_rest is rest


@pytest.mark.parametrize('name', SMALL)
def test_a_network_for_examples_carries_nothing(name):
  weights = _triple(name)
  assert models.initial_carry(*weights, batch_size=4) == ()
  outputs, _ = models.apply(*weights, _inputs(name), train=False, carry=())
  assert outputs.carry == ()


@pytest.mark.parametrize('name', SMALL)
def test_the_seed_determines_the_parameters(name):
  first, same, other = (_triple(name, seed=seed)[1] for seed in (0, 0, 1))
  _assert_close(same, first, rtol=0)
  assert jnp.any(same['head']['kernel'] != other['head']['kernel'])


@pytest.mark.parametrize('axis_type', [AxisType.Auto, AxisType.Explicit])
def test_batch_statistics_are_those_of_the_sharded_batch(axis_type):
  graphdef, params, rest = _triple('resnet8')
  run = jax.jit(_run(graphdef, train=True))
  # Halves that differ: a device's own statistics would be wrong.
  inputs = _inputs('resnet8') + jnp.arange(4.0)[:, None, None, None]
  expected = run(params, rest, inputs)
  mesh = jax.make_mesh((2, 1), ('data', 'model'), axis_types=(axis_type,) * 2)
  whole = NamedSharding(mesh, PartitionSpec())
  by_example = NamedSharding(mesh, PartitionSpec('data'))
  with jax.set_mesh(mesh):
    actual = run(
      *jax.device_put((params, rest), whole), jax.device_put(inputs, by_example)
    )
  assert len(actual[0].logits.sharding.device_set) == 2
  _assert_close(
    jax.device_get(actual), jax.device_get(expected), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('resnet9', {}, "unknown model 'resnet9'; did you mean 'resnet"),
    ('zzz', {}, "unknown model 'zzz'; known are mlp, resnet8, "),
    (
      'mlp',
      {'width': (3,)},
      "unknown option of mlp 'width'; did you mean 'widths'",
    ),
    (
      'mlp',
      {'zzz': 1},
      "option of mlp 'zzz'; known are widths, dropout, dtype",
    ),
    ('mlp', {'self': 1}, "option of mlp 'self'"),
    (
      'resnet8',
      {'dropout': 0.1},
      "option of resnet8 'dropout'; known are dtype",
    ),
    ('resnet8', {'depth': 14}, "option of resnet8 'depth'"),
    ('mlp', {'widths': ()}, r'widths=\(\) must hold positive integers'),
    ('mlp', {'widths': (3, 0)}, r'widths=\(3, 0\) must hold'),
    ('mlp', {'widths': 3}, 'widths=3 must hold'),
    ('mlp', {'dropout': 1.0}, r'dropout=1.0 must lie in \[0, 1\)'),
    ('mlp', {'dropout': -0.1}, 'dropout=-0.1 must lie in'),
    ('mlp', {'num_classes': 0}, 'num_classes=0 must be a positive integer'),
    ('resnet8', {'num_classes': 2.0}, 'num_classes=2.0 must be a positive'),
    ('mlp', {'input_shape': (0,)}, r'input_shape=\(0,\) must hold'),
    ('mlp', {'input_shape': ()}, r'input_shape=\(\) must hold'),
    ('resnet8', {'input_shape': (64,)}, r'needs images, \(height, width, ch'),
    ('resnet8', {'input_shape': (8, 8)}, 'needs images'),
    ('resnet8', {'input_shape': (8, 8, -1)}, 'must hold positive integers'),
    ('resnet8', {'dtype': 'float16'}, "dtype 'float16'; did you mean 'bfloat"),
    ('mlp', {'dtype': 'half'}, "dtype 'half'; known are float32, bfloat16"),
    ('resnet50', {'input_shape': (8, 8)}, 'needs images'),
    ('mlp', {'seed': 'one'}, "seed='one' must be an integer"),
  ],
)
def test_build_rejects(name, options, message):
  arguments = {'input_shape': (8, 8, 1), 'num_classes': 3, 'seed': 0} | options
  with pytest.raises(ValueError, match=message):
    models.build(name, **arguments)


@pytest.mark.parametrize('name', SMALL)
def test_a_model_rejects_other_inputs(name):
  model = models.build(name, seed=0, **SMALL[name])
  shape = SMALL[name]['input_shape']
  for wrong in [shape, (2, *shape, 1), (2, *shape[:-1], 7)]:
    with pytest.raises(ValueError, match=r'inputs of shape .* \[B, '):
      model(np.zeros(wrong, np.float32), train=False)
  with pytest.raises(TypeError, match='inputs'):
    model(np.zeros((2, *shape), np.uint8), train=False)
  with pytest.raises(TypeError, match='inputs'):
    model(np.zeros(()), train=False)


def test_num_params_counts_what_is_trained():
  _, params, rest = _triple('mlp')
  assert models.num_params(params) == 6 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3
  shapes = nnx.eval_shape(lambda: _triple('mlp')[1])
  assert models.num_params(shapes) == models.num_params(params)
  assert models.num_params(rest) == 0
