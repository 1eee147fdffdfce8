"""Kills a run again and again, and compares its end with an undisturbed one.

  python benchmarks/soak.py [--kills=50] [--seed=0] [--num_epochs=200]

The run distils digits with dropout, cropping and a moving average, evaluates
and saves after every epoch, so that kills meet compiling, training, saving and
deleting. It is killed by SIGKILL after a random time, started again by the
same command, and so on; after the last kill it may finish. Then every line of
`metrics.jsonl` but its clock, the results, and every bit of the last and the
best checkpoint are compared with those of a run that nobody disturbed. After
every kill the newest checkpoint is looked at: none that was there may be lost.
The status is 1 if anything differs.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from kdjax.train import checkpoint

_ROOT = Path(__file__).parents[1]
_CLOCKS = ('images_per_second', 'wall_seconds')


def command(workdir, *, num_epochs):
  """Returns the command of the run."""
  values = {
    'baseline': False,
    'dataset.augment': 'crop',
    'ema_decay': 0.9,
    'eval_every_epochs': 1,
    'log_every_steps': 3,
    'num_epochs': num_epochs,
    'schedule.decay_epochs': '(5,)',
    'student.dropout': 0.2,
    'teacher.cache_dir': 'off',
    'teacher.num_epochs': 10,
  }
  return [
    sys.executable,
    '-m',
    'kdjax.main',
    f'--config={_ROOT / "experiments/digits_kd.py"}',
    f'--workdir={workdir}',
    *(f'--config.{key}={value}' for key, value in values.items()),
  ]


def newest(workdir):
  """Returns the newest step of teacher and student."""
  return [
    max(checkpoint.steps(folder / 'checkpoints'), default=0)
    for folder in (workdir / 'teacher', workdir)
  ]


def end(workdir):
  """Returns all that a finished run leaves, without its clocks."""
  found = {}
  for folder in (workdir, workdir / 'teacher'):
    lines = (folder / 'metrics.jsonl').read_text().splitlines()
    found[f'{folder.name}/metrics'] = [
      {k: v for k, v in json.loads(line).items() if k not in _CLOCKS}
      for line in lines
    ]
    for step in checkpoint.steps(folder / 'checkpoints'):
      found[f'{folder.name}/{step}'] = arrays(folder / 'checkpoints', step)
  results = json.loads((workdir / 'results.json').read_text())
  found['results'] = {k: v for k, v in results.items() if k not in _CLOCKS}
  return found


def arrays(directory, step):
  """Returns the bytes of every array of a checkpoint, by its path."""
  with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
    tree = reader.restore((directory / f'{step:08d}').resolve())
  leaves = ocp.tree.to_flat_dict(tree)
  return {
    k: np.asarray(v).tobytes() for k, v in leaves.items() if v is not None
  }


def undisturbed(workdir, *, num_epochs):
  """Returns seconds to the first checkpoint, and to the end."""
  begin, first = time.monotonic(), None
  with subprocess.Popen(
    command(workdir, num_epochs=num_epochs), stdout=subprocess.DEVNULL
  ) as process:
    while process.poll() is None:
      if first is None and any(newest(workdir)):
        first = time.monotonic() - begin
      time.sleep(0.01)
  if process.returncode:
    raise RuntimeError('the undisturbed run failed')
  return first, time.monotonic() - begin


def kill(arguments, seconds):
  """Starts the run and kills it; returns whether it was still going."""
  with subprocess.Popen(
    arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
  ) as process:
    try:
      _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.communicate()
      return True
  if process.returncode:
    raise RuntimeError(f'a restart failed: {errors}')
  return False


def soak(base, *, kills, seed, num_epochs):
  """Returns how many kills there were, and what is wrong."""
  rng, wrong = random.Random(seed), []
  calm, shaken = base / 'calm' / 'run', base / 'shaken' / 'run'
  first, whole = undisturbed(calm, num_epochs=num_epochs)
  done, before = 0, [0, 0]
  while done < kills:
    # Some come before the first checkpoint; none takes the run to its end.
    part = rng.uniform(0.0, 1.5) * (whole - first) / kills
    seconds = rng.uniform(0.5, 1.2) * first + part
    if not kill(command(shaken, num_epochs=num_epochs), seconds):
      wrong.append(f'the run ended after {done} kills: give it more epochs')
      break
    done += 1
    after = newest(shaken)
    if any(a < b for a, b in zip(after, before, strict=True)):
      wrong.append(f'after kill {done} of {before} only {after} is left')
    before = after
  subprocess.run(
    command(shaken, num_epochs=num_epochs),
    check=True,
    stdout=subprocess.DEVNULL,
  )
  expected, found = end(calm), end(shaken)
  for name in expected.keys() | found.keys():
    if expected.get(name) != found.get(name):
      wrong.append(f'{name} differs')
  return done, wrong


def main():
  """Prints what happened."""
  style = argparse.RawDescriptionHelpFormatter
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
  parser.add_argument('--kills', type=int, default=50, help='how often')
  parser.add_argument('--seed', type=int, default=0, help='of the moments')
  parser.add_argument('--num_epochs', type=int, default=200, help='of the run')
  flags = parser.parse_args()
  begin = time.monotonic()
  with tempfile.TemporaryDirectory() as base:
    done, wrong = soak(
      Path(base),
      kills=flags.kills,
      seed=flags.seed,
      num_epochs=flags.num_epochs,
    )
  seconds = time.monotonic() - begin
  print(f'{done} kills in {seconds:.0f} s: ', end='')
  print('; '.join(wrong) or 'every restart went on, the end is bit-equal')
  sys.exit(1 if wrong else 0)


if __name__ == '__main__':
  main()
