"""Every family of methods on one pair of CNNs: accuracy, fidelity, cost.

  python benchmarks/families.py --workdir=runs/families [--methods=kd,hint]
    [--config=experiments/NAME.py] [--rounds=7] [--steps=10] [--seeds=3]
    [--quick]

Trains a student with every method and seed, all from one teacher; finished
runs are not repeated. The table is mean ± standard deviation (n - 1) over the
seeds: test accuracy after the last step, and at the step that was best on dev;
expected calibration error (15 bins, T = 1) on test; how often student and
teacher name the same class on test; linear CKA of their pooled features, on
2,000 test images. Step times are of the experiment as it trains, in rounds of
a few methods beside KD: median (quartiles) of the ratio. A run that ends for a
number that is not finite has no figures. `--quick` trains a few steps of three
methods on digits.
"""

import dataclasses
import functools
import statistics
import tempfile
from pathlib import Path

import _timing
import jax
import method_cost
import numpy as np

from kdjax import analysis, cli
from kdjax.train import (
  experiment,
  feeds,
  finished,
  predictions,
  progress,
  sharding,
  state,
)
from kdjax.train.files import read_json

_IMAGES = 2000  # whose features are compared
_HEADER = (
  'method',
  'test, last step, %',
  'test, best on dev, %',
  'ECE, %',
  'agrees with teacher, %',
  'CKA with teacher, %',
  'step / KD step',
)


class Bench:
  """The students of one experiment, and what is measured of them."""

  def __init__(self, config, workdir, seeds):
    self.config, self.workdir, self.seeds = config, workdir, seeds
    self.reporter = progress.Reporter(quiet=True)
    self.dataset = experiment.load(config)
    self.mesh = sharding.make_mesh()
    self.asks = {}

  def directory(self, name, seed):
    """Returns the folder of a run."""
    return self.workdir / name.replace(' ', '') / f'seed{seed}'

  def train(self, name, delta, seed):
    """Trains a student, unless it is finished; says how it ended."""
    own = method_cost.having(self.config, {**delta, 'seed': seed})
    try:
      found = experiment.run(own, self.directory(name, seed), self.reporter)
    except FloatingPointError as error:
      print(f'{name}, seed {seed}: {error}', flush=True)
    else:
      accuracy = found['student']['dev_accuracy']
      print(f'{name}, seed {seed}: dev {accuracy:.2%}', flush=True)

  @functools.cached_property
  def teacher(self):
    """The teacher that all runs share."""
    run = finished.read(self.directory('kd', self.seeds[0]))
    return run.networks['teacher']

  def answers(self, network):
    """Returns what a network says of test: logits, and pooled features."""
    if network.graphdef not in self.asks:
      self.asks[network.graphdef] = predictions.make_ask(
        network.graphdef,
        normalise=feeds.normaliser(self.dataset),
        batch_size=self.config.eval_batch_size,
        mesh=self.mesh,
        features=('pooled',),
      )
    weights = state.Weights(network.params, network.rest)
    return self.asks[network.graphdef](weights, self.dataset.test.inputs)

  def figures(self, name, seed):
    """Returns a run's figures, as fractions; None if it did not end well."""
    path = self.directory(name, seed) / 'results.json'
    if not path.exists():
      return None
    student = read_json(path)['student']
    said = self.answers(finished.student(path.parent))
    return (
      student['test_accuracy'],
      student['best']['test_accuracy'],
      *self.compared(said),
    )

  def compared(self, said):
    """Returns ECE, agreement with the teacher, and CKA with it."""
    taught = self.answers(self.teacher)
    labels = self.dataset.test.labels
    size = min(_IMAGES, len(labels))
    rows = np.linspace(0, len(labels) - 1, size).astype(int)
    features = (x.features['pooled'][rows] for x in (said, taught))
    return tuple(
      float(value)
      for value in (
        analysis.expected_calibration_error(
          jax.nn.softmax(said.logits), labels
        ),
        analysis.agreement(said.logits, taught.logits),
        analysis.linear_cka(*features),
      )
    )

  def row(self, name):
    """Returns a line of the table, without the time."""
    found = [self.figures(name, seed) for seed in self.seeds]
    if None in found:
      return [name, *['—'] * 5]
    return [name, *(_write(values) for values in zip(*found, strict=True))]

  def teachers_row(self):
    """Returns the teacher's line."""
    said = self.answers(self.teacher)
    right = np.argmax(said.logits, -1) == self.dataset.test.labels
    figures = [np.mean(right), self.compared(said)[0]]
    accuracy, ece = (f'{100 * value:.2f}' for value in figures)
    return ['teacher', accuracy, '', ece, '', '', '']

  def ratios(self, rows, *, rounds, num_steps):
    """Returns by name how long a step is beside KD's."""
    seen = experiment.transfer_set(self.config, self.dataset)
    dataset = dataclasses.replace(self.dataset, train=seen)
    found = method_cost.against_kd(
      self.config,
      dataset,
      self.teacher,
      rows,
      rounds=rounds,
      num_steps=num_steps,
    )
    return {n: _timing.spread(r, digits=2) for n, (_, r) in found.items()}


def _write(fractions):
  values = [100 * value for value in fractions]
  mean = f'{statistics.mean(values):.2f}'
  if len(values) == 1:
    return mean
  return f'{mean} ± {statistics.stdev(values):.2f}'


def _flags():
  parser = _timing.parser(
    __doc__, default=('fashion_mnist_cnn_kd', 'digits_kd')
  )
  method_cost.add_methods(parser)
  add = parser.add_argument
  add('--workdir', type=Path, help='of all runs; none: a temporary one')
  add('--steps', type=int, default=10, help='steps in one measurement')
  add('--seeds', type=int, default=3, help='so many, from 0 on')
  return parser.parse_args()


def measure(flags, workdir):
  """Trains, measures and prints the table."""
  path = (flags.config or flags.defaults[flags.quick :])[0]
  config, _ = _timing.load(path)
  config.baseline = config.analysis = False
  if flags.quick:
    config.num_epochs = config.eval_every_epochs = 2
    config.teacher.num_epochs = 1
  rows = method_cost.chosen(flags)
  seeds = range(1 if flags.quick else flags.seeds)
  bench = Bench(config, workdir, seeds)
  # The teacher comes with KD, which is trained in any case.
  trained = {'kd': method_cost.ROWS['kd'], **rows}
  for seed in bench.seeds:
    for name, delta in trained.items():
      bench.train(name, delta, seed)
  lines = [bench.row(name) for name in rows]
  times = bench.ratios(
    rows,
    rounds=flags.rounds or (2 if flags.quick else 7),
    num_steps=flags.steps,
  )
  lines = [[*line, times[line[0]]] for line in lines]
  lines.append(bench.teachers_row())
  print(f'\n{_timing.table(list(_HEADER), lines)}')
  print(f'\n{path.stem}; {_timing.surroundings()}')


def main():
  """Prints the table, of runs that stay or of temporary ones."""
  flags = _flags()
  if flags.workdir:
    measure(flags, flags.workdir)
    return
  with tempfile.TemporaryDirectory() as folder:
    measure(flags, Path(folder))


if __name__ == '__main__':
  cli.run(main)
