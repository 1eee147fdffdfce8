import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import default
from kdjax.train import optimizer


def _config(**changes):
  config = default()
  config.update(changes)
  return config


def test_published_steps_multiply_after_150_180_and_210_epochs():
  rate = optimizer.schedule(default(), steps_per_epoch=10)
  found = [float(rate(e * 10)) for e in (0, 149, 151, 179, 181, 209, 211, 239)]
  expected = [0.05, 0.05, 5e-3, 5e-3, 5e-4, 5e-4, 5e-5, 5e-5]
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_step_schedule_changes_exactly_at_the_boundary():
  rate = optimizer.schedule(default(), steps_per_epoch=10)
  assert float(rate(1499)) == pytest.approx(0.05)
  assert float(rate(1501)) == pytest.approx(0.005)


def test_cosine_ends_at_zero():
  config = _config(num_epochs=3, schedule={'name': 'cosine'})
  rate = optimizer.schedule(config, steps_per_epoch=10)
  halfway = 0.05 * 0.5 * (1 + np.cos(np.pi * 0.5))
  np.testing.assert_allclose(float(rate(15)), halfway, rtol=1e-6)
  assert float(rate(30)) == pytest.approx(0, abs=1e-9)


def test_warmup_is_linear_and_multiplies_the_base():
  config = _config(
    num_epochs=10, schedule={'name': 'constant', 'warmup_steps': 4}
  )
  rate = optimizer.schedule(config, steps_per_epoch=10)
  found = [float(rate(s)) for s in (0, 1, 2, 4, 50)]
  np.testing.assert_allclose(found, [0, 0.0125, 0.025, 0.05, 0.05], rtol=1e-6)


def test_a_warmup_longer_than_the_run_is_refused():
  config = _config(num_epochs=1, schedule={'warmup_steps': 11})
  with pytest.raises(ValueError, match=r'warmup_steps=11.*10 steps'):
    optimizer.schedule(config, steps_per_epoch=10)


def _update(config, params, gradient, steps=1):
  transform = optimizer.make(config, steps_per_epoch=100)
  opt_state = transform.init(params)
  for _ in range(steps):
    updates, opt_state = transform.update(gradient, opt_state, params)
    params = jax.tree.map(jnp.add, params, updates)
  return params


PARAMS = {'kernel': jnp.full((2, 3), 2.0), 'bias': jnp.full((3,), 2.0)}
GRADIENT = {'kernel': jnp.full((2, 3), 0.5), 'bias': jnp.full((3,), 0.5)}


def test_sgd_with_momentum_and_decay_of_kernels_only():
  config = _config(
    schedule={'name': 'constant'},
    learning_rate=0.1,
    optimizer={'weight_decay': 0.01, 'momentum': 0.9},
  )
  found = _update(config, PARAMS, GRADIENT, steps=2)
  for name, decay in (('kernel', 0.01), ('bias', 0.0)):
    value, velocity = 2.0, 0.0
    for _ in range(2):
      velocity = 0.9 * velocity + 0.5 + decay * value
      value -= 0.1 * velocity
    np.testing.assert_allclose(found[name], value, rtol=1e-6)


def test_adamw_decays_kernels_only():
  config = _config(
    schedule={'name': 'constant'},
    learning_rate=0.1,
    optimizer={'name': 'adamw', 'weight_decay': 0.01},
  )
  found = _update(config, PARAMS, GRADIENT)
  np.testing.assert_allclose(found['bias'], 2.0 - 0.1, rtol=1e-5)
  np.testing.assert_allclose(
    found['kernel'], 2.0 - 0.1 * (1 + 0.01 * 2.0), rtol=1e-5
  )


def test_clipping_bounds_the_whole_gradient():
  config = _config(
    schedule={'name': 'constant'},
    learning_rate=1.0,
    optimizer={'weight_decay': 0.0, 'momentum': 0.0, 'clip_norm': 0.3},
  )
  found = _update(config, PARAMS, GRADIENT)
  norm = np.sqrt(sum(np.sum((found[k] - PARAMS[k]) ** 2) for k in PARAMS))
  np.testing.assert_allclose(norm, 0.3, rtol=1e-5)
