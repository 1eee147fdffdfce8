import os
import signal

import chex
import pytest

from kdjax import data
from kdjax.train import evaluate, pace
from kdjax.train.interrupts import Interrupted, Interrupts
from kdjax.train.loop import fit, restore
from kdjax.train.writers import read_metrics


def _fit(config, dataset, directory, session, reporter=None, teacher=None):
  return fit(
    config,
    dataset,
    teacher=teacher,
    name='student',
    directory=directory,
    session=session._replace(reporter=reporter or session.reporter),
  )


def _rows(directory):
  rows = read_metrics(directory / 'metrics.jsonl')
  for row in rows:
    row.pop('images_per_second', None)  # the only clock in it
  return rows


@pytest.fixture
def plain(config):
  config.method = 'ce'
  return config


def test_rows_stand_at_fixed_steps(plain, forty, tmp_path, session, silent):
  _fit(plain, forty, tmp_path, session)
  rows = _rows(tmp_path)
  trained = [row['step'] for row in rows if 'train_loss' in row]
  scored = [row['step'] for row in rows if 'dev_accuracy' in row]
  # 4 steps an epoch, logged every 3, evaluated every 8
  assert trained == [3, 6, 8, 9, 12, 15, 16]
  assert scored == [8, 16]
  assert rows[-1]['step'] == 16


def test_training_learns(plain, digits, tmp_path, session, silent):
  plain.num_epochs = 8
  plain.batch_size = 50
  _fit(plain, digits, tmp_path, session)
  losses = [r['train_loss'] for r in _rows(tmp_path) if 'train_loss' in r]
  assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize('stop_at', [2, 9, 14])
def test_the_same_call_goes_on_bit_for_bit(
  stop_at, plain, forty, tmp_path, session, silent, interrupted
):
  """With dropout and a moving average; images are cropped in another test."""
  plain.student.dropout = 0.3
  plain.ema_decay = 0.9
  whole = _fit(plain, forty, tmp_path / 'whole', session)
  with pytest.raises(KeyboardInterrupt):
    _fit(plain, forty, tmp_path / 'cut', session, interrupted(stop_at))
  cut = _fit(plain, forty, tmp_path / 'cut', session)
  chex.assert_trees_all_equal(cut.last[1:], whole.last[1:])
  chex.assert_trees_all_equal(cut.best[1:], whole.best[1:])
  assert _rows(tmp_path / 'cut') == _rows(tmp_path / 'whole')


@pytest.mark.parametrize('stop_at', [1, 4, 7, 8, 13])
def test_a_signal_saves_any_step_and_the_sums_of_the_metrics(
  stop_at, plain, forty, tmp_path, session, silent, monkeypatch
):
  """With dropout, cropping and a moving average, one step a dispatch."""
  plain.student.dropout = 0.3
  plain.ema_decay = 0.9
  plain.dataset.augment = 'crop_flip'
  monkeypatch.setattr(pace, '_SECONDS_PER_DISPATCH', 0.0)
  whole = _fit(plain, forty, tmp_path / 'whole', session)

  def signalled(step, rate, note):
    if step == stop_at:
      os.kill(os.getpid(), signal.SIGTERM)

  with Interrupts() as interrupts, monkeypatch.context() as patch:
    patch.setattr(silent, 'update', signalled)
    asked = session._replace(interrupts=interrupts)
    with pytest.raises(Interrupted, match=f'at step {stop_at} of 16'):
      _fit(plain, forty, tmp_path / 'cut', asked)
  cut = _fit(plain, forty, tmp_path / 'cut', session)
  assert silent.phases[-1] == ('student', stop_at, 16)
  chex.assert_trees_all_equal(cut.last[1:], whole.last[1:])
  chex.assert_trees_all_equal(cut.best[1:], whole.best[1:])
  assert _rows(tmp_path / 'cut') == _rows(tmp_path / 'whole')


def test_batch_statistics_and_cropping_resume_too(
  plain, forty, tmp_path, session, silent, interrupted
):
  plain.dataset.augment = 'crop_flip'
  plain.student.name = 'resnet8'
  plain.student.widths = ()
  plain.num_epochs, plain.eval_every_epochs = 2, 1
  whole = _fit(plain, forty, tmp_path / 'whole', session)
  with pytest.raises(KeyboardInterrupt):
    _fit(plain, forty, tmp_path / 'cut', session, interrupted(6))
  cut = _fit(plain, forty, tmp_path / 'cut', session)
  assert silent.phases[-1] == ('student', 4, 8)
  chex.assert_trees_all_equal(cut.last[1:], whole.last[1:])


def test_a_finished_training_is_only_read(
  plain, forty, tmp_path, session, silent
):
  first = _fit(plain, forty, tmp_path, session)
  second = _fit(plain, forty, tmp_path, session)
  assert silent.phases == [('student', 0, 16)]
  chex.assert_trees_all_equal(second.last[1:], first.last[1:])
  again = restore(plain, forty, directory=tmp_path, mesh=session.mesh)
  chex.assert_trees_all_equal(again[1:], first.last[1:])


def test_the_best_is_the_best_on_dev(
  plain, forty, tmp_path, session, monkeypatch
):
  """Scores that fall after the second evaluation: the best is not the last."""
  plain.schedule.name = 'constant'
  plain.eval_every_epochs = 1
  falling = iter([0.5, 0.9, 0.7, 0.2])
  monkeypatch.setattr(
    evaluate, 'scores', lambda *_: {'accuracy': next(falling)}
  )
  fitted = _fit(plain, forty, tmp_path / 'four', session)
  assert fitted.best_step == 8
  plain.num_epochs = 2
  falling = iter([0.1, 0.2])
  two = _fit(plain, forty, tmp_path / 'two', session)
  chex.assert_trees_all_equal(fitted.best[1:], two.last[1:])


def test_a_batch_larger_than_the_data_is_refused(
  plain, forty, tmp_path, session, silent
):
  plain.batch_size = 41
  with pytest.raises(ValueError, match=r'batch_size=41 .* 40 training'):
    _fit(plain, forty, tmp_path, session)


def test_vectors_cannot_be_cropped(plain, tmp_path, session, silent):
  vectors = data.load(
    'synthetic_classes',
    data_dir=str(tmp_path / 'data'),
    options={'num_examples': 60},
  )
  plain.dataset.augment = 'crop'
  with pytest.raises(ValueError, match=r"needs images.*'none'"):
    _fit(plain, vectors, tmp_path, session)
