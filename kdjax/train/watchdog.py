"""Ends a run that hangs: a peer asleep, a lost device, a stuck disk."""

import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator

# EX_SOFTWARE: no progress, and nobody who could be asked why.
EXIT_STALLED = 70

_MAX_TICK_SECONDS = 1.0


class Watchdog:
  """A thread that ends the process unless it hears of progress.

  It writes the stacks of all threads to stderr, says why in the last line, and
  exits with `EXIT_STALLED`, whatever the main thread does.

  It counts its own ticks, not the clock: a process that is stopped as a whole
  (Ctrl-Z, a suspended machine) is not to blame when it goes on.
  """

  def __init__(
    self,
    timeout_seconds: float,
    *,
    announce: Callable[[str], None] = lambda reason: None,
  ) -> None:
    """Does nothing before it is entered.

    Args:
      timeout_seconds: without progress; 0 for no watchdog.
      announce: called before the end, to tell the other hosts.

    Raises:
      ValueError: `timeout_seconds` is negative.
    """
    if timeout_seconds < 0:
      raise ValueError(
        f'timeout_seconds={timeout_seconds} must be positive, or 0 for none'
      )
    self._timeout, self._announce = timeout_seconds, announce
    self._tick = min(_MAX_TICK_SECONDS, timeout_seconds / 10)
    self._silent = 0.0  # seconds
    self._num_pauses = 0
    self._stopped = threading.Event()

  def __enter__(self) -> 'Watchdog':
    if self._timeout:
      threading.Thread(target=self._watch, daemon=True).start()
    return self

  def __exit__(self, *_: object) -> None:
    self._stopped.set()

  def pet(self) -> None:
    """Says that progress was made."""
    self._silent = 0.0

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Expects no progress: around what takes as long as it takes."""
    self._num_pauses += 1
    try:
      yield
    finally:
      self.pet()
      self._num_pauses -= 1

  def _watch(self) -> None:
    while not self._stopped.wait(self._tick):
      if not self._num_pauses:
        self._silent += self._tick
        if self._silent > self._timeout:
          self._bite()

  def _bite(self) -> None:
    reason = f'no progress for {self._timeout:g} seconds'
    try:
      faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
      self._announce(reason)
      print(
        f'error: {reason}: see above where every thread was; run the same '
        f'command to go on, with a longer timeout if the work takes so long',
        file=sys.__stderr__,
        flush=True,
      )
    finally:  # nobody may be there to read
      os._exit(EXIT_STALLED)
