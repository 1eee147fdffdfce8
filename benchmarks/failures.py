"""Failing distillation, built on purpose: is it recognised, and remedied?

  python benchmarks/failures.py \
    --config=experiments/fashion_mnist_scarce_kd.py --workdir=runs/failures

Each case breaks one thing. Its students are trained with three seeds; the first
is diagnosed, the remedy of the expected finding is applied as it says, and
students are trained again. The table is test accuracy after the last step, mean
± standard deviation (n - 1). `--quick` trains two cases with one seed.
"""

import contextlib
import dataclasses
import statistics
import sys
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdjax import analysis, cli, models
from kdjax.train import (
  experiment,
  finished,
  loop,
  progress,
  sharding,
  teacher,
)
from kdjax.train.interrupts import Interrupts
from kdjax.train.session import Session
from kdjax.train.state import Network
from kdjax.train.watchdog import Watchdog

_SEEDS = (0, 1, 2)


class Case(NamedTuple):
  """One thing that is broken.

  Attributes:
    what: in words.
    expected: the code that should be found.
    delta: configuration keys and their values.
    random_labels: share of the teacher's training labels drawn at random.
    kept: its likeliest classes; all others are shuffled in every image. 0: none
      is.
  """

  what: str
  expected: str
  delta: Mapping[str, object] = {}
  random_labels: float = 0.0
  kept: int = 0


_OVER_TRAINED = {'teacher.dropout': 0.0, 'teacher.num_epochs': 60}
_SMALL = {'student.widths': (8,)}
CASES = (
  Case('healthy', 'healthy'),
  Case('healthy, 8 hidden units', 'healthy', _SMALL),
  Case(
    'teacher label-smoothed by 0.1',
    'teacher_class_relations_erased',
    {'teacher.method': 'ls'},
  ),
  Case(
    'teacher over-trained, T = 1',
    'teacher_near_one_hot',
    _OVER_TRAINED | {'temperature': 1.0},
  ),
  Case(
    'teacher of 3 hidden units, 2 epochs',
    'teacher_weaker_than_student',
    {'teacher.widths': (3,), 'teacher.num_epochs': 2, 'teacher.dropout': 0.0},
  ),
  Case(
    'T = 20, 8 hidden units',
    'temperature_too_high',
    _SMALL | {'temperature': 20.0},
  ),
  Case('T = 20', 'temperature_too_high', {'temperature': 20.0}),
  Case('T = 0.5', 'temperature_too_low', {'temperature': 0.5}),
  Case(
    'T = 8 without T²',
    'teacher_term_vanishes',
    {'temperature': 8.0, 'temperature_power': 0},
  ),
  Case('wrong classes shuffled in every image', 'no_class_structure', kept=1),
  Case(
    'half of the teacher’s labels random, 40 epochs',
    'no_class_structure',
    {'teacher.dropout': 0.0, 'teacher.num_epochs': 40},
    random_labels=0.5,
  ),
  Case(
    'all but 3 classes shuffled, T = 4',
    'noisy_tail',
    {'temperature': 4.0},
    kept=3,
  ),
)


class Shuffled(nnx.Module):
  """A network whose logits are shuffled, but the largest `kept`."""

  def __init__(self, network, kept):
    self.network, self.kept = network, kept

  def __call__(self, inputs, *, train, key=None):
    """Returns the outputs of the network, shuffled."""
    outputs = self.network(inputs, train=train, key=key)
    # The same image is always shuffled in the same way.
    bits = jax.lax.bitcast_convert_type(inputs, jnp.int32)
    bits = jnp.sum(bits.reshape(len(inputs), -1), axis=-1)
    logits = jax.vmap(self._shuffle)(outputs.logits, bits)
    return models.Outputs(logits, outputs.features)

  def _shuffle(self, logits, seed):
    places = jnp.argsort(-logits)
    tail = places[self.kept :]
    return logits.at[tail].set(
      logits[jax.random.permutation(jax.random.key(seed), tail)]
    )

  @property
  def class_weights(self):
    """Rows of the network's last layer."""
    return self.network.class_weights


