"""Every speed benchmark runs from the command line and prints its table."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
HEADERS = {
  'step_cost': 'KD / (CE + teacher)',
  'versus_torch': 'PyTorch / kdjax',
  'input_pipeline': 'share, %',
  'whole_run': 'saves / run, %',
  'analysis_cost': 'cost / run, %',
  'method_cost': 'step / KD step',
}


def run(name, *arguments):
  return subprocess.run(
    [sys.executable, ROOT / 'benchmarks' / f'{name}.py', *arguments],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize('name', HEADERS)
def test_prints_its_table(name):
  if name == 'versus_torch' and not importlib.util.find_spec('torch'):
    pytest.skip('needs PyTorch, of the extra bench')
  config = ROOT / 'experiments/digits_kd.py'
  done = run(name, '--quick', f'--config={config}')
  assert done.returncode == 0, done.stderr
  header, _, *rows = done.stdout.split('\n\n')[0].splitlines()
  assert HEADERS[name] in header
  assert len(rows) >= 1
  for row in rows:
    assert row.startswith('| digits_kd')
    assert row.count('|') == header.count('|')
    assert 'nan' not in row
  assert 'JAX' in done.stdout.split('\n\n')[1]


@pytest.mark.parametrize('name', HEADERS)
def test_an_unknown_experiment(name):
  if name == 'versus_torch' and not importlib.util.find_spec('torch'):
    pytest.skip('needs PyTorch, of the extra bench')
  done = run(name, '--config=experiments/nowhere.py')
  assert done.returncode == 2
  assert 'no experiment file experiments/nowhere.py' in done.stderr
  assert 'Traceback' not in done.stderr


def test_streaming_prints_its_table():
  done = run('streaming', '--quick')
  assert done.returncode == 0, done.stderr
  header, _, *rows = done.stdout.split('\n\n')[0].splitlines()
  assert 'images/s' in header
  assert len(rows) >= 2
  assert all(row.count('|') == header.count('|') for row in rows)


def rows_of(done, title):
  """Rows of the table that a benchmark prints first."""
  assert done.returncode == 0, done.stderr
  header, _, *rows = done.stdout.split('\n\n')[0].splitlines()
  assert title in header
  assert all(row.count('|') == header.count('|') for row in rows)
  assert 'nan' not in done.stdout
  assert 'JAX' in done.stdout.split('\n\n')[1]
  return rows


def test_loss_memory_prints_its_table():
  rows = rows_of(run('loss_memory', '--quick'), 'program, MB')
  assert [row.split()[1] for row in rows] == ['rkd_angle', 'crd']


def test_losses_prints_its_table():
  if not importlib.util.find_spec('torch'):
    pytest.skip('needs PyTorch, of the extra bench')
  rows = rows_of(run('losses', '--quick'), 'PyTorch / kdjax')
  assert len(rows) == 18
  done = run('losses', '--loss=nsst')
  assert done.returncode == 2
  assert "did you mean 'nst'" in done.stderr


def test_fused_loss_prints_its_table():
  rows = rows_of(run('fused_loss', '--quick'), 'fused / plain')
  assert [row.split()[1] for row in rows] == ['distillation']


def test_sparse_teacher_prints_its_table():
  rows = rows_of(run('sparse_teacher', '--quick'), 'bytes a token')
  assert [row.split()[1] for row in rows] == [
    'kd',
    'kl_uniform_tail',
    'kl_bucket_tail',
    'kl_renormalised',
    'kl_samples',
  ]


def test_lstm_versus_torch_prints_its_table():
  if not importlib.util.find_spec('torch'):
    pytest.skip('needs PyTorch, of the extra bench')
  flags = '--quick', '--teacher=lstm_small', '--vocabulary=100'
  rows = rows_of(run('lstm_versus_torch', *flags), 'PyTorch / kdjax')
  assert len(rows) == 3
  assert float(rows[0].split('|')[-2]) < 1e-4


def test_families_prints_its_table(tmp_path):
  config = ROOT / 'experiments/digits_kd.py'
  done = run(
    'families', '--quick', f'--config={config}', f'--workdir={tmp_path}'
  )
  assert done.returncode == 0, done.stderr
  *_, table, surroundings = done.stdout.strip().split('\n\n')
  header, _, *rows = table.splitlines()
  assert 'agrees with teacher' in header
  assert [row.split()[1] for row in rows] == ['ce', 'kd', 'crd', 'teacher']
  assert all(row.count('|') == header.count('|') for row in rows)
  assert 'JAX' in surroundings


@pytest.mark.parametrize('flags', [['--alone'], []])
def test_population_prints_its_tables(flags):
  if not (flags or importlib.util.find_spec('torch')):
    pytest.skip('needs PyTorch, of the extra bench')
  done = run('population', '--quick', *flags)
  assert done.returncode == 0, done.stderr
  *tables, surroundings = done.stdout.split('\n\n')
  titles = ('mlp-512 → mlp-64', '→ resnet8', 'kB a student')
  for table, title in zip(tables, titles, strict=True):
    header, _, *rows = table.splitlines()
    assert title in header
    assert len(rows) >= 1
    assert all(row.count('|') == header.count('|') for row in rows)
    assert 'nan' not in table
    if 'difference' in header:  # between kdjax and PyTorch
      gaps = [row.split('|')[-2].strip() for row in rows if 'PyTorch' in row]
      assert all(float(gap) < 1e-5 for gap in gaps)
  assert 'JAX' in surroundings


def test_failures_are_recognised_and_remedied(tmp_path):
  done = run(
    'failures',
    '--quick',
    f'--config={ROOT / "experiments/digits_kd.py"}',
    f'--workdir={tmp_path}',
    '--config.num_epochs=20',
    '--config.teacher.num_epochs=10',
    '--config.teacher.cache_dir=off',
  )
  assert done.returncode == 0, done.stderr
  header, _, *rows = done.stdout.splitlines()
  assert all(row.count('|') == header.count('|') for row in rows)
  assert ['no teacher' in row for row in rows] == [True, True, False, False]
  assert 'T = 0.5' in rows[-1]
  assert '**`temperature_too_low`**' in rows[-1]
  assert 'temperature = ' in rows[-1]
