"""Every loss, forward and backward, beside the published way in PyTorch.

  pip install -e '.[bench]'
  python benchmarks/losses.py [--quick] [--rounds=7] [--threads=2]
    [--loss=NAME ...] [--batch_size=64 ...]

Both compute the loss and its gradient in the student, from the same numbers,
and the teacher's side in every step; values and gradients have to agree first.
PyTorch runs eagerly, in its default layout (NCHW), as the public toolboxes
compute each loss (`_torch_losses.py`); kdjax in the body of a compiled loop,
where training runs. Both take two batches in turn, so that nothing can be kept
from step to step. The two take turns, on as many threads.

Logits are of 100 classes. Maps are those of the second stage of ResNet-20 and
ResNet-56, 16 × 16 × 32 after the ReLU; the networks of a loss on maps, and the
linear maps of `cc` and `crd`, are left out on both sides. Embeddings have 64
numbers (in `irg` of two stages each); CRD has 128, banks of 50,000 and 16,384
negatives. Where the published way would take more memory than three quarters
of what is free, it is not run: —.
"""

import functools
import os
import statistics
from collections.abc import Callable
from typing import NamedTuple

import _timing
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import cli, losses
from kdjax.checks import check_known

_SIZES = (64, 256, 1024)
_LOG_PARTITION = 11.6  # about that of random banks


class Loss(NamedTuple):
  """A loss of kdjax, and what it is called with: the student's first.

  Attributes:
    ours: a scalar of a batch.
    inputs: from a generator and B, the arrays of a batch.
    fixed: the arrays that all batches share.
    gigabytes: from B, what the published way takes, where it is a lot.
  """

  ours: Callable
  inputs: Callable
  fixed: Callable = lambda rng: ()
  gigabytes: Callable = lambda size: 0.0


def _normal(rng, *shape):
  return rng.standard_normal(shape, np.float32)


def _unit(rng, *shape):
  x = _normal(rng, *shape)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _logits(rng, size):
  labels = rng.integers(0, 100, size, np.int32)
  return 3 * _normal(rng, size, 100), 3 * _normal(rng, size, 100), labels


def _student_logits(rng, size):
  student, _, labels = _logits(rng, size)
  return student, labels


def _maps(rng, size):
  return tuple(np.maximum(_normal(rng, size, 16, 16, 32), 0) for _ in range(2))


def _embeddings(rng, size, width=64):
  return _normal(rng, size, width), _normal(rng, size, width)


def _contrasted(rng, size):
  candidates = rng.integers(0, 50_000, (size, 1 + 16_384), np.int32)
  return _unit(rng, size, 128), _unit(rng, size, 128), candidates


def _stages(x):
  return jnp.split(x, 2, axis=1)


LOSSES = {
  'cross_entropy': Loss(
    lambda s, y: losses.cross_entropy(s, y).mean(), _student_logits
  ),
  'kd': Loss(lambda s, t, y: losses.kd(s, t, temperature=4.0).mean(), _logits),
  'dkd': Loss(lambda s, t, y: losses.dkd(s, t, y).mean(), _logits),
  'dist': Loss(lambda s, t, y: losses.dist(s, t), _logits),
  'hint': Loss(losses.hint, _maps),
  'at': Loss(losses.at, _maps),
  'nst': Loss(losses.nst, _maps),
  'vid': Loss(
    lambda s, t, variance: losses.vid(s, t, variance=variance),
    _maps,
    lambda rng: (np.full(32, 5, np.float32),),
  ),
  'cosine': Loss(losses.cosine, _embeddings),
  'l2': Loss(losses.l2, _embeddings),
  'sp': Loss(losses.sp, _embeddings),
  'rkd_distance': Loss(losses.rkd_distance, _embeddings),
  'rkd_angle': Loss(
    losses.rkd_angle,
    _embeddings,
    # Angles of both, what is summed, and the gradient.
    gigabytes=lambda size: 4 * 4 * size**3 / 1e9,
  ),
  'pkt': Loss(losses.pkt, _embeddings),
  'cc': Loss(losses.cc, _embeddings),
  'crd': Loss(
    lambda s, t, candidates, *banks: losses.crd(
      s, t, *banks, candidates, log_partition=(_LOG_PARTITION, _LOG_PARTITION)
    ),
    _contrasted,
    lambda rng: (_unit(rng, 50_000, 128), _unit(rng, 50_000, 128)),
    # The candidates' rows in both banks.
    gigabytes=lambda size: 2 * 4 * 128 * size * (1 + 16_384) / 1e9,
  ),
  'irg': Loss(
    lambda s, t: losses.irg(_stages(s), _stages(t)),
    functools.partial(_embeddings, width=128),
  ),
  'attention_relation': Loss(losses.attention_relation, _embeddings),
}


def our_side(loss, batches, fixed):
  """Returns a step on a batch, and a function: seconds a step, of so many."""
  step = jax.value_and_grad(loss)

  @jax.jit
  def run(batches, fixed, num_steps):
    def body(index, carry):
      batch = [x[index % 2] for x in batches]
      value, gradient = step(*batch, *fixed)
      return carry[0] + value, gradient

    start = jnp.zeros(()), jnp.zeros_like(batches[0][0])
    return jax.lax.fori_loop(0, num_steps, body, start)

  batches, fixed = jax.device_put((batches, fixed))

  def measure(num_steps):
    return _timing.seconds(run, batches, fixed, num_steps) / num_steps

  def once():
    return jax.jit(step)(*(x[0] for x in batches), *fixed)

  return once, measure


