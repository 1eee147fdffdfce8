"""Training and evaluation on encoded images, end to end."""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from kdjax import config as configuration
from kdjax import data, models
from kdjax.train import checkpoint, evaluate, loop, networks, pace, task
from kdjax.train.interrupts import Interrupted, Interrupts
from kdjax.train.state import Network, Weights
from kdjax.train.writers import read_metrics

# Small archives with real JPEGs.
sys.path.append(str(Path(__file__).parents[1] / 'data'))
import photos


@pytest.fixture(scope='module')
def few(tmp_path_factory):
  """Thirty encoded images of six classes, at 32 pixels."""
  folder = tmp_path_factory.mktemp('imagenet')
  photos.prepare_imagenet(folder)
  return data.load('imagenet2012', data_dir=str(folder), image_size=32)


@pytest.fixture
def streaming():
  c = configuration.default()
  c.dataset.name = 'imagenet2012'
  c.dataset.augment = 'resized_crop_flip'
  c.dataset.mixup = 0.2
  c.batch_size = 8
  c.num_epochs = 4
  c.eval_every_epochs = 2
  c.eval_batch_size = 2
  c.log_every_steps = 2
  c.schedule.name = 'cosine'
  c.learning_rate = 0.01
  c.student.name = 'mlp'
  c.student.widths = (8,)
  c.student.dropout = 0.1
  return c


@pytest.fixture
def mentor(few):
  model = models.build(
    'mlp', input_shape=few.input_shape, num_classes=1000, seed=3, widths=(8,)
  )
  return Network(*models.split(model))


def _fit(config, dataset, mentor, folder, session):
  return loop.fit(
    config,
    dataset,
    teacher=mentor,
    name='student',
    directory=folder,
    session=session,
  )


def _rows(folder):
  rows = read_metrics(folder / 'metrics.jsonl')
  return [{k: v for k, v in r.items() if 'second' not in k} for r in rows]


@pytest.mark.parametrize('stop_at', [1, 5, 6])
def test_it_goes_on_bit_for_bit(
  stop_at, streaming, few, mentor, tmp_path, session, silent, monkeypatch
):
  monkeypatch.setattr(pace, '_SECONDS_PER_DISPATCH', 0.0)
  whole = _fit(streaming, few, mentor, tmp_path / 'whole', session)

  def signalled(step, rate, note):
    if step == stop_at:
      os.kill(os.getpid(), signal.SIGTERM)

  with Interrupts() as interrupts, monkeypatch.context() as patch:
    patch.setattr(silent, 'update', signalled)
    asked = session._replace(interrupts=interrupts)
    with pytest.raises(Interrupted, match=f'at step {stop_at} of 12'):
      _fit(streaming, few, mentor, tmp_path / 'cut', asked)
  cut = _fit(streaming, few, mentor, tmp_path / 'cut', session)
  chex.assert_trees_all_equal(cut.last[1:], whole.last[1:])
  assert _rows(tmp_path / 'cut') == _rows(tmp_path / 'whole')


def test_a_long_dispatch_is_its_steps(
  streaming, few, mentor, tmp_path, session, monkeypatch
):
  """Whether the host runs ahead or waits for every step."""
  monkeypatch.setattr(pace, '_SECONDS_PER_DISPATCH', 1e9)
  long = _fit(streaming, few, mentor, tmp_path / 'long', session)
  monkeypatch.setattr(pace, '_SECONDS_PER_DISPATCH', 0.0)
  short = _fit(streaming, few, mentor, tmp_path / 'short', session)
  chex.assert_trees_all_equal(long.last[1:], short.last[1:])


def test_an_evaluation_counts_every_image_once(streaming, few, mentor, session):
  """Three images, two at once."""
  count = networks.evaluator(
    mentor.graphdef, few.dev, streaming, few, session.mesh
  )
  weights = Weights(mentor.params, mentor.rest)
  totals = count(weights)
  assert totals.examples.sum() == len(few.dev.labels) == 3
  inputs = np.stack([few.dev.inputs[i] for i in range(3)])
  arrays = dataclasses.replace(few, dev=data.Split(inputs, few.dev.labels))
  resident = networks.evaluator(
    mentor.graphdef, arrays.dev, streaming, arrays, session.mesh
  )
  chex.assert_trees_all_close(totals, resident(weights), rtol=1e-5)
  assert count(weights, going=lambda: False) is None
  assert evaluate.scores(totals)['accuracy'] in (0, 1 / 3, 2 / 3, 1)


def test_after_a_failed_step_no_other_is_taken(
  streaming, few, mentor, tmp_path, session, monkeypatch
):
  """Steps that were dispatched ahead of it change nothing."""
  monkeypatch.setattr(pace, '_SECONDS_PER_DISPATCH', 1e9)
  streaming.log_every_steps = 100
  params = jax.tree.map(lambda a: a * np.nan, mentor.params)
  broken = mentor._replace(params=params)
  with pytest.raises(FloatingPointError, match=r'teacher .* in step 0'):
    _fit(streaming, few, broken, tmp_path, session)
  assert not checkpoint.steps(tmp_path / 'checkpoints')


def test_without_augmentation_the_centre_is_taken(streaming, few, mentor):
  streaming.dataset.augment = 'none'
  batches = task.feeds._batches(streaming, few.train, 0)
  batch = next(batches)
  for pixels, position in zip(batch.inputs, batch.positions, strict=True):
    np.testing.assert_array_equal(pixels, few.train.inputs[int(position)])


@pytest.mark.parametrize('augment', ['crop', 'crop_flip'])
def test_augmentation_of_arrays_is_refused(
  augment, streaming, few, mentor, tmp_path, session
):
  streaming.dataset.augment = augment
  with pytest.raises(ValueError, match="use 'none' or 'resized_crop_flip'"):
    _fit(streaming, few, mentor, tmp_path, session)


def test_encoded_augmentation_of_arrays_is_refused(
  streaming, digits, tmp_path, session
):
  streaming.method = 'ce'
  with pytest.raises(ValueError, match="use 'none' or 'crop' or 'crop_flip'"):
    _fit(streaming, digits, None, tmp_path, session)
