"""The command: killed, gone on with, and how it answers every mistake."""

import collections
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_study

from kdjax import cli
from kdjax.study import __main__ as study
from kdjax.study.population import Trainer
from kdjax.study.records import Records
from kdjax.train import pace

EXPERIMENTS = Path(__file__).parents[1] / 'experiments'
# Kills itself in a call of what the second argument names, as soon as there are
# as many lines as the first says.
KILLED = """
import os, signal, sys
from kdjax import cli
from kdjax.study import __main__, records
from kdjax.train import pace

count, place = int(sys.argv.pop(1)), sys.argv.pop(1)
owner, name = {'write': (os, 'fsync'), 'training': (pace.Clock, 'tick')}[place]
before, add, students = getattr(owner, name), records.Records.add, []


def die(*args):
  if len(students) >= count:
    os.kill(os.getpid(), signal.SIGKILL)
  return before(*args)


def note(self, rows):
  rows = list(rows)
  students.extend(self.rows + rows)
  add(self, rows)


records.Records.add = note
setattr(owner, name, die)
cli.run(__main__.main)
"""


def call(monkeypatch, *arguments):
  """Runs the command in this process."""
  monkeypatch.setattr(sys, 'argv', ['study', *map(str, arguments)])
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)
  cli.run(study.main)


@pytest.fixture
def mistake(monkeypatch, capsys, tmp_path):
  """Runs a command that has to fail, and returns what it says.

  Given are a line of the study's file, and flags. Nothing may be left.
  """

  def run(line='', *flags):
    path = small_study.write(tmp_path / 'small.py', line)
    workdir = tmp_path / 'run'
    with pytest.raises(SystemExit) as end:
      call(monkeypatch, f'--config={path}', f'--workdir={workdir}', *flags)
    assert not workdir.exists()
    return answer(end.value.code, capsys.readouterr().err)

  return run


def answer(status, stderr):
  """The message: all that there is on stderr."""
  assert status == 2
  (line,) = stderr.splitlines()
  assert line.startswith('error: ')
  return line.removeprefix('error: ')


IN_THE_FILE = {
  'an_unknown_arm': (
    "study.arms = ('ce', 'kdd')",
    ["unknown method 'kdd'", "did you mean 'kd'"],
  ),
  'an_arm_twice': ("study.arms = ('ce', 'ce')", ["'ce', 'ce'", 'each once']),
  'no_arm': ('study.arms = ()', ['study.arms=()', 'at least one']),
  'an_arm_without_a_name': ("study.arms = ('ce', '')", ["method ''"]),
  'no_value': ("study.arms = ('kd topk',)", ["'topk' is not key=value"]),
  'no_key': ("study.arms = ('kd =3',)", ["'=3' is not key=value"]),
  'an_unknown_key_of_an_arm': (
    "study.arms = ('kd_topk topkk=3',)",
    ["'topkk'", "'topk'"],
  ),
  'a_value_of_an_arm': (
    "study.arms = ('kd temperature=0',)",
    ['config.temperature=0.0', 'above 0'],
  ),
  'a_word_for_a_number': (
    "study.arms = ('kd temperature=hot',)",
    ["config.temperature='hot'"],
  ),
  'a_teacher_of_an_arm': (
    "study.arms = ('kd teacher.widths=(8,)',)",
    ['teacher.widths', 'all arms share'],
  ),
  'more_classes_than_there_are': (
    "study.arms = ('kd_topk topk=7',)",
    ['config.topk=7', '1..6'],
  ),
  'the_default_of_another_data_set': (
    "study.arms, config.topk = ('kd_topk',), 10",
    ['config.topk=10', '1..6'],
  ),
  'an_unknown_key_of_a_scenario': (
    "study.scenarios = ((('batchsize', 5),),)",
    ["'batchsize'", "'batch_size'"],
  ),
  'a_scenario_twice': (
    "study.scenarios = ((('mix', 0.1),), (('mix', 0.1),))",
    ['study.scenarios', 'each once'],
  ),
  'no_scenario': ('study.scenarios = ()', ['study.scenarios=()']),
  'a_range_reversed': (
    'study.search.weight = (0.9, 0.1)',
    ['study.search.weight=(0.9, 0.1)', 'low ≤ high'],
  ),
  'a_range_from_zero': (
    'study.search.learning_rate = (0.0, 0.1)',
    ['study.search.learning_rate=(0.0, 0.1)', '0 < low'],
  ),
  'half_a_range': (
    'study.search.learning_rate = (0.1,)',
    ['study.search.learning_rate=(0.1,)', '(low, high)'],
  ),
  'a_range_past_what_is_allowed': (
    'study.search.weight = (0.5, 3.0)',
    ['study.search.weight=(0.5, 3.0)', 'config.weight=3.0', '[0, 1]'],
  ),
  'a_range_past_the_classes': (
    'study.search.topk = (2, 7)',
    ['study.search.topk=(2, 7)', '1..6'],
  ),
  'a_range_of_no_whole_numbers': (
    'study.search.topk = (0.5, 3)',
    ['study.search.topk=(0.5, 3)'],
  ),
  'an_unknown_range': (
    'study.search.temprature = (1.0, 2.0)',
    ['temprature', 'mean "temperature"'],
  ),
  'no_trials': ('study.num_trials = 0', ['study.num_trials=0', '1, 2, 3']),
  'no_seeds': ('study.num_seeds = 0', ['study.num_seeds=0', '1, 2, 3']),
  'no_search_seeds': ('study.num_search_seeds = 0', ['num_search_seeds=0']),
  'all_memory': ('study.memory_fraction = 1.5', ['memory_fraction=1.5']),
  'another_way': ("study.over_members = 'map'", ["over_members='map'"]),
  'a_mistyped_key': ('study.num_trails = 3', ['mean "num_trials"']),
  'data_that_are_not_prepared': (
    "dataset.name = 'cifar100'",
    ['is not prepared', 'python -m kdjax.prepare --dataset=cifar100'],
  ),
  'data_that_are_streamed': (
    "dataset.name = 'imagenet2012'",
    ['is not prepared', 'python -m kdjax.prepare --dataset=imagenet2012'],
  ),
  'data_that_cannot_be': (
    "study.scenarios = ((('dataset.options.num_classes', 1),),)",
    ['num_classes=1'],
  ),
  'a_batch_larger_than_the_data': (
    'batch_size = 5000',
    ['config.batch_size=5000', '60 training examples'],
  ),
  'a_batch_larger_than_what_a_scenario_leaves': (
    "study.scenarios = ((), (('dataset.num_labels', 8),))",
    ['config.batch_size=10', '8 training examples'],
  ),
  'a_batch_larger_than_what_an_arm_sees': (
    "study.arms = ('ce', 'kd dataset.num_labels=8')",
    ['config.batch_size=10', '8 training examples'],
  ),
  'a_batch_of_the_teacher': (
    'teacher.batch_size = 5000',
    ['config.teacher.batch_size=5000'],
  ),
  'a_batch_that_devices_cannot_share': (
    'teacher.batch_size = 11',
    ['config.teacher.batch_size=11', '2 devices'],
  ),
  'a_teacher_that_is_not_there': (
    "teacher.checkpoint = '/no/where'",
    ['config.teacher.checkpoint', '/no/where'],
  ),
  'a_network_for_other_data': ("student.name = 'resnet20'", ['resnet20']),
  'an_unknown_network': ("student.name = 'mpl'", ["'mpl'", "'mlp'"]),
}


