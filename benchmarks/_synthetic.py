"""Random images for what is not prepared, and how long to measure."""

import _timing
import numpy as np

from kdjax import cli, data
from kdjax import config as configuration

# Height, width, channels and classes; the time of a step depends on no more.
_SHAPES = {
  'cifar10': ((32, 32, 3), 10),
  'cifar100': ((32, 32, 3), 100),
}
_NUM_EXAMPLES = 4096


def load(path, *, batch_size=None):
  """Returns what `_timing.load` does, or else random images of that shape.

  Args:
    path: an experiment file.
    batch_size: in place of the experiment's.

  Returns:
    The configuration, the data set, and a note for the table's row.
  """
  note = ''
  try:
    config, dataset = _timing.load(path)
  except FileNotFoundError:
    config = cli.load_config(path)
    configuration.validate(config)
    if config.dataset.name not in _SHAPES:
      raise
    dataset, note = _random(config.dataset.name), ' (random images)'
  if batch_size:
    config.batch_size = batch_size
  return config, dataset, note


def steps_of(config, *, quick):
  """Returns so many steps that a measurement takes seconds, or less."""
  if config.student.name == 'mlp':
    return 100 if quick else 2000
  return 2 if quick else 10


def _random(name):
  shape, num_classes = _SHAPES[name]
  rng = np.random.default_rng(0)

  def split(size):
    inputs = rng.integers(0, 256, (size, *shape), np.uint8)
    return data.Split(inputs, rng.integers(0, num_classes, size, np.int32))

  source = data.DATASETS[name]
  return data.Dataset(
    name=name,
    train=split(_NUM_EXAMPLES),
    dev=split(16),
    test=split(16),
    num_classes=num_classes,
    mean=source.mean,
    std=source.std,
    class_names=tuple(str(label) for label in range(num_classes)),
  )
