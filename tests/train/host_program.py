"""What one of several hosts runs in `test_hosts.py`: `MODE HEARTBEAT`."""

import json
import os
import signal
import sys
import time

os.environ['JAX_PLATFORMS'] = 'cpu'

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kdjax.train import hosts
from kdjax.train.watchdog import Watchdog


def total():
  """A sum over an array that lies on all hosts."""
  mesh = jax.make_mesh(
    (jax.device_count(),), ('data',), axis_types=(AxisType.Auto,)
  )
  split = NamedSharding(mesh, PartitionSpec('data'))
  whole = NamedSharding(mesh, PartitionSpec())
  rows = np.full((2, 3), jax.process_index() + 1, np.float32)
  return float(
    jax.jit(lambda a, b: (a * b).sum(), out_shardings=whole)(
      jax.make_array_from_process_local_data(split, rows),
      jax.device_put(np.float32(10), whole),
    )
  )


def mistake(action):
  try:
    action()
  except (ValueError, TypeError, OSError) as error:
    return [type(error).__name__, str(error)]


def report():
  """What has to be the same on all hosts, as JSON."""
  index = jax.process_index()
  with jax.transfer_guard('disallow'):
    agreed = [hosts.agree(False, 5 + index), hosts.agree(index == 1, 7)]
    result = hosts.on_primary(lambda: {'host': index, 'text': 'é' * 3000})
  return {
    'total': total(),
    'agreed': agreed,
    'result': result,
    'missing': mistake(lambda: hosts.on_primary(lambda: open('no/such/file'))),
    'not json': mistake(lambda: hosts.on_primary(lambda: {1, 2})),
    'same': mistake(lambda: hosts.check_same('the config', 'a')),
    'not same': mistake(lambda: hosts.check_same('the config', f'{index}')),
  }


def main():
  mode, heartbeat = sys.argv[1], int(sys.argv[2])
  caught = []
  signal.signal(signal.SIGTERM, lambda *_: caught.append('SIGTERM'))
  jax.config.update('jax_num_cpu_devices', 1)
  hosts.connect(heartbeat_seconds=heartbeat, timeout_seconds=2 * heartbeat)
  if mode == 'agree':
    os.kill(os.getpid(), signal.SIGTERM)
    print(json.dumps({**report(), 'caught': caught}), flush=True)
    time.sleep(0.5 * hosts.is_primary())
    hosts.leave()
    return
  total()
  print('ready', flush=True)
  sys.stdin.readline()
  if mode == 'fail' and not hosts.is_primary():
    hosts.abandon('no such\nfile', 2)
  if mode == 'fail alike':
    print('error: of both', file=sys.stderr)
    hosts.abandon('of both', 2)
  if mode == 'asleep':
    with Watchdog(2, announce=hosts.announce) as dog:
      train(dog, naps=not hosts.is_primary())
  while True:
    total()


def train(dog, naps):
  while True:
    total()
    dog.pet()
    if naps:
      time.sleep(1000)


if __name__ == '__main__':
  main()
