"""A fused loss against the plain one: what it holds in memory, and its time.

  python benchmarks/fused_loss.py [--quick] [--rounds=3] [--loss=NAME ...]
    [--tokens=8192] [--width=512] [--vocabulary=50257] [--block_size=256]

Both give the mean over tokens of the same loss of hidden states and output
matrices, and its gradient in the student's; the teacher's logits are computed,
too. The plain one takes all logits at once, `kdjax.fused` those of a block.
Each is measured in a process of its own. Memory is first what XLA allots to the
program: arguments, results and what lies between; then the most that the
process ever held, with Python, JAX and the compiler in it. The last column is
the difference of the value, and of the length of the gradient, as a part of it.
"""

import argparse
import concurrent.futures
import functools
import multiprocessing
import resource
import statistics

import _timing
import jax
import jax.numpy as jnp

from kdjax import cli, fused, losses, targets
from kdjax.checks import check_known
from kdjax.losses import Head

_SETTING = {'weight': 0.9, 'temperature': 4.0}
_TOP = 64


def _full(s, t, y):
  probs = targets.full(t, temperature=_SETTING['temperature'])
  return losses.distillation(s, probs, y, **_SETTING)


def _topk(s, t, y):
  probs = targets.full(t, temperature=_SETTING['temperature'])
  return losses.distillation(s, targets.topk(probs, k=_TOP), y, **_SETTING)


# From logits, and fused.
LOSSES = {
  'cross_entropy': (
    lambda s, t, y: losses.cross_entropy(s, y),
    lambda s, t, y, **blocks: fused.cross_entropy(s, y, **blocks),
  ),
  'distillation': (_full, functools.partial(fused.distillation, **_SETTING)),
  'topk': (_topk, functools.partial(fused.topk, k=_TOP, **_SETTING)),
  'dkd': (
    lambda s, t, y: losses.cross_entropy(s, y) + losses.dkd(s, t, y),
    fused.dkd,
  ),
}


def plain(loss, student, teacher, labels):
  """Returns the mean loss from all logits."""
  logits = (h.hidden @ h.kernel.T + h.bias[None] for h in (student, teacher))
  return loss(*logits, labels).mean()


def heads(tokens, width, vocabulary):
  """Returns random heads of student and teacher, and labels."""
  *keys, last = jax.random.split(jax.random.key(0), 7)
  shapes = 2 * ((tokens, width), (vocabulary, width), (vocabulary,))
  scales = 2 * (1.0, width**-0.5, 1.0)
  arrays = [
    scale * jax.random.normal(key, shape)
    for key, shape, scale in zip(keys, shapes, scales, strict=True)
  ]
  labels = jax.random.randint(last, (tokens,), 0, vocabulary)
  return Head(*arrays[:3]), Head(*arrays[3:]), labels


def measure(name, is_fused, sizes, block_size, rounds):
  """Returns bytes of the program and of this process, seconds, and results."""
  from_logits, from_heads = LOSSES[name]
  function = functools.partial(plain, from_logits)
  if is_fused:
    function = functools.partial(from_heads, block_size=block_size)
  inputs = heads(*sizes)
  program = jax.jit(jax.value_and_grad(function)).lower(*inputs).compile()
  plan = program.memory_analysis()
  allotted = plan.argument_size_in_bytes + plan.output_size_in_bytes
  allotted += plan.temp_size_in_bytes
  times = [_timing.seconds(program, *inputs) for _ in range(rounds + 1)]
  # Linux counts in kilobytes.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  value, gradient = program(*inputs)
  length = jnp.sqrt(sum(jnp.sum(x**2) for x in gradient))
  return allotted, peak, times[1:], (float(value), float(length))


def row(name, sizes, block_size, rounds):
  """Measures a loss both ways, each in a new process."""
  spawn = multiprocessing.get_context('spawn')
  found = []
  for is_fused in (False, True):
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
      job = pool.submit(measure, name, is_fused, sizes, block_size, rounds)
      found.append(job.result())
  (*memory, times, results), (*less, shorter, same) = found
  cells = [name]
  for a, b in zip(memory, less, strict=True):
    cells += [f'{a / 1e6:,.0f}', f'{b / 1e6:,.0f}', f'{b / a:.3f}']
  ratio = statistics.median(shorter) / statistics.median(times)
  cells += [_timing.spread(x, digits=2) for x in (times, shorter)]
  gaps = (abs(a / b - 1) for a, b in zip(same, results, strict=True))
  return [*cells, f'{ratio:.2f}', ', '.join(f'{gap:.0e}' for gap in gaps)]


def main():
  """Measures the losses, and prints a table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--quick', action='store_true', help='seconds only; small shapes')
  add('--rounds', type=int, default=3, help='how often each is timed')
  add('--loss', action='append', help=', '.join(LOSSES))
  add('--tokens', type=int, default=8192)
  add('--width', type=int, default=512, help='of both networks')
  add('--vocabulary', type=int, default=50_257)
  add('--block_size', type=int, default=256, help='tokens at a time')
  flags = parser.parse_args()
  names = flags.loss or ['distillation']
  for name in names:
    check_known('loss', name, LOSSES)
  sizes = flags.tokens, flags.width, flags.vocabulary
  if flags.quick:
    sizes, flags.block_size = (512, 16, 500), 64
  rows = [row(name, sizes, flags.block_size, flags.rounds) for name in names]
  header = ['loss']
  for what in ('program', 'process'):
    header += [f'{what}, MB: plain', 'fused', 'fused / plain']
  header += ['s: plain', 'fused', 'fused / plain', 'difference']
  print(_timing.table(header, rows))
  tokens, width, vocabulary = sizes
  print(
    f'\n{tokens:,} tokens, width {width:,}, {vocabulary:,} classes, blocks of'
    f' {flags.block_size:,}. {_timing.surroundings()}'
  )


if __name__ == '__main__':
  cli.run(main)
