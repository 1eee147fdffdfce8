"""What surrounds a training: the devices, and those who watch it."""

from typing import NamedTuple

from jax.sharding import Mesh

from kdjax.train.interrupts import Interrupts
from kdjax.train.progress import Reporter
from kdjax.train.watchdog import Watchdog


class Session(NamedTuple):
  """What surrounds a training.

  Attributes:
    mesh: the devices of all hosts.
    reporter: shows the progress.
    interrupts: signals that ask the run to stop.
    watchdog: ends a run that hangs.
  """

  mesh: Mesh
  reporter: Reporter
  interrupts: Interrupts
  watchdog: Watchdog
