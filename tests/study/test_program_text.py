"""A population that reads a text is its students, each on its own."""

import functools
import math

import jax
import numpy as np
import pytest
from students import SEEDS, assert_same
from text_students import ARMS, FEW, make_text_config, make_text_world

from kdjax import data
from kdjax.analysis import rescaling
from kdjax.study import arms
from kdjax.study.config import override
from kdjax.train import evaluate, loop, progress, reading, sharding
from kdjax.train.interrupts import Interrupts
from kdjax.train.session import Session
from kdjax.train.state import Weights
from kdjax.train.watchdog import Watchdog

ASKED = {'teacher.precompute_logits': False}


@functools.cache
def world_of(batching):
  return make_text_world(batching)


def trials_of(config, names=ARMS):
  """One of each arm, all with other settings."""
  found = [arms.trials(config, arms.parse(name)) for name in names]
  return [tried[place % 2] for place, tried in enumerate(found)]


@pytest.fixture
def config():
  return make_text_config()


@pytest.fixture
def world():
  return world_of('contiguous')


@pytest.mark.parametrize(
  ('batching', 'values', 'names'),
  [
    ('contiguous', {}, ARMS),
    ('contiguous', {**ASKED, 'study.over_members': 'scan'}, FEW),
    ('padded', {}, FEW),
    ('packed', ASKED, FEW[:1]),
  ],
  ids=['in_order', 'in_order_asked_scan', 'padded', 'packed_asked'],
)
def test_each_method_trains_as_its_run(
  batching, values, names, trainer, config, mesh
):
  """With what it remembers, and evaluated token for token."""
  world, config = world_of(batching), override(config, values)
  where = world.scene(config, mesh)
  assert (where.examples.teacher is None) == (values != {})
  trials, count = trials_of(config, names), world.evaluator(config, 'dev')
  if batching == 'padded':  # a run need not ask beforehand
    config = override(config, ASKED)
  students = trainer.students(where, trials, SEEDS)
  for place, trial in enumerate(trials):
    key = trial.arm.name, trial.index, SEEDS[place % 2]
    alone = world.alone(config, trial, key[-1])
    assert_same(students[key].state, alone)
    assert alone.step == 3 * (len(world.dataset.train.labels) // 4)
    metrics = students[key].outcome.metrics
    wanted = evaluate.scores(count(alone.evaluated))['cross_entropy']
    assert metrics['dev_cross_entropy'] == pytest.approx(wanted, rel=1e-5)
    assert metrics['dev_perplexity'] == pytest.approx(
      math.exp(wanted), rel=1e-5
    )


def test_an_arm_of_other_streams_hears_the_teacher_read_them(
  trainer, world, config, mesh
):
  """What it says beforehand is of the streams of the other arms."""
  trial, *_ = arms.trials(config, arms.parse('kd batch_size=6'))
  where = world.scene(config, mesh)
  students = trainer.students(where, [trial], (3,))
  alone = world.alone(config, trial, 3)
  assert_same(students[trial.arm.name, 0, 3].state, alone)


def test_drawn_classes_are_drawn_anew_in_every_step(
  trainer, world, config, mesh
):
  """As a run does that does not ask beforehand."""
  config = override(config, ASKED)
  trial, *_ = arms.trials(config, arms.parse('kd_sampled num_samples=3'))
  students = trainer.students(world.scene(config, mesh), [trial], (3,))
  alone = world.alone(config, trial, 3)
  assert_same(students[trial.arm.name, 0, 3].state, alone)


@pytest.fixture
def reported(trainer, world, config, mesh, monkeypatch):
  """Of a small rate and a large one."""
  monkeypatch.setattr(trainer, 'reports', True)
  config.study.search.learning_rate = (0.1, 4.0)
  where = world.scene(config, mesh)
  trials = trials_of(config, ('ce', 'kd', 'kd_topk topk=3'))
  return trials, trainer.students(where, trials, SEEDS)


def test_what_is_reported_of_a_text(reported, world, config):
  _, students = reported
  of_dev, of_test = (world.evaluator(config, x) for x in ('dev', 'test'))
  for student in students.values():
    metrics = student.outcome.metrics
    assert set(metrics) == {
      'dev_perplexity',
      'dev_cross_entropy',
      'test_perplexity',
      'test_cross_entropy',
      'best',
      'curve',
      'rescaling_factor',
    }
    weights = student.state.evaluated
    for split, count in (('dev', of_dev), ('test', of_test)):
      nats = evaluate.scores(count(weights))['cross_entropy']
      assert metrics[f'{split}_cross_entropy'] == pytest.approx(nats, rel=1e-5)
      assert metrics[f'{split}_perplexity'] == pytest.approx(
        math.exp(nats), rel=1e-4
      )
    curve, best = metrics['curve'], metrics['best']
    assert set(best) == {'step', 'dev_perplexity', 'test_perplexity'}
    assert len(curve['step']) == len(curve['dev_perplexity']) == 3
    lowest = min(curve['dev_perplexity'])
    assert best['dev_perplexity'] == lowest
    assert curve['dev_perplexity'].index(lowest) == curve['step'].index(
      best['step']
    )
  # Else the last weights were always the best, and nothing was shown.
  assert len({s.outcome.metrics['best']['step'] for s in students.values()}) > 1


def test_the_best_is_that_of_a_whole_run_on_a_text(
  reported, world, config, tmp_path
):
  trials, students = reported
  last = 3 * (len(world.dataset.train.labels) // 4)
  key, student = next(
    (key, student)
    for key, student in students.items()
    if student.outcome.metrics['best']['step'] < last
  )
  (trial,) = (t for t in trials if t.arm.name == key[0])
  own = override(config, {**trial.overrides, 'seed': key[-1]})
  own.analysis = False
  fitted = loop.fit(
    own,
    world.dataset,
    teacher=world.teacher,
    name='student',
    directory=tmp_path,
    session=Session(
      sharding.make_mesh(devices=jax.devices()[:1]),
      progress.Reporter(quiet=True),
      Interrupts(),
      Watchdog(0),
    ),
  )
  found = {'step': fitted.best_step}
  for split in ('dev', 'test'):
    count = world.evaluator(config, split)
    nats = evaluate.scores(count(Weights(*fitted.best[1:])))['cross_entropy']
    found[f'{split}_perplexity'] = math.exp(nats)
  assert student.outcome.metrics['best'] == pytest.approx(found, rel=1e-4)


def test_rescaling_factors_are_of_tokens_and_of_no_padding(
  reported, world, config, mesh
):
  """Both networks read dev in order, as in an evaluation."""
  trials, students = reported
  for trial in trials[:2]:
    student = students[trial.arm.name, trial.index, SEEDS[0]]
    own = override(config, trial.overrides)
    weights = student.state.evaluated
    logits, teacher, labels = said_of_dev(world, own, weights)
    found = student.outcome.metrics['rescaling_factor']
    if trial.arm.name == 'ce':
      assert list(found.values()) == pytest.approx([1] * 5, rel=1e-4)
      continue
    wanted = rescaling.rescaling_factor(
      logits,
      teacher,
      labels,
      weight=own.weight,
      temperature=own.temperature,
    )
    assert len(wanted) == np.sum(world.dataset.dev.labels != data.PADDING)
    assert list(found.values()) == pytest.approx(
      np.percentile(wanted, [5, 25, 50, 75, 95]), rel=1e-3
    )


def said_of_dev(world, config, weights):
  """What both networks say of each token of dev, one batch after the other."""
  networks_ = (
    (world.evaluator(config, 'dev')._reader, weights),
    (
      reading.Reader(world.teacher.graphdef, True),
      Weights(*world.teacher[1:]),
    ),
  )
  inputs, labels, _ = world.dataset.dev
  missing = -len(labels) % 4
  inputs = np.pad(inputs, ((0, missing), (0, 0)))
  labels = np.pad(labels, ((0, missing), (0, 0)), constant_values=data.PADDING)
  rows = np.asarray(reading.streams(len(labels), 4))
  logits = []
  for reader, own in networks_:
    carry, found = reader.begin(own, 4), []
    for chosen in rows:
      outputs, carry = reader(own, inputs[chosen], carry)
      found.append(outputs.logits)
    logits.append(np.stack(found))
  is_token = labels[rows] != data.PADDING
  return *(x[is_token] for x in logits), labels[rows][is_token]
