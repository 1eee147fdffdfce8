"""Trains one network, a teacher or a student, or goes on with it."""

import dataclasses
import json
import signal
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kdjax import data
from kdjax.train import (
  checkpoint,
  evaluate,
  finite,
  hosts,
  networks,
  pace,
  sharding,
  step,
  task,
)
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.interrupts import Interrupted
from kdjax.train.progress import Phase, Reporter
from kdjax.train.session import Session
from kdjax.train.state import Network, Snapshot
from kdjax.train.writers import MetricsWriter, read_metrics


@dataclasses.dataclass(frozen=True)
class Fitted:
  """What training leaves.

  Attributes:
    last: the network after the last step.
    best: the network that is best on dev.
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
  session: Session,
) -> Fitted:
  """Trains `config.student` by `config.method`, or goes on with it.

  Args:
    config: a configuration.
    dataset: `train` is what this network sees, `dev` selects the best step.
    teacher: a trained network, or None for a method without one.
    name: shown beside the progress.
    directory: takes `checkpoints/`, `metrics.jsonl` and event files.
    session: the devices, and those who watch.

  Returns:
    The trained network, last and best on dev.

  Raises:
    ValueError: something in the config does not fit the data or the devices,
      or there are checkpoints and none can be used.
    FloatingPointError: a number is not finite.
    Interrupted: a signal came; all steps taken are saved.
    OSError: something cannot be written.
  """
  with session.watchdog.paused():
    job = task.prepare(config, dataset, teacher, session.mesh)
  with (
    session.interrupts.deferred(),
    Checkpoints(
      directory / 'checkpoints',
      keep=config.keep_checkpoints,
      config=_identity(config, dataset),
    ) as checkpoints,
  ):
    with session.watchdog.paused():
      found = checkpoints.latest(job.like, session.reporter.say)
      if found is None:
        _tell_of_loss(directory, session.reporter)
        found = checkpoint.Restored(0, None, job.initialise())
    snapshot = found.tree
    if found.step < job.num_steps or found.score is None:
      with (
        MetricsWriter(
          directory,
          resume_step=found.step,
          is_scored=found.score is not None,
        ) as writer,
        session.reporter.phase(
          name, num_steps=job.num_steps, start=found.step, unit=job.unit
        ) as phase,
      ):
        training = _Training(name, job, checkpoints, writer, phase, session)
        snapshot = training.run(found)
    with session.watchdog.paused():
      checkpoints.wait()
      best = checkpoints.read(job.like, step=checkpoints.best())
  graphdef = job.task.student
  return Fitted(
    last=Network(graphdef, *snapshot.state.evaluated),
    best=Network(graphdef, *best.tree.state.evaluated),
    best_step=best.step,
  )


def restore(
  config: ConfigDict,
  dataset: data.Dataset,
  *,
  directory: Path,
  mesh: Mesh,
  teacher: Network | None = None,
) -> Network:
  """Returns a network that `fit` has trained to its end.

  Args:
    config: what it was trained by.
    dataset: what it was trained on.
    directory: holds `checkpoints/`; nothing in it is changed.
    mesh: the devices.
    teacher: that it learned from, or its shapes; None for a method without one.

  Returns:
    The network after its last step.

  Raises:
    ValueError: the training has not come to its end, or its last checkpoint is
      damaged.
  """
  steps_per_epoch = len(dataset.train.labels) // config.batch_size
  num_steps = config.num_epochs * steps_per_epoch
  folder = directory / 'checkpoints'
  last = max(checkpoint.steps(folder), default=0)
  if last != num_steps:
    raise ValueError(
      f'{directory} stopped at step {last} of {num_steps}: finish it with '
      f'the command that began it'
    )
  like = task.like(config, dataset, mesh, teacher)
  found = checkpoint.read(folder, like, _identity(config, dataset), step=last)
  graphdef = networks.shapes(config, dataset).graphdef
  return Network(graphdef, *found.tree.state.evaluated)


def _tell_of_loss(directory: Path, reporter: Reporter) -> None:
  """Says so where a training begins anew that had been evaluated before."""
  rows = read_metrics(directory / 'metrics.jsonl')
  if any('dev_accuracy' in row for row in rows):
    reporter.say(
      f'{directory} has metrics but no checkpoint: beginning at step 0'
    )


@dataclasses.dataclass
class _Training:
  """A training that runs."""

  name: str
  job: task.Job
  checkpoints: Checkpoints
  writer: MetricsWriter
  phase: Phase
  session: Session
  in_vain: int = 0  # updates left out since the last one that was made

  def run(self, found: checkpoint.Restored) -> Snapshot:
    """Takes the steps that are left, and returns what is after the last."""
    job, session, snapshot = self.job, self.session, found.tree
    with session.watchdog.paused():
      job.feed.compile(snapshot)
      job.dev.compile(snapshot.state)
      job.parts.compile(snapshot.state)
      # Hosts compile at their own pace; collectives do not wait for long.
      hosts.agree(stop=False, num_steps=0)
    with session.interrupts.saving():
      return self._take_steps(found)

  def _take_steps(self, found: checkpoint.Restored) -> Snapshot:
    job, session = self.job, self.session
    at, _, snapshot = found
    scored = at if found.score is not None else None
    saved, note = at, ''
    clock = pace.Clock(job.task.batch_size)
    # The order is fixed: evaluate, save, fetch, step, log. Small data sets
    # are fetched on the device, inside the dispatch.
    while True:
      if pace.is_due(at, job.task, job.num_steps) and at != scored:
        with session.watchdog.paused():
          scores = job.dev(snapshot.state, lambda: not self._stopping())
          parts = scores and job.parts(snapshot.state, at)
        if scores is not None:
          note = self._save(snapshot, at, scores, parts)
          scored = saved = at
          self.phase.update(at, clock.rate * job.unit_size, note)
      stopping, num_steps = hosts.agree(
        bool(session.interrupts.requested()), clock.num_steps
      )
      if stopping:
        self._stop(snapshot, at, saved)
      if at == job.num_steps:
        return snapshot
      self.checkpoints.check()
      clock.restart()
      boundary = pace.boundary(at, job.task, job.num_steps)
      stop = min(boundary, at + num_steps)
      snapshot = job.feed.advance(snapshot, at, stop)
      self._check(snapshot, stop)
      clock.tick(stop - at)
      session.watchdog.pet()
      at = stop
      if at == boundary:
        snapshot = self._log(snapshot, at, clock.rate)
      self.phase.update(at, clock.rate * job.unit_size, note)

  def _stopping(self) -> bool:
    return hosts.agree(bool(self.session.interrupts.requested()), 0)[0]

  def _save(
    self,
    snapshot: Snapshot,
    at: int,
    scores: dict[str, float],
    parts: dict[str, float],
  ) -> str:
    """Writes the scores, starts to save, and returns what to show."""
    self._check_saved(snapshot, at)
    row = {f'dev_{key}': v for key, v in scores.items()}
    self.writer.write(at, row | {f'batch_{k}': v for k, v in parts.items()})
    self.writer.sync()  # what a checkpoint follows is on disk before it
    self.checkpoints.save(snapshot, step=at, score=evaluate.merit(scores))
    return f'dev {evaluate.headline(scores)}'

  def _stop(self, snapshot: Snapshot, at: int, saved: int) -> None:
    """Saves what is not saved yet, and ends the run."""
    if at != saved:
      self._check_saved(snapshot, at)
      self.writer.sync()
      self.checkpoints.save(snapshot, step=at)
    self.checkpoints.wait()
    hosts.leave()
    # Another host may be the one that was told.
    signum = self.session.interrupts.requested() or signal.SIGTERM
    where = f'at step {at} of {self.job.num_steps}'
    raise Interrupted(
      signum,
      f': the {self.name} stands {where}, which is saved' if at else '',
    )

  def _log(self, snapshot: Snapshot, at: int, rate: float) -> Snapshot:
    """Writes the means since the last row, and begins anew."""
    sums = {k: float(v) for k, v in jax.device_get(snapshot.sums).items()}
    steps, skipped = sums.pop('steps'), sums.pop('skipped')
    self.in_vain = 0 if steps else self.in_vain + int(skipped)
    if self.in_vain >= self.job.task.steps_per_epoch:
      raise FloatingPointError(
        f'{self.name}: none of the last {self.in_vain} updates was finite; '
        f'{self._last_saved()}'
      )
    row = {
      'epoch': at / self.job.task.steps_per_epoch,
      **{f'train_{k}': v / steps for k, v in sums.items() if steps},
      'learning_rate': float(self.job.rate(at - 1)),
      f'{self.job.unit}_per_second': rate * self.job.unit_size,
    }
    if self.job.task.skip_nonfinite:
      row['skipped_updates'] = skipped
    self.writer.write(at, row)
    everywhere = sharding.replicated(self.session.mesh)
    return snapshot._replace(
      sums=sharding.place(step.zero_sums(self.job.task.lesson.plan), everywhere)
    )

  def _check(self, snapshot: Snapshot, stop: int) -> None:
    """Raises `FloatingPointError` if a step made no update."""
    reached = int(jax.device_get(snapshot.state.step))
    if reached == stop:
      return
    batch, key = self.job.feed.batch(reached)
    positions = self.job.feed.positions(batch)
    reason = finite.explain(
      self.job.task,
      snapshot.state,
      self.job.teacher,
      batch,
      self.job.ids[positions],
      key,
    )
    raise FloatingPointError(
      f'{self.name}: {reason}; {self._last_saved()}; '
      f"config.nonfinite='skip' leaves such updates out"
    )

  def _check_saved(self, snapshot: Snapshot, at: int) -> None:
    """Raises `FloatingPointError` rather than save what is not finite."""
    leaf = finite.first_bad_leaf(snapshot.state)
    if leaf:
      raise FloatingPointError(
        f'{self.name}: {leaf} is not finite after step {at}; '
        f'{self._last_saved()}'
      )

  def _last_saved(self) -> str:
    self.checkpoints.wait()
    last = self.checkpoints.last()
    return (
      f'the last checkpoint is of step {last}' if last else 'nothing is saved'
    )


def _identity(config: ConfigDict, dataset: data.Dataset) -> dict:
  """What a checkpoint is of: a configuration, and the content of its data."""
  return {**json.loads(config.to_json()), 'data': dataset.fingerprint()}
