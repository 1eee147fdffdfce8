"""Some tokens of a text: which, and that they are read where they stand."""

import jax
import numpy as np
import pytest
import small_text

from kdjax import data, models
from kdjax.train import excerpts, networks
from kdjax.train.reading import Reader
from kdjax.train.state import Weights


def in_turn(network, rows, *, remembers):
  """What it says of rows one after the other, `[N, T, K]`."""
  weights = network.params, network.rest
  carry = models.initial_carry(network.graphdef, *weights, batch_size=1)

  @jax.jit
  def read(row, carry):
    return models.apply(
      network.graphdef, *weights, row, train=False, carry=carry
    )[0]

  found = []
  for row in rows:
    outputs = read(row[None], carry if remembers else ())
    carry = outputs.carry
    found.append(outputs.logits[0])
  return np.stack(found)


def asked(network, dataset, tokens, *, batch_size=4, num_devices=1):
  mesh = small_text.mesh(num_devices)
  return excerpts.logits(
    Reader(network.graphdef, networks.reads_in_order(dataset)),
    Weights(network.params, network.rest),
    dataset.dev,
    tokens,
    batch_size=batch_size,
    mesh=mesh,
  )


def test_tokens_are_chosen_evenly_and_are_no_padding():
  split = small_text.dataset('padded').dev
  labels = split.labels.reshape(-1)
  every = excerpts.choose(split, at_most=labels.size)
  np.testing.assert_array_equal(every, np.flatnonzero(labels >= 0))
  assert len(every) < labels.size
  some = excerpts.choose(split, at_most=10)
  steps = np.diff(np.searchsorted(every, some))
  assert len(some) == 10
  assert (some[0], some[-1]) == (every[0], every[-1])
  assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize(
  ('num_devices', 'num_rows'),
  [(1, 10), (2, 8)],  # five streams, the last filled up; six for two devices
)
def test_every_stream_is_read_from_its_begin(num_devices, num_rows):
  dataset = small_text.dataset()
  network = small_text.network(dataset)
  inputs = dataset.dev.inputs
  assert len(inputs) == 48
  expected = np.concatenate(
    [
      in_turn(network, inputs[i : i + num_rows], remembers=True)
      for i in range(0, 48, num_rows)
    ]
  ).reshape(-1, small_text.K)
  for tokens in (
    excerpts.choose(dataset.dev, at_most=17),
    np.arange(len(expected)),
    np.array([200, 3, 100]),
  ):
    found = asked(
      network, dataset, tokens, batch_size=5, num_devices=num_devices
    )
    np.testing.assert_allclose(found, expected[tokens], 1e-4, 1e-4)


@pytest.mark.parametrize('batching', ['padded', 'packed'])
@pytest.mark.parametrize('name', ['lstm', 'transformer_tiny'])
def test_rows_that_stand_alone(batching, name):
  dataset = small_text.dataset(batching)
  network = small_text.network(dataset, name=name, scale=5.0)
  tokens = excerpts.choose(dataset.dev, at_most=7)
  expected = in_turn(network, dataset.dev.inputs, remembers=False)
  found = asked(network, dataset, tokens)
  np.testing.assert_allclose(
    found, expected.reshape(-1, small_text.K)[tokens], 1e-4, 1e-4
  )


def test_no_more_is_kept_than_was_asked_for(monkeypatch):
  dataset = small_text.dataset()
  sizes = []
  get = np.asarray

  def watched(array, *args, **options):
    if isinstance(array, jax.Array):
      sizes.append(array.size)
    return get(array, *args, **options)

  tokens = excerpts.choose(dataset.dev, at_most=3)
  network = small_text.network(dataset)
  monkeypatch.setattr(excerpts.np, 'asarray', watched)
  found = asked(network, dataset, tokens, batch_size=48)
  assert found.shape == (3, small_text.K)
  assert max(sizes) <= max(3 * small_text.K, 48)


def test_a_text_shorter_than_a_batch():
  dataset = small_text.dataset(num_tokens=11)
  assert len(dataset.dev.labels) == 2
  network = small_text.network(dataset)
  tokens = excerpts.choose(dataset.dev, at_most=99)
  expected = np.concatenate(
    [in_turn(network, row[None], remembers=True) for row in dataset.dev.inputs]
  )
  np.testing.assert_allclose(
    asked(network, dataset, tokens),
    expected.reshape(-1, small_text.K)[tokens],
    1e-4,
    1e-4,
  )
  assert data.PADDING not in dataset.dev.labels.reshape(-1)[tokens]
