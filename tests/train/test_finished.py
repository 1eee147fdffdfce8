"""A finished run: the networks that it left, and what they say."""

import dataclasses
import json

import numpy as np
import pytest

from kdjax import models
from kdjax.train import experiment, finished


@pytest.fixture
def workdir(config, tmp_path, silent):
  config.baseline = True
  experiment.run(config, tmp_path / 'run', silent)
  return tmp_path / 'run'


def accuracy(run, name, split):
  return np.mean(run.logits(name, split).argmax(-1) == split.labels)


def test_networks_are_those_of_the_results(workdir):
  results = json.loads((workdir / 'results.json').read_text())
  run = finished.read(workdir)
  assert list(run.networks) == ['teacher', 'student', 'baseline']
  for name in run.networks:
    for split in ('dev', 'test'):
      found = accuracy(run, name, getattr(run.dataset, split))
      assert found == pytest.approx(results[name][f'{split}_accuracy'])
  assert len(run.dataset.train.labels) == 40  # what the student saw


def test_a_student_alone(workdir):
  run, alone = finished.read(workdir), finished.student(workdir)
  weights = finished.class_weights(alone)
  assert weights.shape == (10, 6)
  np.testing.assert_array_equal(
    weights, finished.class_weights(run.networks['student'])
  )
  assert models.num_params(alone.params) == 64 * 6 + 6 + 6 * 10 + 10


def test_a_given_teacher(workdir, config, tmp_path, silent):
  config.teacher.checkpoint = str(workdir / 'teacher')
  experiment.run(config, tmp_path / 'other', silent)
  found = finished.read(tmp_path / 'other').networks['teacher']
  np.testing.assert_array_equal(
    finished.class_weights(found),
    finished.class_weights(finished.read(workdir).networks['teacher']),
  )


def test_a_sample_is_spread_over_the_split(workdir):
  split = finished.read(workdir).dataset.test
  assert finished.sample(split, at_most=500) is split
  few = finished.sample(split, at_most=5)
  places = [0, 124, 249, 374, 499]
  np.testing.assert_array_equal(few.inputs, split.inputs[places])
  np.testing.assert_array_equal(few.labels, split.labels[places])


def test_nothing_in_the_folder_changes(workdir):
  before = {p: p.stat().st_mtime_ns for p in workdir.rglob('*')}
  finished.read(workdir)
  assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob('*')}


def test_what_is_no_run_with_a_teacher(workdir, config, tmp_path, silent):
  with pytest.raises(ValueError, match='it has no config'):
    finished.read(tmp_path / 'nowhere')
  config.method, config.baseline = 'ls', False
  experiment.run(config, tmp_path / 'ls', silent)
  with pytest.raises(ValueError, match="by 'ls', without a teacher"):
    finished.read(tmp_path / 'ls')
  saved = json.loads((workdir / 'config.json').read_text())
  (workdir / 'config.json').write_text('[]')
  with pytest.raises(ValueError, match='not a configuration'):
    finished.read(workdir)
  del saved['topk']
  (workdir / 'config.json').write_text(json.dumps(saved))
  with pytest.raises(ValueError, match='not of this version'):
    finished.read(workdir)


def test_a_run_that_has_not_ended(config, tmp_path, interrupted):
  with pytest.raises(KeyboardInterrupt):
    experiment.run(config, tmp_path / 'run', interrupted(stop_at=3))
  with pytest.raises(ValueError, match='finish it'):
    finished.read(tmp_path / 'run')


def test_data_that_has_changed(workdir, monkeypatch):
  load = experiment.load

  def other(config):
    found = load(config)
    labels = found.train.labels.copy()
    labels[0] += 1
    return dataclasses.replace(found, train=found.train._replace(labels=labels))

  monkeypatch.setattr(experiment, 'load', other)
  with pytest.raises(ValueError, match='data'):
    finished.read(workdir)


def test_a_key_that_changes_no_outcome_may_be_missing(workdir):
  """As in a run, or a teacher from the cache, of before there was the key."""
  for path in (workdir / 'config.json', workdir / 'teacher' / 'config.json'):
    saved = json.loads(path.read_text())
    del saved['analysis']
    path.write_text(json.dumps(saved))
  assert len(finished.read(workdir).networks) == 3


def test_a_run_on_many_devices_is_read_on_these(workdir):
  path = workdir / 'config.json'
  saved = json.loads(path.read_text())
  path.write_text(json.dumps(saved | {'model_devices': 64}))
  assert finished.read(workdir).config.model_devices == 1


def test_as_many_streams_as_the_run_evaluated(workdir):
  """Of a text that decides what a network remembers."""
  path = workdir / 'config.json'
  saved = json.loads(path.read_text())
  assert saved['eval_batch_size'] != 7
  path.write_text(json.dumps(saved | {'eval_batch_size': 7}))
  assert finished.config_of(workdir).eval_batch_size == 7
