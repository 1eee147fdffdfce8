"""What the losses on relations hold in memory, where it could be much.

  python benchmarks/loss_memory.py [--quick] [--rounds=5]

Forward and gradient, of the student alone for RKD, of both sides for CRD; each
in a process of its own. The first figure is what XLA allots to the program:
arguments, results and what lies between. The second is the most that the
process ever held, with Python, JAX and the compiler in it. The last is not
measured: it follows from the shapes of arrays that the published way keeps at
once, the cosines of both networks and the gradient of the student's (RKD's
angles), or a row of the bank for each candidate, on both sides (CRD).
"""

import argparse
import concurrent.futures
import functools
import multiprocessing
import resource

import _timing
import jax
import jax.numpy as jnp

from kdjax import cli, losses, numerics

_BYTES = 4
# Batch and features; batch, examples, negatives and features.
_SIZES = {
  'rkd_angle': ((64, 64), (256, 64), (1024, 64)),
  'crd': ((64, 50_000, 16_384, 128), (256, 50_000, 16_384, 128)),
}
_QUICK_SIZES = {'rkd_angle': ((32, 16),), 'crd': ((8, 1_000, 128, 16),)}


def angles(batch, size):
  """Returns the value and gradient of RKD's angles, and its arguments."""
  keys = jax.random.split(jax.random.key(0))
  inputs = [jax.random.normal(key, (batch, size)) for key in keys]
  return jax.value_and_grad(losses.rkd_angle), inputs


def contrast(batch, num_examples, num_negatives, size):
  """Returns the value and gradients of CRD, and its arguments."""
  *keys, last = jax.random.split(jax.random.key(0), 5)
  rows = batch, batch, num_examples, num_examples
  inputs = [
    numerics.unit_rows(jax.random.normal(key, (count, size)))
    for key, count in zip(keys, rows, strict=True)
  ]
  shape = batch, 1 + num_negatives
  candidates = jax.random.randint(last, shape, 0, num_examples)
  constant = jnp.log(1.0 * num_examples)
  loss = functools.partial(losses.crd, log_partition=(constant, constant))
  return jax.value_and_grad(loss, argnums=(0, 1)), [*inputs, candidates]


def published(name, shape):
  """Returns the bytes that the published way keeps at once, at least."""
  if name == 'rkd_angle':
    return 3 * shape[0] ** 3 * _BYTES
  batch, _, num_negatives, size = shape
  return 2 * batch * (1 + num_negatives) * size * _BYTES


def measure(name, shape, rounds):
  """Returns bytes of the program and of this process, and seconds of each."""
  function, inputs = {'rkd_angle': angles, 'crd': contrast}[name](*shape)
  program = jax.jit(function).lower(*inputs).compile()
  plan = program.memory_analysis()
  allotted = plan.argument_size_in_bytes + plan.output_size_in_bytes
  allotted += plan.temp_size_in_bytes
  times = [_timing.seconds(program, *inputs) for _ in range(rounds + 1)]
  # Linux counts in kilobytes.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return allotted, peak, times[1:]


def row(name, shape, rounds):
  """Measures one loss, in a new process."""
  spawn = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
    allotted, peak, times = pool.submit(measure, name, shape, rounds).result()
  amounts = [f'{x / 1e6:,.1f}' for x in (allotted, peak)]
  amounts.append(f'{published(name, shape) / 1e6:,.1f}')
  text = ' × '.join(f'{x:,}' for x in shape)
  return [name, text, *amounts, _timing.spread(times, scale=1e3)]


def main():
  """Measures the losses, and prints a table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--quick', action='store_true', help='seconds only; small shapes')
  add('--rounds', type=int, default=5, help='how often all are timed')
  arguments = parser.parse_args()
  sizes = _QUICK_SIZES if arguments.quick else _SIZES
  rows = [
    row(name, shape, arguments.rounds)
    for name, shapes in sizes.items()
    for shape in shapes
  ]
  header = ['loss', 'batch (× examples × negatives) × features', 'program, MB']
  header += ['process, MB', 'published way, MB at least', 'ms']
  print(_timing.table(header, rows))
  print(f'\n{_timing.surroundings()}')


if __name__ == '__main__':
  cli.run(main)
