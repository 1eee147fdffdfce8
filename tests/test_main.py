"""The command: what it writes, and how it answers every mistake."""

import contextlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kdjax import cli, main
from kdjax import config as configuration
from kdjax.train import workdirs

EXPERIMENTS = Path(__file__).parents[1] / 'experiments'
DIGITS = f'--config={EXPERIMENTS / "digits_kd.py"}'
# Of a real run, a few seconds.
SMALL = (
  '--config.num_epochs=2',
  '--config.eval_every_epochs=1',
  '--config.batch_size=50',
  '--config.baseline=false',
  '--config.teacher.num_epochs=1',
  '--config.teacher.widths=(16,)',
)


def call(monkeypatch, *arguments):
  """Runs the command in this process."""
  monkeypatch.setattr(sys, 'argv', ['main', *map(str, arguments)])
  # What an experiment file defines stays in this module of ml_collections.
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)
  cli.run(main.main)


@pytest.fixture
def mistake(monkeypatch, capsys):
  """Runs a command that has to fail and returns what it says."""

  def run(*arguments):
    with pytest.raises(SystemExit) as end:
      call(monkeypatch, *arguments)
    return answer(end.value.code, capsys.readouterr().err)

  return run


def answer(status, stderr):
  """The message: the last line of stderr, and the only one that is an error."""
  assert status == 2
  assert 'Traceback' not in stderr
  *others, last = stderr.splitlines()
  assert last.startswith('error: ')
  assert not any(line.startswith('error: ') for line in others)
  return last.removeprefix('error: ')


