import jax
import numpy as np
import pytest

from kdjax.data import synthetic

TASK = {
  'num_examples': 300,
  'num_inputs': 30,
  'num_classes': 12,
  'num_groups': 4,
  'correlation': 0.5,
  'nonlinearity': 2,
}


# Compiled once per shape: eager operations compile one by one.
compiled = jax.jit(
  synthetic.synthetic_classes,
  static_argnames=set(TASK) - {'correlation'},
)


def draw(seed=0, **changes):
  return compiled(jax.random.key(seed), **{**TASK, **changes})


@pytest.mark.parametrize('correlation', [0.0, 0.3, 0.9, 1.0])
def test_cosines_are_exact(correlation):
  task = draw(correlation=correlation)
  embeddings = np.asarray(task.class_embeddings, np.float64)
  groups = np.asarray(task.groups)
  expected = np.where(groups[:, None] == groups, correlation, 0.0)
  np.fill_diagonal(expected, 1.0)
  np.testing.assert_allclose(embeddings @ embeddings.T, expected, atol=2e-6)


@pytest.mark.parametrize(
  ('nonlinearity', 'amplitude'), [(0, 1.0), (1, 1.0), (2, 1.0), (2, 0.3)]
)
def test_labels_are_the_argmax(nonlinearity, amplitude):
  task = draw(nonlinearity=nonlinearity, amplitude=amplitude)
  u = np.asarray(task.inputs, np.float64) @ np.asarray(task.class_embeddings).T
  _, phase_key, _ = jax.random.split(jax.random.key(0), 3)
  phases = jax.random.uniform(phase_key, (nonlinearity,))
  scores = u + amplitude * sum(
    np.sin(m * u + 2 * np.pi * float(b)) for m, b in enumerate(phases, start=1)
  )
  ordered = np.sort(scores, axis=-1)
  clear = ordered[:, -1] - ordered[:, -2] > 1e-4
  assert clear.mean() > 0.99
  assert task.labels.dtype == np.int32
  np.testing.assert_array_equal(
    np.asarray(task.labels)[clear], scores.argmax(axis=-1)[clear]
  )


def test_one_sine_leaves_the_task_linear():
  """`u + a·sin(u + b)` never falls for a up to 1: its argmax is that of u."""
  linear, one, two = (draw(nonlinearity=m).labels for m in (0, 1, 2))
  np.testing.assert_array_equal(linear, one)
  assert np.mean(np.asarray(linear) != np.asarray(two)) > 0.2


def test_inputs_are_standard_normal():
  inputs = np.asarray(draw(num_examples=4000).inputs)
  assert inputs.shape == (4000, 30)
  assert abs(inputs.mean()) < 0.02
  assert abs(inputs.std() - 1) < 0.02


@pytest.mark.parametrize('num_classes', [10, 12, 13])
def test_groups_are_even_and_in_order(num_classes):
  groups = synthetic.class_groups(num_classes=num_classes, num_groups=4)
  assert (np.diff(groups) >= 0).all()
  counts = np.bincount(groups, minlength=4)
  assert counts.max() - counts.min() <= 1
  assert len(groups) == num_classes


def test_key_decides():
  first, again, other = draw(), draw(), draw(seed=1)
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert (first.labels != other.labels).any()
  assert abs(first.class_embeddings - other.class_embeddings).max() > 0.1


def test_the_number_of_examples_does_not_change_the_task():
  small, large = draw(), draw(num_examples=500)
  np.testing.assert_array_equal(small.class_embeddings, large.class_embeddings)


def test_eager_is_jit():
  eager = synthetic.synthetic_classes(jax.random.key(0), **TASK)
  jitted = draw()
  np.testing.assert_allclose(
    eager.class_embeddings, jitted.class_embeddings, atol=1e-6
  )
  assert (eager.labels == jitted.labels).mean() > 0.99


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'correlation': 1.5}, 'correlation=1.5 must lie'),
    ({'correlation': -0.1}, 'correlation=-0.1 must lie'),
    ({'num_inputs': 15}, r'num_inputs=15 must be at least .* 16'),
    ({'num_groups': 0}, 'num_groups=0 must lie in 1..12'),
    ({'num_groups': 13}, 'num_groups=13 must lie in 1..12'),
    ({'num_classes': 1, 'num_groups': 1}, 'num_classes=1'),
    ({'num_examples': 0}, 'num_examples=0'),
    ({'nonlinearity': -1}, 'nonlinearity=-1'),
    ({'amplitude': -0.5}, 'amplitude=-0.5'),
  ],
)
def test_rejects(changes, message):
  with pytest.raises(ValueError, match=message):
    synthetic.synthetic_classes(jax.random.key(0), **{**TASK, **changes})
  if 'num_examples' not in changes:
    options = {k: v for k, v in TASK.items() if k != 'num_examples'}
    with pytest.raises(ValueError, match=message):
      synthetic.Options(**{**options, **changes})


@pytest.mark.parametrize('value', [2.5, True, '10'])
def test_options_reject_what_is_no_whole_number(value):
  with pytest.raises(TypeError, match='num_classes='):
    synthetic.Options(num_classes=value)


def test_every_option_has_its_own_folder():
  changes = {
    'num_examples': 40,
    'num_test_examples': 40,
    'num_inputs': 70,
    'num_classes': 20,
    'num_groups': 5,
    'correlation': 0.25,
    'nonlinearity': 0,
    'amplitude': 0.5,
    'seed': 1,
  }
  folders = {synthetic.Options(**{k: v}).folder() for k, v in changes.items()}
  assert len(folders | {synthetic.Options().folder()}) == 10
  assert synthetic.Options(correlation=1).folder() == (
    synthetic.Options(correlation=1.0).folder()
  )
