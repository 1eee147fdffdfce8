"""The training step: one pure function, and a loop of it on the device."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from kdjax import methods, models
from kdjax.train.state import State, Weights


class Batch(NamedTuple):
  """Examples, or a whole data set.

  Attributes:
    inputs: `[B, ...]`, as stored: uint8 images or float vectors.
    labels: `[B]`.
    teacher_logits: `[B, K]` where they were computed beforehand, or None.
  """

  inputs: jax.Array
  labels: jax.Array
  teacher_logits: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Task:
  """What a step is made of. Nothing here is an array.

  Attributes:
    student: graph definition of the network in training.
    teacher: graph definition of the teacher, or None.
    loss: maps an exchange and settings to `[B]`, in nats.
    settings: the configuration that the loss reads.
    optimizer: updates the parameters.
    augment: maps a key and stored inputs to stored inputs.
    normalise: maps stored inputs to what the networks take.
    steps_per_epoch: steps in a pass over the training set.
    batch_size: examples a step.
    place: constrains how a batch lies on the devices.
  """

  student: nnx.GraphDef
  teacher: nnx.GraphDef | None
  loss: methods.Loss
  settings: methods.Settings
  optimizer: optax.GradientTransformation
  augment: Callable[[jax.Array, jax.Array], jax.Array]
  normalise: Callable[[jax.Array], jax.Array]
  steps_per_epoch: int
  batch_size: int
  place: Callable[[Batch], Batch] = lambda batch: batch


METRICS = ('loss', 'accuracy', 'gradient_norm')


def train_step(
  task: Task,
  state: State,
  teacher: Weights | None,
  batch: Batch,
  key: jax.Array,
) -> tuple[State, dict[str, jax.Array]]:
  """Updates the student once. Pure; the only place where losses are reduced.

  Args:
    task: what the step is made of.
    state: the student's state.
    teacher: the frozen teacher, or None for a method without one.
    batch: `B` examples.
    key: the run's key; the step's own is `fold_in(key, state.step)`.

  Returns:
    The new state, and the batch's scalars named by `METRICS`.
  """
  augment_key, dropout_key = jax.random.split(
    jax.random.fold_in(key, state.step)
  )
  inputs = task.normalise(task.augment(augment_key, batch.inputs))
  epoch = state.step / task.steps_per_epoch

  def mean_loss(
    params: models.Tree,
  ) -> tuple[jax.Array, tuple[models.Tree, jax.Array]]:
    outputs, rest = models.apply(
      task.student, params, state.rest, inputs, train=True, key=dropout_key
    )
    exchange = methods.Exchange(
      outputs, *_consult(task, teacher, batch, inputs), batch.labels, epoch
    )
    per_example = task.loss(exchange, task.settings)
    return jnp.mean(per_example), (rest, outputs.logits)

  (loss, (rest, logits)), gradient = jax.value_and_grad(
    mean_loss, has_aux=True
  )(state.params)
  updates, opt_state = task.optimizer.update(
    gradient, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  metrics = {
    'loss': loss,
    'accuracy': jnp.mean(jnp.argmax(logits, -1) == batch.labels),
    'gradient_norm': optax.tree.norm(gradient),
  }
  ema = state.ema
  if ema is not None:
    # Early on the average is short: it forgets the initialisation.
    early = (1 + state.step) / (10 + state.step)
    decay = jnp.minimum(task.settings.ema_decay, early)
    ema = optax.incremental_update(Weights(params, rest), ema, 1 - decay)
  return State(state.step + 1, params, rest, opt_state, ema), metrics


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
  state: State,
  teacher: Weights | None,
  data: Batch,
  order: Order,
  sums: dict[str, jax.Array],
  key: jax.Array,
  stop: jax.Array,
) -> tuple[State, Order, dict[str, jax.Array]]:
  """Trains until step `stop`, wherever that is, in one dispatch.

  Every epoch is a new permutation of the training set, cut into whole batches.

  Args:
    task: what a step is made of.
    state: the student's state.
    teacher: the frozen teacher, or None.
    data: the whole training set, `N` examples.
    order: what the last call returned, or `no_order`; it saves time only.
    sums: running sums of the metrics.
    key: the run's key.
    stop: scalar, the step to stop before.

  Returns:
    The new state, order and sums.
  """
  order_key, step_key = jax.random.split(key)
  num_examples = data.labels.shape

  def order_of(epoch: jax.Array) -> Order:
    bits = jax.random.bits(jax.random.fold_in(order_key, epoch), num_examples)
    rows = jnp.argsort(bits)[: task.steps_per_epoch * task.batch_size]
    return Order(epoch, rows.reshape(task.steps_per_epoch, task.batch_size))

  def body(_: jax.Array, carry: tuple) -> tuple:
    state, order, sums = carry
    epoch, position = jnp.divmod(state.step, task.steps_per_epoch)
    order = jax.lax.cond(order.epoch == epoch, lambda _: order, order_of, epoch)
    batch = task.place(_take(data, order.rows[position]))
    state, metrics = train_step(task, state, teacher, batch, step_key)
    return state, order, jax.tree.map(jnp.add, sums, metrics)

  return jax.lax.fori_loop(state.step, stop, body, (state, order, sums))


def no_order(task: Task) -> Order:
  """Returns what stands for an order before the first step."""
  shape = (task.steps_per_epoch, task.batch_size)
  return Order(jnp.full((), -1, jnp.int32), jnp.zeros(shape, jnp.int32))


def zero_sums() -> dict[str, jax.Array]:
  """Returns the metrics' sums before the first step."""
  return {name: jnp.zeros(()) for name in METRICS}


def _take(data: Batch, rows: jax.Array) -> Batch:
  """The examples at `rows`; whole rows of a matrix are the fastest to fetch."""
  return jax.tree.map(
    lambda a: a.reshape(len(a), -1)[rows].reshape(*rows.shape, *a.shape[1:]),
    data,
  )


def _consult(
  task: Task, teacher: Weights | None, batch: Batch, inputs: jax.Array
) -> tuple[models.Outputs | None, jax.Array | None]:
  """The teacher's outputs on a batch, and its class weights."""
  if teacher is None:
    return None, None
  class_weights = models.merge(task.teacher, *teacher).class_weights
  if batch.teacher_logits is not None:
    return models.Outputs(batch.teacher_logits, {}), class_weights
  outputs, _ = models.apply(task.teacher, *teacher, inputs, train=False)
  return outputs, class_weights
