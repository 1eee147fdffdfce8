"""Which weights of a student are kept."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.study import members, scores


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
    jax.tree.map(lambda x: jnp.full(values.shape, x), members.NOTHING),
    jnp.zeros(values.shape, jnp.int32),
  )


def noted(evaluations, score):
  """After evaluations of totals, each ten steps' worth of weights later."""
  found = of_table([[0, 0], [0, 0]])
  for at, (correct, nats) in enumerate(evaluations, start=1):
    now = of_table(np.full((2, 2), 10 * at), step=at).state
    totals = members.Totals(jnp.asarray(correct), jnp.asarray(nats, float))
    found = members.note_best(
      found._replace(state=now), totals, merit=score.merit_of
    )
  np.testing.assert_array_equal(
    found.best.params['b'], found.best.params['a'][..., None].repeat(3, -1)
  )
  return found


def test_the_best_is_the_latest_of_the_highest():
  counted = ([[5, 5], [5, 5]], [[5, 6], [4, 7]], [[5, 6], [5, 0]])
  nats = np.ones((2, 2))
  found = noted([(c, nats) for c in counted], scores.ACCURACY)
  assert found.best_dev.correct.tolist() == [[5, 6], [5, 7]]
  assert found.best_step.tolist() == [[3, 3], [3, 2]]
  assert found.best.params['a'].tolist() == [[30, 30], [30, 20]]


def test_of_a_text_it_is_the_latest_of_the_least_surprised():
  """And one whose cross-entropy is no number is better than none at all."""
  nan = np.nan
  nats = ([[5, 5], [nan, nan]], [[5, 4], [nan, 9]], [[5, 6], [nan, nan]])
  right = np.arange(4).reshape(2, 2)
  found = noted([(right + i, x) for i, x in enumerate(nats)], scores.PERPLEXITY)
  np.testing.assert_array_equal(
    found.best_dev.cross_entropy, [[5, 4], [nan, 9]]
  )
  assert found.best_dev.correct.tolist() == [[2, 2], [4, 4]]
  assert found.best_step.tolist() == [[3, 2], [3, 2]]
