"""Students small enough to be trained by the dozen, alone and together."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from kdjax import data, models
from kdjax.study import config as configuration
from kdjax.study import members, scene
from kdjax.study.config import override
from kdjax.study.population import Outcome, Trainer
from kdjax.train import experiment, networks, sharding, task
from kdjax.train.state import Network, State
from kdjax.train.watchdog import Watchdog

NUM_CLASSES = 5
SEEDS = (0, 3)
# After 30 steps the largest differences are below 1e-6: sums are taken in
# another order. A wrong number anywhere shows in the second digit.
TOLERANCE = {'rtol': 1e-4, 'atol': 1e-5}


class World(NamedTuple):
  """Data, and a network whose answers are most of their labels."""

  dataset: data.Dataset
  teacher: Network

  def scene(self, config, mesh):
    return scene.make(config, self.dataset, self.teacher, mesh)

  def alone(self, config, trial, seed):
    """What one student is after its last step, as `kdjax.main` trains it."""
    own = override(config, {**trial.overrides, 'seed': seed})
    transfer = experiment.transfer_set(own, self.dataset)
    job = task.prepare(
      own,
      dataclasses.replace(self.dataset, train=transfer),
      self.teacher,
      sharding.make_mesh(devices=jax.devices()[:1]),
    )
    snapshot = job.initialise()
    job.feed.compile(snapshot)
    snapshot = job.feed.advance(snapshot, 0, job.num_steps)
    return jax.device_get(snapshot.state)

  def logits(self, config, weights, split):
    """What a student says of a split."""
    graphdef = networks.shapes(config, self.dataset).graphdef
    inputs = data.normalise(split.inputs, self.dataset.mean, self.dataset.std)
    return models.apply(graphdef, *weights, inputs, train=False)[0].logits

  def accuracies(self, config, weights):
    """Of a student, on dev and on test."""
    return tuple(
      float(np.mean(np.argmax(self.logits(config, weights, s), -1) == s.labels))
      for s in (self.dataset.dev, self.dataset.test)
    )


def make_world(shape, *, train, dev, test, as_images=False):
  model = models.build(
    'mlp', input_shape=shape, num_classes=NUM_CLASSES, seed=7, widths=(16,)
  )
  teacher = Network(*models.split(model))
  teacher.params['head']['kernel'] *= 2.0  # surer of what it says
  mean, std = ((0.5,), (0.2,)) if as_images else ((0.0,), (1.0,))
  rng = np.random.default_rng(0)

  def draw(size):
    inputs = rng.normal(0, 1, (size, *shape)).astype(np.float32)
    if as_images:
      inputs = np.clip(128 + 50 * inputs, 0, 255).astype(np.uint8)
    ready = data.normalise(inputs, mean, std)
    outputs, _ = models.apply(*teacher, ready, train=False)
    labels = np.argmax(outputs.logits, -1).astype(np.int32)
    is_wrong = rng.random(size) < 0.15
    return data.Split(inputs, np.where(is_wrong, labels[::-1], labels))

  dataset = data.Dataset(
    name='made-up',
    train=draw(train),
    dev=draw(dev),
    test=draw(test),
    num_classes=NUM_CLASSES,
    mean=mean,
    std=std,
    class_names=tuple('abcde'),
  )
  return World(dataset, teacher)


class Student(NamedTuple):
  """One of a population: all that is known of it."""

  state: State
  outcome: Outcome
  test: members.Totals
  num_test: int

  @property
  def accuracies(self):
    """On dev and on test."""
    dev = self.outcome.metrics['dev_accuracy']
    return dev, int(self.test.correct) / self.num_test


class Keeper(Trainer):
  """A trainer that hands out the weights, too."""

  reports = False  # what is looked at once has to be compiled first

  def __init__(self, mesh):
    super().__init__(mesh, Watchdog(0))
    self.crews = self._crews

  def students(self, where, trials, seeds):
    """Students by the names of their arms, their trials and their seeds."""
    found, num_test = {}, len(where.dataset.test.labels)
    for outcomes in self.train(
      where, trials, seeds, report=True, progress=lambda done: None
    ):
      for at, outcome in enumerate(outcomes):
        column, row = divmod(at, len(seeds))
        own = jax.tree.map(lambda a, at=(row, column): a[at], self._kept)
        key = outcome.trial.arm.name, outcome.trial.index, outcome.seed
        found[key] = Student(own[0], outcome, own[1], num_test)
    return found

  def _report(self, crew, members, varied):
    test = crew.program.evaluate(members.state.evaluated, *crew.where.test)
    self._kept = jax.device_get((members.state, test))
    return super()._report(crew, members, varied) if self.reports else None


def make_config():
  """Of students with seven hidden units; the teacher answers beforehand."""
  c = configuration.default()
  c.dataset.augment = 'none'
  c.dataset.num_labels = 40  # others for each seed
  c.dataset.exclude_classes = (3,)
  c.batch_size = 8
  c.eval_batch_size = 20  # the last batch of dev and of test is not full
  c.num_epochs = 6
  c.eval_every_epochs = 2
  c.topk = 2
  c.schedule.name = 'cosine'
  c.optimizer.nesterov = True
  c.student.name = 'mlp'
  c.student.widths = (7,)
  c.study.num_trials = 8
  c.study.search.learning_rate = (0.01, 0.1)
  c.study.search.optimizer.weight_decay = (1e-4, 1e-2)
  c.study.search.temperature = (1.0, 4.0)
  # Larger weights, and temperatures, of dist amplify rounding errors.
  c.study.search.inter_weight = c.study.search.intra_weight = (0.5, 1.0)
  return c


def changed(where, values):
  """A scene with another configuration."""
  return where._replace(config=override(where.config, values))


def states(students):
  return {key: student.state for key, student in students.items()}


def assert_same(found, wanted, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE | tolerance),
    found,
    wanted,
  )
