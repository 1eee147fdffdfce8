"""The distillation of an LSTM in kdjax and in a plain PyTorch loop.

  pip install -e '.[bench]'
  python benchmarks/lstm_versus_torch.py [--quick] [--threads=2]
    [--teacher=lstm_medium] [--vocabulary=10000]

Zaremba's small LSTM learns from a larger one, from the same weights: batches of
20 rows of 35 tokens that go on from each other, KD with the teacher's forward
pass in every step, SGD with clipping, float32, no dropout, as many threads. The
tokens are random; the time of a step does not depend on them. PyTorch has its
own LSTM layer, keeps the text in memory, runs the teacher under `no_grad` and
sums the loss without waiting for it. The loops take turns. First, both do five
steps; the largest difference of their losses is printed.

Rows beside the equal work: the loss in blocks of tokens, and KD-topk with the
teacher's 64 likeliest classes computed once, as kdjax does by default.
"""

import functools
import os
from pathlib import Path
from typing import NamedTuple

import _timing
import jax
import numpy as np

from kdjax import cli, data
from kdjax.data import text
from kdjax.train import step

_EXPERIMENT = Path(__file__).parents[1] / 'experiments/ptb_lstm_kd.py'


class Weights(NamedTuple):
  """Of an LSTM, as the PyTorch loop takes them."""

  embedding: np.ndarray
  layers: list
  head: tuple


def weights_of(params):
  """Returns the weights from kdjax's parameters."""
  layers = [
    (layer['input_kernel'], layer['kernel'], layer['bias'])
    for name, layer in sorted(params.items())
    if name.startswith('layer')
  ]
  head = params['head']['kernel'], params['head']['bias']
  return Weights(params['embedding']['embedding'], layers, head)


def random_text(num_classes, *, num_tokens=42001, length=35):
  """Returns a data set of tokens that follow no rule."""
  tokens = np.random.default_rng(0).integers(0, num_classes, num_tokens)
  rows = text.contiguous(tokens.astype(np.int32), length=length)
  split = data.Split(*rows, np.arange(len(rows.labels)))
  return data.Dataset(
    name='random',
    train=split,
    dev=split,
    test=split,
    num_classes=num_classes,
    mean=(0.0,),
    std=(1.0,),
    class_names=tuple(map(str, range(num_classes))),
    text=data.Text(
      batching='contiguous',
      boundary=None,
      num_characters=dict.fromkeys(('train', 'dev', 'test'), num_tokens),
      token_counts=np.bincount(tokens, minlength=num_classes),
    ),
  )


def declare(teacher, **changes):
  """Returns the experiment, with the teacher asked in every step."""
  config = cli.load_config(_EXPERIMENT)
  config.update({'learning_rate': 1.0, **changes})
  config.schedule.name = 'constant'
  config.teacher.update({'name': teacher, 'dropout': 0.0})
  return config


def difference(job, loop, *, num_steps=5):
  """Returns the largest difference of the losses of the first steps."""
  run = jax.jit(functools.partial(step.train_step, job.task))
  state, gaps, carries = job.initial, [], (None, None)
  steps = job.task.steps_per_epoch
  for index in range(num_steps):
    rows = np.arange(job.task.batch_size) * steps + index
    batch = jax.tree.map(lambda a, rows=rows: a[rows], job.examples)
    state, found = run(state, job.teacher, batch, job.key)
    loss, carries = loop.step(index, carries)
    gaps.append(abs(float(found['loss']) - loss.item()))
  return max(gaps)


def measure(flags, torch_lstm):
  """Returns the rows of the table."""
  dataset = random_text(flags.vocabulary)
  config = declare(flags.teacher)
  config.teacher.precompute_logits = False
  mentor = _timing.untrained_teacher(config, dataset)
  equal = _timing.prepare(config, dataset, mentor)
  blocks = declare(flags.teacher, loss_block_tokens=flags.block)
  blocks.teacher.precompute_logits = False
  few = declare(flags.teacher, method='kd_topk', topk=64)
  size, steps = config.batch_size, equal.task.steps_per_epoch
  batches = [
    np.swapaxes(a[: size * steps].reshape(size, steps, -1), 0, 1)
    for a in dataset.train[:2]
  ]
  loop = functools.partial(
    torch_lstm.TorchLoop,
    config,
    weights_of(equal.initial.params),
    weights_of(mentor.params),
    *batches,
  )
  gap = difference(equal, loop())
  jobs = {
    'equal work': equal,
    f'in blocks of {flags.block} tokens': _timing.prepare(
      blocks, dataset, mentor
    ),
    'KD-topk, 64 classes computed once': _timing.prepare(few, dataset, mentor),
  }
  found = _timing.alternate(
    {
      **{name: _timing.training_loop(job) for name, job in jobs.items()},
      'torch': loop().measure,
    },
    rounds=flags.rounds or (2 if flags.quick else 11),
    num_steps=flags.steps or (2 if flags.quick else 20),
  )
  for name in jobs:
    pairs = zip(found['torch'], found[name], strict=True)
    yield [
      name,
      _timing.spread(found[name], scale=1e3),
      _timing.spread(found['torch'], scale=1e3),
      _timing.spread([b / a for b, a in pairs], digits=2),
      f'{gap:.0e}' if name == 'equal work' else '',
    ]


def main():
  """Prints the table."""
  parser = _timing.parser(__doc__, default=())
  add = parser.add_argument
  add('--steps', type=int, help='steps in one measurement')
  add('--threads', type=int, default=2, help='for each library')
  add('--teacher', default='lstm_medium', help='its network')
  add('--vocabulary', type=int, default=10000, help='classes')
  add('--block', type=int, default=256, help='tokens of a block')
  flags = parser.parse_args()
  # XLA has as many threads as the process may use cores; before JAX starts.
  cores = sorted(os.sched_getaffinity(0))[: flags.threads]
  os.sched_setaffinity(0, cores)
  try:
    import _torch_lstm
  except ImportError as error:
    raise ValueError("PyTorch is missing: pip install -e '.[bench]'") from error
  torch = _torch_lstm.torch
  torch.set_num_threads(flags.threads)
  found = list(measure(flags, _torch_lstm))
  header = [
    f'{flags.teacher} → lstm_small, {flags.vocabulary:,} classes',
    'kdjax, ms a step',
    'PyTorch, ms a step',
    'PyTorch / kdjax',
    'difference of losses',
  ]
  print(_timing.table(header, found))
  print(
    f'\n{_timing.surroundings(PyTorch=torch.__version__)}'
    f' {torch.get_num_threads()} threads.'
  )


if __name__ == '__main__':
  cli.run(main)
