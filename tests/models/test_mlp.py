"""The MLP against NumPy, and its dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models


def _mlp(**options):
  arguments = {'input_shape': (2, 3, 1), 'num_classes': 4, 'widths': (8, 5)}
  return models.build('mlp', seed=0, **(arguments | options))


def _numpy(params, inputs):
  """Hidden activations and logits in float64."""
  x = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
  linear = lambda x, p: (
    x @ np.asarray(p['kernel'], np.float64) + np.asarray(p['bias'], np.float64)
  )
  hidden1 = np.maximum(linear(x, params['hidden']['hidden1']), 0)
  hidden2 = np.maximum(linear(hidden1, params['hidden']['hidden2']), 0)
  return hidden1, hidden2, linear(hidden2, params['head'])


@pytest.mark.parametrize('train', [False, True])
def test_matches_numpy(train):
  graphdef, params, rest = models.split(_mlp())
  rng = np.random.default_rng(0)
  perturb = lambda x: np.asarray(x + rng.normal(0, 0.1, x.shape), x.dtype)
  params = jax.tree.map(perturb, params)
  inputs = rng.normal(size=(7, 2, 3, 1)).astype(np.float32)
  outputs, _ = models.apply(graphdef, params, rest, inputs, train=train)
  hidden1, hidden2, logits = _numpy(params, inputs)
  assert list(outputs.features) == ['hidden1', 'hidden2', 'pooled']
  expected = {'hidden1': hidden1, 'hidden2': hidden2, 'pooled': hidden2}
  for name, value in expected.items():
    np.testing.assert_allclose(
      outputs.features[name], value, rtol=1e-5, atol=1e-6
    )
  np.testing.assert_allclose(outputs.logits, logits, rtol=1e-5, atol=1e-6)


def test_initial_scales():
  _, params, _ = models.split(_mlp(input_shape=(500,), widths=(400, 300)))
  hidden = params['hidden']
  for kernel, variance in [
    (hidden['hidden1']['kernel'], 2 / 500),
    (hidden['hidden2']['kernel'], 2 / 400),
    (params['head']['kernel'], 1 / 300),
  ]:
    np.testing.assert_allclose(jnp.var(kernel), variance, rtol=0.1)
  assert not jnp.any(hidden['hidden1']['bias'])


def test_layers_keep_their_order_beyond_nine():
  widths = tuple(range(3, 15))

  def features():
    merged = models.merge(*models.split(_mlp(widths=widths)))
    return merged(jnp.ones((2, 2, 3, 1)), train=False).features

  features = jax.eval_shape(features)
  assert [features[f'hidden{i + 1}'].shape[1] for i in range(12)] == [*widths]


def test_dropout_is_off_in_eval():
  inputs = jax.random.normal(jax.random.key(0), (3, 2, 3, 1))
  dropped = _mlp(dropout=0.5)(inputs, train=False, key=jax.random.key(0))
  plain = _mlp()(inputs, train=False)
  np.testing.assert_array_equal(dropped.logits, plain.logits)


def test_dropout_is_determined_by_its_key():
  triple = models.split(_mlp(dropout=0.5))
  assert triple[2] == {}, 'no random state is stored'
  inputs = jax.random.normal(jax.random.key(0), (3, 2, 3, 1))
  first, same, other = (
    models.apply(*triple, inputs, train=True, key=jax.random.key(seed))[0]
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first.logits, same.logits)
  assert jnp.any(first.logits != other.logits)


def test_dropout_drops_its_share_and_keeps_the_mean():
  """With identity layers, the head reads its input under two masks."""
  eye = {'kernel': jnp.eye(2000), 'bias': jnp.zeros(2000)}
  model = _mlp(
    input_shape=(2000,), widths=(2000, 2000), num_classes=2000, dropout=0.25
  )
  graphdef, _, rest = models.split(model)
  params = {'hidden': {'hidden1': eye, 'hidden2': eye}, 'head': eye}
  outputs, _ = models.apply(
    graphdef,
    params,
    rest,
    jnp.ones((4, 2000)),
    train=True,
    key=jax.random.key(0),
  )
  # Each layer has its own mask: both keep a unit with probability 0.75².
  survivors = np.asarray(outputs.logits) != 0
  np.testing.assert_allclose(survivors.mean(), 0.75**2, atol=0.02)
  np.testing.assert_allclose(outputs.logits[survivors], 0.75**-2, rtol=1e-5)
  # Features are read before their own dropout: only the first mask shows.
  pooled = np.asarray(outputs.features['pooled'])
  np.testing.assert_allclose((pooled != 0).mean(), 0.75, atol=0.02)
  np.testing.assert_array_equal(outputs.features['hidden1'], 1)


def test_dropout_without_a_key_is_an_error():
  with pytest.raises(ValueError, match=r'dropout=0.5 needs a key'):
    _mlp(dropout=0.5)(jnp.zeros((1, 2, 3, 1)), train=True)
