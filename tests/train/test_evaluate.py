import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.train import evaluate


@pytest.fixture
def network():
  return models.split(
    models.build('mlp', input_shape=(5,), num_classes=3, seed=0, widths=(4,))
  )


@pytest.mark.parametrize('num_examples', [1, 5, 6, 7, 12])
def test_a_partial_batch_counts_every_example_once(network, num_examples):
  graphdef, params, rest = network
  inputs = jax.random.normal(jax.random.key(1), (num_examples, 5))
  predict = evaluate.make_predict(graphdef, lambda x: x, batch_size=6)
  outputs, _ = models.apply(graphdef, params, rest, inputs, train=False)
  found = predict(params, rest, inputs)
  assert found.shape == (num_examples, 3)
  np.testing.assert_allclose(found, outputs.logits, rtol=1e-5, atol=1e-6)


def test_scores_against_numpy():
  logits = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
  labels = np.arange(11, dtype=np.int32) % 4
  wide = logits.astype(np.float64)
  log_probs = wide - np.log(np.exp(wide).sum(1, keepdims=True))
  found = evaluate.scores(jnp.asarray(logits), jnp.asarray(labels))
  assert found['accuracy'] == np.mean(wide.argmax(1) == labels)
  np.testing.assert_allclose(
    found['cross_entropy'], -log_probs[np.arange(11), labels].mean(), rtol=1e-6
  )
