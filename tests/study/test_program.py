"""A population is its students: each is what it would be on its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from students import SEEDS, Keeper, assert_same, changed, states

from kdjax import data, losses
from kdjax.study import arms, scene
from kdjax.study.config import override
from kdjax.study.members import AXIS


def test_each_method_of_the_family_trains_as_its_run(
  family, family_trials, vectors, config
):
  """With a set of labels for each seed, Nesterov, and a weight decay each."""
  for place, trial in enumerate(family_trials):
    seed = SEEDS[place % 2]
    student = family[trial.arm.name, trial.index, seed]
    alone = vectors.alone(config, trial, seed)
    assert_same(student.state, alone)
    assert student.accuracies == pytest.approx(
      vectors.accuracies(config, alone.evaluated), abs=1e-6
    )


def halved(key, inputs, *, alpha):
  """Mixes each example with its neighbour; that of Beta compiles for long."""
  shares = 1 - alpha * jax.random.uniform(key, inputs.shape[:1])
  own = shares[:, None]
  return own * inputs + (1 - own) * jnp.roll(inputs, 1, axis=0), shares


@pytest.mark.parametrize(
  'name',
  [
    'dkd',
    'dist temperature=1.5',
    'kd_standardised',
    'kd_sim student.dropout=0.3 accumulate_steps=2 ema_decay=0.9 '
    'optimizer.name=adamw schedule.name=step schedule.decay_epochs=(2,3.5) '
    'schedule.warmup_steps=7',
    'kd dataset.mixup=0.4 optimizer.clip_norm=0.5',
    "crd also=('pkt','l2') terms.crd.num_negatives=16 terms.crd.dim=8 "
    'terms.l2.projector=conv',
  ],
)
def test_other_methods_and_ways_to_train_are_those_of_runs(
  name, trainer, where, vectors, config, monkeypatch
):
  monkeypatch.setattr(data, 'mixup', halved)
  trials = arms.trials(config, arms.parse(name))[1:3]
  students = trainer.students(where, trials, SEEDS)
  student = students[name, 2, 3]
  alone = vectors.alone(config, trials[1], 3)
  assert_same(student.state, alone)
  own = override(config, trials[1].overrides)
  assert student.accuracies == pytest.approx(
    vectors.accuracies(own, alone.evaluated), abs=1e-6
  )


def test_cropped_images_and_batch_norm_side_by_side_and_in_turn(
  trainer, images, mesh, convolutional
):
  """The teacher answers in every step, once for all students of a seed."""
  where = images.scene(convolutional, mesh)
  assert where.examples.teacher is None
  trials = arms.trials(convolutional, arms.parse('kd'))[:2]
  alone = images.alone(convolutional, trials[1], 3)
  assert alone.rest['stem_norm']['mean'].any()
  side_by_side, in_turn = (
    trainer.students(
      changed(where, {'study.over_members': mode}), trials, SEEDS
    )
    for mode in ('vmap', 'scan')
  )
  # A batch norm divides by what rounding has changed.
  wider = {'rtol': 1e-3, 'atol': 1e-4}
  assert_same(side_by_side['kd', 1, 3].state, alone, **wider)
  assert_same(states(in_turn), states(side_by_side), **wider)


def test_students_of_a_seed_start_alike_and_part(family):
  by_seed = [
    {
      name: student.state
      for (name, _, at), student in family.items()
      if at == s
    }
    for s in SEEDS
  ]
  for found in by_seed:
    kernels = [np.ravel(s.params['head']['kernel']) for s in found.values()]
    assert len(np.unique(np.stack(kernels), axis=0)) == 8
  a, b = (found['ce'].params['head']['kernel'] for found in by_seed)
  assert np.abs(a - b).max() > 0.1


def test_a_population_of_one_on_one_device(
  vectors, config, family_trials, family
):
  one = jax.make_mesh(
    (1,), (AXIS,), devices=jax.devices()[:1], axis_types=(AxisType.Auto,)
  )
  where = vectors.scene(config, one)
  trial = family_trials[4]
  found = Keeper(one).students(where, [trial], (3,))
  key = trial.arm.name, 4, 3
  assert list(found) == [key]
  assert_same(found[key].state, family[key].state)


def test_a_student_that_diverges_stops_alone(
  trainer, where, family_trials, family, vectors, config
):
  place = 2
  wild = family_trials[place]._replace(
    settings={**family_trials[place].settings, 'learning_rate': 1e30}
  )
  trials = [*family_trials[:place], wild, *family_trials[place + 1 :]]
  found = trainer.students(where, trials, SEEDS)
  key = wild.arm.name, wild.index
  for seed in SEEDS:
    student = found.pop((*key, seed))
    at = student.outcome.diverged_at
    assert 0 < at < 10
    assert student.state.step == at
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(student.state))
    alone = vectors.alone(config, wild, seed)
    assert alone.step == at
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-3),
      student.state.params,
      alone.params,
    )
  for other, student in found.items():
    assert student.outcome.diverged_at is None
    jax.tree.map(
      np.testing.assert_array_equal, student.state, family[other].state
    )


def test_one_step_that_is_not_finite_ends_a_training(
  trainer, where, family_trials, family, vectors, config, mesh
):
  """Of an example that the students of one of two seeds see."""
  others, theirs = scene.stream(config, vectors.dataset, SEEDS, mesh).rows
  bad = np.setdiff1d(theirs, others)[0]
  inputs, labels, _ = vectors.dataset.train
  inputs = inputs.copy()
  inputs[bad] = np.nan
  damaged = vectors._replace(
    dataset=dataclasses.replace(
      vectors.dataset, train=data.Split(inputs, labels)
    )
  )
  place = damaged.scene(config, mesh)
  found = trainer.students(place, family_trials, SEEDS)
  alone = damaged.alone(config, family_trials[0], 3)
  assert 0 < alone.step < 10
  for (name, index, seed), student in found.items():
    if seed == 3:
      assert student.outcome.diverged_at == student.state.step == alone.step
      assert np.isfinite(student.outcome.metrics['dev_cross_entropy'])
    else:
      assert_same(student.state, family[name, index, seed].state)
  assert_same(found[family_trials[0].arm.name, 0, 3].state, alone)


def test_padding_counts_nowhere(family, vectors, config):
  for student in list(family.values())[::3]:
    weights = student.state.evaluated
    for name in ('dev', 'test'):
      split = getattr(vectors.dataset, name)
      logits = vectors.logits(config, weights, split)
      nats = float(losses.cross_entropy(logits, split.labels).sum())
      right = int(np.sum(np.argmax(logits, -1) == split.labels))
      if name == 'test':
        assert int(student.test.correct) == right
        assert student.test.cross_entropy == pytest.approx(nats, rel=1e-5)
      else:
        metrics = student.outcome.metrics
        assert metrics['dev_accuracy'] == right / 33
        assert metrics['dev_cross_entropy'] * 33 == pytest.approx(
          nats, rel=1e-5
        )
