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

from kdjax.train import checkpoint, experiment, peers, sharding, task
from kdjax.train.writers import read_metrics

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


def _start(workdir, *arguments, hosts=1):
  """Starts the command on so many hosts, of one device each."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  given = {
    'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
    'JAX_NUM_PROCESSES': str(hosts),
  }
  command = [
    sys.executable,
    '-m',
    'kdjax.main',
    f'--config={EXPERIMENT}',
    f'--workdir={workdir}',
    *SMALL,
    *arguments,
  ]
  return [
    subprocess.Popen(
      command,
      env=os.environ | (given if hosts > 1 else {}) | {'JAX_PROCESS_ID': str(i)}
      if hosts > 1
      else os.environ,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(hosts)
  ]


def _ends(processes):
  """Status, stdout and stderr of each."""
  found = [process.communicate(timeout=300) for process in processes]
  return [(p.returncode, *f) for p, f in zip(processes, found, strict=True)]


def _run(workdir, *arguments, hosts=1):
  ends = _ends(_start(workdir, *arguments, hosts=hosts))
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
  return checkpoint.read(folder, like, config.to_dict(), step=step).tree


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
