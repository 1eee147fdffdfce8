"""A whole small study: its protocol, its files, and how it goes on."""

import collections
import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_study

from kdjax import cli, main
from kdjax.study import run
from kdjax.study.population import Trainer
from kdjax.train import experiment, progress, workdirs

CORRELATION = 'dataset.options.correlation'
# The two share their programs.
SCENARIOS = f"""config.study.scenarios = (
    (('{CORRELATION}', 0.0), ('student.widths', (5,))),
    (('{CORRELATION}', 0.9), ('student.widths', (5,))),
  )"""
NUM_TRIALS, NUM_SEARCH_SEEDS, NUM_SEEDS = 2, 2, 2
ARMS = ('ce', 'kd_topk topk=3')
KEYS = {
  'phase': str,
  'scenario': dict,
  'arm': str,
  'method': str,
  'fixed': dict,
  'trial': int,
  'seed': int,
  'settings': dict,
  'config': dict,
  'data': str,
  'teacher': dict,
  'num_params': int,
  'metrics': dict,
  'diverged_at': type(None),
  'wall_seconds': float,
}


def config_of(folder, line=''):
  return cli.load_config(small_study.write(folder / 'small.py', line))


def carry_out(config, workdir):
  return run.run(config, workdir, progress.Reporter(quiet=True))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """The folder of a study that nothing disturbed, and its rows."""
  folder = tmp_path_factory.mktemp('study')
  with pytest.MonkeyPatch.context() as patch:
    base = tmp_path_factory.getbasetemp()
    patch.setenv('XDG_CACHE_HOME', str(base / 'cache'))
    patch.setenv('TFDS_DATA_DIR', str(base / 'tfds'))
    rows = carry_out(config_of(folder, SCENARIOS), folder / 'run')
  return folder / 'run', rows


@pytest.fixture(scope='module')
def workdir(finished):
  return finished[0]


@pytest.fixture
def config(tmp_path):
  """Of the finished study."""
  return config_of(tmp_path, SCENARIOS)


@pytest.fixture
def partial(workdir, tmp_path):
  """Returns the folder of a study that was stopped after so many lines."""

  def make(count):
    folder = tmp_path / 'partial'
    shutil.copytree(workdir, folder)
    kept = small_study.lines(workdir)[:count]
    (folder / 'runs.jsonl').write_text(''.join(f'{x}\n' for x in kept))
    return folder

  return make


def of(rows, phase):
  return [row for row in rows if row['phase'] == phase]


def grouped(rows, *keys):
  groups = collections.defaultdict(list)
  for row in rows:
    groups[tuple(json.dumps(row[key]) for key in keys)].append(row)
  return dict(groups)


def same_students(folder, other):
  """Whether all is equal, numbers but for their last bits, but for the time."""
  found, expected = (
    sorted(small_study.read(x), key=json.dumps) for x in (folder, other)
  )
  for row in found + expected:
    del row['wall_seconds'], row['config']['teacher.checkpoint']
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    is_real = isinstance(y, float)
    assert x == (pytest.approx(y, rel=1e-3, abs=1e-3) if is_real else y)


def test_the_files_are_there(workdir):
  names = {path.name for path in workdir.iterdir()}
  assert names == {
    '.lock',
    'config.json',
    'runs.jsonl',
    'table.md',
    'table.csv',
    'figures',
    'teachers',
  }
  for path in ('table.md', 'table.csv', 'runs.jsonl'):
    assert (workdir / path).stat().st_size
  figures = list((workdir / 'figures').iterdir())
  assert len(figures) >= 3
  for path in figures:
    assert path.read_bytes().startswith(b'\x89PNG')


def test_there_is_a_line_for_every_student(workdir):
  rows = small_study.read(workdir)
  per_arm = NUM_TRIALS * NUM_SEARCH_SEEDS + NUM_SEEDS
  assert len(rows) == 2 * len(ARMS) * per_arm
  names = ('phase', 'scenario', 'arm', 'trial', 'seed')
  assert len(grouped(rows, *names)) == len(rows)
  places = [{CORRELATION: 0.0}, {CORRELATION: 0.9}]
  found = {
    (json.dumps(row['scenario']), row['arm']) for row in of(rows, 'final')
  }
  assert found == {(json.dumps(p), arm) for p in places for arm in ARMS}


