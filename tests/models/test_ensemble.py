"""Several networks as one: what they say together, and whose features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kdjax import models
from kdjax.models import ensemble

B, M, K, T = 5, 3, 6, 4.0
LOGITS = np.random.default_rng(0).normal(0, 6, (B, M, K)).astype(np.float32)
INPUTS = np.random.default_rng(1).normal(size=(B, 8)).astype(np.float32)
SHARES = np.array([0.5, 0.2, 0.3], np.float32)


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_logits_are_averaged():
  found = ensemble.average_logits(LOGITS, SHARES, T)
  close(found, np.einsum('bmk,m->bk', LOGITS, SHARES))


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_probabilities_are_averaged_at_the_temperature(temperature):
  found = ensemble.average_probs(LOGITS, SHARES, temperature)
  each = reference.softmax(LOGITS.astype(np.float64), temperature)
  mean = np.einsum('bmk,m->bk', each, SHARES)
  close(jax.nn.softmax(found / temperature), mean)
  close(found, temperature * np.log(mean))


@pytest.mark.parametrize('average', [*ensemble.AVERAGES.values()])
def test_of_a_share_of_nothing_nothing_is_seen(average):
  alone = average(LOGITS, jnp.array([0.0, 1.0, 0.0]), T)
  close(jax.nn.softmax(alone), jax.nn.softmax(LOGITS[:, 1]))
  assert np.isfinite(alone).all()


def test_probabilities_that_are_nothing_in_float32():
  """Logits so far apart that their softmax underflows."""
  logits = jnp.array([[[0.0, 600.0], [0.0, 1000.0]]])
  found = ensemble.average_probs(logits, jnp.array([0.5, 0.5]), 1.0)
  close(found[0, 0] - found[0, 1], -600 - np.log(2))


def member(seed, width):
  return models.build(
    'mlp', input_shape=(8,), num_classes=K, seed=seed, widths=(width,)
  )


def build(**changes):
  given = {
    'shares': (1, 3),
    'average': 'logits',
    'temperature': T,
    'features_from': 0,
    **changes,
  }
  return models.Ensemble([member(0, 7), member(1, 9)], **given)


def answers(model):
  return [m(INPUTS, train=False) for m in model.members]


@pytest.mark.parametrize('average', ensemble.AVERAGES)
def test_networks_answer_as_one(average):
  model = build(average=average)
  outputs, _ = models.apply(*models.split(model), INPUTS, train=False)
  assert model.shares == (0.25, 0.75)
  each = np.stack([a.logits for a in answers(model)], axis=1)
  np.testing.assert_array_equal(outputs.features['members'], each)
  wanted = ensemble.AVERAGES[average](each, np.array([0.25, 0.75]), T)
  close(outputs.logits, wanted)
  assert outputs.logits.shape == (B, K)


@pytest.mark.parametrize('chosen', [0, 1])
def test_features_and_last_layer_are_those_of_the_chosen(chosen):
  model = build(features_from=chosen)
  outputs = model(INPUTS, train=False)
  own = answers(model)[chosen].features
  assert set(outputs.features) == {*own, 'members'}
  for name, feature in own.items():
    np.testing.assert_array_equal(outputs.features[name], feature)
  np.testing.assert_array_equal(
    model.class_weights, model.members[chosen].class_weights
  )


@pytest.mark.parametrize('chosen', [0, 1])
def test_modules_are_those_of_the_chosen(chosen):
  model = build(features_from=chosen)
  outputs, _ = models.apply(
    *models.split(model), INPUTS, train=False, taps=('hidden/hidden1',)
  )
  wanted = model.members[chosen].hidden['hidden1'](INPUTS)
  np.testing.assert_array_equal(outputs.features['hidden/hidden1'], wanted)


def test_it_is_taken_apart_and_put_together_under_jit():
  graphdef, params, rest = models.split(build(average='probs'))
  again = models.split(models.merge(graphdef, params, rest))[0]
  assert again == graphdef
  assert hash(again) == hash(graphdef)
  assert graphdef != models.split(build(average='probs', shares=(1, 1)))[0]
  run = jax.jit(lambda p: models.apply(graphdef, p, rest, INPUTS, train=False))
  found, _ = run(params)
  close(found.logits, build(average='probs')(INPUTS, train=False).logits)


def reader(seed, name='lstm', **options):
  return models.build(
    name, input_shape=(5,), num_classes=K, seed=seed, **options
  )


@pytest.mark.parametrize('average', ensemble.AVERAGES)
def test_language_models_answer_as_one_and_remember_each_for_itself(average):
  members = [
    reader(0, widths=(3,)),
    reader(1, 'transformer_tiny'),
    reader(2, widths=(4, 2)),
  ]
  model = models.Ensemble(
    members,
    shares=SHARES.tolist(),
    average=average,
    temperature=T,
    features_from=2,
  )
  graphdef, params, rest = models.split(model)
  rows = np.random.default_rng(0).integers(0, K, (2, 10))
  run = jax.jit(
    lambda rows, carry: models.apply(
      graphdef, params, rest, rows, train=False, carry=carry
    )[0]
  )
  carry = models.initial_carry(graphdef, params, rest, batch_size=2)
  first = run(rows[:, :5], carry)
  second = run(rows[:, 5:], first.carry)
  assert second.features['pooled'].shape == (2, 5, 2)
  assert second.features['members'].shape == (2, 5, M, K)
  each = np.stack([m(rows, train=False).logits for m in members], axis=2)
  for place in (0, 2):
    found = second.features['members'][:, :, place]
    close(found, each[:, 5:, place])
  alone = members[1](rows[:, 5:], train=False).logits
  close(second.features['members'][:, :, 1], alone)
  for row in range(2):
    wanted = ensemble.AVERAGES[average](
      second.features['members'][row], SHARES, T
    )
    close(second.logits[row], wanted)


def test_networks_without_a_memory_carry_nothing():
  weights = models.split(build())
  assert models.initial_carry(*weights, batch_size=3) == ()
  assert models.apply(*weights, INPUTS, train=False)[0].carry == ()
