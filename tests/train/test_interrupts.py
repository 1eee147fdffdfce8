"""SIGTERM and SIGINT, in every phase of a real run."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kdjax.train import checkpoint
from kdjax.train.interrupts import Interrupted, Interrupts

EXPERIMENT = Path(__file__).parents[2] / 'experiments/digits_kd.py'


def _tell_myself():
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(5)


def test_outside_a_training_it_stops_at_once():
  with (
    Interrupts(),
    pytest.raises(Interrupted, match='stopped by SIGTERM') as e,
  ):
    _tell_myself()
  assert e.value.status == 143


def test_inside_it_waits_to_be_asked_and_a_second_one_changes_nothing():
  with Interrupts() as interrupts:
    with interrupts.deferred():
      assert interrupts.requested() is None
      os.kill(os.getpid(), signal.SIGINT)
      os.kill(os.getpid(), signal.SIGTERM)
      assert interrupts.requested() == signal.SIGINT
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_handlers_of_before_come_back():
  before = signal.getsignal(signal.SIGTERM)
  with Interrupts():
    assert signal.getsignal(signal.SIGTERM) != before
  assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_it_leaves_signals_alone():
  before = signal.getsignal(signal.SIGTERM)
  seen = []

  def run():
    with Interrupts() as interrupts, interrupts.deferred():
      seen.append((signal.getsignal(signal.SIGTERM), interrupts.requested()))

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert seen == [(before, None)]


def test_a_process_that_does_not_answer_is_ended():
  code = """
import os, signal, time
from kdjax.train.interrupts import Interrupts
with Interrupts(grace_seconds=0.2) as interrupts, interrupts.deferred():
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(60)
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert done.returncode == 143
  assert 'stopped by SIGTERM while busy for 0.2 s' in done.stderr


def _start(workdir):
  """A run of some minutes, in a process."""
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      'kdjax.main',
      f'--config={EXPERIMENT}',
      f'--workdir={workdir}',
      '--config.method=ce',
      '--config.baseline=False',
      '--config.student.widths=(512,512)',
      '--config.num_epochs=100000',
      '--config.eval_every_epochs=200',
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def _until(process, holds):
  while not holds():
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.01)


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_a_run_saves_its_last_step_and_says_how_to_go_on(signum, tmp_path):
  saved = tmp_path / 'checkpoints'
  with _start(tmp_path) as process:
    _until(process, lambda: checkpoint.steps(saved))
    process.send_signal(signum)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
  last = max(checkpoint.steps(saved))
  assert process.returncode == 128 + signum
  assert stderr.splitlines()[-1] == (
    f'stopped by {signum.name}: the student stands at step {last} of 200000, '
    f'which is saved: run the same command to go on'
  )


def test_while_it_starts_and_compiles_nothing_is_lost(tmp_path):
  with _start(tmp_path) as process:
    _until(process, (tmp_path / 'metrics.jsonl').exists)
    process.terminate()
    _, stderr = process.communicate(timeout=60)
  assert process.returncode == 143
  assert 'run the same command to go on' in stderr.splitlines()[-1]
  assert not list(tmp_path.rglob('*orbax-checkpoint-tmp*'))


def test_a_signal_that_nobody_asked_for_is_answered_in_the_end():
  with Interrupts() as interrupts:
    deferred = interrupts.deferred()
    deferred.__enter__()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match='SIGTERM'):
      deferred.__exit__(None, None, None)


def test_with_steps_to_save_nothing_ends_the_process():
  code = """
import os, signal, time
from kdjax.train.interrupts import Interrupts
with Interrupts(grace_seconds=0.1) as interrupts, interrupts.deferred():
  with interrupts.saving():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.6)
    print('saved', interrupts.requested(), flush=True)
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert done.stdout == f'saved {int(signal.SIGTERM)}\n'
