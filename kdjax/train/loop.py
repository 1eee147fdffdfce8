"""Trains one network, a teacher or a student, or goes on with it."""

import dataclasses
import functools
import math
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kdjax import data
from kdjax.train import evaluate, optimizer, sharding, step, task
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.progress import Phase, Reporter
from kdjax.train.state import Network, State, create
from kdjax.train.writers import MetricsWriter

# A dispatch aims at this long: the bar moves, and the host hardly counts.
_SECONDS_PER_DISPATCH = 1.0


@dataclasses.dataclass(frozen=True)
class Fitted:
  """What training leaves.

  Attributes:
    last: the network after the last step.
    best: the network with the best dev accuracy.
    best_step: the step of `best`.
  """

  last: Network
  best: Network
  best_step: int


def fit(
  config: ConfigDict,
  dataset: data.Dataset,
  *,
  teacher: Network | None,
  name: str,
  directory: Path,
  mesh: Mesh,
  reporter: Reporter,
) -> Fitted:
  """Trains `config.student` by `config.method`, or goes on with it.

  Args:
    config: a configuration.
    dataset: `train` is what this network sees, `dev` selects the best step.
    teacher: a trained network, or None for a method without one.
    name: shown beside the progress.
    directory: takes `checkpoints/`, `metrics.jsonl` and event files.
    mesh: the devices.
    reporter: shows the progress.

  Returns:
    The trained network, last and best on dev.

  Raises:
    ValueError: something in the config does not fit the data or the devices.
  """
  job = task.prepare(config, dataset, teacher, mesh)
  directory.mkdir(parents=True, exist_ok=True)
  with Checkpoints(
    directory / 'checkpoints', keep=config.keep_checkpoints
  ) as checkpoints:
    state, start = job.initial, checkpoints.latest() or 0
    if start:
      state = checkpoints.restore(state, step=start)
    if start < job.num_steps:
      with (
        MetricsWriter(directory, resume_step=start) as writer,
        reporter.phase(name, num_steps=job.num_steps, start=start) as phase,
      ):
        state = _train(job, state, start, checkpoints, writer, phase, mesh)
    checkpoints.wait()
    best_step = checkpoints.best()
    best = checkpoints.restore(state, step=best_step)
  graphdef = job.task.student
  return Fitted(
    last=Network(graphdef, *state.evaluated),
    best=Network(graphdef, *best.evaluated),
    best_step=best_step,
  )


def restore(
  config: ConfigDict, dataset: data.Dataset, *, directory: Path, mesh: Mesh
) -> Network:
  """Returns a network that `fit` has trained to its end.

  Args:
    config: what it was trained by.
    dataset: what it was trained on.
    directory: holds `checkpoints/`.
    mesh: the devices.

  Returns:
    The network after its last step.

  Raises:
    ValueError: the training has not come to its end.
  """
  steps_per_epoch = len(dataset.train.labels) // config.batch_size
  num_steps = config.num_epochs * steps_per_epoch
  network = task.build(config, dataset)
  initial = create(
    network.params,
    network.rest,
    optimizer.make(config, steps_per_epoch=steps_per_epoch),
    ema_decay=config.ema_decay,
  )
  like = jax.device_put(initial, sharding.replicated(mesh))
  with Checkpoints(
    directory / 'checkpoints', keep=config.keep_checkpoints
  ) as checkpoints:
    last = checkpoints.latest() or 0
    if last != num_steps:
      raise ValueError(
        f'{directory} stopped at step {last} of {num_steps}: finish it with '
        f'the command that began it'
      )
    state = checkpoints.restore(like, step=last)
  return Network(network.graphdef, *state.evaluated)


