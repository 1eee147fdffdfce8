"""A small real set-up: digits, MLPs, a mesh of one device."""

import dataclasses

import jax
import pytest

from kdjax import config as configuration
from kdjax import data
from kdjax.train import sharding
from kdjax.train.interrupts import Interrupts
from kdjax.train.session import Session
from kdjax.train.watchdog import Watchdog


class Silent:
  """A reporter that shows nothing, and a phase that can be interrupted."""

  def __init__(self, stop_at=None):
    self.stop_at = stop_at
    self.said, self.phases = [], []

  def say(self, text):
    self.said.append(text)

  def phase(self, name, *, num_steps, start, unit='images'):
    self.phases.append((name, start, num_steps))
    return self

  def table(self, *args):
    self.said.append(args)

  def __enter__(self):
    return self

  def __exit__(self, *args):
    return None

  def update(self, step, rate, note):
    if self.stop_at is not None and step >= self.stop_at:
      raise KeyboardInterrupt


@pytest.fixture
def silent():
  return Silent()


@pytest.fixture
def interrupted():
  return Silent


@pytest.fixture
def mesh():
  return sharding.make_mesh(devices=jax.devices()[:1])


@pytest.fixture
def session(mesh, silent):
  """One device, a silent reporter, and nobody who watches."""
  return Session(mesh, silent, Interrupts(), Watchdog(0))


@pytest.fixture
def config(tmp_path):
  """Teacher and student of a few hundred parameters, a handful of steps."""
  c = configuration.default()
  c.dataset.name = 'digits'
  c.dataset.augment = 'none'
  c.dataset.num_labels = 40
  c.batch_size = 10
  c.num_epochs = 4
  c.eval_every_epochs = 2
  c.log_every_steps = 3
  c.schedule.name = 'cosine'
  c.student.name = 'mlp'
  c.student.widths = (6,)
  c.teacher.name = 'mlp'
  c.teacher.widths = (12,)
  c.teacher.num_epochs = 1
  c.teacher.cache_dir = str(tmp_path / 'cache')
  return c


@pytest.fixture
def digits(tmp_path_factory):
  folder = tmp_path_factory.getbasetemp() / 'digits'
  return data.load('digits', data_dir=str(folder))


@pytest.fixture
def forty(digits):
  """Digits with 40 training images."""
  train = data.thin(digits.train, num_labels=40, num_classes=10, seed=0)
  return dataclasses.replace(digits, train=train)
