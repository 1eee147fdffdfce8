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

import os
import time

import _timing
import jax
import numpy as np

from kdjax import cli
from kdjax.train import step


def linears(params):
  """Returns (kernel, bias) of each layer, the first first."""
  hidden = params['hidden']
  layers = [hidden[name] for name in sorted(hidden)] + [params['head']]
  return [(np.asarray(x['kernel']), np.asarray(x['bias'])) for x in layers]


class TorchLoop:
  """The training of `job.task.student`, in PyTorch."""

  def __init__(self, config, job):
    """Copies weights and data."""
    import torch

    self.torch, self.config = torch, config
    self.student = self._network(job.initial.params)
    self.teacher = self._network(job.teacher.params).eval()
    weights = [p for p in self.student.parameters() if p.ndim > 1]
    biases = [p for p in self.student.parameters() if p.ndim == 1]
    self.optimizer = torch.optim.SGD(
      [
        {'params': weights, 'weight_decay': config.optimizer.weight_decay},
        {'params': biases},
      ],
      lr=config.learning_rate,
      momentum=config.optimizer.momentum,
    )
    inputs = np.asarray(job.task.normalise(job.examples.inputs))
    self.inputs = torch.from_numpy(inputs.reshape(len(inputs), -1).copy())
    self.labels = torch.from_numpy(np.array(job.examples.labels)).long()

  def _network(self, params):
    nn, layers = self.torch.nn, []
    for kernel, bias in linears(params):
      layer = nn.Linear(*kernel.shape)
      with self.torch.no_grad():
        layer.weight.copy_(self.torch.tensor(kernel.T))
        layer.bias.copy_(self.torch.tensor(bias))
      layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])

  def step(self, rows):
    """Trains on the examples at `rows`; returns the loss."""
    functional, c = self.torch.nn.functional, self.config
    inputs, labels = self.inputs[rows], self.labels[rows]
    with self.torch.no_grad():
      target = functional.log_softmax(self.teacher(inputs) / c.temperature, -1)
    logits = self.student(inputs)
    divergence = functional.kl_div(
      functional.log_softmax(logits / c.temperature, -1),
      target,
      reduction='batchmean',
      log_target=True,
    )
    label_term = functional.cross_entropy(logits, labels)
    power = c.temperature**c.temperature_power
    loss = (1 - c.weight) * label_term + c.weight * power * divergence
    self.optimizer.zero_grad()
    loss.backward()
    self.optimizer.step()
    return loss.detach()

  def measure(self, num_steps):
    """Returns seconds a step over so many."""
    size, total = self.config.batch_size, self.torch.zeros(())
    begin, done = time.perf_counter(), 0
    while done < num_steps:
      batches = self.torch.randperm(len(self.labels)).split(size)
      whole = len(self.labels) // size  # the last, partial one is left out
      for rows in batches[: min(whole, num_steps - done)]:
        total += self.step(rows)
        done += 1
    total.item()
    return (time.perf_counter() - begin) / num_steps


def difference(job, torch_loop, *, num_steps=5):
  """Returns the largest ones of the loss and of a parameter."""
  state, losses = job.initial, []
  train_step = jax.jit(step.train_step, static_argnums=0)
  for index in range(num_steps):
    size = job.task.batch_size
    rows = (np.arange(size) + index * size) % len(job.examples.labels)
    batch = jax.tree.map(lambda a, rows=rows: a[rows], job.examples)
    state, found = train_step(job.task, state, job.teacher, batch, job.key)
    rows = torch_loop.torch.from_numpy(rows)
    losses.append(abs(float(found['loss']) - torch_loop.step(rows).item()))
  ours = [x for kernel, bias in linears(state.params) for x in (kernel.T, bias)]
  theirs = [p.detach().numpy() for p in torch_loop.student.parameters()]
  gaps = [np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)]
  return max(losses), max(gaps)


def rows_of(path, *, rounds, at_least):
  """Measures one experiment's pair."""
  config, dataset = _timing.load(path)
  config.schedule.name, config.method = 'constant', 'kd'
  config.teacher.precompute_logits = False
  mentor = _timing.untrained_teacher(config, dataset)
  job = _timing.prepare(config, dataset, mentor)
  torch_loop = TorchLoop(config, job)
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
    at_least=at_least,
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
  parser.add_argument('--threads', type=int, default=2, help='for each library')
  flags = parser.parse_args()
  # XLA has as many threads as the process may use cores; before JAX starts.
  cores = sorted(os.sched_getaffinity(0))[: flags.threads]
  os.sched_setaffinity(0, cores)
  try:
    import torch
  except ImportError as error:
    raise ValueError("PyTorch is missing: pip install -e '.[bench]'") from error
  torch.set_num_threads(flags.threads)
  found = []
  for path in flags.config or flags.defaults:
    found += rows_of(
      path,
      rounds=flags.rounds or (3 if flags.quick else 21),
      at_least=0.02 if flags.quick else 0.5,
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
