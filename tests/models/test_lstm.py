"""The LSTM: published sizes, NumPy, PyTorch, its dropout and its carry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sizes
from flax import nnx

from kdjax import models

K, T, B, EOS = 11, 6, 3, 0
WIDTHS = (5, 4)

# For a vocabulary of 10000, as that of the Penn Treebank.
SIZES = {
  'lstm_small': (4_651_600, 200),
  'lstm_medium': (19_775_200, 650),
  'lstm_large': (66_022_000, 1500),
}

apply = jax.jit(models.apply, static_argnames=('graphdef', 'train'))


def triple(**options):
  """A small model with parameters far from 0, taken apart."""
  arguments = {'input_shape': (T,), 'num_classes': K, 'widths': WIDTHS}
  model = nnx.eval_shape(
    lambda: models.LSTM(**(arguments | options), rngs=nnx.Rngs(0))
  )
  graphdef, params, rest = models.split(model)
  rng = np.random.default_rng(0)
  fill = lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype)
  return graphdef, jax.tree.map(fill, params), rest


def tokens(*shape, seed=0):
  return np.random.default_rng(seed).integers(1, K, shape).astype(np.int32)


def random_carry(seed=0):
  rng = np.random.default_rng(seed)
  one = lambda width: rng.normal(size=(B, width)).astype(np.float32)
  return {f'layer{i + 1}': (one(w), one(w)) for i, w in enumerate(WIDTHS)}


def assert_close(actual, desired, **tolerances):
  tolerances = {'rtol': 1e-4, 'atol': 1e-5} | tolerances
  jax.tree.map(
    lambda a, d: np.testing.assert_allclose(a, d, **tolerances), actual, desired
  )


@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('name', SIZES)
def test_published_sizes(name, tied):
  wanted, width = SIZES[name]
  num_params, macs, outputs = sizes.sizes(
    name, input_shape=(35,), num_classes=10_000, tied=tied
  )
  assert num_params == (wanted - 10_000 * width if tied else wanted)
  assert macs == 35 * (2 * 8 * width**2 + 10_000 * width)
  assert {k: v.shape for k, v in outputs.features.items()} == {
    'layer1': (1, 35, width),
    'layer2': (1, 35, width),
    'pooled': (1, 35, width),
  }
  assert outputs.logits.shape == (1, 35, 10_000)


@pytest.mark.parametrize(
  ('name', 'scale'),
  [('lstm', 0.1), ('lstm_medium', 0.05)],
)
def test_weights_start_uniform_and_biases_at_0(name, scale):
  model = models.build(name, input_shape=(35,), num_classes=50, seed=0)
  for path, x in jax.tree_util.tree_leaves_with_path(models.split(model)[1]):
    if path[-1].key == 'bias':
      assert not np.any(x), path
    else:
      np.testing.assert_allclose(np.abs(x).max(), scale, rtol=0.01)
      np.testing.assert_allclose(np.var(x), scale**2 / 3, rtol=0.05)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def in_numpy(params, inputs, carry, masks):
  """Features, carry and logits by the definition, in float64."""
  params, carry = jax.tree.map(np.float64, (params, carry))
  x = params['embedding']['embedding'][inputs] * masks[0]
  features, last = {}, {}
  for i in range(len(WIDTHS)):
    name = f'layer{i + 1}'
    layer, (hidden, cell) = params[name], carry[name]
    above = []
    for t in range(inputs.shape[1]):
      gates = x[:, t] @ layer['input_kernel'] + hidden @ layer['kernel']
      i_gate, f_gate, g, o_gate = np.split(gates + layer['bias'], 4, axis=-1)
      cell = sigmoid(f_gate) * cell + sigmoid(i_gate) * np.tanh(g)
      hidden = sigmoid(o_gate) * np.tanh(cell)
      above.append(hidden)
    features[name] = np.stack(above, axis=1)
    last[name] = hidden, cell
    x = features[name] * masks[i + 1]
  features['pooled'] = x
  return features, last, x @ params['head']['kernel'] + params['head']['bias']


def test_matches_numpy():
  weights, inputs, carry = triple(), tokens(B, T), random_carry()
  outputs, _ = apply(*weights, inputs, train=True, carry=carry)
  features, last, logits = in_numpy(weights[1], inputs, carry, np.ones(3))
  assert list(outputs.features) == [*features]
  assert_close(outputs.features, features)
  assert_close(outputs.carry, last)
  assert_close(outputs.logits, logits)


class Masks:
  """Dropout that was drawn before."""

  rate = 0.5

  def __init__(self):
    rng = np.random.default_rng(3)
    widths = (WIDTHS[0], *WIDTHS)
    self.masks = [2 * rng.integers(0, 2, (B, T, width)) for width in widths]
    self.calls = 0

  def __call__(self, x, *, deterministic, rngs):
    assert not deterministic
    assert isinstance(rngs, nnx.Rngs)
    self.calls += 1
    mask = self.masks[self.calls - 1].swapaxes(0, 1)
    return x * jnp.asarray(mask, x.dtype)


def test_units_are_dropped_only_on_their_way_up():
  """On the embedding, between layers and before the head: never in time."""
  weights, inputs, carry = triple(), tokens(B, T), random_carry()
  model = models.merge(*weights)
  dropout = Masks()
  vars(model)['dropout'] = dropout
  outputs = model(inputs, train=True, key=jax.random.key(0), carry=carry)
  found = outputs.features, outputs.carry, outputs.logits
  assert dropout.calls == 3
  assert_close(found, in_numpy(weights[1], inputs, carry, dropout.masks))


def test_each_place_has_a_mask_of_its_own():
  """With wide layers of equal units, whose share shows."""
  graphdef, params, rest = triple(widths=(400, 400), dropout=0.25)
  ones = jax.tree.map(jnp.ones_like, params)
  outputs, _ = apply(
    graphdef, ones, rest, tokens(2, 1), train=True, key=jax.random.key(0)
  )
  kept = np.asarray(outputs.features['pooled']) != 0
  np.testing.assert_allclose(kept.mean(), 0.75, atol=0.05)
  pooled = np.asarray(outputs.features['pooled'])[kept]
  layer2 = np.asarray(outputs.features['layer2'])
  np.testing.assert_allclose(pooled, layer2[kept] / 0.75, rtol=1e-5)


def test_two_rows_with_the_carry_are_one_long_row():
  weights, inputs = triple(), tokens(B, 2 * T)
  start = models.initial_carry(*weights, batch_size=B)
  assert jax.tree.map(lambda x: x.dtype, start) == jax.tree.map(
    lambda x: jnp.dtype('float32'), start
  )
  assert {k: v[0].shape for k, v in start.items()} == {
    'layer1': (B, 5),
    'layer2': (B, 4),
  }
  run = lambda x, carry: apply(*weights, x, train=False, carry=carry)[0]
  whole = run(inputs, None)
  first = run(inputs[:, :T], start)
  second = run(inputs[:, T:], first.carry)
  assert_close(whole.carry, second.carry)
  both = jnp.concatenate([first.logits, second.logits], axis=1)
  assert_close(whole.logits, both)
  lost = run(inputs[:, T:], ())
  assert jnp.max(jnp.abs(lost.logits - second.logits)) > 1e-2


def test_the_carry_of_a_boundary_is_forgotten_at_it():
  """The cell, too, and in that row alone."""
  weights = triple(boundary=EOS)
  inputs = tokens(B, T)
  inputs[1, 0] = EOS
  run = lambda carry: apply(*weights, inputs, train=False, carry=carry)[0]
  fresh, carried = run(None), run(random_carry())
  assert_close(fresh.logits[1], carried.logits[1])
  moved = jnp.max(jnp.abs(fresh.logits - carried.logits), axis=(1, 2))
  assert (moved > 1e-2).tolist() == [True, False, True]


def test_no_gradient_flows_into_the_carry():
  weights, inputs = triple(), tokens(B, T)

  def total(carry):
    outputs, _ = models.apply(*weights, inputs, train=True, carry=carry)
    return jnp.sum(outputs.logits) + sum(map(jnp.sum, outputs.carry['layer1']))

  slopes = jax.jit(jax.grad(total))(random_carry())
  assert not any(jnp.any(x) for x in jax.tree.leaves(slopes))


def test_the_initial_carry_needs_shapes_only():
  graphdef, params, rest = triple()
  carry = jax.eval_shape(
    lambda p, r: models.initial_carry(graphdef, p, r, batch_size=4),
    params,
    rest,
  )
  assert carry['layer2'][1].shape == (4, 4)
  shapes = jax.eval_shape(lambda: (params, rest))
  zeros = models.initial_carry(graphdef, *shapes, batch_size=2)
  assert_close(zeros['layer1'], (np.zeros((2, 5)),) * 2)


def test_another_batch_or_networks_carry_is_refused():
  weights = triple()
  carry = models.initial_carry(*weights, batch_size=B + 1)
  with pytest.raises(ValueError, match=r'\(4, 5\).* fit a batch of 3'):
    models.apply(*weights, tokens(B, T), train=False, carry=carry)
  carry = {'layer1': random_carry()['layer1']}
  with pytest.raises(ValueError, match='does not fit a batch of 3'):
    models.apply(*weights, tokens(B, T), train=False, carry=carry)


def test_layers_keep_their_order_beyond_nine():
  widths = tuple(range(3, 15))

  def features():
    merged = models.merge(*triple(widths=widths))
    return merged(jnp.zeros((2, T), int), train=False).features

  features = jax.eval_shape(features)
  assert [features[f'layer{i + 1}'].shape[2] for i in range(12)] == [*widths]


@pytest.mark.parametrize('forgets', [False, True])
def test_the_carry_survives_bfloat16(forgets):
  """Hidden units are stored as they were: two rows are one long row."""
  weights = triple(dtype='bfloat16', boundary=EOS if forgets else None)
  inputs = tokens(B, 2 * T)
  inputs[:, 4] = EOS
  run = lambda x, carry: apply(*weights, x, train=False, carry=carry)[0]
  whole, first = run(inputs, None), run(inputs[:, :T], None)
  second = run(inputs[:, T:], first.carry)
  assert_close(second.logits, whole.logits[:, T:], rtol=0.02, atol=0.02)
  assert second.carry['layer1'][0].dtype == jnp.float32


def test_matches_pytorch():
  """Values, last state and gradients of `torch.nn.LSTM`, our gates' order."""
  torch = pytest.importorskip('torch')
  graphdef, params, rest = triple(widths=(4, 4))
  theirs = torch.nn.LSTM(4, 4, num_layers=2, batch_first=True)
  with torch.no_grad():
    for i in range(2):
      layer = params[f'layer{i + 1}']
      own = {
        f'weight_ih_l{i}': layer['input_kernel'].T,
        f'weight_hh_l{i}': layer['kernel'].T,
        f'bias_ih_l{i}': layer['bias'],
        f'bias_hh_l{i}': jnp.zeros_like(layer['bias']),
      }
      for name, value in own.items():
        getattr(theirs, name).copy_(torch.tensor(np.asarray(value)))
  inputs = tokens(B, T)
  factors = np.random.default_rng(5).normal(size=(B, T, 4)).astype(np.float32)

  def total(params):
    outputs, _ = models.apply(graphdef, params, rest, inputs, train=True)
    return jnp.sum(outputs.features['pooled'] * factors), outputs

  gradient, outputs = jax.jit(jax.grad(total, has_aux=True))(params)
  embedded = np.asarray(params['embedding']['embedding'])[inputs]
  hidden, (last_hidden, last_cell) = theirs(torch.tensor(embedded))
  (hidden * torch.tensor(factors)).sum().backward()
  assert_close(outputs.features['pooled'], hidden.detach().numpy())
  for i in range(2):
    name = f'layer{i + 1}'
    state = last_hidden[i], last_cell[i]
    assert_close(outputs.carry[name], tuple(x.detach().numpy() for x in state))
    wanted = {
      'input_kernel': getattr(theirs, f'weight_ih_l{i}').grad.numpy().T,
      'kernel': getattr(theirs, f'weight_hh_l{i}').grad.numpy().T,
      'bias': getattr(theirs, f'bias_ih_l{i}').grad.numpy(),
    }
    assert_close(gradient[name], wanted)
