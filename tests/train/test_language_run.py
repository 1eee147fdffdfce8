"""Whole trainings of language models: resumed, and from a file to results."""

import json
import os
import random
import signal

import chex
import numpy as np
import pytest
import small_text

from kdjax import config as configuration
from kdjax.train import experiment, pace, progress
from kdjax.train.interrupts import Interrupted, Interrupts
from kdjax.train.loop import fit
from kdjax.train.writers import read_metrics


def _fit(config, dataset, directory, session):
  return fit(
    config,
    dataset,
    teacher=small_text.network(dataset),
    name='student',
    directory=directory,
    session=session,
  )


def _rows(directory):
  rows = read_metrics(directory / 'metrics.jsonl')
  for row in rows:
    row.pop('tokens_per_second', None)  # the only clock in it
  return rows


@pytest.mark.parametrize('stop_at', [1, 7, 12, 17])
def test_what_is_remembered_resumes_bit_for_bit(
  stop_at, tmp_path, session, silent, monkeypatch
):
  """Both networks', within an epoch and between two, with dropout."""
  config = small_text.declare('kd')
  config.student.dropout = 0.3
  config.teacher.precompute_megabytes = 0
  dataset = small_text.dataset()
  monkeypatch.setattr(pace, '_SECONDS_PER_DISPATCH', 0.0)
  whole = _fit(config, dataset, tmp_path / 'whole', session)

  def signalled(step, rate, note):
    if step == stop_at:
      os.kill(os.getpid(), signal.SIGTERM)

  with Interrupts() as interrupts, monkeypatch.context() as patch:
    patch.setattr(silent, 'update', signalled)
    asked = session._replace(interrupts=interrupts)
    with pytest.raises(Interrupted, match=f'at step {stop_at} of 24'):
      _fit(config, dataset, tmp_path / 'cut', asked)
  cut = _fit(config, dataset, tmp_path / 'cut', session)
  assert silent.phases[-1] == ('student', stop_at, 24)
  chex.assert_trees_all_equal(cut.last[1:], whole.last[1:])
  chex.assert_trees_all_equal(cut.best[1:], whole.best[1:])
  assert _rows(tmp_path / 'cut') == _rows(tmp_path / 'whole')


def test_the_best_has_the_lowest_perplexity(tmp_path, session):
  config = small_text.declare('ce', num_epochs=6, learning_rate=8.0)
  fitted = _fit(config, small_text.dataset(), tmp_path, session)
  rows = [row for row in _rows(tmp_path) if 'dev_perplexity' in row]
  scores = [row['dev_perplexity'] for row in rows]
  assert len(scores) == 6
  assert fitted.best_step == rows[int(np.argmin(scores))]['step']
  assert any(
    'tokens_per_second' in row
    for row in read_metrics(tmp_path / 'metrics.jsonl')
  )


@pytest.fixture
def book(tmp_path):
  """A text of a few words."""
  words = random.Random(0)
  lines = [
    ' '.join(words.choices('abcdefg', weights=range(1, 8), k=9))
    for _ in range(200)
  ]
  path = tmp_path / 'book.txt'
  path.write_text('\n'.join(lines) + '\n')
  return path


@pytest.mark.parametrize('batching', ['contiguous', 'packed'])
def test_a_file_to_results(batching, book, tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  config = small_text.declare('kd_topk', num_epochs=1, baseline=True)
  config.dataset.update({'name': 'text_file', 'data_dir': str(book)})
  config.dataset.text.update({'batching': batching, 'sequence_length': 12})
  config.teacher.update({'num_epochs': 1, 'batch_size': 4})
  results = experiment.run(config, tmp_path / 'run', progress.Reporter())
  assert results == json.loads((tmp_path / 'run/results.json').read_text())
  for name in ('teacher', 'baseline', 'student'):
    found = results[name]
    assert 1 < found['test_perplexity'] < 20
    assert 1 < found['dev_perplexity'] < 20
    assert 0 < found['test_bits_per_character'] < 5
    assert not any('accuracy' in key for key in found)
  assert set(results['student']['best']) >= {
    'step',
    'dev_perplexity',
    'test_perplexity',
  }
  assert (tmp_path / 'run/curves.png').stat().st_size


def test_shards_of_a_batch_carry_their_own_state(tmp_path, session):
  """Two devices end where one does."""
  config = small_text.declare('kd', num_epochs=1)
  config.teacher.precompute_megabytes = 0
  dataset = small_text.dataset()
  found = []
  for size in (1, 2):
    on = session._replace(mesh=small_text.mesh(size))
    fitted = _fit(config, dataset, tmp_path / str(size), on)
    found.append(fitted.last.params)
  chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-6)


def test_the_defaults_of_a_text_are_those_of_data():
  from kdjax.data import language

  given = configuration.default().dataset.text.to_dict()
  assert language.settings(given) == language.Settings()