def test_the_lines_are_as_documented(workdir):
  for row in small_study.read(workdir):
    assert {key: type(value) for key, value in row.items()} == KEYS
    folder = Path(row['config'].pop('teacher.checkpoint'))
    assert folder.parents[1] == workdir / 'teachers'
    assert row['config'] == {
      **row['scenario'],
      'student.widths': [5],
      'method': row['method'],
      **row['fixed'],
      **row['settings'],
      'seed': row['seed'],
    }
    assert set(row['teacher']) == {
      'dev_accuracy',
      'test_accuracy',
      'num_params',
    }
    own = {'weight', 'temperature'} if row['method'] == 'kd_topk' else set()
    assert set(row['settings']) == own | {
      'learning_rate',
      'optimizer.weight_decay',
    }
    assert row['num_params'] == 12 * 5 + 5 + 5 * 6 + 6


def test_the_metrics_are_as_documented(workdir):
  on_dev = {'dev_accuracy', 'dev_cross_entropy'}
  for row in small_study.read(workdir):
    metrics = row['metrics']
    if row['phase'] == 'search':
      assert set(metrics) == on_dev
      continue
    assert set(metrics) == on_dev | {
      'test_accuracy',
      'test_cross_entropy',
      'best',
      'curve',
      'rescaling_factor',
    }
    curve, best = metrics['curve'], metrics['best']
    assert curve['step'] == [6, 12, 18]
    assert curve['dev_accuracy'][-1] == metrics['dev_accuracy']
    assert set(best) == {'step', 'dev_accuracy', 'test_accuracy'}
    assert best['dev_accuracy'] == max(curve['dev_accuracy'])
    assert (
      curve['dev_accuracy'][curve['step'].index(best['step'])]
      == (best['dev_accuracy'])
    )
    factors = metrics['rescaling_factor']
    assert list(factors) == ['5', '25', '50', '75', '95']
    assert list(factors.values()) == sorted(factors.values())
    if row['method'] == 'ce':
      assert all(x == pytest.approx(1, abs=1e-4) for x in factors.values())


def test_every_arm_tries_equally_often_and_with_the_same_seeds(workdir):
  searched = of(small_study.read(workdir), 'search')
  groups = grouped(searched, 'scenario', 'arm')
  assert len(groups) == 4
  for rows in groups.values():
    assert {(row['trial'], row['seed']) for row in rows} == {
      (trial, seed)
      for trial in range(NUM_TRIALS)
      for seed in range(NUM_SEARCH_SEEDS)
    }
    assert len(grouped(rows, 'trial', 'settings')) == NUM_TRIALS


def test_the_setting_that_is_best_on_dev_is_trained_again(workdir):
  rows = small_study.read(workdir)
  searched = grouped(of(rows, 'search'), 'scenario', 'arm')
  final = grouped(of(rows, 'final'), 'scenario', 'arm')
  assert searched.keys() == final.keys()
  for key, tried in searched.items():
    means = [
      np.mean([r['metrics']['dev_accuracy'] for r in tried if r['trial'] == t])
      for t in range(NUM_TRIALS)
    ]
    best = int(np.argmax(means))
    settings = next(r['settings'] for r in tried if r['trial'] == best)
    for row in final[key]:
      assert (row['trial'], row['settings']) == (best, settings)


def test_the_choice_is_not_always_the_first(workdir):
  """Else the test above could not fail."""
  final = of(small_study.read(workdir), 'final')
  assert {row['trial'] for row in final} == {0, 1}


def test_the_last_seeds_are_fresh_and_pair_the_arms(workdir):
  rows = small_study.read(workdir)
  for final in grouped(of(rows, 'final'), 'scenario', 'arm').values():
    assert [row['seed'] for row in final] == [2, 3]
  assert {row['seed'] for row in of(rows, 'search')} == {0, 1}


def test_the_csv_agrees_with_the_lines(finished):
  workdir, rows = finished
  table = list(csv.DictReader((workdir / 'table.csv').read_text().splitlines()))
  final = grouped(of(small_study.read(workdir), 'final'), 'scenario', 'arm')
  assert len(table) == len(rows) == 4
  for line, row in zip(table, rows, strict=True):
    place = {CORRELATION: float(line[CORRELATION])}
    students = final[json.dumps(place), json.dumps(line['arm'])]
    tests = [student['metrics']['test_accuracy'] for student in students]
    best = [student['metrics']['best']['test_accuracy'] for student in students]
    assert float(line['test.mean']) == pytest.approx(np.mean(tests))
    assert float(line['test.std']) == pytest.approx(np.std(tests, ddof=1))
    assert float(line['best.mean']) == pytest.approx(np.mean(best))
    assert int(line['seeds']) == NUM_SEEDS
    assert int(line['trial']) == students[0]['trial']
    assert (row.arm, row.test.mean) == (line['arm'], float(line['test.mean']))
    plain = final[json.dumps(place), json.dumps('ce')]
    gains = [
      student['metrics']['test_accuracy'] - ce['metrics']['test_accuracy']
      for student, ce in zip(students, plain, strict=True)
    ]
    if line['arm'] != 'ce':
      assert float(line['gain_over_ce.mean']) == pytest.approx(np.mean(gains))


