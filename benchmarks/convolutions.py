"""Where the time of a ResNet-20 on a CPU goes: its convolutions, one by one.

  python benchmarks/convolutions.py [--quick] [--rounds=7]

Each runs in the body of a compiled loop, where training runs: forward, the
gradient of its inputs, and that of its kernel, as `kdjax.models` has them and
as `jax.lax` has them. The last column is the rate of ours, in operations of a
multiply-add. XLA's convolutions keep to one core.
"""

import statistics

import _timing
import jax
import jax.numpy as jnp

from kdjax import cli
from kdjax.models import cpu_conv

_BATCH = 64
# Side of the map, channels in and out, stride: those of the three stages.
_SHAPES = ((32, 16, 16, 1), (16, 32, 32, 1), (8, 64, 64, 1), (32, 16, 32, 2))
_PARTS = ('forward', 'input gradient', 'kernel gradient')


def lax(inputs, kernel, stride):
  """Returns the convolution of `jax.lax`."""
  return cpu_conv.plain(
    inputs, kernel, strides=(stride, stride), padding=((1, 1), (1, 1))
  )


def loop(convolve, part, shape):
  """Returns a function: seconds of a part of a convolution, over so many."""
  side, num_inputs, num_outputs, stride = shape
  key = jax.random.key(0)
  inputs = jax.random.normal(key, (_BATCH, side, side, num_inputs))
  kernel = jax.random.normal(key, (3, 3, num_inputs, num_outputs))
  gradient = lax(inputs, kernel, stride)

  def once(inputs, kernel, gradient):
    if part == 'forward':
      return convolve(inputs, kernel, stride)
    if part == 'input gradient':
      backward = jax.vjp(lambda x: convolve(x, kernel, stride), inputs)[1]
    else:
      backward = jax.vjp(lambda k: convolve(inputs, k, stride), kernel)[1]
    return backward(gradient)[0]

  @jax.jit
  def run(inputs, kernel, gradient, num_steps):
    def body(index, total):
      x, g = (_timing.touched(a, index) for a in (inputs, gradient))
      k = kernel.at[0, 0, 0, 0].add(index)
      return total + jnp.sum(once(x, k, g))

    return jax.lax.fori_loop(0, num_steps, body, jnp.zeros(()))

  def measure(num_steps):
    return _timing.seconds(run, inputs, kernel, gradient, num_steps) / num_steps

  return measure


def rows(*, rounds, num_steps):
  """Measures every part of every convolution."""
  for shape in _SHAPES:
    side, num_inputs, num_outputs, stride = shape
    operations = (
      2 * 9 * num_inputs * num_outputs * _BATCH * (side // stride) ** 2
    )
    for part in _PARTS:
      found = _timing.alternate(
        {
          'ours': loop(cpu_conv.convolve, part, shape),
          'lax': loop(lax, part, shape),
        },
        rounds=rounds,
        num_steps=num_steps,
      )
      rate = operations / statistics.median(found['ours']) / 1e9
      yield [
        f'{side}², {num_inputs} → {num_outputs}, stride {stride}',
        part,
        _timing.spread(found['ours'], scale=1e3, digits=2),
        _timing.spread(found['lax'], scale=1e3, digits=2),
        f'{rate:.0f}',
      ]


def main():
  """Prints the table."""
  flags = _timing.parser(__doc__, default=()).parse_args()
  found = list(
    rows(
      rounds=flags.rounds or (2 if flags.quick else 7),
      num_steps=1 if flags.quick else 5,
    )
  )
  header = ['map', 'part', 'ours, ms', 'jax.lax, ms', 'GFLOP/s']
  print(_timing.table(header, found))
  print(f'\n{_timing.surroundings()} Batches of {_BATCH}.')


if __name__ == '__main__':
  cli.run(main)
