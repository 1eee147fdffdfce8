"""A sparse teacher against a dense one: bytes a token, and time of the loss.

  python benchmarks/sparse_teacher.py [--quick] [--rounds=5] [--tokens=2048]
    [--vocabulary=50257] [--k=64]

The dense teacher is a float32 row of logits a token, read by KD; the sparse one
is k classes a token, as `int32` and `float32`, and the mass of the others. Time
is of the loss and its gradient in the student's logits, which are dense in all
cases, and apart from it that of making the sparse teacher from logits, once.
All take turns.
"""

import argparse
import functools

import _timing
import jax

from kdjax import cli, losses, targets_sparse
from kdjax.checks import check_between

_TEMPERATURE = 2.0


def made(function):
  """Returns a program that makes a sparse teacher, from its logits."""
  return jax.jit(functools.partial(function, temperature=_TEMPERATURE))


def trained(loss):
  """Returns a program: a loss toward a teacher, and its gradient."""
  mean = lambda s, *teacher: loss(s, *teacher, temperature=_TEMPERATURE).mean()
  return jax.jit(jax.value_and_grad(mean))


def bytes_a_token(teacher):
  """Returns what is kept of a teacher."""
  return sum(x.nbytes // len(x) for x in jax.tree.leaves(teacher))


def repeated(program, *inputs):
  """Returns a function: seconds a call, of so many."""
  return lambda num_steps: (
    sum(_timing.seconds(program, *inputs) for _ in range(num_steps)) / num_steps
  )


def main():
  """Measures the forms, and prints a table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--quick', action='store_true', help='seconds only; small shapes')
  add('--rounds', type=int, default=5, help='how often all are timed')
  add('--tokens', type=int, default=2048)
  add('--vocabulary', type=int, default=50_257)
  add('--k', type=int, default=64, help='classes of a sparse teacher')
  flags = parser.parse_args()
  shape = (64, 500) if flags.quick else (flags.tokens, flags.vocabulary)
  k = min(flags.k, 16) if flags.quick else flags.k
  check_between('k', k, 1, shape[1])
  one, other, draws = jax.random.split(jax.random.key(0), 3)
  student = jax.random.normal(one, shape)
  logits = 3 * jax.random.normal(other, shape)

  top = functools.partial(targets_sparse.sparse_topk, k=k)
  sample = functools.partial(targets_sparse.sparse_sample, draws, num_samples=k)
  makers = {'likeliest': made(top), 'drawn': made(sample)}
  teachers = {name: maker(logits) for name, maker in makers.items()}
  forms = {
    'kd': (losses.kd, (logits,)),
    'kl_uniform_tail': (losses.kl_uniform_tail, teachers['likeliest']),
    'kl_bucket_tail': (losses.kl_bucket_tail, teachers['likeliest']),
    'kl_renormalised': (losses.kl_renormalised, teachers['likeliest']),
    'kl_samples': (losses.kl_samples, teachers['drawn']),
  }
  measures = {
    name: repeated(trained(loss), student, *teacher)
    for name, (loss, teacher) in forms.items()
  }
  measures |= {name: repeated(make, logits) for name, make in makers.items()}
  found = _timing.alternate(measures, rounds=flags.rounds, num_steps=1)
  rows = []
  for name, (_, teacher) in forms.items():
    making = {'kd': None, 'kl_samples': 'drawn'}.get(name, 'likeliest')
    rows.append(
      [
        name,
        f'{bytes_a_token(teacher):,}',
        f'{bytes_a_token(teacher) / bytes_a_token((logits,)):.4f}',
        _timing.spread(found[name], scale=1e3),
        _timing.spread(found[making], scale=1e3) if making else '—',
      ]
    )
  header = ['loss', 'bytes a token', 'of dense', 'loss and gradient, ms']
  print(_timing.table([*header, 'making the teacher, ms'], rows))
  tokens, vocabulary = shape
  print(
    f'\n{tokens:,} tokens, {vocabulary:,} classes, k = {k}.'
    f' {_timing.surroundings()}'
  )


if __name__ == '__main__':
  cli.run(main)