def test_nothing_of_test_decides_what_is_selected(
  workdir, config, tmp_path, monkeypatch
):
  load = experiment.load

  def shuffled(config):
    found = load(config)
    labels = (found.test.labels + 1) % found.num_classes
    return dataclasses.replace(found, test=found.test._replace(labels=labels))

  monkeypatch.setattr(experiment, 'load', shuffled)
  carry_out(config, tmp_path / 'run')
  expected, found = (small_study.read(x) for x in (workdir, tmp_path / 'run'))
  for key in ('trial', 'settings', 'seed'):
    assert [row[key] for row in found] == [row[key] for row in expected]
  assert [row['metrics'] for row in of(found, 'search')] == [
    row['metrics'] for row in of(expected, 'search')
  ]
  assert [row['metrics']['test_accuracy'] for row in of(found, 'final')] != [
    row['metrics']['test_accuracy'] for row in of(expected, 'final')
  ]


def alone(row, folder, line, monkeypatch):
  """Trains the student of a record by the other command; its results."""
  path = small_study.write(folder / 'small.py', line)
  flags = [f'--config.{key}={value}' for key, value in row['config'].items()]
  argv = ['main', f'--config={path}', f'--workdir={folder / "alone"}', *flags]
  monkeypatch.setattr(sys, 'argv', argv)
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)
  main.main()
  return json.loads((folder / 'alone/results.json').read_text())


@pytest.mark.parametrize('arm', ARMS)
def test_the_config_of_a_line_trains_the_same_student(
  arm, workdir, tmp_path, monkeypatch
):
  final = of(small_study.read(workdir), 'final')
  row = [row for row in final if row['arm'] == arm][-1]
  results = alone(row, tmp_path, SCENARIOS, monkeypatch)
  metrics, student = row['metrics'], results['student']
  for key in ('dev_accuracy', 'test_accuracy'):
    assert student[key] == metrics[key]
  assert student['best']['step'] == metrics['best']['step']
  assert student['best']['test_accuracy'] == metrics['best']['test_accuracy']
  assert student['num_params'] == row['num_params']
  if arm != 'ce':
    assert results['teacher'] == row['teacher']


def test_a_finished_study_trains_nothing(
  finished, config, monkeypatch, tmp_path
):
  workdir, rows = finished
  copy = tmp_path / workdir.name
  shutil.copytree(workdir, copy)

  def train(*args, **options):
    raise AssertionError('trained again')

  monkeypatch.setattr(Trainer, 'train', train)
  monkeypatch.setattr(run.teacher, 'obtain', train)
  again = carry_out(config, copy)
  assert repr(again) == repr(rows)
  for name in ('runs.jsonl', 'table.md', 'table.csv'):
    assert (copy / name).read_text() == (workdir / name).read_text()


@pytest.mark.parametrize('count', [3, 17])
def test_what_is_missing_is_trained_and_nothing_else(
  count, workdir, config, partial
):
  folder = partial(count)
  carry_out(config, folder)
  found, expected = small_study.lines(folder), small_study.lines(workdir)
  assert found[:count] == expected[:count]
  same_students(folder, workdir)
  assert (folder / 'table.csv').read_text() == (
    workdir / 'table.csv'
  ).read_text()


def test_other_means_go_on_with_a_study(workdir, config, partial):
  folder = partial(14)
  config.study.max_settings = 2
  config.study.memory_fraction = 0.5
  config.study.over_members = 'vmap'
  carry_out(config, folder)
  assert small_study.lines(folder)[:14] == small_study.lines(workdir)[:14]
  same_students(folder, workdir)


