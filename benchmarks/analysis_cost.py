"""What analysis costs: logged during training, and as a diagnosis.

  python benchmarks/analysis_cost.py [--config=FILE ...] [--quick]

First table: an experiment runs as a command, teacher included. Then evaluations
with `config.analysis` and without are measured alternately on their own; what
compiling takes longer (with the teacher's answers, which are kept), and so many
differences as the student's training evaluates, are the cost. Second table:
`python -m kdjax.diagnose` on logits of a teacher and a student, made up, in a
process of its own.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _timing
import jax
import numpy as np

from kdjax import cli
from kdjax.train import task
from kdjax.train.files import read_json
from kdjax.train.writers import read_metrics

_SIZE = (50_000, 1_000)
_QUICK_SIZE = (2_000, 100)


def run(path, workdir, *, quick):
  """Returns the seconds of a run, and its evaluations of the student."""
  shorter = ['--config.num_epochs=10', '--config.teacher.num_epochs=2']
  command = [sys.executable, '-m', 'kdjax.main', f'--config={path}']
  command += [f'--workdir={workdir}', '--config.teacher.cache_dir=off']
  subprocess.run(
    command + (shorter if quick else []), check=True, stdout=subprocess.DEVNULL
  )
  rows = read_metrics(workdir / 'metrics.jsonl')
  seconds = read_json(workdir / 'results.json')['wall_seconds']
  return seconds, sum('dev_accuracy' in row for row in rows)


def evaluations(config, dataset, *, rounds):
  """Returns seconds once, to compile, and of each evaluation, by `analysis`."""
  mentor = _timing.untrained_teacher(config, dataset)
  jobs, compiling, found = {}, {}, {True: [], False: []}
  for analysis in (False, True):
    own = config.copy_and_resolve_references()
    own.analysis = analysis
    job = task.prepare(own, dataset, mentor, _timing.one_device())
    jobs[analysis] = job.dev, jax.block_until_ready(job.initialise().state)
    begin = time.perf_counter()
    job.dev.compile(jobs[analysis][1])
    compiling[analysis] = time.perf_counter() - begin
  for index in range(rounds + 1):
    for analysis in (True, False) if index % 2 else (False, True):
      dev, state = jobs[analysis]
      begin = time.perf_counter()
      dev(state)
      found[analysis].append(time.perf_counter() - begin)
  for analysis, values in found.items():
    compiling[analysis] += values[0] - statistics.median(values)
  return compiling, {key: values[1:] for key, values in found.items()}


def row(path, *, rounds, quick):
  """Measures one experiment."""
  config, dataset = _timing.load(path)
  with tempfile.TemporaryDirectory() as folder:
    seconds, count = run(path, Path(folder) / 'run', quick=quick)
  compiling, found = evaluations(config, dataset, rounds=rounds)
  more = statistics.median(found[True]) - statistics.median(found[False])
  once = compiling[True] - compiling[False]
  return [
    path.stem,
    f'{seconds:.1f}',
    str(count),
    _timing.spread(found[False], scale=1e3),
    _timing.spread(found[True], scale=1e3),
    f'{once:.2f}',
    f'{100 * (once + count * more) / seconds:.1f}',
  ]


def diagnosis(size):
  """Returns the shape, seconds and the most gigabytes of a diagnosis."""
  num_examples, num_classes = size
  rng = np.random.default_rng(0)
  labels = rng.integers(0, num_classes, num_examples)
  relations = rng.normal(size=(num_classes, num_classes)).astype(np.float32)
  teacher = 1.5 * relations[labels]
  teacher += rng.standard_normal(size, np.float32)
  teacher[np.arange(num_examples), labels] += 12
  student = teacher + rng.standard_normal(size, np.float32)
  arrays = {'teacher_logits': teacher, 'student_logits': student}
  with tempfile.TemporaryDirectory() as folder:
    flags = []
    for name, array in (arrays | {'labels': labels}).items():
      np.save(f'{folder}/{name}.npy', array)
      flags.append(f'--{name}={folder}/{name}.npy')
    begin = time.perf_counter()
    subprocess.run(
      [sys.executable, '-m', 'kdjax.diagnose', *flags, f'--out={folder}/out'],
      check=True,
      stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - begin
  # Of the largest child; Linux counts in kilobytes.
  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
  shape = f'{num_examples:,} × {num_classes:,}'
  return [shape, f'{seconds:.1f}', f'{peak:.2f}']


def main():
  """Measures the experiments and a diagnosis, and prints two tables."""
  arguments = _timing.parser(
    __doc__,
    default=['digits_kd', 'fashion_mnist_scarce_kd', 'fashion_mnist_kd'],
  ).parse_args()
  quick = arguments.quick
  rounds = arguments.rounds or (3 if quick else 20)
  paths = arguments.config or arguments.defaults
  rows = [row(path, rounds=rounds, quick=quick) for path in paths]
  header = ['experiment', 'run, s', 'evaluations', 'plain, ms']
  header += ['with analysis, ms', 'once, s more', 'cost / run, %']
  print(_timing.table(header, rows))
  print(f'\n{_timing.surroundings()}\n')
  size = _QUICK_SIZE if quick else _SIZE
  header = ['teacher and student logits', 'seconds', 'peak memory, GB']
  print(_timing.table(header, [diagnosis(size)]))


if __name__ == '__main__':
  cli.run(main)
