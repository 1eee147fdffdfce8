"""The command on two hosts: two processes here, joined by `jax.distributed`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import chex
import pytest
from ml_collections import ConfigDict

from kdjax.train import checkpoint, experiment, manifest, peers, sharding, task
from kdjax.train.writers import read_metrics

# Small archives with real JPEGs.
sys.path.append(str(Path(__file__).parents[1] / 'data'))
import photos

EXPERIMENT = Path(__file__).parents[2] / 'experiments/digits_kd.py'
SMALL = (
  '--config.baseline=False',
  '--config.dataset.augment=crop',
  '--config.student.widths=(32,)',
  '--config.student.dropout=0.2',
  '--config.teacher.num_epochs=2',
  '--config.teacher.cache_dir=off',
  '--config.heartbeat_seconds=5',
)
SHORT = ('--config.num_epochs=20', '--config.eval_every_epochs=5')
LONG = ('--config.num_epochs=5000', '--config.eval_every_epochs=100')


def _free_port():
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def _start(
  workdir,
  *arguments,
  hosts=1,
  config=EXPERIMENT,
  only=None,
  port=None,
  cwd=None,
):
  """Starts the command on so many hosts, of one device each."""
  port = port or _free_port()
  command = [
    sys.executable,
    '-m',
    'kdjax.main',
    f'--config={config}',
    f'--workdir={workdir}',
    *(SMALL if config == EXPERIMENT else ()),
    *arguments,
  ]

  def start(index):
    joined = {
      'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
      'JAX_NUM_PROCESSES': str(hosts),
      'JAX_PROCESS_ID': str(index),
    }
    return subprocess.Popen(
      command,
      env=os.environ | (joined if hosts > 1 else {}),
      cwd=cwd,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  return [start(i) for i in range(hosts) if only in (None, i)]


def _ends(processes):
  """Status, stdout and stderr of each."""
  found = [process.communicate(timeout=300) for process in processes]
  return [(p.returncode, *f) for p, f in zip(processes, found, strict=True)]


def _run(workdir, *arguments, **keywords):
  ends = _ends(_start(workdir, *arguments, **keywords))
  for status, _, stderr in ends:
    assert status == 0, stderr
  return ends


def _until(processes, holds):
  while not holds():
    for process in processes:
      assert process.poll() is None, process.stderr.read()
    time.sleep(0.02)


def _last(workdir):
  """The arrays of the newest checkpoint."""
  folder = workdir / 'checkpoints'
  config = ConfigDict(json.loads((workdir / 'config.json').read_text()))
  like = task.like(config, experiment.load(config), sharding.make_mesh())
  step = max(checkpoint.steps(folder))
  saved = manifest.read(checkpoint.folder(folder, step))
  return checkpoint.read(folder, like, saved['config'], step=step).tree


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  folder = tmp_path_factory.mktemp('one') / 'run'
  _run(folder, *SHORT)
  return folder


def test_two_hosts_give_what_one_gives_and_one_writes(alone, tmp_path):
  first, second = _run(tmp_path / 'run', *SHORT, hosts=2)
  assert 'test accuracy' in first[1]
  assert 'test accuracy' not in second[1]
  chex.assert_trees_all_close(
    _last(tmp_path / 'run'), _last(alone), rtol=1e-3, atol=1e-4
  )
  steps = [
    [row['step'] for row in read_metrics(folder / 'metrics.jsonl')]
    for folder in (tmp_path / 'run', alone)
  ]
  assert steps[0] == steps[1]
  results = [
    json.loads((folder / 'results.json').read_text())
    for folder in (tmp_path / 'run', alone)
  ]
  assert results[0]['environment']['hosts'] == '2'
  assert (
    abs(
      results[0]['student']['test_accuracy']
      - results[1]['student']['test_accuracy']
    )
    < 0.02
  )


@pytest.mark.parametrize('victim', [0, 1])
def test_a_dead_host_ends_the_other_and_one_goes_on_alone(victim, tmp_path):
  processes = _start(tmp_path, *LONG, hosts=2)
  saved = tmp_path / 'checkpoints'
  _until(processes, lambda: checkpoint.steps(saved))
  processes[victim].kill()
  survivor = _ends(processes)[1 - victim]
  assert survivor[0] == peers.EXIT_LOST_HOST
  last = survivor[2].splitlines()[-1]
  assert f'host {victim} of 2' in last
  assert 'run the same command on all hosts to go on' in last
  newest = max(checkpoint.steps(saved))
  (alone,) = processes = _start(tmp_path, *LONG)
  _until(processes, lambda: max(checkpoint.steps(saved)) > newest)
  alone.terminate()
  assert _ends(processes)[0][0] == 143


def test_a_signal_to_one_host_saves_on_all(tmp_path):
  processes = _start(tmp_path, *LONG, hosts=2)
  saved = tmp_path / 'checkpoints'
  _until(processes, lambda: checkpoint.steps(saved))
  processes[1].send_signal(signal.SIGTERM)
  ends = _ends(processes)
  last = max(checkpoint.steps(saved))
  for status, _, stderr in ends:
    assert status == 143, stderr
    assert f'stands at step {last} of 10000' in stderr.splitlines()[-1]


def test_a_mistake_that_host_0_finds_ends_both(tmp_path):
  (tmp_path / 'config.json').write_text('{')
  ends = _ends(_start(tmp_path, *SHORT, hosts=2))
  assert ends[0][0] == 2
  assert 'config.json is damaged' in ends[0][2].splitlines()[-1]
  assert ends[1][0] in (2, peers.EXIT_LOST_HOST)
  assert 'config.json is damaged' in ends[1][2].splitlines()[-1]


STREAMED = """
from kdjax.config import default