@pytest.mark.parametrize('place', [1, -1])
def test_a_line_that_is_deleted_is_trained_again_alone(
  place, workdir, config, partial
):
  lines = small_study.lines(workdir)
  folder = partial(None)
  del lines[place]
  (folder / 'runs.jsonl').write_text('\n'.join(lines))
  carry_out(config, folder)
  assert small_study.lines(folder)[:-1] == lines
  same_students(folder, workdir)


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('study.num_trials', 3),
    ('study.num_seeds', 3),
    ('study.search.weight', (0.2, 0.9)),
    ('batch_size', 20),
    ('seed', 1),
    ('quick', True),
  ],
)
def test_another_study_is_refused(key, value, workdir, config):
  other = run.configuration.override(config, {key: value})
  with pytest.raises(ValueError, match='another config') as error:
    carry_out(other, workdir)
  assert key in str(error.value).split('different are ')[1].split(', ')


def own_data(folder, seed):
  """Made-up data in the user's own files."""
  rng = np.random.default_rng(seed)
  folder.mkdir(exist_ok=True)
  for name, size in {'train': 60, 'dev': 30, 'test': 30}.items():
    np.savez(
      folder / f'{name}.npz',
      inputs=rng.normal(size=(size, 12)).astype(np.float32),
      labels=np.arange(size) % 6,
    )


def test_other_data_of_the_same_name_are_refused(tmp_path):
  """And a study without methods that need a teacher trains none."""
  line = "config.study.arms, config.dataset.name = ('ce', 'ls'), 'npz'"
  config = config_of(tmp_path, line)
  config.dataset.data_dir = str(tmp_path / 'data')
  config.teacher.name = 'resnet56'  # which these data do not fit
  own_data(tmp_path / 'data', seed=0)
  carry_out(config, tmp_path / 'run')
  before = small_study.lines(tmp_path / 'run')
  assert not (tmp_path / 'run/teachers').exists()
  assert {json.loads(line)['teacher'] for line in before} == {None}
  own_data(tmp_path / 'data', seed=1)
  with pytest.raises(ValueError, match="content of 'npz' has changed"):
    carry_out(config, tmp_path / 'run')
  assert small_study.lines(tmp_path / 'run') == before


def test_a_teacher_that_is_given_is_taken(workdir, tmp_path):
  row = small_study.read(workdir)[0]
  config = config_of(tmp_path)
  config.dataset.options.correlation = 0.0
  config.teacher.checkpoint = row['config']['teacher.checkpoint']
  carry_out(config, tmp_path / 'run')
  found = small_study.read(tmp_path / 'run')
  assert not (tmp_path / 'run/teachers').exists()
  for other in found:
    assert other['teacher'] == row['teacher']
    assert other['config']['teacher.checkpoint'] == config.teacher.checkpoint


def test_scenarios_with_the_same_teacher_share_it(tmp_path):
  line = "config.study.scenarios = ((), (('dataset.num_labels', 60),))"
  carry_out(config_of(tmp_path, line), tmp_path / 'run')
  assert len(list((tmp_path / 'run/teachers').iterdir())) == 1


def test_two_at_once_are_refused(workdir, config):
  before = small_study.lines(workdir)
  with (
    workdirs.claimed(workdir, config),
    pytest.raises(BlockingIOError, match='is in use by process'),
  ):
    carry_out(config, workdir)
  assert small_study.lines(workdir) == before


def test_a_study_whose_students_all_diverge_ends(tmp_path):
  line = 'config.study.search.learning_rate = (1e8, 1e9)'
  rows = carry_out(config_of(tmp_path, line), tmp_path / 'run')
  found = small_study.read(tmp_path / 'run')
  assert all(row['diverged_at'] is not None for row in found)
  assert {r['metrics']['dev_cross_entropy'] for r in found} == {None}
  assert [row.diverged for row in rows] == [NUM_SEEDS] * 2
  assert '† Diverged' in (tmp_path / 'run/table.md').read_text()


def test_quick_is_another_study(config, tmp_path, monkeypatch):
  config.quick = True
  rows = carry_out(config, tmp_path / 'run')
  assert [row.arm for row in rows] == list(ARMS)
  saved = json.loads((tmp_path / 'run/config.json').read_text())
  assert (saved['quick'], saved['eval_every_epochs']) == (True, 3)
  assert saved['study']['scenarios'] == [[]]
  config.quick = False
  with pytest.raises(ValueError, match='another config') as error:
    carry_out(config, tmp_path / 'run')
  assert 'eval_every_epochs, quick, study.scenarios' in str(error.value)
  last = small_study.read(tmp_path / 'run')[-1]
  student = alone(last, tmp_path, SCENARIOS, monkeypatch)['student']
  assert student['dev_accuracy'] == last['metrics']['dev_accuracy']
  metrics = (tmp_path / 'alone/metrics.jsonl').read_text()
  assert metrics.count('dev_accuracy') == 1  # as quick evaluates