class Bench:
  """Trains and diagnoses cases on one data set."""

  def __init__(self, config, workdir, seeds):
    self.config, self.workdir, self.seeds = config, workdir, seeds
    self.dataset = experiment.load(config)
    self.mesh = sharding.make_mesh()
    self.trained = 0
    self.without = {}  # a teacher, by widths: students and accuracies

  def row(self, case):
    """Returns a line of the table."""
    config = _with(self.config, case.delta)
    mentor = self.teacher(config, case)
    students, scores = self.students(config, mentor)
    plain, _ = self.plain(config)
    found = self.diagnose(config, mentor, students[0], plain[0])
    expected = next((f for f in found if f.code == case.expected), None)
    after, remedy = '', ''
    if expected and expected.settings:
      remedy = ', '.join(f'{k} = {v}' for k, v in expected.settings.items())
      better = _with(config, expected.settings)
      after = _write(self.students(better, self.teacher(better, case))[1])
    codes = ', '.join(
      f'**`{f.code}`**' if f is expected else f'`{f.code}`' for f in found
    )
    return f'| {case.what} | {_write(scores)} | {codes} | {remedy} | {after} |'

  def teacher(self, config, case):
    """Returns the teacher of a case."""
    dataset = self.dataset
    if case.random_labels:
      dataset = _with_random_labels(dataset, case.random_labels)
    own = teacher.config_of(config)
    name = teacher.fingerprint(own, dataset)
    with self.session() as session:
      network = teacher.obtain(
        config,
        dataset,
        workdir=self.workdir / name,
        session=session,
      )
    if case.kept:
      shuffled = Shuffled(models.merge(*network), case.kept)
      network = Network(*models.split(shuffled))
    return network

  def plain(self, config):
    """Returns the same without a teacher."""
    widths = tuple(config.student.widths)
    if widths not in self.without:
      plain = _with(config, {'method': 'ce'})
      self.without[widths] = self.students(plain, None)
    return self.without[widths]

  def students(self, config, mentor):
    """Returns a student a seed, and their accuracies on test."""
    networks = []
    for seed in self.seeds:
      own = _with(config, {'seed': seed})
      with self.session() as session:
        fitted = loop.fit(
          own,
          self.seen(own),
          teacher=None if own.method == 'ce' else mentor,
          name='student',
          directory=self.workdir / f'student{self.trained}',
          session=session,
        )
      self.trained += 1
      networks.append(fitted.last)
    test = self.dataset.test
    return networks, [
      100 * np.mean(self.logits(n, test).argmax(-1) == test.labels)
      for n in networks
    ]

  def diagnose(self, config, mentor, student, plain):
    """Returns what is found in the first student and its teacher."""
    return analysis.diagnose_on(
      *(
        analysis.Answers(
          self.logits(mentor, split),
          split.labels,
          self.logits(student, split),
          self.logits(plain, split),
        )
        for split in (self.seen(config).train, self.dataset.dev)
      ),
      class_weights=np.asarray(models.merge(*mentor).class_weights),
      weight=config.weight,
      temperature=config.temperature,
      temperature_power=config.temperature_power,
    ).findings

  def seen(self, config):
    """Returns the data with what the student trains on."""
    split = experiment.transfer_set(config, self.dataset)
    return dataclasses.replace(self.dataset, train=split)

  def logits(self, network, split):
    """Returns what a network says of a split."""
    return finished.logits(
      network,
      split,
      config=self.config,
      dataset=self.dataset,
      mesh=self.mesh,
    )

  @contextlib.contextmanager
  def session(self):
    """Yields what surrounds a training."""
    with Interrupts() as interrupts, Watchdog(0) as watchdog:
      quiet = progress.Reporter(quiet=True)
      yield Session(self.mesh, quiet, interrupts, watchdog)


def main():
  """Goes through the cases and prints the table as Markdown."""
  quick = '--quick' in sys.argv
  argv = [argument for argument in sys.argv if argument != '--quick']
  config, workdir = cli.parse_config(argv, __doc__)
  bench = Bench(config, workdir, _SEEDS[:1] if quick else _SEEDS)
  print('| case | test, % | found | remedy | test with it, % |')
  print('|---|---|---|---|---|')
  for name, delta in (('', {}), (', 8 hidden units', _SMALL)):
    _, scores = bench.plain(_with(config, delta))
    print(f'| no teacher{name} | {_write(scores)} | | | |', flush=True)
  for case in CASES[::7] if quick else CASES:
    print(bench.row(case), flush=True)


def _with(config, delta):
  """A copy of a configuration with other values."""
  own = config.copy_and_resolve_references()
  own.update_from_flattened_dict(delta)
  return own


def _with_random_labels(dataset, share):
  """A data set with labels of the training examples drawn at random."""
  rng = np.random.default_rng(0)
  labels = dataset.train.labels.copy()
  drawn = rng.random(len(labels)) < share
  labels[drawn] = rng.integers(0, dataset.num_classes, drawn.sum())
  train = dataset.train._replace(labels=labels)
  return dataclasses.replace(dataset, train=train)


def _write(scores):
  mean = f'{statistics.mean(scores):.2f}'
  if len(scores) == 1:
    return mean
  return f'{mean} ± {statistics.stdev(scores):.2f}'


if __name__ == '__main__':
  cli.run(main)
