"""Hosts that watch each other, so that none waits for a dead one.

Each host keeps one connection to host 0 and sends a beat over it. A host that
has to go says why, and host 0 passes it on; a host that goes without a word,
or says nothing for too long, is lost. JAX notices most of that too, but later,
or without saying which host, and a host that fails alone it never mentions.
"""

import contextlib
import hmac
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

# EX_TEMPFAIL: nothing is wrong here, and the same command goes on.
EXIT_LOST_HOST = 75

_BYE = 'bye'
_MAX_BEAT_SECONDS = 1.0
# A host's error may only echo another's death: let that be noticed first.
_GRACE_SECONDS = 1.0
# Host 0 stays for so long until the others have heard why it goes.
_LINGER_SECONDS = 2.0


def exit_now(reason: str) -> None:
  """Ends the process though its main thread may hang; the last line says why.

  Args:
    reason: one line.
  """
  line = (
    f'\nerror: {reason}; run the same command on all hosts to go on, also on '
    f'another number of hosts\n'
  )
  try:
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # JAX may be about to abort
    os.write(stderr, line.encode())
  finally:  # nobody may be there to read
    os._exit(EXIT_LOST_HOST)


class Peers:
  """This host's connections to the others."""

  def __init__(
    self,
    *,
    index: int,
    count: int,
    silence_seconds: float,
    end: Callable[[str], None] = exit_now,
  ) -> None:
    """Connects to nobody yet.

    Args:
      index: of this host, from 0.
      count: of all hosts.
      silence_seconds: a host that says nothing for so long is lost.
      end: called, once, in another thread, with what is to be said about a
        lost host.
    """
    where = f'{socket.gethostname()}, process {os.getpid()}'
    self.name = f'host {index} of {count} ({where})'
    self._index, self._silence, self._end = index, silence_seconds, end
    self._links: list[_Link] = []
    self._listener: socket.socket | None = None
    self._leaving = threading.Event()  # farewells no longer matter
    self._closed = threading.Event()  # nor does silence
    self._once = threading.Lock()

  def listen(self, address: str) -> tuple[int, str]:
    """Awaits the other hosts; for host 0.

    Args:
      address: of the interface to listen at, '::' for every one.

    Returns:
      The port, and the secret that a host has to know.
    """
    self._listener = socket.create_server(
      (address, 0),
      family=socket.AF_INET6 if ':' in address else socket.AF_INET,
      dualstack_ipv6=address == '::',
    )
    secret = secrets.token_hex(16)
    _start(self._accept, secret)
    _start(self._beat)
    return self._listener.getsockname()[1], secret

  def join(self, address: str, port: int, secret: str, name: str) -> None:
    """Connects to host 0; for the others.

    Args:
      address: of host 0.
      port: what its `listen` returned.
      secret: likewise.
      name: its `name`.

    Raises:
      OSError: it is not reachable.
    """
    try:
      connection = socket.create_connection((address, port), self._silence)
    except OSError as error:
      raise OSError(
        f'{name} is not reachable at {address}, port {port}: {error}; hosts '
        f'have to reach each other at every port'
      ) from error
    link = _Link(connection, name)
    link.send(f'{secret} {self.name}')
    self._links.append(link)
    _start(self._watch, link)
    _start(self._beat)

  def announce(self, reason: str) -> None:
    """Tells the others why this host ends; the caller then ends it.

    If the reason is that another host died, this host's `end` is called
    first. Of hosts that announce at the same time, each ends by itself.

    Args:
      reason: one line.
    """
    self._leaving.set()
    time.sleep(_GRACE_SECONDS)
    if self._once.acquire(blocking=False):
      self._tell(f'{self.name} ended: {" ".join(reason.split())}')
    else:  # another host is lost: leave it to `end`
      time.sleep(2 * _LINGER_SECONDS)

  def close(self) -> None:
    """Says goodbye: from now on every host may go."""
    self._leaving.set()
    self._closed.set()
    for link in tuple(self._links):
      link.send(_BYE)
      link.hang_up()
    if self._listener:
      with contextlib.suppress(OSError):  # closed before
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes `_accept`
      self._listener.close()

  def _accept(self, secret: str) -> None:
    while not self._closed.is_set():
      try:
        connection, _ = self._listener.accept()
      except OSError:  # closed
        return
      _start(self._greet, connection, secret)

  def _greet(self, connection: socket.socket, secret: str) -> None:
    connection.settimeout(self._silence)
    link = _Link(connection, 'a stranger')
    try:
      given, _, link.name = link.lines.readline(1000).strip().partition(' ')
    except OSError:
      given = ''
    if not hmac.compare_digest(given.encode(), secret.encode()):
      link.close()
      return
    self._links.append(link)
    self._watch(link)

  def _beat(self) -> None:
    while not self._closed.wait(min(_MAX_BEAT_SECONDS, self._silence / 4)):
      for link in tuple(self._links):
        link.send('')

  def _watch(self, link: '_Link') -> None:
    """Listens to one host until it says goodbye or is lost."""
    try:
      text = next(filter(None, map(str.strip, link.lines)), None)
      reason = 'it closed the connection without a word'
    except TimeoutError:
      text, reason = None, f'it says nothing for {self._silence:g} seconds'
    except OSError as error:
      text, reason = None, str(error)
    link.gone.set()
    link.close()
    if text:
      if text != _BYE and not self._leaving.is_set():
        self._lost(text)
      return
    if not self._closed.is_set():
      self._lost(f'{link.name} does not answer: {reason}')

  def _lost(self, text: str) -> None:
    if self._once.acquire(blocking=False):
      self._tell(text)
      self._end(text)

  def _tell(self, text: str) -> None:
    """Sends a farewell; host 0, to which all are connected, waits a little."""
    for link in tuple(self._links):
      link.send(text)
    if self._index == 0:
      patience = _LINGER_SECONDS / max(1, len(self._links))
      for link in tuple(self._links):
        link.gone.wait(patience)


class _Link:
  """One connection: lines of text in both directions."""

  def __init__(self, connection: socket.socket, name: str) -> None:
    self.name = name
    self.gone = threading.Event()
    self._connection = connection
    self.lines = connection.makefile('r', encoding='utf-8', errors='replace')

  def send(self, text: str) -> None:
    with contextlib.suppress(OSError):  # `_watch` notices, too
      self._connection.sendall(f'{text}\n'.encode())

  def hang_up(self) -> None:
    """Wakes the thread that reads."""
    with contextlib.suppress(OSError):  # the other side was first
      self._connection.shutdown(socket.SHUT_RDWR)

  def close(self) -> None:
    """For the thread that reads."""
    self.lines.close()
    self._connection.close()


def _start(target: Callable[..., None], *args: object) -> None:
  threading.Thread(target=target, args=args, daemon=True).start()
