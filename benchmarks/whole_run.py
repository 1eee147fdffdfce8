"""Peak memory of a whole run, and what its checkpoints cost.

  python benchmarks/whole_run.py [--config=experiments/NAME.py ...] [--quick]

The command runs in a process of its own, teacher included, and the system is
asked for the most memory that it held. A save is then measured alone, until
the files are whole and listed, over and over: so many of them as the student's
training makes, one after the other, are the most that checkpoints can cost it.
They are written beside the training, so they cost less where a core is free.
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

from kdjax import cli
from kdjax.train import step
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.files import read_json
from kdjax.train.state import Snapshot
from kdjax.train.writers import read_metrics


def run(path, workdir, *, quick):
  """Returns the most gigabytes, the seconds, and the student's saves."""
  shorter = ['--config.num_epochs=10', '--config.teacher.num_epochs=2']
  subprocess.run(
    [
      sys.executable,
      '-m',
      'kdjax.main',
      f'--config={path}',
      f'--workdir={workdir}',
      '--config.teacher.cache_dir=off',
      *(shorter if quick else []),
    ],
    check=True,
    stdout=subprocess.DEVNULL,
  )
  # Of the largest child; Linux counts in kilobytes.
  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
  seconds = read_json(workdir / 'results.json')['wall_seconds']
  rows = read_metrics(workdir / 'metrics.jsonl')
  saves = sum('dev_accuracy' in row for row in rows)
  return peak, seconds, saves


def seconds_of_a_save(config, dataset, folder, *, rounds):
  """Returns them for the student of an experiment."""
  mentor = _timing.untrained_teacher(config, dataset)
  training = _timing.prepare(config, dataset, mentor)
  snapshot = Snapshot(training.initial, step.zero_sums())
  jax.block_until_ready(snapshot)
  found = []
  with Checkpoints(folder, keep=2, config={}) as checkpoints:
    for index in range(rounds + 1):
      begin = time.perf_counter()
      checkpoints.save(snapshot, step=index + 1, score=0.0)
      checkpoints.wait()
      found.append(time.perf_counter() - begin)
  return found[1:]


def row(path, *, rounds, quick):
  """Measures one experiment."""
  config, dataset = _timing.load(path)
  with tempfile.TemporaryDirectory() as folder:
    peak, seconds, saves = run(path, Path(folder) / 'run', quick=quick)
    found = seconds_of_a_save(
      config, dataset, Path(folder) / 'saves', rounds=rounds
    )
  share = 100 * saves * statistics.median(found) / seconds
  return [
    path.stem,
    f'{peak:.2f}',
    f'{seconds:.1f}',
    str(saves),
    _timing.spread(found, scale=1e3),
    f'{share:.2f}',
  ]


def main():
  """Prints the table."""
  flags = _timing.parser(__doc__, default=('fashion_mnist_kd',)).parse_args()
  rows = [
    row(
      path,
      rounds=flags.rounds or (3 if flags.quick else 21),
      quick=flags.quick,
    )
    for path in flags.config or flags.defaults
  ]
  header = [
    'experiment',
    'peak memory, GB',
    'run, s',
    'saves',
    'a save, ms',
    'saves / run, %',
  ]
  print(_timing.table(header, rows))
  print(f'\n{_timing.surroundings()}')


if __name__ == '__main__':
  cli.run(main)