def process(*arguments, cwd):
  return subprocess.run(
    [sys.executable, '-m', 'kdjax.main', *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
    cwd=cwd,
  )


def written(path, line):
  path.write_text(
    'from kdjax.config import default\n\n\n'
    f'def get_config():\n  config = default()\n  {line}\n  return config\n'
  )
  return path


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A finished run of teacher and student on digits, and what it printed."""
  folder = tmp_path_factory.mktemp('run') / 'digits'
  printed = io.StringIO()
  with pytest.MonkeyPatch.context() as patch:
    base = tmp_path_factory.getbasetemp()
    patch.setenv('XDG_CACHE_HOME', str(base / 'cache'))
    patch.setenv('TFDS_DATA_DIR', str(base / 'tfds'))
    with contextlib.redirect_stdout(printed):
      call(patch, DIGITS, f'--workdir={folder}', *SMALL)
  return folder, printed.getvalue()


def test_every_file_is_written(workdir):
  folder, _ = workdir
  names = {path.name for path in folder.iterdir()}
  assert names >= {
    'config.json',
    'metrics.jsonl',
    'checkpoints',
    'curves.png',
    'results.json',
  }
  assert any((folder / 'checkpoints').iterdir())
  assert list(folder.glob('events.out.tfevents.*'))
  assert (folder / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_config_json_holds_every_key(workdir):
  folder, _ = workdir
  saved = json.loads((folder / 'config.json').read_text())
  assert sorted(saved) == sorted(configuration.default())
  assert saved['num_epochs'] == 2
  assert saved['teacher']['widths'] == [16]


@pytest.mark.parametrize('part', ['.', 'teacher'])
def test_every_line_of_the_metrics_has_its_step(part, workdir):
  folder, _ = workdir
  lines = (folder / part / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  steps = [row['step'] for row in rows]
  assert steps == sorted(steps)
  assert all(isinstance(step, int) and step > 0 for step in steps)
  assert {key for row in rows for key in row} >= {
    'train_loss',
    'dev_accuracy',
    'dev_cross_entropy',
    'learning_rate',
  }
  assert all(math.isfinite(value) for row in rows for value in row.values())


def test_the_results_have_the_fixed_keys(workdir):
  folder, _ = workdir
  results = json.loads((folder / 'results.json').read_text())
  teacher, student = results['teacher'], results['student']
  assert teacher.keys() >= {'test_accuracy', 'num_params'}
  assert student.keys() >= {'test_accuracy', 'num_params', 'best'}
  best = student['best']
  assert best.keys() >= {'step', 'dev_accuracy', 'test_accuracy'}
  assert teacher['num_params'] == 64 * 16 + 16 + 16 * 10 + 10
  for found in (teacher, student, best):
    assert 0 < found['test_accuracy'] <= 1
  assert results['wall_seconds'] > 0
  rows = (folder / 'metrics.jsonl').read_text().splitlines()
  on_dev = {
    row['step']: row['dev_accuracy']
    for row in map(json.loads, rows)
    if 'dev_accuracy' in row
  }
  assert len(on_dev) == 2
  assert best['dev_accuracy'] == max(on_dev.values())
  assert on_dev[best['step']] == best['dev_accuracy']


def test_it_names_the_phases_and_ends_with_a_table(workdir):
  folder, printed = workdir
  lines = printed.splitlines()
  assert any(line.startswith('teacher') for line in lines)
  assert any(line.startswith('student') for line in lines)
  assert 'test accuracy' in printed
  assert '\x1b' not in printed  # not a terminal: no colours, no bar
  assert len(lines) < 30
  assert str(folder) in lines[-1]


def test_the_same_command_does_not_train_again(workdir, monkeypatch, capsys):
  folder, _ = workdir
  before = {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}
  call(monkeypatch, DIGITS, f'--workdir={folder}', *SMALL)
  after = {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}
  assert after == before
  assert 'is finished already' in capsys.readouterr().out


@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help(flag, monkeypatch, capsys):
  with pytest.raises(SystemExit) as end:
    call(monkeypatch, flag)
  assert end.value.code == 0
  assert '--config=experiments/NAME.py' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('argument', 'named'),
  [
    ('method=kdd', ['method', "'kdd'", "'kd'"]),
    ('method=', ['method', "''", 'kd_topk']),
    ('dataset.name=digit', ['data set', "'digit'", "'digits'"]),
    ('student.name=mpl', ['model', "'mpl'", "'mlp'"]),
    ('teacher.name=resnet65', ['model', "'resnet65'", "'resnet"]),
    ('temperature=0', ['config.temperature=0.0', 'above 0']),
    ('temperature=-4', ['config.temperature=-4.0', 'above 0']),
    ('weight=1.5', ['config.weight=1.5', '[0, 1]']),
    ('weight=-0.1', ['config.weight=-0.1', '[0, 1]']),
    ('weight=nan', ['config.weight=nan', '[0, 1]']),
    ('topk=0', ['config.topk=0']),
    ('topk=11', ['config.topk=11', '1..10']),
    ('batch_size=0', ['config.batch_size=0']),
    ('teacher.batch_size=0', ['config.teacher.batch_size=0']),
    ('temprature=2', ["'config.temprature'", "'config.temperature'"]),
    ('num_epochs=ten', ['config.num_epochs=ten', 'int']),
    ('seed=-1', ['config.seed=-1']),
    ('seed=99999999999999999999', ['config.seed=99999999999999999999']),
    ('schedule.name=linear', ["'linear'", "'cosine'"]),
    ('dataset.exclude_classes=(10,)', ['exclude_classes=10', '0..9']),
    ('model_devices=3', ['config.model_devices=3', '2 devices']),
    ('student.widths=(0,)', ['widths=(0,)']),
  ],
)
def test_a_value_that_is_not_allowed(argument, named, mistake, tmp_path):
  workdir = tmp_path / 'run'
  message = mistake(DIGITS, f'--workdir={workdir}', f'--config.{argument}')
  for text in named:
    assert text in message
  assert not workdir.exists()


@pytest.mark.parametrize(
  ('arguments', 'named'),
  [
    ((), ['--config=experiments/NAME.py']),
    (('--config',), ['--config=experiments/NAME.py']),
    (
      (f'--config={EXPERIMENTS / "digit_kd.py"}',),
      ['no experiment file', 'digit_kd.py', 'digits_kd.py'],
    ),
    ((f'--config={EXPERIMENTS}',), ['no experiment file']),
    ((DIGITS, 'stray'), ['unexpected arguments', 'stray']),
    ((DIGITS, '--wrkdir=x'), ['wrkdir', 'workdir']),
  ],
)
def test_a_command_line_that_is_not_understood(arguments, named, mistake):
  message = mistake(*arguments)
  for text in named:
    assert text in message


@pytest.mark.parametrize(
  ('line', 'named'),
  [
    ('config.temprature = 2.0', ['temprature', 'mean "temperature"']),
    ('config.dataset.nmae = "digits"', ['nmae', 'mean "name"']),
    ('config.batch_size = "many"', ['batch_size', 'many', 'int']),
    ('config.temperature = -1.0', ['config.temperature=-1.0', 'above 0']),
  ],
)
def test_a_mistake_in_the_experiment_file(line, named, mistake, tmp_path):
  message = mistake(f'--config={written(tmp_path / "mine.py", line)}')
  for text in named:
    assert text in message


def test_the_config_may_be_a_word_of_its_own(mistake):
  path = DIGITS.removeprefix('--config=')
  message = mistake('--config', path, '--config.temperature=0')
  assert 'config.temperature=0.0' in message


@pytest.mark.parametrize('name', ['fashion_mnist', 'cifar100'])
def test_data_that_are_not_prepared(name, mistake, tmp_path):
  message = mistake(
    DIGITS, f'--workdir={tmp_path / "run"}', f'--config.dataset.name={name}'
  )
  assert 'is not prepared' in message
  assert f'python -m kdjax.prepare --dataset={name}' in message
  assert not (tmp_path / 'run').exists()


# Found only when the data are there; none of it trains a teacher first.
AGAINST_THE_DATA = {
  'a_batch_larger_than_the_data': (
    ('batch_size=5000', 'method=ce', 'dataset.num_labels=0'),
    ['config.batch_size=5000', 'training examples'],
  ),
  'a_batch_larger_than_what_is_left': (
    ('batch_size=200', 'method=ce', 'dataset.num_labels=100'),
    ['config.batch_size=200', '100 training examples'],
  ),
  'a_batch_of_the_teacher': (
    ('teacher.batch_size=5000',),
    ['batch_size=5000', 'training examples'],
  ),
  'a_batch_that_the_devices_cannot_share': (
    ('batch_size=51', 'method=ce'),
    ['config.batch_size=51', '2 devices'],
  ),
  'a_teacher_that_is_not_there': (
    ('teacher.checkpoint=/no/where',),
    ['config.teacher.checkpoint', '/no/where'],
  ),
  'more_labels_than_there_are': (
    ('dataset.num_labels=5000', 'method=ce'),
    ['num_labels=5000'],
  ),
  'a_warmup_longer_than_the_run': (
    ('schedule.warmup_steps=1000000', 'method=ce'),
    ['config.schedule.warmup_steps=1000000'],
  ),
  'augmentation_of_vectors': (
    (
      'dataset.name=synthetic_classes',
      'dataset.augment=crop',
      'dataset.options.num_examples=500',
      'dataset.num_labels=0',
      'method=ce',
    ),
    ["config.dataset.augment='crop'", "'none'"],
  ),
}


@pytest.mark.parametrize('case', AGAINST_THE_DATA)
def test_what_does_not_fit_the_data(case, mistake, tmp_path):
  values, named = AGAINST_THE_DATA[case]
  given = [f'--config.{value}' for value in values]
  message = mistake(DIGITS, f'--workdir={tmp_path / "run"}', *given)
  for text in named:
    assert text in message


@pytest.mark.parametrize('case', AGAINST_THE_DATA)
def test_a_mistake_leaves_the_workdir_to_the_command_put_right(
  case, mistake, tmp_path
):
  given = [f'--config.{value}' for value in AGAINST_THE_DATA[case][0]]
  mistake(DIGITS, f'--workdir={tmp_path / "run"}', *given)
  assert not (tmp_path / 'run').exists()


def test_a_mistake_of_the_student_is_found_before_the_teacher_trains(
  mistake, tmp_path
):
  small = [a for a in SMALL if 'batch_size' not in a]
  workdir = tmp_path / 'run'
  mistake(DIGITS, f'--workdir={workdir}', '--config.batch_size=51', *small)
  assert not (workdir / 'teacher').exists()


def test_the_batch_of_the_teacher_is_named_as_such(mistake, tmp_path):
  message = mistake(
    DIGITS,
    f'--workdir={tmp_path / "run"}',
    '--config.teacher.batch_size=5000',
  )
  assert 'config.teacher.batch_size=5000' in message


def test_a_workdir_of_another_config(mistake, tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['main', DIGITS])
  config, _ = cli.parse_config(sys.argv, '')
  config.temperature = 2.5
  with workdirs.claimed(tmp_path / 'run', config):
    pass
  message = mistake(DIGITS, f'--workdir={tmp_path / "run"}')
  assert f'{tmp_path / "run"} holds a run of another config' in message
  assert message.endswith('temperature')


def test_a_workdir_that_is_a_file(mistake, tmp_path):
  path = tmp_path / 'file'
  path.write_text('mine')
  message = mistake(DIGITS, f'--workdir={path}')
  assert f'{path} is a file' in message
  assert path.read_text() == 'mine'


def test_a_workdir_below_a_file(mistake, tmp_path):
  (tmp_path / 'file').write_text('')
  assert 'file' in mistake(DIGITS, f'--workdir={tmp_path / "file" / "run"}')


def test_as_a_process_help(tmp_path):
  done = process('--help', cwd=tmp_path)
  assert (done.returncode, done.stderr) == (0, '')
  assert 'python -m kdjax.main --config=experiments/NAME.py' in done.stdout


def test_as_a_process_a_mistyped_key(tmp_path):
  done = process(DIGITS, '--config.temprature=2', cwd=tmp_path)
  message = answer(done.returncode, done.stderr)
  assert "did you mean 'config.temperature'" in message
  assert not any(tmp_path.iterdir())


def test_as_a_process_data_that_are_not_prepared(tmp_path):
  done = process(DIGITS, '--config.dataset.name=mnist', cwd=tmp_path)
  message = answer(done.returncode, done.stderr)
  assert 'python -m kdjax.prepare --dataset=mnist' in message


def _write_npz(folder, *, seed):
  rng = np.random.default_rng(seed)
  folder.mkdir(exist_ok=True)
  for split, size in (('train', 120), ('test', 20)):
    labels = np.arange(size) % 4
    inputs = rng.normal(size=(size, 6)).astype(np.float32)
    inputs[:, 0] += labels
    np.savez(folder / f'{split}.npz', inputs=inputs, labels=labels)


def test_a_folder_of_the_users_own(tmp_path, monkeypatch, mistake):
  """Trained on as any other; a finished run knows what it was trained on."""
  arguments = (
    DIGITS,
    *SMALL,
    '--config.dataset.name=npz',
    f'--config.dataset.data_dir={tmp_path / "mine"}',
    '--config.dataset.num_labels=0',
    f'--workdir={tmp_path / "run"}',
  )
  _write_npz(tmp_path / 'mine', seed=0)
  call(monkeypatch, *arguments)
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert 0 <= results['student']['test_accuracy'] <= 1
  call(monkeypatch, *arguments)  # is finished
  _write_npz(tmp_path / 'mine', seed=1)
  assert 'a finished run on other data' in mistake(*arguments)
