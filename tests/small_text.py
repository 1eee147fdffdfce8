"""A text of a Markov chain, and networks that read it in no time."""

import jax
import numpy as np

from kdjax import config as configuration
from kdjax import data, models
from kdjax.data import text
from kdjax.train import sharding
from kdjax.train.state import Network

K, END, LENGTH = 12, 0, 5


def stream(num_tokens, seed=0):
  """Tokens of which each is likely after some other."""
  random = np.random.default_rng(seed)
  chances = np.random.default_rng(7).dirichlet(np.full(K, 0.3), size=K)
  chances = 0.7 * chances + 0.3 / K
  found = [END]
  for _ in range(num_tokens - 1):
    found.append(random.choice(K, p=chances[found[-1]]))
  return np.array(found, np.int32)


def sentences(num_tokens, seed=0):
  """The same, cut after each END."""
  tokens = stream(num_tokens, seed)[1:]
  ends = np.flatnonzero(tokens == END) + 1
  return [part for part in np.split(tokens, ends) if len(part)]


def dataset(batching='contiguous', *, length=LENGTH, num_tokens=241):
  splits = {}
  for seed, name in enumerate(('train', 'dev', 'test')):
    if batching == 'contiguous':
      rows = text.contiguous(stream(num_tokens, seed), length=length)
    else:
      make = {'padded': text.padded, 'packed': text.packed}[batching]
      rows = make(sentences(num_tokens, seed), length=length, boundary=END)
    splits[name] = data.Split(*rows, np.arange(len(rows.labels)))
  labels = splits['train'].labels
  return data.Dataset(
    name='chain',
    num_classes=K,
    mean=(0.0,),
    std=(1.0,),
    class_names=tuple(map(str, range(K))),
    text=data.Text(
      batching=batching,
      boundary=None if batching == 'contiguous' else END,
      num_characters=dict.fromkeys(splits, 2 * num_tokens),
      token_counts=np.bincount(labels[labels >= 0], minlength=K),
    ),
    **splits,
  )


def declare(method='kd', **changes):
  """A small LSTM, plain gradient descent, two epochs."""
  c = configuration.default()
  c.update(
    {
      'method': method,
      'temperature': 2.0,
      'weight': 0.7,
      'topk': 3,
      'num_epochs': 2,
      'batch_size': 4,
      'eval_batch_size': 4,
      'eval_every_epochs': 1,
      'log_every_steps': 5,
      'learning_rate': 1.0,
    }
  )
  c.dataset.augment = 'none'
  c.schedule.name = 'constant'
  c.optimizer.update({'momentum': 0.0, 'weight_decay': 0.0})
  c.student.update({'name': 'lstm', 'widths': (6, 6)})
  c.teacher.update({'name': 'lstm', 'widths': (8, 8), 'cache_dir': 'off'})
  c.update(changes)
  return c


def network(dataset, *, name='lstm', width=8, seed=3, scale=40.0):
  """An untrained one that has opinions: its weights are enlarged."""
  options = {'widths': (width, width)} if name == 'lstm' else {}
  if dataset.text.boundary is not None:
    options['boundary'] = dataset.text.boundary
  model = models.build(
    name, input_shape=(LENGTH,), num_classes=K, seed=seed, **options
  )
  graphdef, params, rest = models.split(model)
  return Network(graphdef, jax.tree.map(lambda a: scale * a, params), rest)


def mesh(num_devices=1):
  return sharding.make_mesh(devices=jax.devices()[:num_devices])
