"""Two real processes on this machine, joined as two hosts would be."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kdjax.train import hosts, peers, watchdog

PROGRAM = Path(__file__).with_name('host_program.py')
NAMES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')


def free_port():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


@pytest.fixture
def start():
  """Starts hosts; those that still run at the end are killed."""
  started = []

  def run(mode, *, heartbeat, indices=(0, 1)):
    address = f'127.0.0.1:{free_port()}'
    for index in indices:
      values = dict(zip(NAMES, (address, '2', str(index)), strict=True))
      started.append(
        subprocess.Popen(
          [sys.executable, PROGRAM, mode, str(heartbeat)],
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          text=True,
          env={**os.environ, **values},
        )
      )
    return started

  yield run
  for process in started:
    process.kill()
    process.communicate()


def ready(processes):
  """Waits until all train, then lets them go on."""
  for process in processes:
    lines = iter(process.stdout.readline, '')
    assert 'ready\n' in lines, process.communicate()[1]
  for process in processes:
    process.stdin.write('go\n')
    process.stdin.flush()


def last_line(process, *, within):
  _, stderr = process.communicate(timeout=within)
  return stderr.splitlines()[-1]


def test_hosts_compute_agree_and_fail_alike(start):
  outputs = []
  for process in start('agree', heartbeat=30):
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert 'error' not in stderr
    outputs.append(json.loads(stdout.splitlines()[-1]))
  assert outputs[0] == outputs[1]
  assert outputs[0] == {
    'total': 10.0 * (6 * 1 + 6 * 2),
    'agreed': [[False, 5], [True, 7]],
    'result': {'host': 0, 'text': 'é' * 3000},
    'missing': [
      'OSError',
      "[Errno 2] No such file or directory: 'no/such/file'",
    ],
    'not json': ['TypeError', 'Object of type set is not JSON serializable'],
    'same': None,
    'not same': [
      'ValueError',
      'the config of host 1 is not that of host 0: run the same command on '
      'all hosts',
    ],
    'caught': ['SIGTERM'],
  }


@pytest.mark.parametrize('victim', [0, 1])
@pytest.mark.parametrize(
  ('how', 'heartbeat', 'word'),
  [(signal.SIGKILL, 30, ''), (signal.SIGSTOP, 3, 'it says nothing for 3 s')],
)
def test_a_lost_host_ends_the_other(start, victim, how, heartbeat, word):
  processes = start('train', heartbeat=heartbeat)
  ready(processes)
  processes[victim].send_signal(how)
  line = last_line(processes[1 - victim], within=heartbeat + 5)
  assert processes[1 - victim].returncode == peers.EXIT_LOST_HOST
  lost = f'process {processes[victim].pid}) does not answer: {word}'
  assert line.startswith(f'error: host {victim} of 2 (')
  assert lost in line
  assert 'run the same command on all hosts' in line


def test_a_host_that_fails_tells_the_other_why(start):
  processes = start('fail', heartbeat=30)
  ready(processes)
  line = last_line(processes[0], within=35)
  assert processes[0].returncode == peers.EXIT_LOST_HOST
  assert line.startswith('error: host 1 of 2 (')
  assert 'ended: no such file;' in line
  processes[1].communicate(timeout=35)
  assert processes[1].returncode == 2


def test_hosts_that_fail_alike_end_alike(start):
  processes = start('fail alike', heartbeat=30)
  ready(processes)
  for process in processes:
    assert last_line(process, within=35) == 'error: of both'
    assert process.returncode == 2


def test_a_host_asleep_is_found_by_the_watchdogs_of_both(start):
  processes = start('asleep', heartbeat=30)
  ready(processes)
  for process, place in zip(processes, ('total', 'train'), strict=True):
    _, stderr = process.communicate(timeout=35)
    assert process.returncode == watchdog.EXIT_STALLED
    *stacks, last = stderr.splitlines()
    assert last.startswith('error: no progress for 2 seconds')
    assert any(line.endswith(f' in {place}') for line in stacks)


def test_a_host_that_does_not_come_ends_the_wait(start):
  (process,) = start('train', heartbeat=1, indices=(0,))
  line = last_line(process, within=60)
  assert process.returncode == peers.EXIT_LOST_HOST
  assert line.startswith('error: not all 2 hosts joined within 2 seconds')


@pytest.fixture
def environ(monkeypatch):
  """Sets the variables; None for one that is not there."""

  def put(*values):
    for name, value in zip(NAMES, values, strict=True):
      if value is None:
        monkeypatch.delenv(name, raising=False)
      else:
        monkeypatch.setenv(name, value)

  return put


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    (('a:1', None, None), 'JAX_NUM_PROCESSES and JAX_PROCESS_ID'),
    ((None, '2', '0'), 'JAX_PROCESS_ID=0 without JAX_COORDINATOR_ADDRESS'),
    (('a:1', '2', ''), 'without JAX_PROCESS_ID'),
    (('a', '2', '0'), 'JAX_COORDINATOR_ADDRESS=a must be host:port'),
    (('a:x', '2', '0'), 'JAX_COORDINATOR_ADDRESS=a:x must be host:port'),
    (('a:70000', '2', '0'), 'JAX_COORDINATOR_ADDRESS=a:70000 must'),
    (('a:1', 'two', '0'), 'JAX_NUM_PROCESSES=two must be an integer'),
    (('a:1', '0', '0'), 'JAX_NUM_PROCESSES=0 must be at least 1'),
    (('a:1', '2', '1.5'), 'JAX_PROCESS_ID=1.5 must be an integer'),
    (('a:1', '2', '2'), r'JAX_PROCESS_ID=2 must lie in 0\.\.1'),
    (('a:1', '2', '-1'), r'JAX_PROCESS_ID=-1 must lie in 0\.\.1'),
  ],
)
def test_wrong_variables_are_refused(environ, values, message):
  environ(*values)
  with pytest.raises(ValueError, match=message):
    hosts.connect()


def test_host_0_out_of_reach_is_named(environ):
  address = f'127.0.0.1:{free_port()}'
  environ(address, '2', '1')
  with pytest.raises(OSError, match=f'not reachable at .*{address}'):
    hosts.connect(timeout_seconds=0)


def test_a_port_in_use_is_named(environ):
  with socket.create_server(('127.0.0.1', 0)) as server:
    address = f'127.0.0.1:{server.getsockname()[1]}'
    environ(address, '2', '0')
    with pytest.raises(OSError, match=f'cannot listen at {address}'):
      hosts.connect()


@pytest.mark.parametrize('count', [None, '1'])
def test_one_host_is_alone(environ, count):
  environ(count and '127.0.0.1:1', count, count and '0')
  hosts.connect()
  assert hosts.is_primary()
  assert hosts.agree(True, 3) == (True, 3)
  assert hosts.on_primary(lambda: (1, 2)) == (1, 2)
  hosts.check_same('the config', 'a')
  hosts.announce('nobody hears it')
  hosts.leave()
