"""A training of `test_devices.py`, on as many devices as it is told.

With batch statistics, dropout, mixup and a moving average. Its argument is a
JSON list; it prints what it trained, or null where it was to stop.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np

from kdjax import config as configuration
from kdjax import data, models
from kdjax.train import loop, sharding
from kdjax.train.interrupts import Interrupts
from kdjax.train.progress import Reporter
from kdjax.train.session import Session
from kdjax.train.state import Network
from kdjax.train.watchdog import Watchdog


class Stopped(Exception):
  """The training was to stop."""


class Stopping(Reporter):
  """Ends a training after its first evaluation, which is saved."""

  def phase(self, name, *, num_steps, start, unit='images'):
    phase = super().phase(name, num_steps=num_steps, start=start, unit=unit)
    phase.update = self.update
    return phase

  def update(self, step, rate, note):
    if note:
      raise Stopped


def declare(network, model_devices, split):
  config = configuration.default()
  config.dataset.name = 'digits'
  config.dataset.augment = 'crop'
  config.dataset.mixup = 0.2
  config.batch_size = 16
  config.num_epochs = 3
  config.eval_every_epochs = 1
  config.ema_decay = 0.9
  config.optimizer.name = 'adamw'
  config.learning_rate = 0.001
  config.model_devices = model_devices
  config.split_networks = tuple(split)
  config.student.name = network
  if network == 'mlp':
    config.student.widths = (64, 64)
    config.student.dropout = 0.2
  return config


def load():
  digits = data.load('digits')
  train = data.thin(digits.train, num_labels=48, num_classes=10, seed=0)
  return dataclasses.replace(digits, train=train)


def flat(tree):
  return [np.asarray(x, float).ravel().tolist() for x in jax.tree.leaves(tree)]


def main():
  num_devices, model_devices, split, stop, network, folder = json.loads(
    sys.argv[1]
  )
  jax.config.update('jax_num_cpu_devices', num_devices)
  model = models.build(
    'mlp', input_shape=(8, 8, 1), num_classes=10, seed=5, widths=(64,)
  )
  session = Session(
    sharding.make_mesh(model_devices=model_devices),
    Stopping(quiet=True) if stop else Reporter(quiet=True),
    Interrupts(),
    Watchdog(0),
  )
  try:
    fitted = loop.fit(
      declare(network, model_devices, split),
      load(),
      teacher=Network(*models.split(model)),
      name='student',
      directory=Path(folder),
      session=session,
    )
  except Stopped:
    print('null')
    return
  _, params, rest = fitted.last
  parts = max(
    x.size // x.addressable_shards[0].data.size for x in jax.tree.leaves(params)
  )
  found = {'params': flat(params), 'rest': flat(rest), 'parts': parts}
  print(json.dumps(found))


if __name__ == '__main__':
  main()
