"""How much of the compiled step's rate is left in a whole training.

  python benchmarks/input_pipeline.py [--config=experiments/NAME.py ...]
    [--quick]

`kdjax.train.loop.fit`, as the experiment file says, with its logging,
evaluation and checkpoints on a real disk, against two bare loops: the compiled
`run_steps` alone, one dispatch of as many steps (the same shuffling, fetching
and normalising on the device, nothing else), and the training step on one
fixed, fetched batch. The three take turns. `fit`'s time is counted from the
update after its first evaluation, when all is compiled, to its last; its rows
are the dispatches with their logging, and the same with evaluation and
checkpoints. Shares are of `run_steps`'s rate, formed within each round.
"""

import functools
import itertools
import tempfile
import time
from pathlib import Path

import _timing
import jax
import jax.numpy as jnp

from kdjax import cli
from kdjax.train import loop, progress, step
from kdjax.train.interrupts import Interrupts
from kdjax.train.session import Session
from kdjax.train.watchdog import Watchdog


class Stopwatch(progress.Reporter, progress.Phase):
  """Notes when training says how far it is, in place of showing it."""

  def phase(self, name, *, num_steps, start, unit='images'):
    """Returns itself."""
    self.updates = []
    return self

  def update(self, step, rate, note):
    """Takes the time."""
    self.updates.append((step, time.perf_counter()))

  def seconds_per_step(self):
    """Returns them with logging alone, and with evaluation and saving too."""
    steps = [step for step, _ in self.updates]
    # Only an evaluation says the same step again.
    first = next(i for i in range(1, len(steps)) if steps[i] == steps[i - 1])
    measured = self.updates[first:]
    inside, total = 0.0, measured[-1][1] - measured[0][1]
    for (before, begin), (after, end) in itertools.pairwise(measured):
      inside += (end - begin) * (after > before)
    count = measured[-1][0] - measured[0][0]
    return inside / count, total / count


def fixed_batch_loop(job):
  """Returns a function: seconds a step on one fetched batch, over so many."""
  batch = jax.tree.map(lambda a: a[: job.task.batch_size], job.examples)

  @functools.partial(jax.jit, donate_argnums=0)
  def run(state, sums, teacher, batch, key, num_steps):
    def body(index, carry):
      state, sums, batch = carry
      batch = batch._replace(inputs=_timing.touched(batch.inputs, index))
      state, found = step.train_step(job.task, state, teacher, batch, key)
      return state, jax.tree.map(jnp.add, sums, found), batch

    return jax.lax.fori_loop(0, num_steps, body, (state, sums, batch))[:2]

  def measure(num_steps):
    state = jax.tree.map(jnp.copy, job.initial)
    args = state, step.zero_sums(), job.teacher, batch, job.key, num_steps
    return _timing.seconds(run, *args) / num_steps

  return measure


def rows(path, *, rounds, epochs):
  """Measures one experiment."""
  config, dataset = _timing.load(path)
  config.num_epochs = min(config.num_epochs, epochs)
  config.eval_every_epochs = min(
    config.eval_every_epochs, max(1, config.num_epochs // 2)
  )
  mentor = _timing.untrained_teacher(config, dataset)
  job = _timing.prepare(config, dataset, mentor)
  bare, fixed = _timing.training_loop(job), fixed_batch_loop(job)
  bare(1), fixed(1)  # compile

  def fit():
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
      loop.fit(
        config,
        dataset,
        teacher=mentor,
        name='student',
        directory=Path(folder),
        session=Session(_timing.one_device(), watch, Interrupts(), Watchdog(0)),
      )
    return watch.seconds_per_step()

  found = {name: [] for name in ('bare', 'fixed', 'logged', 'whole')}
  for _ in range(rounds):
    found['bare'].append(bare(job.num_steps))
    logged, whole = fit()
    found['logged'].append(logged)
    found['whole'].append(whole)
    found['fixed'].append(fixed(job.num_steps))
  names = {
    'fixed': 'the step on a fixed batch',
    'bare': '`run_steps` alone',
    'logged': '`fit`: dispatches and logging',
    'whole': '`fit`: with evaluation and checkpoints',
  }
  for key, name in names.items():
    shares = [
      100 * b / own for b, own in zip(found['bare'], found[key], strict=True)
    ]
    rates = [config.batch_size / s for s in found[key]]
    yield [
      path.stem,
      name,
      _timing.spread(found[key], scale=1e6),
      _timing.spread(rates, digits=0),
      _timing.spread(shares),
    ]


def main():
  """Prints the table."""
  flags = _timing.parser(__doc__, default=('fashion_mnist_kd',)).parse_args()
  found = []
  for path in flags.config or flags.defaults:
    found += rows(
      path,
      rounds=flags.rounds or (2 if flags.quick else 9),
      epochs=4 if flags.quick else 20,
    )
  header = ['experiment', 'loop', 'µs a step', 'examples/s', 'share, %']
  print(_timing.table(header, found))
  print(f'\n{_timing.surroundings()}')


if __name__ == '__main__':
  cli.run(main)
