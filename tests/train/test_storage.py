"""A real run whose storage fails: no room, no folder, no rights."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdjax.train import checkpoint, manifest, writers

EXPERIMENT = Path(__file__).parents[2] / 'experiments/digits_kd.py'


# Files of the command may not grow beyond so many bytes.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def _start(workdir, *arguments, before=()):
  command = [
    sys.executable,
    *before,
    '-m',
    'kdjax.main',
    f'--config={EXPERIMENT}',
    f'--workdir={workdir}',
    '--config.method=ce',
    '--config.baseline=False',
    '--config.num_epochs=100000',
    '--config.eval_every_epochs=200',
    *arguments,
  ]
  return subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _until_saved(process, workdir):
  while not checkpoint.steps(workdir / 'checkpoints'):
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.01)


def _refusal(process):
  """The one line that a command says in the end."""
  _, stderr = process.communicate(timeout=120)
  assert process.returncode == 2, stderr
  assert 'Traceback' not in stderr, stderr
  last = stderr.splitlines()[-1]
  assert last.startswith('error: ')
  return last


def test_no_room(tmp_path):
  """No checkpoint of this network fits."""
  process = _start(
    tmp_path,
    '--config.student.widths=(512,512)',
    before=('-c', LIMITED),
  )
  last = _refusal(process)
  assert 'cannot save step 400' in last
  assert 'the earlier checkpoints are intact' in last
  assert not checkpoint.steps(tmp_path / 'checkpoints')
  assert not (tmp_path / 'results.json').exists()


def test_a_workdir_that_goes_away_is_not_made_anew(tmp_path):
  with _start(tmp_path / 'run') as process:
    _until_saved(process, tmp_path / 'run')
    (tmp_path / 'run').rename(tmp_path / 'moved')
    last = _refusal(process)
  assert 'is gone since this run began' in last or 'cannot save' in last
  newest = max(checkpoint.steps(tmp_path / 'moved' / 'checkpoints'))
  manifest.verify(tmp_path / 'moved' / 'checkpoints' / f'{newest:08d}')


def test_a_workdir_that_cannot_be_written():
  """Not even by root."""
  assert '/proc/kdjax' in _refusal(_start('/proc/kdjax'))


def test_a_second_run_is_refused_and_the_first_unharmed(tmp_path):
  with _start(tmp_path) as first:
    _until_saved(first, tmp_path)
    last = _refusal(_start(tmp_path))
    assert f'is in use by process {first.pid} on ' in last
    newest = max(checkpoint.steps(tmp_path / 'checkpoints'))
    while max(checkpoint.steps(tmp_path / 'checkpoints')) <= newest:
      assert first.poll() is None
      time.sleep(0.01)
    first.terminate()
    first.communicate()
  assert first.returncode == 143


def test_events_that_cannot_be_written_end_nothing(tmp_path, monkeypatch):
  """TensorBoard's files are a view of `metrics.jsonl`."""

  def refuse(*_):
    raise OSError('the backend is dead')

  monkeypatch.setattr(writers, 'scalar', refuse)
  with writers.MetricsWriter(tmp_path, resume_step=0) as writer:
    with pytest.warns(UserWarning, match='no more TensorBoard events: the b'):
      writer.write(1, {'loss': 1.0})
    for step in range(2, 50):
      writer.write(step, {'loss': 1.0})
    writer.sync()
  assert len(writers.read_metrics(tmp_path / 'metrics.jsonl')) == 49
