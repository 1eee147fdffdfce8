"""The same distillation in kdjax and in a plain PyTorch loop.

  pip install -e '.[bench]'
  python benchmarks/versus_torch.py [--config=experiments/NAME.py ...]
    [--quick] [--threads=2]

Both train the same MLP from the same weights: batch size, KD loss with the
teacher's forward in every step, SGD with momentum and weight decay of the
kernels, float32, as many threads. The PyTorch loop keeps normalised tensors in
memory and indexes them by a permutation an epoch (no DataLoader), runs the
teacher under `no_grad` and sums the loss without waiting for it. The learning
rate is constant in both, since a PyTorch scheduler would cost extra. The loops
take turns. First, both do five steps on the same batches; the largest
difference of their losses and parameters is printed.

A last row is the same training with the teacher's logits computed once, as
kdjax does by default where nothing is augmented; the PyTorch loop that it is
compared to runs the teacher in every step.
"""

import functools
import os

import _timing
import jax
import numpy as np

from kdjax import cli
from kdjax.train import step


def difference(job, torch_loop, *, num_steps=5):
  """Returns the largest one of the losses and of the parameters."""
  train_step = jax.jit(functools.partial(step.train_step, job.task))
  state, size, gaps = job.initial, job.task.batch_size, []
  for index in range(num_steps):
    rows = (np.arange(size) + index * size) % len(job.examples.labels)
    batch = jax.tree.map(lambda a, rows=rows: a[rows], job.examples)
    state, found = train_step(state, job.teacher, batch, job.key)
    gaps.append(abs(float(found['loss']) - torch_loop.step(rows).item()))
  return max(gaps), torch_loop.difference(state.params)


def rows_of(make_loop, path, *, rounds, num_steps):
  """Measures one experiment's pair."""
  config, dataset = _timing.load(path)
  config.schedule.name, config.method = 'constant', 'kd'
  config.teacher.precompute_logits = False
  mentor = _timing.untrained_teacher(config, dataset)
  job = _timing.prepare(config, dataset, mentor)
  torch_loop = make_loop(config, job)
  loss_gap, gap = difference(job, torch_loop)
  config.teacher.precompute_logits = True
  once = _timing.prepare(config, dataset, mentor)
  found = _timing.alternate(
    {
      'kdjax': _timing.training_loop(job),
      'torch': torch_loop.measure,
      'once': _timing.training_loop(once),
    },
    rounds=rounds,
    num_steps=num_steps,
  )
  titles = {'kdjax': 'equal work', 'once': 'teacher computed once'}
  for key, title in titles.items():
    pairs = zip(found['torch'], found[key], strict=True)
    yield [
      f'{path.stem}, {title}',
      str(config.batch_size),
      _timing.spread(found[key], scale=1e6),
      _timing.spread(found['torch'], scale=1e6),
      _timing.spread([theirs / ours for theirs, ours in pairs], digits=2),
      f'{loss_gap:.0e}, {gap:.0e}' if key == 'kdjax' else '',
    ]


def main():
  """Prints the table."""
  parser = _timing.parser(__doc__, default=('digits_kd', 'fashion_mnist_kd'))
  parser.add_argument('--steps', type=int, help='steps in one measurement')
  parser.add_argument('--threads', type=int, default=2, help='for each library')
  flags = parser.parse_args()
  # XLA has as many threads as the process may use cores; before JAX starts.
  cores = sorted(os.sched_getaffinity(0))[: flags.threads]
  os.sched_setaffinity(0, cores)
  try:
    import _torch_loop
  except ImportError as error:
    raise ValueError("PyTorch is missing: pip install -e '.[bench]'") from error
  torch = _torch_loop.torch
  torch.set_num_threads(flags.threads)
  found = []
  for path in flags.config or flags.defaults:
    found += rows_of(
      _torch_loop.TorchLoop,
      path,
      rounds=flags.rounds or (3 if flags.quick else 21),
      num_steps=flags.steps or (100 if flags.quick else 2000),
    )
  header = [
    'training',
    'batch',
    'kdjax, µs a step',
    'PyTorch, µs a step',
    'PyTorch / kdjax',
    'difference of losses, of parameters',
  ]
  print(_timing.table(header, found))
  print(
    f'\n{_timing.surroundings(PyTorch=torch.__version__)}'
    f' {torch.get_num_threads()} threads.'
  )


if __name__ == '__main__':
  cli.run(main)