@pytest.mark.parametrize('case', IN_THE_FILE)
def test_a_mistake_in_the_file_trains_nothing(case, mistake):
  line, named = IN_THE_FILE[case]
  message = mistake(f'config.{line}')
  for text in named:
    assert text in message


@pytest.mark.parametrize(
  ('flag', 'named'),
  [
    ('--config.study.num_trails=3', ['config.study.num_trials']),
    ("--config.study.arms=('ce', 'kdd')", ["unknown method 'kdd'"]),
    ('--config.study.search.weight=(0.9,0.1)', ['search.weight=(0.9, 0.1)']),
    ('--config.study.num_seeds=many', ['many']),
    ('--wrkdir=x', ['workdir']),
  ],
)
def test_a_mistake_on_the_command_line(flag, named, mistake):
  message = mistake('', flag)
  for text in named:
    assert text in message


@pytest.mark.parametrize(
  ('pairs', 'named'),
  [
    ("(('num_epoch', 1),)", ["'num_epoch'", "'num_epochs'"]),
    ("(('num_epochs', 0),)", ['config.num_epochs=0']),
    ("(('study.num_trials', 0),)", ['config.study.num_trials=0']),
    ("(('batch_size', 5000),)", ['config.batch_size=5000']),
  ],
)
def test_a_mistake_in_what_quick_sets(pairs, named, mistake):
  line = f'config.study.when_quick = {pairs}'
  message = mistake(line, '--config.quick=True')
  for text in named:
    assert text in message


def test_the_file_of_a_single_run(monkeypatch, capsys, tmp_path):
  path = EXPERIMENTS / 'digits_kd.py'
  with pytest.raises(SystemExit) as end:
    call(monkeypatch, f'--config={path}', f'--workdir={tmp_path / "run"}')
  message = answer(end.value.code, capsys.readouterr().err)
  assert 'kdjax.study.config.default()' in message
  assert 'run it by kdjax.main' in message
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'values',
  [
    {
      'JAX_COORDINATOR_ADDRESS': 'localhost:1234',
      'JAX_NUM_PROCESSES': '2',
      'JAX_PROCESS_ID': '0',
    },
    {'JAX_NUM_PROCESSES': '2'},
    {'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '0'},
  ],
)
def test_one_of_several_hosts(values, mistake, monkeypatch):
  for name, value in values.items():
    monkeypatch.setenv(name, value)
  assert 'one host' in mistake()


