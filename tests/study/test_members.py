"""Which weights of a student are kept."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.study import members


def of_table(values, *, step=0):
  """Students each of whose averaged weights are one number."""
  values = jnp.asarray(values, jnp.float32)
  averages = {'a': values, 'b': jnp.stack([values] * 3, -1)}
  state = members.State(
    step=jnp.full(values.shape, step, jnp.int32),
    params=jax.tree.map(lambda a: a + 100, averages),
    rest={},
    opt_state=(),
    ema=members.Weights(averages, {}),
  )
  return members.Members(
    state,
    state.evaluated,
    jnp.full(values.shape, -1, jnp.int32),
    jnp.zeros(values.shape, jnp.int32),
  )


def test_the_best_is_the_latest_of_the_highest():
  found = of_table([[0, 0], [0, 0]])
  counted = ([[5, 5], [5, 5]], [[5, 6], [4, 7]], [[5, 6], [5, 0]])
  for at, correct in enumerate(counted, start=1):
    now = of_table(np.full((2, 2), 10 * at), step=at).state
    total = members.Totals(jnp.asarray(correct), jnp.zeros((2, 2)))
    found = members.note_best(found._replace(state=now), total)
  assert found.best_correct.tolist() == [[5, 6], [5, 7]]
  assert found.best_step.tolist() == [[3, 3], [3, 2]]
  assert found.best.params['a'].tolist() == [[30, 30], [30, 20]]
  np.testing.assert_array_equal(
    found.best.params['b'], found.best.params['a'][..., None].repeat(3, -1)
  )
