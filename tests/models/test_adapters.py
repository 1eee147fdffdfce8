"""What is trained beside the student: its numbers, and what of it moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kdjax import losses, models
from kdjax.models import adapters

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(3, 4, 5, 6)).astype(np.float32)
ROWS = RNG.normal(size=(7, 6)).astype(np.float32)
LABELS = np.array([0, 2, 0, 1, 2, 2, 0, 1, 1, 0])


def affine(x, layer):
  return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def relu(x):
  return np.maximum(x, 0)


def normed(x):
  axes = tuple(range(x.ndim - 1))
  return (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)


BY_HAND = {
  'conv': lambda m, x: relu(normed(affine(x, m.linear))),
  'linear': lambda m, x: affine(x, m.linear),
  'mlp': lambda m, x: affine(relu(affine(x, m.first)), m.second),
}


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('feature', [MAP, ROWS], ids=['map', 'embedding'])
@pytest.mark.parametrize('name', BY_HAND)
def test_a_projector_is_its_formula(name, feature):
  module = adapters.PROJECTORS[name](6, 9, rngs=nnx.Rngs(0))
  found = module(feature)
  assert found.shape == (*feature.shape[:-1], 9)
  close(found, BY_HAND[name](module, feature))


@pytest.mark.parametrize('name', adapters.PROJECTORS)
def test_a_projector_computes_in_float32(name):
  module = adapters.PROJECTORS[name](6, 6, rngs=nnx.Rngs(0))
  half = jnp.asarray(MAP, jnp.bfloat16)
  if name == 'identity':
    assert module(half) is half
    return
  assert module(half).dtype == jnp.float32
  close(module(half), module(half.astype(jnp.float32)))


def test_identity_refuses_another_width():
  with pytest.raises(ValueError, match=r'6 channels there, the teacher 9'):
    adapters.Identity(6, 9, rngs=nnx.Rngs(0))


def test_statistics_of_the_regressor_move():
  module = adapters.Projector(6, 9, rngs=nnx.Rngs(0))
  module(MAP)
  mean, var = (
    f(affine(MAP, module.linear), axis=(0, 1, 2)) for f in (np.mean, np.var)
  )
  close(module.norm.mean[...], 0.1 * mean)
  close(module.norm.var[...], 0.9 + 0.1 * var)
  _, params, rest = models.split(module)
  assert set(rest['norm']) == {'mean', 'var'}
  assert set(params) == {'linear', 'norm'}


def test_a_gaussian_starts_at_variance_five():
  module = adapters.Gaussian(6, 9, rngs=nnx.Rngs(0))
  mean, variance = module(MAP)
  np.testing.assert_allclose(variance, np.full(9, 5.0), rtol=1e-6)
  hidden = relu(affine(relu(affine(MAP, module.first)), module.second))
  close(mean, affine(hidden, module.third))


def test_a_variance_stays_above_its_least():
  module = adapters.Gaussian(6, 9, rngs=nnx.Rngs(0))
  module.raw_variance[...] = jnp.full(9, -100.0)
  np.testing.assert_allclose(module(MAP)[1], np.full(9, 1e-5), rtol=1e-5)


def test_the_variance_is_trained():
  """Where the errors are small, it has to fall in every channel."""
  graphdef, params, rest = models.split(
    adapters.Gaussian(6, 9, rngs=nnx.Rngs(0))
  )

  def loss(params):
    mean, variance = models.merge(graphdef, params, rest)(MAP)
    return losses.vid(
      mean, jax.lax.stop_gradient(mean) + 0.1, variance=variance
    )

  slopes = jax.grad(loss)(params)['raw_variance']
  assert (slopes > 1e-3).all()


def test_an_embedding_maps_both():
  module = adapters.Embedding(6, 4, dim=3, rngs=nnx.Rngs(0))
  teacher = RNG.normal(size=(7, 4)).astype(np.float32)
  student, mapped = module(ROWS, teacher)
  close(student, affine(ROWS, module.student))
  close(mapped, affine(teacher, module.teacher))
  assert student.shape == mapped.shape == (7, 3)


@pytest.fixture
def contrast():
  order, starts = losses.by_class(LABELS, 3)
  return adapters.Contrast(
    6, 4, dim=12, order=order, starts=starts, rngs=nnx.Rngs(0)
  )


def test_contrast_gives_unit_vectors(contrast):
  for rows in contrast(ROWS, ROWS[:, :4]):
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)


def test_a_bank_has_a_row_for_every_example_and_is_not_trained(contrast):
  bank = contrast.bank
  for rows in (bank.student[...], bank.teacher[...]):
    assert rows.shape == (256, 12)  # a whole block
    assert np.abs(rows).max() <= 0.5  # √(3 / 12)
    assert np.abs(rows).max() > 0.4
  assert not np.allclose(bank.student[...], bank.teacher[...])
  np.testing.assert_array_equal(bank.log_partition[...], np.zeros(2))
  np.testing.assert_array_equal(bank.starts[...], [0, 4, 7, 10])
  np.testing.assert_array_equal(LABELS[bank.order[...]], np.sort(LABELS))
  _, params, rest = models.split(contrast)
  assert set(params) == {'maps'}
  assert set(rest['bank']) == {
    'student',
    'teacher',
    'log_partition',
    'has_partition',
    'order',
    'starts',
  }
