"""SIGTERM and SIGINT: a run saves first, and says how to go on."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

# A process that is busy in a compiler cannot look at a flag. After so many
# seconds it ends without, unless steps were taken that are not saved.
GRACE_SECONDS = 20.0

_GO_ON = 'run the same command to go on'


class Interrupted(BaseException):
  """A signal ended the run.

  Not an `Exception`: nothing that handles mistakes may swallow it.

  Attributes:
    status: what the process exits with, 128 + the signal's number.
  """

  def __init__(self, signum: int, where: str = '') -> None:
    name = signal.Signals(signum).name
    super().__init__(f'stopped by {name}{where}: {_GO_ON}')
    self.status = 128 + signum


class Interrupts:
  """Turns SIGTERM and SIGINT into `Interrupted`; a context manager.

  At once, or, inside `deferred`, when the code there asks by `requested`.
  Further signals change nothing. Where nobody answers in time, the process
  ends. Outside the main thread, where no handler can be set, it does nothing.
  """

  def __init__(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
    self._signum: int | None = None
    self._answered = threading.Event()
    self._grace_seconds = grace_seconds
    self._deferring = False
    self._has_to_save = False
    self._undo = contextlib.ExitStack()

  def __enter__(self) -> 'Interrupts':
    if threading.current_thread() is threading.main_thread():
      self._watch()
      for signum in (signal.SIGTERM, signal.SIGINT):
        before = signal.signal(signum, self._handle)
        self._undo.callback(signal.signal, signum, before)
    return self

  def __exit__(self, *_: object) -> None:
    self._undo.close()

  def requested(self) -> int | None:
    """Returns the signal that came first, or None; now it is answered."""
    if self._signum is not None:
      self._answered.set()
    return self._signum

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """Inside, a signal waits for `requested`, or else for the end."""
    self._deferring = True
    try:
      yield
    finally:
      self._deferring = False
    if self._signum is not None and not self._answered.is_set():
      self._answered.set()
      raise Interrupted(self._signum)

  @contextlib.contextmanager
  def saving(self) -> Iterator[None]:
    """Inside, there is something to lose: no signal ends the process."""
    self._has_to_save = True
    try:
      yield
    finally:
      self._has_to_save = False

  def _handle(self, signum: int, frame: FrameType | None) -> None:
    del frame
    first = self._signum is None
    self._signum = self._signum or signum
    if first and not self._deferring:
      self._answered.set()
      raise Interrupted(signum)

  def _watch(self) -> None:
    """Starts a thread that hears of signals even if Python does not run."""
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=self._end_late, args=(heard,), daemon=True)
    thread.start()

    def stop() -> None:
      signal.set_wakeup_fd(before)
      self._answered.set()
      told.close()  # wakes the thread
      thread.join()
      heard.close()

    self._undo.callback(stop)

  def _end_late(self, heard: socket.socket) -> None:
    """Ends the process when a signal was not answered in time."""
    while data := heard.recv(1):
      signum = data[0]
      if signum not in (signal.SIGTERM, signal.SIGINT):
        continue
      while not self._answered.wait(self._grace_seconds):
        if not self._has_to_save:
          self._end(signum)
      return

  def _end(self, signum: int) -> None:
    try:
      seconds = f' while busy for {self._grace_seconds:g} s'
      print(f'error: {Interrupted(signum, seconds)}', file=sys.stderr)
      sys.stderr.flush()
    finally:  # nobody may be there to read
      os._exit(128 + signum)