def _train(
  job: task.Job,
  state: State,
  start: int,
  checkpoints: Checkpoints,
  writer: MetricsWriter,
  phase: Phase,
  mesh: Mesh,
) -> State:
  """Runs steps `start` to `job.num_steps`."""
  everywhere = sharding.replicated(mesh)
  place = functools.partial(jax.device_put, device=everywhere)
  run = jax.jit(
    functools.partial(step.run_steps, job.task),
    donate_argnums=(0, 3),
    out_shardings=everywhere,
  )
  clock = _Clock(job.task.batch_size)
  order, zero = place(step.no_order(job.task)), place(step.zero_sums())
  at, logged, sums, note, warning = start, start, zero, '', ''
  # The order is fixed: evaluate, save, fetch, step, log. Batches are fetched
  # on the device, inside the dispatch.
  while True:
    if at > start and _is_due(at, job):
      scores = _evaluate(job, state)
      writer.write(at, {f'dev_{key}': v for key, v in scores.items()})
      checkpoints.save(state, step=at, score=scores['accuracy'])
      note = f'dev accuracy {scores["accuracy"]:.2%}{warning}'
      phase.update(at, clock.rate, note)
      clock.restart()
    if at == job.num_steps:
      return state
    boundary = _boundary(at, job)
    stop = min(boundary, at + clock.num_steps)
    target = place(np.int32(stop))
    with jax.transfer_guard('disallow'):
      state, order, sums = run(
        state, job.teacher, job.examples, order, sums, job.key, target
      )
    jax.block_until_ready(sums)
    clock.tick(stop - at)
    at = stop
    if at == boundary:
      row = _row(job, sums, at, at - logged)
      if not math.isfinite(row['train_loss']):
        warning = ', the loss is not finite'
      writer.write(at, {**row, 'images_per_second': clock.rate})
      logged, sums = at, zero
    phase.update(at, clock.rate, note)


def _evaluate(job: task.Job, state: State) -> dict[str, float]:
  """Scores on dev."""
  logits = job.predict(*state.evaluated, job.dev.inputs)
  return evaluate.scores(logits, job.dev.labels)


def _row(
  job: task.Job,
  sums: dict[str, jax.Array],
  at: int,
  count: int,
) -> dict[str, float]:
  """The means of the metrics over the last `count` steps."""
  means = {k: float(v) / count for k, v in jax.device_get(sums).items()}
  return {
    'epoch': at / job.task.steps_per_epoch,
    **{f'train_{name}': value for name, value in means.items()},
    'learning_rate': float(job.rate(at - 1)),
  }


def _is_due(at: int, job: task.Job) -> bool:
  """Whether step `at` is evaluated and saved."""
  every = job.task.settings.eval_every_epochs * job.task.steps_per_epoch
  return at % every == 0 or at == job.num_steps


def _boundary(at: int, job: task.Job) -> int:
  """The next step after `at` with something to log or to evaluate."""
  settings = job.task.settings
  evaluation = settings.eval_every_epochs * job.task.steps_per_epoch
  ends = [
    (at // every + 1) * every
    for every in (evaluation, settings.log_every_steps)
  ]
  return min(*ends, job.num_steps)


class _Clock:
  """Measures the rate of training and sizes the next dispatch by it."""

  def __init__(self, batch_size: int) -> None:
    self._batch_size = batch_size
    self._seconds_per_step = math.inf
    self._compiled = False
    self.restart()

  def restart(self) -> None:
    """Leaves out the time since the last tick."""
    self._last = time.monotonic()

  def tick(self, num_steps: int) -> None:
    """Counts `num_steps` since the last tick; the first ones compile."""
    now = time.monotonic()
    if self._compiled:
      self._seconds_per_step = max(now - self._last, 1e-9) / num_steps
    self._compiled = True
    self._last = now

  @property
  def num_steps(self) -> int:
    """Steps that fill a dispatch."""
    return max(1, int(_SECONDS_PER_DISPATCH / self._seconds_per_step))

  @property
  def rate(self) -> float:
    """Examples a second in the last dispatch, 0 before it is known."""
    return self._batch_size / self._seconds_per_step
