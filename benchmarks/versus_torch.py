"""The same distillation in kdjax and in a plain PyTorch loop.

  pip install -e '.[bench]'
  python benchmarks/versus_torch.py [--config=experiments/NAME.py ...]
    [--quick] [--threads=2] [--batch_size=128]

Both train the same MLP or CIFAR ResNet from the same weights: batch size, KD
loss with the teacher's forward in every step, SGD with momentum and weight
decay of the kernels, float32, as many threads, nothing augmented. The PyTorch
loop keeps normalised tensors in memory and indexes them by a permutation an
epoch (no DataLoader), runs the teacher under `no_grad` and sums the loss
without waiting for it. The learning rate is constant in both, since a PyTorch
scheduler would cost extra. The loops take turns. First, both do five steps on
the same batches; the largest difference of their losses and parameters is
printed.

MLPs train on one device. For ResNets kdjax splits the batch over as many CPU
devices as there are threads, since XLA runs most convolutions on one thread
each; PyTorch has its default layout (NCHW) and, in a row of its own, its faster
one (channels last). Where CIFAR is not prepared, its images are random ones.

One row is the same training with the teacher's logits computed once, as kdjax
does by default where nothing is augmented; the PyTorch loop that it is compared
to runs the teacher in every step.
"""

import functools
import os

import _synthetic
import _timing
import jax
import numpy as np

from kdjax import cli
from kdjax.train import sharding, step, task


def prepare(config, dataset, mentor):
  """Returns the training of the student; of a ResNet on all devices."""
  if config.student.name == 'mlp':
    return _timing.prepare(config, dataset, mentor)
  job = task.prepare(config, dataset, mentor, sharding.make_mesh())
  feed = job.feed
  return _timing.Training(
    job.task,
    job.initialise().state,
    feed.teacher,
    feed.examples,
    feed.key,
    job.num_steps,
  )


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


def rows_of(torch_loop, path, *, rounds, num_steps, quick, batch_size):
  """Measures one experiment's pair."""
  config, dataset, note = _synthetic.load(path, batch_size=batch_size)
  config.schedule.name, config.method = 'constant', 'kd'
  config.dataset.augment = 'none'
  config.teacher.precompute_logits = False
  is_mlp = config.student.name == 'mlp'
  if not is_mlp:
    # At the recipe's rate the differences of rounding grow with every step.
    config.learning_rate = 1e-3
  mentor = _timing.untrained_teacher(config, dataset)
  job = prepare(config, dataset, mentor)
  theirs = {'torch': torch_loop.TorchLoop(config, job)}
  if not is_mlp:
    layout = torch_loop.torch.channels_last
    theirs['last'] = torch_loop.TorchLoop(config, job, layout)
  gaps = {key: difference(job, loop) for key, loop in theirs.items()}
  config.teacher.precompute_logits = True
  once = prepare(config, dataset, mentor)
  found = _timing.alternate(
    {
      'kdjax': _timing.training_loop(job),
      'once': _timing.training_loop(once),
      **{key: loop.measure for key, loop in theirs.items()},
    },
    rounds=rounds,
    num_steps=num_steps or _synthetic.steps_of(config, quick=quick),
  )
  compared = {
    'equal work': ('kdjax', 'torch'),
    'equal work, channels last': ('kdjax', 'last'),
    'teacher computed once': ('once', 'torch'),
  }
  for title, (ours, other) in compared.items():
    if other not in found:
      continue
    pairs = zip(found[other], found[ours], strict=True)
    yield [
      f'{path.stem}{note}, {title}',
      str(config.batch_size),
      _timing.spread(found[ours], scale=1e6),
      _timing.spread(found[other], scale=1e6),
      _timing.spread([b / a for b, a in pairs], digits=2),
      ', '.join(f'{g:.0e}' for g in gaps[other]) if ours == 'kdjax' else '',
    ]


def main():
  """Prints the table."""
  parser = _timing.parser(__doc__, default=('digits_kd', 'fashion_mnist_kd'))
  add = parser.add_argument
  add('--steps', type=int, help='steps in one measurement')
  add('--threads', type=int, default=2, help='for each library')
  add('--batch_size', type=int, help="in place of the experiment's")
  flags = parser.parse_args()
  # XLA has as many threads as the process may use cores; before JAX starts.
  cores = sorted(os.sched_getaffinity(0))[: flags.threads]
  os.sched_setaffinity(0, cores)
  jax.config.update('jax_num_cpu_devices', flags.threads)
  try:
    import _torch_loop
  except ImportError as error:
    raise ValueError("PyTorch is missing: pip install -e '.[bench]'") from error
  torch = _torch_loop.torch
  torch.set_num_threads(flags.threads)
  found = []
  for path in flags.config or flags.defaults:
    found += rows_of(
      _torch_loop,
      path,
      rounds=flags.rounds or (3 if flags.quick else 21),
      num_steps=flags.steps,
      quick=flags.quick,
      batch_size=flags.batch_size,
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