def get_config():
  config = default()
  config.dataset.name = 'imagenet2012'
  config.dataset.augment = 'resized_crop_flip'
  config.dataset.image_size = 16
  config.dataset.mixup = 0.2
  config.method = 'ce'
  config.student.name = 'mlp'
  config.student.widths = (8,)
  config.student.dropout = 0.1
  config.batch_size = 8
  config.num_epochs = 4
  config.eval_every_epochs = 2
  config.eval_batch_size = 2
  config.learning_rate = 0.01
  return config
"""


@pytest.fixture(scope='module')
def streamed(tmp_path_factory):
  """An experiment on thirty encoded images, and where they are prepared."""
  folder = tmp_path_factory.mktemp('streamed')
  photos.prepare_imagenet(folder)
  path = folder / 'experiment.py'
  path.write_text(STREAMED)
  return path, f'--config.dataset.data_dir={folder}'


def test_each_host_reads_its_part_of_a_stream(streamed, tmp_path):
  config, *arguments = streamed
  for name, hosts in (('one', 1), ('two', 2)):
    _run(tmp_path / name, *arguments, hosts=hosts, config=config)
  chex.assert_trees_all_close(
    _last(tmp_path / 'two'), _last(tmp_path / 'one'), rtol=1e-3, atol=1e-4
  )


def test_what_is_not_finite_is_named_on_all_hosts(streamed, tmp_path):
  config, *arguments = streamed
  arguments.append('--config.learning_rate=1e30')
  ends = _ends(_start(tmp_path, *arguments, hosts=2, config=config))
  statuses = [status for status, *_ in ends]
  assert 2 in statuses
  assert set(statuses) <= {2, peers.EXIT_LOST_HOST}
  for _, _, stderr in ends:
    last = stderr.splitlines()[-1]
    assert 'student: ' in last
    assert 'is not finite in step 1, ' in last
  assert not checkpoint.steps(tmp_path / 'checkpoints')


def test_hosts_that_see_other_workdirs_are_refused(tmp_path):
  """A relative path, from two places."""
  processes = []
  port = _free_port()
  for index in range(2):
    (tmp_path / str(index)).mkdir()
    processes += _start(
      'run', *SHORT, hosts=2, only=index, port=port, cwd=tmp_path / str(index)
    )
  ends = _ends(processes)
  for status, _, stderr in ends:
    assert status in (2, peers.EXIT_LOST_HOST)
    assert 'is not the same folder on all hosts' in stderr.splitlines()[-1]