def their_side(torch, loss, batches, fixed):
  """Returns the same of a loss in PyTorch."""

  def placed(x):
    x = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
    x = torch.from_numpy(np.array(x))
    return x if x.is_floating_point() else x.long()

  pairs = [[placed(x[i]) for x in batches] for i in range(2)]
  fixed = [placed(x) for x in fixed]

  def step(index):
    student, *rest = pairs[index % 2]
    student = student.requires_grad_()
    value = loss(student, *rest, *fixed)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient

  def run(num_steps):
    for index in range(num_steps):
      found = step(index)
    return [x.numpy() for x in found]

  def measure(num_steps):
    return _timing.seconds(run, num_steps) / num_steps

  return functools.partial(step, 0), measure


def differences(ours, theirs):
  """Returns those of value and gradient, over the largest entry of each."""
  gaps = []
  for a, b in zip(ours, theirs, strict=True):
    a, b = np.asarray(a), b.numpy()
    b = b.transpose(0, 2, 3, 1) if b.ndim == 4 else b
    gaps.append(np.abs(a - b).max() / np.abs(b).max())
  return gaps


def measure(torch_losses, name, size, *, rounds, seconds):
  """Measures a loss at one batch size.

  Returns:
    A row, and the median ratio or None.
  """
  loss, rng = LOSSES[name], np.random.default_rng(0)
  batches = [
    np.stack(pair)
    for pair in zip(*(loss.inputs(rng, size) for _ in range(2)), strict=True)
  ]
  fixed = loss.fixed(rng)
  once, measured = our_side(loss.ours, batches, fixed)
  sides, gaps = {'ours': measured}, ''
  if loss.gigabytes(size) < 0.75 * _free_gigabytes():
    published = getattr(torch_losses, name)
    if name == 'crd':
      published = functools.partial(published, log_partition=_LOG_PARTITION)
    once_there, sides['theirs'] = their_side(
      torch_losses.torch, published, batches, fixed
    )
    found = differences(once(), once_there())
    if not max(found) < 1e-3:
      raise ValueError(f'{name} at B = {size} differs by {found} in PyTorch')
    gaps = ', '.join(f'{gap:.0e}' for gap in found)
  found = _timing.alternate(
    {key: _lasting(each, seconds) for key, each in sides.items()},
    rounds=rounds,
    num_steps=1,
  )
  row = [name, f'{size:,}', _timing.spread(found['ours'], scale=1e3, digits=3)]
  if 'theirs' not in found:
    return [*row, '—', '—', ''], None
  pairs = zip(found['theirs'], found['ours'], strict=True)
  ratios = [b / a for b, a in pairs]
  row.append(_timing.spread(found['theirs'], scale=1e3, digits=3))
  return [*row, _timing.spread(ratios, digits=2), gaps], statistics.median(
    ratios
  )


def _lasting(measure, seconds):
  """Returns a function: seconds a step, over as many as take so long.

  A loop of few steps would mostly measure the memory that it begins with.
  """
  measure(2)  # compiles
  num_steps = max(2, round(seconds / measure(2)))
  return lambda _: measure(num_steps)


def _free_gigabytes():
  pages = os.sysconf('SC_AVPHYS_PAGES')
  return pages * os.sysconf('SC_PAGE_SIZE') / 1e9


def main():
  """Prints the table."""
  parser = _timing.parser(__doc__, default=())
  add = parser.add_argument
  add('--threads', type=int, default=2, help='for each library')
  add('--loss', action='append', help='in place of all')
  add('--batch_size', type=int, action='append', help='in place of three')
  flags = parser.parse_args()
  for name in flags.loss or ():
    check_known('loss', name, LOSSES)
  # XLA has as many threads as the process may use cores; before JAX starts.
  cores = sorted(os.sched_getaffinity(0))[: flags.threads]
  os.sched_setaffinity(0, cores)
  try:
    import _torch_losses
  except ImportError as error:
    raise ValueError("PyTorch is missing: pip install -e '.[bench]'") from error
  torch = _torch_losses.torch
  torch.set_num_threads(flags.threads)
  rows, ratios = [], []
  for name in flags.loss or LOSSES:
    for size in flags.batch_size or ((16,) if flags.quick else _SIZES):
      row, ratio = measure(
        _torch_losses,
        name,
        size,
        rounds=flags.rounds or (2 if flags.quick else 7),
        seconds=0.01 if flags.quick else 0.2,
      )
      rows.append(row)
      ratios += [] if ratio is None else [ratio]
  header = ['loss', 'B', 'kdjax, ms', 'PyTorch, ms', 'PyTorch / kdjax']
  header.append('difference of values, of gradients')
  print(_timing.table(header, rows))
  print(
    f'\n{_timing.surroundings(PyTorch=torch.__version__)}'
    f' {torch.get_num_threads()} threads. Of the {len(ratios)} ratios the'
    f' median is {statistics.median(ratios):.1f}, the least'
    f' {min(ratios):.2f}.'
  )


if __name__ == '__main__':
  cli.run(main)
