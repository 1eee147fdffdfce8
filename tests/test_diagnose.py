"""The command: from a run or from files to a report, and every mistake."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import small_text

from kdjax import cli, diagnose, report
from kdjax import config as configuration
from kdjax.report import cases
from kdjax.train import experiment, progress


def call(monkeypatch, *arguments):
  monkeypatch.setattr(sys, 'argv', ['diagnose', *map(str, arguments)])
  cli.run(diagnose.main)


@pytest.fixture
def mistake(monkeypatch, capsys):
  """Runs a command that has to fail and returns its last line."""

  def run(*arguments):
    with pytest.raises(SystemExit) as end:
      call(monkeypatch, *arguments)
    stderr = capsys.readouterr().err
    assert end.value.code == 2
    assert 'Traceback' not in stderr
    return stderr.splitlines()[-1]

  return run


@pytest.fixture
def files(tmp_path):
  rng = np.random.default_rng(0)
  labels = np.arange(400) % 4
  logits = 2 * rng.normal(size=(4, 4))[labels] + rng.normal(size=(400, 4))
  logits += 5 * np.eye(4)[labels]
  for name, array in {
    'teacher': logits,
    'student': logits + rng.normal(size=logits.shape),
    'labels': labels,
  }.items():
    np.save(tmp_path / f'{name}.npy', array)
  return [
    f'--teacher_logits={tmp_path / "teacher.npy"}',
    f'--labels={tmp_path / "labels.npy"}',
    f'--student_logits={tmp_path / "student.npy"}',
  ]


def report_of(folder):
  return json.loads((folder / 'report.json').read_text())


def test_files(files, tmp_path, monkeypatch, capsys):
  out = tmp_path / 'out'
  call(monkeypatch, *files, f'--out={out}', '--temperature=30')
  found = report_of(out)
  assert [f['code'] for f in found['findings']] == ['temperature_too_high']
  assert found['metrics']['student_accuracy'] > 0.9
  said = capsys.readouterr().out
  assert 'temperature_too_high: At T = 30' in said
  assert said.splitlines()[-1].startswith(f'in {out}')
  for name in ('report.md', 'report.html', 'figures/reliability.png'):
    assert (out / name).stat().st_size > 0


def test_names_and_weights_of_classes(files, tmp_path, monkeypatch):
  np.save(tmp_path / 'w.npy', np.random.default_rng(1).normal(size=(4, 8)))
  call(
    monkeypatch,
    *files,
    f'--out={tmp_path}',
    f'--class_weights={tmp_path / "w.npy"}',
    '--class_names=ant,bee,cat,<dog>',
  )
  metrics = report_of(tmp_path)['metrics']
  assert metrics['weight_similarity_spread'] > 0.1
  assert '<dog>' not in (tmp_path / 'report.html').read_text()


def test_a_run(tmp_path, monkeypatch):
  config = configuration.default()
  config.dataset.name, config.dataset.augment = 'digits', 'none'
  config.student.name = config.teacher.name = 'mlp'
  config.student.widths, config.teacher.widths = (8,), (32,)
  config.num_epochs = config.teacher.num_epochs = 2
  config.method, config.temperature = 'kd_pt', 0.2
  workdir, other = tmp_path / 'run', tmp_path / 'brother'
  quiet = progress.Reporter(quiet=True)
  experiment.run(config, workdir, quiet)
  config.method = 'ce'
  experiment.run(config, other, quiet)
  call(monkeypatch, f'--workdir={workdir}', f'--compare={other}')
  found = report_of(workdir / 'diagnosis')
  assert found['source']['how good it is'].startswith('130 held-out')
  assert 'what kd would do' in found['source']['gradient']
  assert 'temperature_too_low' in [f['code'] for f in found['findings']]
  assert found['settings']['temperature'] == 0.2
  assert found['source']['set beside'] == str(other)
  weights = report.of_run(workdir, compare=[other]).class_weights
  assert weights['brother'].shape == (10, 8)
  assert not np.allclose(weights['brother'], weights['student'])


def test_the_settings_and_the_examples_of_a_run(tmp_path, monkeypatch):
  config = configuration.default()
  config.dataset.name, config.dataset.augment = 'digits', 'none'
  config.student.name = config.teacher.name = 'mlp'
  config.student.widths, config.teacher.widths = (8,), (32,)
  config.dataset.num_labels, config.batch_size = 50, 10
  config.num_epochs = config.teacher.num_epochs = 2
  config.temperature_power, config.weight = 0, 0.7
  workdir = tmp_path / 'run'
  quiet = progress.Reporter(quiet=True)
  results = experiment.run(config, workdir, quiet)
  case = report.of_run(workdir)
  assert case.settings == {
    'weight': 0.7,
    'temperature': 4.0,
    'temperature_power': 0,
    'method': 'kd',
  }
  assert len(case.taught.labels) == 50
  right = case.held_out.student_logits.argmax(-1) == case.held_out.labels
  assert np.mean(right) == pytest.approx(results['student']['dev_accuracy'])
  for folder, text in (
    (tmp_path / 'teacher', "there is a 'teacher' already"),
    (tmp_path / 'other', 'trained on synthetic_classes, not on digits'),
  ):
    folder.mkdir()
    config.dataset.name = 'synthetic_classes'
    (folder / 'config.json').write_text(config.to_json())
    with pytest.raises(ValueError, match=text):
      report.of_run(workdir, compare=[folder])


def test_a_run_on_a_text(tmp_path, monkeypatch):
  """Read in its order, with as many streams as in the run."""
  dataset = dataclasses.replace(
    small_text.dataset(), class_names=('\n', ' ', *'abcdefghij')
  )
  monkeypatch.setattr(experiment, 'load', lambda config: dataset)
  config = small_text.declare('kd', baseline=True)
  config.dataset.name = 'python_docs'
  config.teacher.update({'batch_size': 4, 'num_epochs': 1})
  workdir = tmp_path / 'run'
  results = experiment.run(config, workdir, progress.Reporter(quiet=True))
  call(monkeypatch, f'--workdir={workdir}')
  found = report_of(workdir / 'diagnosis')
  for name in ('teacher', 'student', 'baseline'):
    for score in ('perplexity', 'bits_per_character'):
      assert found['metrics'][f'{name}_{score}'] == pytest.approx(
        results[name][f'dev_{score}'], rel=1e-4
      )
  assert found['source']['how good it is'] == (
    '240 held-out tokens, read in their order'
  )
  assert 'rescaling_frequency_5' in found['metrics']
  assert (workdir / 'diagnosis' / 'figures' / 'token_frequency.png').exists()
  monkeypatch.setattr(cases, '_MOST_LOGITS', 20 * small_text.K + 1)
  few = report.of_run(workdir)
  assert few.class_names[:3] == [r"'\n'", "' '", 'a']
  assert few.taught.teacher_logits.shape == (20, small_text.K)
  assert few.source['what is taught'].endswith('evenly out of 240')
  for answers in (few.taught, few.held_out):
    assert {len(x) for x in answers} == {20}


def test_files_of_a_text(tmp_path, monkeypatch, mistake):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 20, 6, 5)).astype(np.float32)
  labels = rng.integers(5, size=(20, 6))
  labels[-1, 2:] = -1
  for name, array in zip('tsy', (*logits, labels), strict=True):
    np.save(tmp_path / f'{name}.npy', array)
  files = [
    f'--teacher_logits={tmp_path / "t.npy"}',
    f'--student_logits={tmp_path / "s.npy"}',
    f'--labels={tmp_path / "y.npy"}',
    f'--out={tmp_path / "out"}',
  ]
  call(monkeypatch, *files)
  metrics = report_of(tmp_path / 'out')['metrics']
  assert metrics['teacher_perplexity'] > 1
  case = report.of_files(
    {'teacher_logits': tmp_path / 't.npy', 'labels': tmp_path / 'y.npy'},
    settings={'weight': 0.9, 'temperature': 4.0, 'temperature_power': 2.0},
  )
  real = labels >= 0
  np.testing.assert_array_equal(case.taught.teacher_logits, logits[0][real])
  np.testing.assert_array_equal(case.token_counts, np.bincount(labels[real]))
  labels[3, 1] = 5
  np.save(tmp_path / 'y.npy', labels)
  assert 'y.npy, row 3, token 1: 5 is no class' in mistake(*files)
  np.save(tmp_path / 'y.npy', labels[real])
  assert 'or labels [N, T] with logits [N, T, K] of a text' in mistake(*files)


def test_flags_that_do_not_go_together(files, tmp_path, mistake):
  assert 'give --workdir=RUN, or --teacher_logits' in mistake()
  assert 'give --labels=FILE.npy, too' in mistake(files[0], '--out=x')
  assert 'give --out=DIR' in mistake(*files)
  last = mistake(*files, '--out=x', f'--workdir={tmp_path}')
  assert '--teacher_logits goes with files, --workdir with a run' in last
  assert '--temperature goes with files' in mistake(
    f'--workdir={tmp_path}', '--temperature=2'
  )
  assert 'has no config.json' in mistake(f'--workdir={tmp_path}')
  assert '--out=x' not in mistake(*files, '--out=x', '--temprature=3')
  assert 'temperature=-1.0' in mistake(*files, '--out=x', '--temperature=-1')
  last = mistake(*files, '--out=x', '--class_names=a,b')
  assert 'has 2 names for 4 classes' in last
  assert 'has 1 names' in mistake(*files, '--out=x', '--class_names=')
  (tmp_path / 'file').touch()
  assert 'file' in mistake(*files, f'--out={tmp_path / "file"}')


def test_broken_files_are_named_in_the_last_line(files, tmp_path, mistake):
  out = f'--out={tmp_path / "out"}'
  path = tmp_path / 'labels.npy'
  np.save(path, np.arange(400) % 5)
  assert f'{path}, row 4: 4 is no class' in mistake(*files, out)
  path.write_bytes(b'')
  assert f'{path} is empty' in mistake(*files, out)
  assert 'nowhere.npy' in mistake(
    '--teacher_logits=nowhere.npy', *files[1:], out
  )
  assert not (tmp_path / 'out').exists()


def test_it_runs_as_a_module(files, tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'kdjax.diagnose', *files, f'--out={tmp_path / "o"}'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('healthy: ')