@pytest.mark.parametrize('place', ['file', 'file/run'])
def test_a_workdir_that_cannot_be(place, monkeypatch, capsys, tmp_path):
  path = small_study.write(tmp_path / 'small.py')
  (tmp_path / 'file').write_text('mine')
  with pytest.raises(SystemExit) as end:
    call(monkeypatch, f'--config={path}', f'--workdir={tmp_path / place}')
  assert 'file' in answer(end.value.code, capsys.readouterr().err)
  assert (tmp_path / 'file').read_text() == 'mine'


def test_a_workdir_that_cannot_be_written(monkeypatch, capsys, tmp_path):
  path = small_study.write(tmp_path / 'small.py')
  with pytest.raises(SystemExit) as end:
    call(monkeypatch, f'--config={path}', '--workdir=/proc/study')
  assert '/proc/study' in answer(end.value.code, capsys.readouterr().err)


def test_a_damaged_line(monkeypatch, capsys, tmp_path):
  path = small_study.write(tmp_path / 'small.py')
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run/runs.jsonl').write_text('{"phase": "sea')
  with pytest.raises(SystemExit) as end:
    call(monkeypatch, f'--config={path}', f'--workdir={tmp_path / "run"}')
  message = answer(end.value.code, capsys.readouterr().err)
  assert 'runs.jsonl, line 1 is damaged' in message


@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help(flag, monkeypatch, capsys):
  with pytest.raises(SystemExit) as end:
    call(monkeypatch, flag)
  assert end.value.code == 0
  assert 'python -m kdjax.study --config=' in capsys.readouterr().out


def test_as_a_process(tmp_path):
  path = small_study.write(tmp_path / 'small.py')
  done = subprocess.run(
    [sys.executable, '-m', 'kdjax.study', f'--config={path}', '--config.x=1'],
    capture_output=True,
    text=True,
    check=False,
    cwd=tmp_path,
  )
  assert "'config.x'" in answer(done.returncode, done.stderr)
  assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def several(tmp_path):
  """Flags of a study of six chunks or more."""
  path = small_study.write(tmp_path / 'small.py')
  return f'--config={path}', '--config.study.max_settings=1'


def killed(count, place, *arguments):
  """Starts a study that is killed; returns the lines that it leaves."""
  done = subprocess.run(
    [sys.executable, '-c', KILLED, str(count), place, *arguments],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr
  *_, workdir = arguments
  return small_study.lines(Path(workdir.removeprefix('--workdir=')))


def test_killed_again_and_again_it_ends_as_if_nothing_had_been(
  several, tmp_path, monkeypatch
):
  workdir = tmp_path / 'shaken'
  arguments = *several, f'--workdir={workdir}'
  # After the first chunk; before the file of the second takes its place.
  first = killed(2, 'training', *arguments)
  assert len(first) == 2
  second = killed(6, 'write', *arguments)
  assert second == small_study.lines(workdir)
  assert (len(second), second[:2]) == (4, first)
  call(monkeypatch, *arguments)
  call(monkeypatch, *several, f'--workdir={tmp_path / "undisturbed"}')
  found = small_study.lines(workdir)
  assert found[:4] == second
  assert results(workdir) == results(tmp_path / 'undisturbed')
  for name in ('table.csv', 'table.md'):
    tables = [
      (folder / name).read_text().replace(folder.name, '')
      for folder in (workdir, tmp_path / 'undisturbed')
    ]
    assert tables[0] == tables[1]


def results(workdir):
  """What comes of each student, in a fixed order."""
  names = ('phase', 'arm', 'trial', 'seed')
  found = {
    tuple(row[name] for name in names): {
      key: value
      for key, value in row['metrics'].items()
      if key in ('dev_accuracy', 'test_accuracy', 'best', 'curve')
    }
    for row in small_study.read(workdir)
  }
  return found


@pytest.mark.parametrize(
  ('signum', 'owner', 'name', 'times'),
  [
    (signal.SIGTERM, pace.Clock, 'tick', 5),  # the teacher trains, or a chunk
    (signal.SIGTERM, Records, 'add', 2),
    (signal.SIGINT, Records, 'add', 3),
    (signal.SIGINT, Trainer, 'train', 2),  # between search and what is selected
  ],
)
def test_a_signal_ends_it_with_one_line(
  signum, owner, name, times, several, tmp_path, monkeypatch, capsys
):
  workdir = tmp_path / 'run'
  before, calls = getattr(owner, name), collections.Counter()

  def told(*args, **options):
    calls[name] += 1
    if calls[name] == times:
      os.kill(os.getpid(), signum)
    return before(*args, **options)

  with monkeypatch.context() as patch:
    patch.setattr(owner, name, told)
    with pytest.raises(SystemExit) as end:
      call(monkeypatch, *several, f'--workdir={workdir}')
  assert end.value.code == 128 + signum
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f'stopped by {signum.name}')
  assert line.endswith('run the same command to go on')
  kept = small_study.lines(workdir) if (workdir / 'runs.jsonl').exists() else []
  assert len(kept) < 12
  call(monkeypatch, *several, f'--workdir={workdir}')
  lines = small_study.lines(workdir)
  assert (len(lines), lines[: len(kept)]) == (12, kept)
  assert (workdir / 'table.md').exists()
