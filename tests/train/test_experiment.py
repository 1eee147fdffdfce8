import json

import numpy as np
import pytest

from kdjax.train import experiment
from kdjax.train.writers import read_metrics


def _json(path):
  return json.loads(path.read_text())


def test_everything_that_a_run_leaves(config, tmp_path, silent):
  config.baseline = True
  workdir = tmp_path / 'run'
  results = experiment.run(config, workdir, silent)
  assert [name for name, *_ in silent.phases] == [
    'teacher',
    'baseline',
    'student',
  ]
  assert _json(workdir / 'results.json') == results
  assert _json(workdir / 'config.json') == json.loads(config.to_json())
  assert (workdir / 'curves.png').read_bytes().startswith(b'\x89PNG')
  assert all('step' in r for r in read_metrics(workdir / 'metrics.jsonl'))
  assert results['teacher']['num_params'] == 64 * 12 + 12 + 12 * 10 + 10
  for name in ('student', 'baseline'):
    found = results[name]
    assert found['num_params'] == 64 * 6 + 6 + 6 * 10 + 10
    assert set(found['best']) == {'step', 'dev_accuracy', 'test_accuracy'}
    for accuracy in (found['test_accuracy'], found['best']['test_accuracy']):
      assert accuracy * 500 == pytest.approx(round(accuracy * 500))
  assert results['wall_seconds'] > 0


def test_a_finished_run_is_not_repeated(config, tmp_path, silent):
  config.method = 'ce'
  first = experiment.run(config, tmp_path / 'run', silent)
  second = experiment.run(config, tmp_path / 'run', silent)
  assert first == second
  assert len(silent.phases) == 1
  assert first['teacher'] is None


def test_a_workdir_of_another_config_names_the_keys(config, tmp_path, silent):
  config.method = 'ce'
  experiment.run(config, tmp_path / 'run', silent)
  config.optimizer.momentum = 0.5
  config.seed = 3
  with pytest.raises(
    ValueError, match=r'different are optimizer\.momentum, se'
  ):
    experiment.run(config, tmp_path / 'run', silent)


def test_a_student_never_sees_an_excluded_class(config, tmp_path, silent):
  config.dataset.num_labels = 0
  config.dataset.exclude_classes = (3, 7)
  config.method = 'ce'
  config.student.widths = (32,)
  config.num_epochs = 30
  config.batch_size = 50
  results = experiment.run(config, tmp_path / 'run', silent)
  assert results['student']['test_accuracy_excluded_classes'] == 0.0
  assert results['student']['test_accuracy'] > 0.7


def test_the_transfer_set_is_thinned_without_the_excluded(config):
  config.dataset.exclude_classes = (3,)
  config.dataset.num_labels = 18
  dataset = experiment.load(config)
  split = experiment.transfer_set(config, dataset)
  counts = np.bincount(split.labels, minlength=10)
  assert list(counts) == [2, 2, 2, 0, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'method': 'kd_topk', 'topk': 11}, r'config\.topk=11 must lie in 1\.\.10'),
    ({'dataset': {'exclude_classes': (10,)}}, 'exclude_classes=10'),
    ({'student': {'name': 'mpl'}}, "'mpl'; did you mean 'mlp'"),
    ({'teacher': {'name': 'resnet21'}}, "'resnet21'"),
    ({'model_devices': 3}, 'model_devices=3'),
    ({'batch_size': 42}, r'config\.batch_size=42 .* 40 training'),
    ({'teacher': {'batch_size': 5000}}, r'config\.teacher\.batch_size=5000'),
    ({'dataset': {'num_labels': 5000}}, '5000'),
    ({'dataset': {'augment': 'crop'}, 'schedule': {'warmup_steps': 99}}, '99'),
    ({'teacher': {'checkpoint': '/nowhere'}}, 'is not a trained network'),
  ],
)
def test_mistakes_are_found_before_anything_trains(
  change, message, config, tmp_path, silent
):
  config.update(change)
  with pytest.raises(ValueError, match=message):
    experiment.run(config, tmp_path / 'run', silent)
  assert not silent.phases
  assert not (tmp_path / 'run').exists()
