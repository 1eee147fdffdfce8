import chex
import pytest

from kdjax import data
from kdjax.train import evaluate
from kdjax.train.loop import fit, restore
from kdjax.train.writers import read_metrics


def _fit(config, dataset, directory, mesh, reporter, teacher=None):
  return fit(
    config,
    dataset,
    teacher=teacher,
    name='student',
    directory=directory,
    mesh=mesh,
    reporter=reporter,
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


def test_rows_stand_at_fixed_steps(plain, forty, tmp_path, mesh, silent):
  _fit(plain, forty, tmp_path, mesh, silent)
  rows = _rows(tmp_path)
  trained = [row['step'] for row in rows if 'train_loss' in row]
  scored = [row['step'] for row in rows if 'dev_accuracy' in row]
  # 4 steps an epoch, logged every 3, evaluated every 8
  assert trained == [3, 6, 8, 9, 12, 15, 16]
  assert scored == [8, 16]
  assert rows[-1]['step'] == 16


def test_training_learns(plain, digits, tmp_path, mesh, silent):
  plain.num_epochs = 8
  plain.batch_size = 50
  _fit(plain, digits, tmp_path, mesh, silent)
  losses = [r['train_loss'] for r in _rows(tmp_path) if 'train_loss' in r]
  assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize('stop_at', [2, 9, 14])
def test_the_same_call_goes_on_bit_for_bit(
  stop_at, plain, forty, tmp_path, mesh, silent, interrupted
):
  """With dropout and a moving average; images are cropped in another test."""
  plain.student.dropout = 0.3
  plain.ema_decay = 0.9
  whole = _fit(plain, forty, tmp_path / 'whole', mesh, silent)
  with pytest.raises(KeyboardInterrupt):
    _fit(plain, forty, tmp_path / 'cut', mesh, interrupted(stop_at))
  cut = _fit(plain, forty, tmp_path / 'cut', mesh, silent)
  chex.assert_trees_all_equal(cut.last[1:], whole.last[1:])
  chex.assert_trees_all_equal(cut.best[1:], whole.best[1:])
  assert _rows(tmp_path / 'cut') == _rows(tmp_path / 'whole')


def test_batch_statistics_and_cropping_resume_too(
  plain, forty, tmp_path, mesh, silent, interrupted
):
  plain.dataset.augment = 'crop_flip'
  plain.student.name = 'resnet8'
  plain.student.widths = ()
  plain.num_epochs, plain.eval_every_epochs = 2, 1
  whole = _fit(plain, forty, tmp_path / 'whole', mesh, silent)
  with pytest.raises(KeyboardInterrupt):
    _fit(plain, forty, tmp_path / 'cut', mesh, interrupted(6))
  cut = _fit(plain, forty, tmp_path / 'cut', mesh, silent)
  assert silent.phases[-1] == ('student', 4, 8)
  chex.assert_trees_all_equal(cut.last[1:], whole.last[1:])


def test_a_finished_training_is_only_read(plain, forty, tmp_path, mesh, silent):
  first = _fit(plain, forty, tmp_path, mesh, silent)
  second = _fit(plain, forty, tmp_path, mesh, silent)
  assert silent.phases == [('student', 0, 16)]
  chex.assert_trees_all_equal(second.last[1:], first.last[1:])
  again = restore(plain, forty, directory=tmp_path, mesh=mesh)
  chex.assert_trees_all_equal(again[1:], first.last[1:])


def test_the_best_is_the_best_on_dev(
  plain, forty, tmp_path, mesh, silent, monkeypatch
):
  """Scores that fall after the second evaluation: the best is not the last."""
  plain.schedule.name = 'constant'
  plain.eval_every_epochs = 1
  falling = iter([0.5, 0.9, 0.7, 0.2])
  monkeypatch.setattr(
    evaluate, 'scores', lambda *_: {'accuracy': next(falling)}
  )
  fitted = _fit(plain, forty, tmp_path / 'four', mesh, silent)
  assert fitted.best_step == 8
  plain.num_epochs = 2
  falling = iter([0.1, 0.2])
  two = _fit(plain, forty, tmp_path / 'two', mesh, silent)
  chex.assert_trees_all_equal(fitted.best[1:], two.last[1:])


def test_a_batch_larger_than_the_data_is_refused(
  plain, forty, tmp_path, mesh, silent
):
  plain.batch_size = 41
  with pytest.raises(ValueError, match=r'batch_size=41 .* 40 training'):
    _fit(plain, forty, tmp_path, mesh, silent)


def test_vectors_cannot_be_cropped(plain, tmp_path, mesh, silent):
  vectors = data.load(
    'synthetic_classes',
    data_dir=str(tmp_path / 'data'),
    options={'num_examples': 60},
  )
  plain.dataset.augment = 'crop'
  with pytest.raises(ValueError, match=r"needs images.*'none'"):
    _fit(plain, vectors, tmp_path, mesh, silent)
