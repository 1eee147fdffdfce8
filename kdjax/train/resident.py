"""Training on a data set that lives on the devices: many steps a dispatch."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kdjax.train import reading, sharding
from kdjax.train.given import Batch, Task
from kdjax.train.state import Snapshot, Weights
from kdjax.train.step import train_step


class Resident:
  """Feeds a training from arrays on the devices."""

  def __init__(
    self,
    task: Task,
    teacher: Weights | None,
    examples: Batch,
    key: jax.Array,
    mesh: Mesh,
  ) -> None:
    """Takes what does not change in a training.

    Args:
      task: what a step is made of.
      teacher: the frozen teacher, or None.
      examples: the whole training set, on every device.
      key: the run's key.
      mesh: the devices.
    """
    self.task, self.teacher = task, teacher
    self.examples, self.key = examples, key
    self._everywhere = sharding.replicated(mesh)
    self._order = sharding.place(no_order(task), self._everywhere)
    self._run = None
    self._find = jax.jit(
      functools.partial(batch_at, task), out_shardings=self._everywhere
    )

  def compile(self, snapshot: Snapshot) -> None:
    """Compiles the loop for snapshots that lie as this one does."""
    run = jax.jit(
      functools.partial(run_steps, self.task),
      donate_argnums=0,
      out_shardings=(
        jax.tree.map(lambda a: a.sharding, snapshot),
        self._everywhere,
      ),
    )
    self._run = run.lower(*self._arguments(snapshot, 0)).compile()

  def advance(self, snapshot: Snapshot, start: int, stop: int) -> Snapshot:
    """Trains from step `start` until step `stop`, or until one that fails.

    Args:
      snapshot: where the training is; its arrays are given up.
      start: its step.
      stop: the step to stop before.

    Returns:
      Where the training is then.
    """
    del start  # the snapshot knows
    arguments = self._arguments(snapshot, stop)
    with jax.transfer_guard('disallow'):
      snapshot, self._order = self._run(*arguments)
    return snapshot

  def batch(self, step: int) -> tuple[Batch, jax.Array]:
    """Returns the batch of a step, and the key to prepare it."""
    return self._find(self.examples, self.key, step)

  def positions(self, batch: Batch) -> np.ndarray:
    """Returns where in the training set the examples are."""
    return jax.device_get(batch.positions)

  def _arguments(self, snapshot: Snapshot, stop: int) -> tuple:
    stop = sharding.place(np.int32(stop), self._everywhere)
    fixed = self.teacher, self.examples, self._order, self.key
    return snapshot, *fixed, stop


class Order(NamedTuple):
  """The batches of an epoch.

  Attributes:
    epoch: scalar, whose order it is; -1 for none yet.
    rows: `[steps_per_epoch, B]`, positions in the training set.
  """

  epoch: jax.Array
  rows: jax.Array


def run_steps(
  task: Task,
  snapshot: Snapshot,
  teacher: Weights | None,
  examples: Batch,
  order: Order,
  key: jax.Array,
  stop: jax.Array,
) -> tuple[Snapshot, Order]:
  """Trains until step `stop`, wherever that is, in one dispatch.

  Every epoch is a new permutation of the training set, cut into whole batches;
  a text in order is read as it stands.
  A step that makes no update, and is not to be skipped, ends it early.

  Args:
    task: what a step is made of.
    snapshot: the student's state, and running sums of the metrics.
    teacher: the frozen teacher, or None.
    examples: the whole training set, `N` examples.
    order: what the last call returned, or `no_order`; it saves time only.
    key: the run's key.
    stop: scalar, the step to stop before.

  Returns:
    The new state, sums and order.
  """
  order_key, step_key = jax.random.split(key)

  def going(carry: tuple) -> jax.Array:
    snapshot, _, stuck = carry
    return (snapshot.state.step < stop) & ~stuck

  def body(carry: tuple) -> tuple:
    (state, sums), order, _ = carry
    epoch, position = jnp.divmod(state.step, task.steps_per_epoch)
    order = jax.lax.cond(
      order.epoch == epoch,
      lambda: order,
      lambda: order_of(task, order_key, epoch, len(examples.labels)),
    )
    batch = task.place(take(examples, order.rows[position]))
    new, metrics = train_step(task, state, teacher, batch, step_key)
    sums = jax.tree.map(jnp.add, sums, metrics)
    return Snapshot(new, sums), order, new.step == state.step

  start = (snapshot, order, jnp.zeros((), bool))
  return jax.lax.while_loop(going, body, start)[:2]


def batch_at(
  task: Task, examples: Batch, key: jax.Array, step: jax.Array
) -> tuple[Batch, jax.Array]:
  """Returns the batch of one step of `run_steps`.

  Args:
    task: what a step is made of.
    examples: the whole training set.
    key: the run's key.
    step: scalar, which step.

  Returns:
    The batch, and the key for `prepare`.
  """
  order_key, step_key = jax.random.split(key)
  epoch, position = jnp.divmod(step, task.steps_per_epoch)
  order = order_of(task, order_key, epoch, len(examples.labels))
  return take(examples, order.rows[position]), step_key


def no_order(task: Task) -> Order:
  """Returns what stands for an order before the first step."""
  shape = (task.steps_per_epoch, task.batch_size)
  return Order(jnp.full((), -1, jnp.int32), jnp.zeros(shape, jnp.int32))


def order_of(
  task: Task, key: jax.Array, epoch: jax.Array, num_examples: int
) -> Order:
  """Returns the batches of an epoch.

  Args:
    task: with their number and size.
    key: of all orders.
    epoch: scalar.
    num_examples: in the training set.

  Returns:
    The order.
  """
  if task.in_order:
    return Order(epoch, reading.streams(num_examples, task.batch_size))
  bits = jax.random.bits(jax.random.fold_in(key, epoch), (num_examples,))
  rows = jnp.argsort(bits)[: task.steps_per_epoch * task.batch_size]
  return Order(epoch, rows.reshape(task.steps_per_epoch, task.batch_size))


def take(examples: Batch, rows: jax.Array) -> Batch:
  """Returns the examples at `rows` of a whole data set."""
  # Whole rows of a matrix are the fastest to fetch.
  taken = jax.tree.map(
    lambda a: a.reshape(len(a), -1)[rows].reshape(*rows.shape, *a.shape[1:]),
    examples,
  )
  return taken._replace(positions=rows)
