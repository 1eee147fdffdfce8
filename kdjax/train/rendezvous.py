"""Where the hosts of a run meet: what the environment says of it."""

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kdjax.train.peers import exit_now

_ADDRESS = 'JAX_COORDINATOR_ADDRESS'
_COUNT = 'JAX_NUM_PROCESSES'
_INDEX = 'JAX_PROCESS_ID'
_BIND = 'JAX_COORDINATOR_BIND_ADDRESS'
# What launchers say that start all processes; JAX finds the rest by itself.
_TASKS = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')
_WORKERS = ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES')


class Variables(NamedTuple):
  """What the environment says, whole and in range.

  Attributes:
    address: of host 0, without brackets.
    port: where host 0 listens.
    count: of hosts.
    index: of this one.
    bind: address and port at which host 0 listens.
  """

  address: str
  port: int
  count: int
  index: int
  bind: tuple[str, int]


def read(environ: Mapping[str, str]) -> Variables | None:
  """The three variables, or None where there is none of them."""
  names = (_ADDRESS, _COUNT, _INDEX)
  missing = [name for name in names if not environ.get(name)]
  if len(missing) == len(names):
    return None
  if missing:
    given = ' and '.join(f'{n}={environ[n]}' for n in names if environ.get(n))
    raise ValueError(
      f'{given} without {" and ".join(missing)}: several hosts need all three, '
      f'one host none'
    )
  address, port = _split(_ADDRESS, environ[_ADDRESS])
  count, index = _integer(environ, _COUNT), _integer(environ, _INDEX)
  if count < 1:
    raise ValueError(f'{_COUNT}={count} must be at least 1')
  if not 0 <= index < count:
    raise ValueError(
      f'{_INDEX}={index} must lie in 0..{count - 1} for {_COUNT}={count}'
    )
  bind = _bind(environ.get(_BIND, ''), address, port)
  return Variables(address, port, count, index, bind)


def _integer(environ: Mapping[str, str], name: str) -> int:
  try:
    return int(environ[name])
  except ValueError as error:
    raise ValueError(f'{name}={environ[name]} must be an integer') from error


def launched(environ: Mapping[str, str]) -> bool:
  """Whether a launcher has started this process as one of several."""
  return any(
    environ.get(name, '').isdecimal() and int(environ[name]) > 1
    for name in _TASKS
  ) or any(',' in environ.get(name, '') for name in _WORKERS)


def arguments(variables: Variables) -> dict[str, Any]:
  """Arguments of `jax.distributed.initialize`."""
  return {
    'coordinator_address': _joined(variables.address, variables.port),
    'coordinator_bind_address': _joined(*variables.bind),
    'num_processes': variables.count,
    'process_id': variables.index,
    'cluster_detection_method': 'deactivate',
  }


def _bind(given: str, address: str, port: int) -> tuple[str, int]:
  """Where host 0 listens: no wider than it has to."""
  if given:
    return _split(_BIND, given)
  if address == 'localhost':
    return '127.0.0.1', port
  try:
    return str(ipaddress.ip_address(address)), port
  except ValueError:  # a name: it may mean another interface on other hosts
    return '::', port


def _split(name: str, given: str) -> tuple[str, int]:
  address, _, port = given.rpartition(':')
  if not (address and port.isdecimal() and 0 < int(port) < 2**16):
    raise ValueError(
      f'{name}={given} must be host:port, with a port from 1 to 65535'
    )
  return address.strip('[]'), int(port)


def _joined(address: str, port: int) -> str:
  return f'[{address}]:{port}' if ':' in address else f'{address}:{port}'


def probe(variables: Variables, timeout_seconds: int) -> None:
  """Raises `OSError` where JAX would end the process without a clear word."""
  where = f'{_ADDRESS}={_joined(variables.address, variables.port)}'
  if variables.index == 0:
    family = socket.AF_INET6 if ':' in variables.bind[0] else socket.AF_INET
    try:
      socket.create_server(variables.bind, family=family).close()
    except OSError as error:
      raise OSError(
        f'host 0 cannot listen at {_joined(*variables.bind)} for {where}: '
        f'{error}; give a free port, or set {_BIND}'
      ) from error
    return
  end = time.monotonic() + timeout_seconds
  while (error := _knock(variables)) is not None:
    if time.monotonic() > end:
      raise OSError(
        f'host 0 is not reachable at {where} within {timeout_seconds} '
        f'seconds: {error}; start the same command there with {_INDEX}=0'
      ) from error
    time.sleep(0.2)


def _knock(variables: Variables) -> OSError | None:
  try:
    socket.create_connection((variables.address, variables.port), 5).close()
  except OSError as error:
    return error
  return None


@contextlib.contextmanager
def deadline(seconds: int, variables: Variables | None) -> Iterator[None]:
  """Ends the process if its hosts don't join: JAX cannot be interrupted."""
  who = f'not all {variables.count} hosts' if variables else 'not all hosts'
  timer = threading.Timer(
    seconds, exit_now, [f'{who} joined within {seconds} seconds']
  )
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
