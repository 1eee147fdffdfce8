"""When a training pauses: to log, to evaluate, to look at the clock."""

import math
import time

from kdjax.train.given import Task

# A dispatch aims at this long: the bar moves, and the host hardly counts.
_SECONDS_PER_DISPATCH = 1.0


def is_due(at: int, task: Task, num_steps: int) -> bool:
  """Returns whether step `at` is evaluated and saved.

  Args:
    at: updates so far.
    task: with the number of steps between evaluations in its settings.
    num_steps: updates in the whole training.

  Returns:
    Whether it is.
  """
  every = task.settings.eval_every_epochs * task.steps_per_epoch
  return at > 0 and (at % every == 0 or at == num_steps)


def boundary(at: int, task: Task, num_steps: int) -> int:
  """Returns the next step after `at` with something to log or to evaluate.

  Args:
    at: updates so far.
    task: with the number of steps between both in its settings.
    num_steps: updates in the whole training.

  Returns:
    The step.
  """
  evaluation = task.settings.eval_every_epochs * task.steps_per_epoch
  ends = [
    (at // every + 1) * every
    for every in (evaluation, task.settings.log_every_steps)
  ]
  return min(*ends, num_steps)


class Clock:
  """Measures the rate of training and sizes the next dispatch by it."""

  def __init__(self, batch_size: int) -> None:
    self._batch_size = batch_size
    self._seconds_per_step = math.inf
    self.restart()

  def restart(self) -> None:
    """Leaves out the time since the last tick."""
    self._last = time.monotonic()

  def tick(self, num_steps: int) -> None:
    """Counts `num_steps` since the last restart."""
    seconds = time.monotonic() - self._last
    self._seconds_per_step = max(seconds, 1e-9) / num_steps

  @property
  def num_steps(self) -> int:
    """Steps that fill a dispatch."""
    return max(1, int(_SECONDS_PER_DISPATCH / self._seconds_per_step))

  @property
  def rate(self) -> float:
    """Examples a second in the last dispatch, 0 before it is known."""
    return self._batch_size / self._seconds_per_step
