import subprocess
import sys

import pytest

from kdjax.train import watchdog

SCRIPT = """
import threading, time
from kdjax.train.watchdog import Watchdog

def nap(seconds):
  time.sleep(seconds)

with Watchdog({timeout}, announce=lambda reason: print('told:', reason)) as dog:
  {body}
print('alive')
"""


def run(body, *, timeout):
  return subprocess.run(
    [sys.executable, '-uc', SCRIPT.format(body=body, timeout=timeout)],
    capture_output=True,
    text=True,
    check=False,
    timeout=60,
  )


def test_a_process_asleep_is_ended_with_all_stacks():
  other = 'threading.Thread(target=nap, args=(50,), name="other").start()'
  done = run(f'{other}; nap(50)', timeout=0.5)
  assert done.returncode == watchdog.EXIT_STALLED
  assert done.stdout == 'told: no progress for 0.5 seconds\n'
  *stacks, last = done.stderr.splitlines()
  assert last.startswith('error: no progress for 0.5 seconds')
  assert sum(line.endswith(' in nap') for line in stacks) == 2


def test_a_process_that_was_petted_once_is_ended():
  done = run('dog.pet(); nap(50)', timeout=0.5)
  assert done.returncode == watchdog.EXIT_STALLED


def test_a_pause_is_no_alarm_but_what_follows_is_watched():
  pause = 'with dog.paused(): nap(1.5)\n  print("awake")'
  done = run(pause, timeout=0.5)
  assert (done.returncode, done.stdout) == (0, 'awake\nalive\n')
  done = run(f'{pause}\n  nap(50)', timeout=0.5)
  assert done.returncode == watchdog.EXIT_STALLED
  assert done.stdout.startswith('awake\n')


def test_progress_is_no_alarm():
  done = run('for _ in range(40): dog.pet(); nap(0.05)', timeout=1.0)
  assert (done.returncode, done.stdout) == (0, 'alive\n')


def test_zero_is_no_watchdog():
  done = run('print(threading.active_count())', timeout=0)
  assert (done.returncode, done.stdout) == (0, '1\nalive\n')


def test_a_negative_timeout_is_refused():
  with pytest.raises(ValueError, match='timeout_seconds=-1'):
    watchdog.Watchdog(-1)
