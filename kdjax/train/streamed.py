"""Training on a data set that is read while it trains: a batch a dispatch."""

import collections
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kdjax import data
from kdjax.train import sharding
from kdjax.train.given import Batch, Task
from kdjax.train.state import Snapshot, Weights
from kdjax.train.step import train_step

# So many steps may wait on the device while the host fetches the next batch.
_AHEAD = 2


class Streamed:
  """Feeds a training from batches that the host decodes ahead of it.

  The step decides which batch comes: there is no other state, so a training
  goes on where it stopped on any number of hosts.
  """

  def __init__(
    self,
    task: Task,
    teacher: Weights | None,
    split: data.Split,
    key: jax.Array,
    mesh: Mesh,
    *,
    batches: Callable[[int], Iterator[data.Streamed]],
  ) -> None:
    """Takes what does not change in a training.

    Args:
      task: what a step is made of.
      teacher: the frozen teacher, or None.
      split: the training set.
      key: the run's key.
      mesh: the devices.
      batches: from a step to this host's part of the batches from there on.
    """
    self._task, self._teacher, self._split = task, teacher, split
    self._key, self._mesh, self._batches = key, mesh, batches
    self._iterator, self._next = iter(()), -1
    self._last = None  # the step and its batch
    self._run = None

  def compile(self, snapshot: Snapshot) -> None:
    """Compiles the step for snapshots that lie as this one does."""
    everywhere = sharding.replicated(self._mesh)
    run = jax.jit(
      functools.partial(_step_at, self._task),
      donate_argnums=0,
      out_shardings=(jax.tree.map(lambda a: a.sharding, snapshot), everywhere),
    )
    inputs, labels = sharding.shapes(
      self._mesh, self._task.batch_size, self._split[:2]
    )
    batch = Batch(inputs, labels, positions=labels)
    index = sharding.place(np.int32(0), everywhere)
    self._run = run.lower(
      snapshot, self._teacher, batch, self._key, index
    ).compile()

  def advance(self, snapshot: Snapshot, start: int, stop: int) -> Snapshot:
    """Trains from step `start` until step `stop`, or until one that fails.

    Args:
      snapshot: where the training is; its arrays are given up.
      start: its step.
      stop: the step to stop before.

    Returns:
      Where the training is then.
    """
    if self._next != start:
      self._iterator, self._next = self._batches(start), start
    waiting = collections.deque()
    for index in range(start, stop):
      batch = self._fetch()
      self._last = index, batch
      snapshot, done = self.take(snapshot, batch, index)
      waiting.append(done)
      if len(waiting) > _AHEAD:
        jax.block_until_ready(waiting.popleft())
    return snapshot

  def take(
    self, snapshot: Snapshot, batch: Batch, index: int
  ) -> tuple[Snapshot, jax.Array]:
    """Dispatches one step; the device may not be done when it returns.

    Args:
      snapshot: where the training is; its arrays are given up.
      batch: on the devices.
      index: the step; no other is taken.

    Returns:
      Where the training is then, and its step, to wait for.
    """
    index = sharding.place(np.int32(index), sharding.replicated(self._mesh))
    with jax.transfer_guard('disallow'):
      return self._run(snapshot, self._teacher, batch, self._key, index)

  def batch(self, step: int) -> tuple[Batch, jax.Array]:
    """Returns the batch of a step, and the key to prepare it."""
    if self._last and self._last[0] == step:
      return self._last[1], self._key
    self._iterator, self._next = self._batches(step), step
    batch = self._fetch()
    self._next = -1
    return batch, self._key

  def positions(self, batch: Batch) -> np.ndarray:
    """Returns where in the training set the examples of all hosts are."""
    gather = jax.jit(lambda x: x, out_shardings=sharding.replicated(self._mesh))
    return jax.device_get(gather(batch.positions))

  def _fetch(self) -> Batch:
    local = next(self._iterator)
    self._next += 1
    positions = local.positions.astype(np.int32)
    inputs, labels, positions = sharding.from_hosts(
      self._mesh, (local.inputs, local.labels, positions)
    )
    return Batch(inputs, labels, positions=positions)


def _step_at(
  task: Task,
  snapshot: Snapshot,
  teacher: Weights | None,
  batch: Batch,
  key: jax.Array,
  index: jax.Array,
) -> tuple[Snapshot, jax.Array]:
  """Takes step `index`, unless an earlier one made no update."""

  def take(snapshot: Snapshot) -> Snapshot:
    state, metrics = train_step(task, snapshot.state, teacher, batch, key)
    return Snapshot(state, jax.tree.map(jnp.add, snapshot.sums, metrics))

  snapshot = jax.lax.cond(
    snapshot.state.step == index, take, lambda snapshot: snapshot, snapshot
  )
  return snapshot, jnp.copy(snapshot.state.step)
