"""Several hosts, one process each, that run the same command together.

Started with `JAX_COORDINATOR_ADDRESS=host:port`, `JAX_NUM_PROCESSES=n` and
`JAX_PROCESS_ID=i` in the environment, or by `srun`, by `mpirun` or on a TPU
pod, processes join; started without, there is one host and every function
here is immediate.
"""

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from kdjax.train import rendezvous
from kdjax.train.peers import Peers

T = TypeVar('T')

_ERRORS = {'ValueError': ValueError, 'TypeError': TypeError, 'OSError': OSError}

_peers: list[Peers] = []  # at most one: a process joins once, as in JAX


def connect(*, heartbeat_seconds: int = 30, timeout_seconds: int = 300) -> None:
  """Joins the other hosts; before anything else touches a device.

  Args:
    heartbeat_seconds: a host that says nothing for so long is taken for dead.
    timeout_seconds: how long to wait for all hosts.

  Raises:
    ValueError: the environment variables are incomplete or wrong.
    OSError: host 0 is not reachable, or its port is in use. A host that is
      missing ends the process with `peers.EXIT_LOST_HOST`.
  """
  variables = rendezvous.read(os.environ)
  if variables is None and not rendezvous.launched(os.environ):
    return
  if variables and variables.count == 1:
    return
  settings = {
    # JAX looks twice in this time, and `Peers` must be first to look.
    'heartbeat_timeout_seconds': 2 * heartbeat_seconds + 4,
    'initialization_timeout': 2 * timeout_seconds,  # aborts: ours is first
  }
  if variables:
    settings |= rendezvous.arguments(variables)
    rendezvous.probe(variables, timeout_seconds)
  # It would take SIGTERM from whoever handles it already.
  jax.config.update('jax_enable_preemption_service', False)
  with rendezvous.deadline(timeout_seconds, variables):
    jax.distributed.initialize(**settings)
  if jax.process_count() > 1:
    _watch_peers(variables, heartbeat_seconds)


def is_primary() -> bool:
  """Whether this is host 0, which alone writes files."""
  return jax.process_index() == 0


def on_primary(action: Callable[[], T]) -> T:
  """Runs something on host 0 alone and gives its result to all hosts.

  Args:
    action: returns what JSON can hold.

  Returns:
    Its result, read from JSON where there are several hosts.

  Raises:
    ValueError: `action` raised it; on all hosts, with the same text.
    TypeError: likewise.
    OSError: likewise.
  """
  if jax.process_count() == 1:
    return action()
  if not is_primary():
    kind, value = json.loads(_from_primary(''))
    if kind in _ERRORS:
      raise _ERRORS[kind](value)
    return value
  try:
    text = json.dumps(['result', action()])
  except tuple(_ERRORS.values()) as error:
    kind = next(k for k, base in _ERRORS.items() if isinstance(error, base))
    _from_primary(json.dumps([kind, str(error)]))
    raise _ERRORS[kind](str(error)) from error  # no subclass: as elsewhere
  return json.loads(_from_primary(text))[1]


def agree(stop: bool, num_steps: int) -> tuple[bool, int]:
  """Settles what all hosts do next.

  Args:
    stop: whether this host wants to stop.
    num_steps: how many steps this host would do.

  Returns:
    Whether any host wants to stop, and host 0's number of steps.
  """
  if jax.process_count() == 1:
    return stop, num_steps
  said = _gather(np.array([stop, num_steps], np.int32))
  return bool(said[:, 0].any()), int(said[0, 1])


def check_same(name: str, text: str) -> None:
  """Raises `ValueError`, on all hosts, unless all give the same text.

  Args:
    name: what it is, such as 'the config'.
    text: any.
  """
  if jax.process_count() == 1:
    return
  digest = hashlib.sha256(text.encode()).digest()
  said = _gather(np.frombuffer(digest, np.uint8))
  other = [i for i, row in enumerate(said) if (row != said[0]).any()]
  if other:
    raise ValueError(
      f'{name} of host {", ".join(map(str, other))} is not that of host 0: '
      f'run the same command on all hosts'
    )


def leave() -> None:
  """Waits for all hosts and parts from them; call it when all end alike."""
  if not _peers:
    return
  agree(stop=True, num_steps=0)
  _peers.pop().close()
  jax.distributed.shutdown()


def announce(reason: str) -> None:
  """Tells the other hosts that this one ends, so that they end too.

  The process must end by `os._exit` afterwards: JAX would wait for the others
  at a normal exit.

  Args:
    reason: one line.
  """
  for peers in _peers:
    peers.announce(reason)


def abandon(reason: str, status: int) -> NoReturn:
  """Ends this process, whatever the other hosts do; they are told why.

  At once: library threads that fail, too, would write after the last line.

  Args:
    reason: one line.
    status: of the exit.
  """
  try:
    announce(reason)
    sys.stdout.flush()
    sys.stderr.flush()
  finally:  # nobody may be there to read
    os._exit(status)


def _watch_peers(
  variables: rendezvous.Variables | None, heartbeat_seconds: int
) -> None:
  """Connects all hosts to host 0."""
  peers = Peers(
    index=jax.process_index(),
    count=jax.process_count(),
    silence_seconds=heartbeat_seconds,
  )
  _peers.append(peers)
  found = on_primary(
    lambda: [
      socket.gethostname(),
      *peers.listen(variables.bind[0] if variables else '::'),
      peers.name,
    ]
  )
  if not is_primary():
    if variables:
      found[0] = variables.address
    peers.join(*found)


def _from_primary(text: str) -> str:
  """Host 0's text, on all hosts."""
  data = np.frombuffer(text.encode(), np.uint8)
  size = int(_broadcast(np.array([data.size], np.int32))[0])
  # Few distinct sizes: each is compiled.
  padded = np.zeros(1 << max(10, (size - 1).bit_length()), np.uint8)
  if is_primary():
    padded[:size] = data
  return _broadcast(padded)[:size].tobytes().decode()


def _broadcast(array: np.ndarray) -> np.ndarray:
  with jax.transfer_guard('allow'):  # small, and on purpose
    return multihost_utils.broadcast_one_to_all(array)


def _gather(array: np.ndarray) -> np.ndarray:
  with jax.transfer_guard('allow'):
    return multihost_utils.process_allgather(array)
