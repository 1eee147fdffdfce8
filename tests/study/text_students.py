"""Students that read: a small made-up text, and a teacher that knows it."""

import dataclasses

import jax
import numpy as np
from students import World, make_config

from kdjax import data, models
from kdjax.data import text
from kdjax.train import networks, sharding
from kdjax.train.state import Network

NUM_TOKENS, LENGTH, END = 11, 6, 0
ARMS = (
  'ce',
  'ls',
  'kd',
  'kd_pt',
  'kd_sim',
  'kd_topk topk=2',
  'kd_topk topk=4',
  'kd_topk_bucket topk=3',
  'dkd',
)
FEW = ('kd_pt', 'kd_topk topk=2', 'kd_topk_bucket topk=3')


class TextWorld(World):
  """As `World`, of a text."""

  def alone(self, config, trial, seed):
    """Without what the teacher remembers, which no student of a study has."""
    found = super().alone(config, trial, seed)
    carries = found.carries._replace(teacher=())
    return dataclasses.replace(found, carries=carries)

  def evaluator(self, config, name):
    """What counts as a run does, on one device."""
    return networks.evaluator(
      networks.shapes(config, self.dataset).graphdef,
      getattr(self.dataset, name),
      config,
      self.dataset,
      sharding.make_mesh(devices=jax.devices()[:1]),
    )


def make_text_config():
  """Of students with eight hidden units, which learn for three epochs."""
  c = make_config()
  c.dataset.num_labels = 0
  c.dataset.exclude_classes = ()
  c.batch_size = 4
  c.eval_batch_size = 4
  c.num_epochs = 3
  c.eval_every_epochs = 1
  c.student.name = 'lstm'
  c.student.widths = (8,)
  c.optimizer.clip_norm = 0.5
  c.study.search.learning_rate = (0.1, 0.5)
  c.study.over_members = 'vmap'
  c.study.num_trials = 2
  return c


def make_text_world(batching, *, sizes=(190, 80, 65)):
  """Streams of so many tokens; neither they nor dev and test fill batches."""
  rng = np.random.default_rng(0)
  chances = rng.dirichlet(np.full(NUM_TOKENS, 0.3), size=NUM_TOKENS)

  def rows(size):
    tokens = [END]
    while len(tokens) < size:
      tokens.append(rng.choice(NUM_TOKENS, p=chances[tokens[-1]]))
    tokens = np.array([*tokens, END], np.int32)
    if batching == 'contiguous':
      return text.contiguous(tokens, length=LENGTH, blank=END)
    sentences = np.split(tokens, 1 + np.flatnonzero(tokens[:-1] == END))
    return getattr(text, batching)(sentences, length=LENGTH, boundary=END)

  def split(size):
    inputs, labels = rows(size)
    # Else nothing were shown of rows that fill no batch.
    left = len(labels) - (len(labels) % 4 == 0)
    return data.Split(inputs[:left], labels[:left])

  splits = [split(size) for size in sizes]
  boundary = None if batching == 'contiguous' else END
  dataset = data.Dataset(
    'made-up text',
    *splits,
    num_classes=NUM_TOKENS,
    mean=(0.0,),
    std=(1.0,),
    class_names=tuple('.abcdefghij'),
    text=data.Text(
      batching=batching,
      boundary=boundary,
      num_characters=dict.fromkeys(('train', 'dev', 'test'), 100),
      token_counts=np.ones(NUM_TOKENS, int),
    ),
  )
  options = {} if boundary is None else {'boundary': boundary}
  model = models.build(
    'lstm',
    input_shape=(LENGTH,),
    num_classes=NUM_TOKENS,
    seed=7,
    widths=(10,),
    init_scale=1.0,  # so it has something to say
    **options,
  )
  return TextWorld(dataset, Network(*models.split(model)))
