"""A population is its students: each is what it would be on its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from kdjax import analysis, data, losses
from kdjax.study import arms, members
from kdjax.study.config import override
from kdjax.study.members import AXIS
from kdjax.train import experiment, loop, progress, sharding
from kdjax.train.interrupts import Interrupts
from kdjax.train.session import Session
from kdjax.train.watchdog import Watchdog

SEEDS = (0, 3)
# The largest differences after 30 steps are 1e-7: sums are taken in another
# order. A wrong number anywhere shows in the second digit.
TOLERANCE = {'rtol': 1e-4, 'atol': 1e-5}


def assert_same(found, wanted, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE | tolerance),
    found,
    wanted,
  )


def states(students):
  return {key: student.state for key, student in students.items()}


def changed(where, values):
  return where._replace(config=override(where.config, values))


def scores(student, num_test=37):
  """Accuracies on dev and on test."""
  dev = student.outcome.metrics['dev_accuracy']
  return dev, int(student.test.correct) / num_test


@pytest.fixture
def family(trainer, where, family_trials):
  return trainer.students(where, family_trials, SEEDS)


def test_each_method_of_the_family_trains_as_its_run(
  family, family_trials, vectors, config
):
  """With a set of labels for each seed, Nesterov, and a weight decay each."""
  for place, trial in enumerate(family_trials):
    seed = SEEDS[place % 2]
    student = family[trial.arm.name, trial.index, seed]
    alone = vectors.alone(config, trial, seed)
    assert_same(student.state, alone)
    assert scores(student) == pytest.approx(
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
    'dist',
    'kd_standardised',
    'kd student.dropout=0.3 ema_decay=0.9 optimizer.name=adamw '
    'schedule.name=step schedule.decay_epochs=(2,3.5) schedule.warmup_steps=7',
    'kd_sim dataset.mixup=0.4 accumulate_steps=2 optimizer.clip_norm=0.5',
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
  assert scores(student) == pytest.approx(
    vectors.accuracies(own, alone.evaluated), abs=1e-6
  )


def test_cropped_images_and_batch_norm(trainer, images, mesh, convolutional):
  """The teacher answers in every step, once for all students of a seed."""
  where = images.scene(convolutional, mesh)
  assert where.examples.teacher_logits is None
  trials = arms.trials(convolutional, arms.parse('kd'))[:2]
  alone = images.alone(convolutional, trials[1], 3)
  assert alone.rest['stem_norm']['mean'].any()
  for mode in ('vmap', 'scan'):
    asked = changed(where, {'study.over_members': mode})
    students = trainer.students(asked, trials, SEEDS)
    # A batch norm divides by what rounding has changed.
    assert_same(students['kd', 1, 3].state, alone, rtol=1e-3, atol=1e-4)


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


def test_in_turn_is_side_by_side(trainer, where, family_trials, family):
  in_turn = changed(where, {'study.over_members': 'scan'})
  found = trainer.students(in_turn, family_trials, SEEDS)
  assert_same(states(found), states(family))


def test_a_population_of_one_on_one_device(
  trainer, vectors, config, family_trials, family
):
  one = jax.make_mesh(
    (1,), (AXIS,), devices=jax.devices()[:1], axis_types=(AxisType.Auto,)
  )
  where = vectors.scene(config, one)
  trial = family_trials[4]
  found = type(trainer)(one).students(where, [trial], (3,))
  key = trial.arm.name, 4, 3
  assert list(found) == [key]
  assert_same(found[key].state, family[key].state)


@pytest.mark.parametrize('most', [0, 2])
def test_chunks_do_not_matter_nor_what_fills_the_last(
  most, trainer, where, family_trials, family
):
  """Of seven settings: a place of eight, or of the last two, is left."""
  asked = changed(where, {'study.max_settings': most})
  found = trainer.students(asked, family_trials[1:], SEEDS)
  assert len(found) == 14
  kept = {key: student for key, student in family.items() if key in found}
  assert_same(states(found), states(kept))
  for key, student in found.items():
    assert student.outcome.trial.overrides['method'] == key[0]
    assert scores(student) == pytest.approx(scores(kept[key]))


def test_the_order_of_settings_and_seeds_does_not_matter(
  trainer, where, family_trials, family
):
  found = trainer.students(where, family_trials[::-1], SEEDS[::-1])
  assert_same(states(found), {key: family[key].state for key in found})


def test_outcomes_come_trial_by_trial_and_the_progress_is_whole(
  trainer, where, family_trials
):
  told = []
  (outcomes,) = trainer.train(
    where, family_trials[1:], SEEDS, report=False, progress=told.append
  )
  assert [(o.trial, o.seed) for o in outcomes] == [
    (trial, seed) for trial in family_trials[1:] for seed in SEEDS
  ]
  assert sum(told) == pytest.approx(14)
  for outcome in outcomes:
    assert outcome.metrics.keys() == {'dev_accuracy', 'dev_cross_entropy'}
    assert outcome.num_params == 6 * 7 + 7 + 7 * 5 + 5
    assert outcome.wall_seconds >= 0
    assert outcome.diverged_at is None


def test_padding_counts_nowhere(family, vectors, config):
  for student in family.values():
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


def test_what_is_reported(
  trainer, where, family_trials, vectors, config, monkeypatch
):
  monkeypatch.setattr(trainer, 'reports', True)
  students = trainer.students(where, family_trials, SEEDS)
  dev = vectors.dataset.dev
  for (name, index, _), student in students.items():
    metrics = student.outcome.metrics
    assert metrics['test_accuracy'] == scores(student)[1]
    curve, best = metrics['curve'], metrics['best']
    assert curve['step'] == [10, 20, 30]
    assert curve['dev_accuracy'][-1] == metrics['dev_accuracy']
    assert best['dev_accuracy'] == max(curve['dev_accuracy'])
    latest = max(
      at
      for at, accuracy in zip(*curve.values(), strict=True)
      if accuracy == best['dev_accuracy']
    )
    assert best['step'] == latest
    if latest == 30:
      assert best['test_accuracy'] == metrics['test_accuracy']
    factors = metrics['rescaling_factor']
    assert list(factors) == ['5', '25', '50', '75', '95']
    if name == 'ce':
      assert list(factors.values()) == pytest.approx([1] * 5, rel=1e-4)
    if name == 'kd':
      own = override(config, family_trials[index].overrides)
      wanted = analysis.rescaling_factor(
        vectors.logits(config, student.state.evaluated, dev),
        where.dev_logits,
        dev.labels,
        weight=own.weight,
        temperature=own.temperature,
      )
      assert list(factors.values()) == pytest.approx(
        np.percentile(wanted, [5, 25, 50, 75, 95]), rel=1e-3
      )
  # Else the last weights were always the best, and nothing was shown.
  assert len({s.outcome.metrics['best']['step'] for s in students.values()}) > 1


def of_table(values, *, step=0):
  """Students whose weights are one number each."""
  values = jnp.asarray(values, jnp.float32)
  state = members.State(
    step=jnp.full(values.shape, step, jnp.int32),
    params={'a': values, 'b': jnp.stack([values] * 3, -1)},
    rest={},
    opt_state=(),
    ema=None,
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


def test_the_best_is_that_of_a_whole_run(
  trainer, where, family_trials, vectors, config, mesh, tmp_path, monkeypatch
):
  monkeypatch.setattr(trainer, 'reports', True)
  students = trainer.students(where, family_trials, SEEDS)
  key, student = next(
    (key, student)
    for key, student in students.items()
    if student.outcome.metrics['best']['step'] < 30
  )
  (trial,) = (t for t in family_trials if t.arm.name == key[0])
  own = override(config, {**trial.overrides, 'seed': key[-1]})
  own.analysis = False
  fitted = loop.fit(
    own,
    dataclasses.replace(
      vectors.dataset, train=experiment.transfer_set(own, vectors.dataset)
    ),
    teacher=vectors.teacher,
    name='student',
    directory=tmp_path,
    session=Session(
      sharding.make_mesh(devices=jax.devices()[:1]),
      progress.Reporter(quiet=True),
      Interrupts(),
      Watchdog(0),
    ),
  )
  dev, test = vectors.accuracies(own, fitted.best[1:])
  wanted = {
    'step': fitted.best_step,
    'dev_accuracy': dev,
    'test_accuracy': test,
  }
  assert student.outcome.metrics['best'] == pytest.approx(wanted)


def test_data_that_do_not_fit_are_refused(trainer, where, family_trials):
  asked = changed(where, {'dataset.num_labels': 101})
  with pytest.raises(ValueError, match='num_labels=101'):
    list(
      trainer.train(
        asked, family_trials, SEEDS, report=False, progress=lambda done: None
      )
    )
