import chex
import jax
import jax.numpy as jnp

from kdjax.train.checkpoint import Checkpoints
from kdjax.train.state import State


def _state(step, size=1000):
  return State(
    step=jnp.asarray(step, jnp.int32),
    params={'kernel': jnp.arange(size, dtype=jnp.float32) + step},
    rest={},
    opt_state=(None, {'trace': jnp.full((3,), float(step))}),
    ema=None,
  )


def _saved(folder):
  return sorted(int(path.name) for path in folder.iterdir())


def test_the_last_two_and_the_best_stay(tmp_path):
  scores = {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.2, 5: 0.4}
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    for step, score in scores.items():
      checkpoints.save(_state(step), step=step, score=score)
    checkpoints.wait()
    assert checkpoints.best() == 2
    assert checkpoints.latest() == 5
  assert _saved(tmp_path) == [2, 4, 5]


def test_the_latest_of_equals_is_the_best(tmp_path):
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    for step, score in {1: 0.5, 2: 0.5, 3: 0.4}.items():
      checkpoints.save(_state(step), step=step, score=score)
    checkpoints.wait()
    assert checkpoints.best() == 2
  assert _saved(tmp_path) == [2, 3]


def test_another_process_restores_every_bit(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(_state(7), step=7, score=0.0)
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.latest() == 7
    chex.assert_trees_all_equal(
      checkpoints.restore(_state(0), step=7), _state(7)
    )


def test_an_empty_folder_has_no_latest(tmp_path):
  with Checkpoints(tmp_path / 'new', keep=2) as checkpoints:
    assert checkpoints.latest() is None


def test_a_save_holds_the_values_of_its_own_step(tmp_path):
  """Saving is asynchronous and the buffers are donated right after it."""
  size = 2_000_000
  advance = jax.jit(
    lambda state: jax.tree.map(lambda a: a + 1, state), donate_argnums=0
  )
  state = jax.device_put(_state(1, size))
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(state, step=1, score=0.0)
    for _ in range(20):
      state = advance(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    found = checkpoints.restore(_state(0, size), step=1)
  chex.assert_trees_all_equal(found, _state(1, size))
