import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import data, models
from kdjax.train import evaluate, predictions, sharding
from kdjax.train.state import Weights

NUM_CLASSES = 3


@pytest.fixture
def network():
  graphdef, *weights = models.split(
    models.build(
      'mlp',
      input_shape=(5,),
      num_classes=NUM_CLASSES,
      seed=0,
      widths=(4,),
    )
  )
  return graphdef, Weights(*weights)


def _logits(network, inputs):
  graphdef, weights = network
  outputs, _ = models.apply(graphdef, *weights, inputs, train=False)
  return outputs.logits


def _split(num_examples):
  rng = np.random.default_rng(1)
  inputs = rng.normal(size=(num_examples, 5)).astype(np.float32)
  return data.Split(inputs, np.arange(num_examples, dtype=np.int32) % 3)


def _totals_in_numpy(logits, labels):
  wide = np.asarray(logits, np.float64)
  log_probs = wide - np.log(np.exp(wide).sum(1, keepdims=True))
  right = wide.argmax(1) == labels
  loss = -log_probs[np.arange(len(labels)), labels]
  return [
    [values[labels == k].sum() for k in range(NUM_CLASSES)]
    for values in (np.ones(len(labels)), right, loss)
  ]


@pytest.mark.parametrize('num_examples', [1, 5, 6, 7, 12])
def test_a_partial_batch_counts_every_example_once(network, num_examples):
  """Six at once, on two devices."""
  graphdef, weights = network
  split = _split(num_examples)
  given = {
    'normalise': lambda x: x,
    'batch_size': 5,
    'mesh': sharding.make_mesh(),
  }
  expected = _logits(network, split.inputs)
  predict = predictions.make_predict(graphdef, **given)
  found = predict(weights, jnp.asarray(split.inputs))
  assert found.shape == (num_examples, 3)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  count = evaluate.Evaluator(graphdef, split, num_classes=NUM_CLASSES, **given)
  totals = count(weights)
  for ours, theirs in zip(
    totals, _totals_in_numpy(expected, split.labels), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_scores_of_all_and_of_some_classes():
  totals = evaluate.Totals(
    np.array([4, 0, 6]), np.array([1, 0, 5]), np.array([2.0, 0.0, 3.0])
  )
  assert evaluate.scores(totals) == {'accuracy': 0.6, 'cross_entropy': 0.5}
  assert evaluate.scores(totals, [0]) == {
    'accuracy': 0.25,
    'cross_entropy': 0.5,
  }


def test_weights_come_with_the_call(network):
  graphdef, weights = network
  split = _split(7)
  count = evaluate.Evaluator(
    graphdef,
    split,
    normalise=lambda x: x,
    num_classes=NUM_CLASSES,
    batch_size=7,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
  )
  first = count(weights)
  other = count(jax.tree.map(lambda a: -a, weights))
  assert list(first.examples) == list(other.examples)
  assert not np.allclose(first.cross_entropy, other.cross_entropy)


def _evaluator(graphdef, split, **given):
  return evaluate.Evaluator(
    graphdef,
    split,
    normalise=lambda x: x,
    num_classes=NUM_CLASSES,
    mesh=sharding.make_mesh(),
    **given,
  )


@pytest.mark.parametrize('num_examples', [1, 5, 7])
def test_who_visits_is_shown_every_example_once(network, num_examples):
  graphdef, weights = network
  split = _split(num_examples)
  count, seen = _evaluator(graphdef, split, batch_size=4), []
  totals = count(weights, visit=seen.append)
  (shown,) = seen
  np.testing.assert_array_equal(shown.inputs, split.inputs)
  np.testing.assert_array_equal(shown.labels, split.labels)
  expected = _logits(network, split.inputs)
  np.testing.assert_allclose(shown.logits, expected, rtol=1e-5, atol=1e-6)
  assert shown.num_examples == num_examples
  for with_, without in zip(totals, count(weights), strict=True):
    np.testing.assert_array_equal(with_, without)


def test_to_compile_is_shown_what_a_call_shows(network):
  graphdef, weights = network
  count, seen = _evaluator(graphdef, _split(7), batch_size=4), []
  count.compile(weights, visit=seen.append)
  count(weights, visit=seen.append)
  before, after = seen
  assert before.num_examples == after.num_examples == 7
  np.testing.assert_array_equal(before.logits, 0)
  for a, b in zip(before[:3], after[:3], strict=True):
    assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
