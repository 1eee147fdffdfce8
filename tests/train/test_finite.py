"""A number that is not finite, wherever it comes from, changes nothing."""

import dataclasses

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import data, models
from kdjax.train import checkpoint, finite, loop, step
from kdjax.train.loop import fit
from kdjax.train.state import Network
from kdjax.train.writers import read_metrics


@pytest.fixture
def poisoned(digits):
  """Vectors of which two are not finite."""
  labels = digits.train.labels[:40]
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(40, 5)).astype(np.float32)
  inputs[7, 2], inputs[31, 0] = np.nan, np.inf
  train = data.Split(inputs, labels, np.arange(100, 140))
  whole = data.Split(np.nan_to_num(inputs, posinf=0.0), labels)
  return dataclasses.replace(
    digits, train=train, dev=whole, mean=(0.0,), std=(1.0,)
  )


def _fit(config, dataset, folder, session, teacher=None):
  return fit(
    config,
    dataset,
    teacher=teacher,
    name='student',
    directory=folder,
    session=session,
  )


@pytest.fixture
def plain(config):
  config.method = 'ce'
  return config


def test_an_input_stops_the_run_and_is_named(
  plain, poisoned, tmp_path, session
):
  with pytest.raises(FloatingPointError) as error:
    _fit(plain, poisoned, tmp_path, session)
  text = str(error.value)
  assert text.startswith('student: an input is not finite in step ')
  # Every example comes in the first epoch, of four steps.
  assert int(text.split('in step ')[1].split(',')[0]) < 4
  named = text.split('examples ')[1].split(' of')[0].split(', ')
  assert set(named) <= {'107', '131'}
  assert 'nothing is saved' in text
  assert not checkpoint.steps(tmp_path / 'checkpoints')


def test_what_was_saved_before_stays(plain, forty, tmp_path, session):
  """A rate so high that the weights overflow after the first evaluation."""
  plain.eval_every_epochs = 1
  plain.num_epochs = 30
  plain.learning_rate = 1e15
  plain.schedule.name = 'constant'
  plain.schedule.warmup_steps = 100
  with pytest.raises(FloatingPointError, match=r'not finite (in|after) step'):
    _fit(plain, forty, tmp_path, session)
  for saved in checkpoint.steps(tmp_path / 'checkpoints'):
    like = loop.task.like(plain, forty, session.mesh)
    found = checkpoint.read(
      tmp_path / 'checkpoints', like, loop._plain(plain), step=saved
    )
    chex.assert_tree_all_finite(found.tree)
  rows = read_metrics(tmp_path / 'metrics.jsonl')
  assert all(v is not None for row in rows for v in row.values())


def test_skipping_leaves_the_update_out_and_counts_it(
  plain, poisoned, tmp_path, session
):
  plain.nonfinite = 'skip'
  plain.log_every_steps = 4
  fitted = _fit(plain, poisoned, tmp_path, session)
  chex.assert_tree_all_finite(fitted.last.params)
  rows = read_metrics(tmp_path / 'metrics.jsonl')
  skipped = [r['skipped_updates'] for r in rows if 'skipped_updates' in r]
  # Two bad examples an epoch, in one batch or in two.
  assert len(skipped) == 4
  assert set(skipped) <= {1.0, 2.0}
  assert all(np.isfinite(r['train_loss']) for r in rows if 'train_loss' in r)


def test_a_run_that_skips_all_stops(plain, poisoned, tmp_path, session):
  inputs = np.full_like(poisoned.train.inputs, np.nan)
  train = data.Split(inputs, poisoned.train.labels)
  plain.nonfinite = 'skip'
  with pytest.raises(FloatingPointError, match='none of the last 6 updates'):
    _fit(plain, dataclasses.replace(poisoned, train=train), tmp_path, session)


@pytest.mark.parametrize('precomputed', [True, False])
def test_a_teacher_is_named(precomputed, config, forty, tmp_path, session):
  config.method = 'kd'
  config.teacher.precompute_logits = precomputed
  graphdef, params, rest = models.split(loop.networks.build(config, forty))
  params['head']['bias'] = params['head']['bias'] * jnp.nan
  with pytest.raises(FloatingPointError, match='a logit of the teacher is not'):
    _fit(config, forty, tmp_path, session, Network(graphdef, params, rest))


def test_a_gradient_is_named_by_its_leaf(plain, forty, session):
  """The loss is finite, its slope in zero is not."""
  job = loop.task.prepare(plain, forty, None, session.mesh)
  task = dataclasses.replace(
    job.task,
    loss=lambda x, c: jnp.sqrt(jnp.sum(x.student.logits * 0.0, -1)),
  )
  state = job.initialise().state
  batch, key = job.feed.batch(0)
  positions = job.feed.positions(batch)
  after, metrics = step.train_step(task, state, None, batch, key)
  chex.assert_trees_all_equal(after, state)
  assert (metrics['steps'], metrics['skipped']) == (0.0, 1.0)
  text = finite.explain(task, state, None, batch, positions, key)
  assert text.startswith('gradient/head/bias is not finite in step 0, ')
  assert ' and 2 more of the training split' in text


def test_the_first_bad_leaf():
  good, bad = jnp.ones(3), jnp.array([0.0, jnp.inf])
  assert finite.first_bad_leaf({'a': good, 'b': good}) is None
  assert finite.first_bad_leaf({'a': good, 'b': [good, bad]}) == 'b/1'
