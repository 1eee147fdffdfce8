"""The training step: one pure function."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from kdjax import data, methods, models
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
    gather: constrains parameters to lie whole on every device, for use.
    parts: the batch is worked on in so many, and their gradients averaged.
    mixup: α of mixup, or 0 for none.
    skip_nonfinite: an update that is not finite is left out; else it ends the
      training.
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
  gather: Callable[[models.Tree], models.Tree] = lambda params: params
  parts: int = 1
  mixup: float = 0.0
  skip_nonfinite: bool = False


METRICS = ('loss', 'accuracy', 'gradient_norm')


class Examples(NamedTuple):
  """A batch, ready for the networks.

  Attributes:
    inputs: `[B, ...]`, augmented and normalised.
    labels: `[B]`.
    teacher_logits: `[B, K]`, or None.
    shares: `[B]`, of the example itself in what mixup made of it, or None.
    partners: `[B]`, labels of the examples that mixup added, or None.
  """

  inputs: jax.Array
  labels: jax.Array
  teacher_logits: jax.Array | None
  shares: jax.Array | None = None
  partners: jax.Array | None = None


class Answers(NamedTuple):
  """What the networks say of a batch.

  Attributes:
    losses: `[B]`, in nats.
    logits: the student's, `[B, K]`.
    teacher_logits: `[B, K]`, or None.
    rest: the student's batch statistics after this batch.
  """

  losses: jax.Array
  logits: jax.Array
  teacher_logits: jax.Array | None
  rest: models.Tree


def train_step(
  task: Task,
  state: State,
  teacher: Weights | None,
  batch: Batch,
  key: jax.Array,
) -> tuple[State, dict[str, jax.Array]]:
  """Updates the student once. Pure; the only place where losses are reduced.

  An update from a loss, a gradient or batch statistics that are not finite is
  not made. Then the step stays the same, too, unless `task.skip_nonfinite`.

  Args:
    task: what the step is made of.
    state: the student's state.
    teacher: the frozen teacher, or None for a method without one.
    batch: `B` examples.
    key: the run's key; the step's own is `fold_in(key, state.step)`.

  Returns:
    The new state, and the batch's scalars named by `METRICS`, beside `steps`
    and `skipped`: 1 and 0, or 0 and 1 with the others 0 for no update.
  """
  examples, dropout_key = prepare(task, batch, key, state.step)
  mean = _mean_over_parts if task.parts > 1 else _mean_over_batch
  loss, accuracy, rest, gradient = mean(
    task, state, teacher, examples, dropout_key
  )
  norm = optax.tree.norm(gradient)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm) & _all_finite(rest)

  def keep() -> State:
    step = state.step + task.skip_nonfinite
    return dataclasses.replace(state, step=step)

  state = jax.lax.cond(
    finite, lambda: _update(task, state, rest, gradient), keep
  )
  metrics = {
    'loss': loss,
    'accuracy': accuracy,
    'gradient_norm': norm,
    'steps': 1.0,
  }
  metrics = {k: jnp.where(finite, v, 0.0) for k, v in metrics.items()}
  return state, metrics | {'skipped': jnp.where(finite, 0.0, 1.0)}


def prepare(
  task: Task, batch: Batch, key: jax.Array, step: jax.Array
) -> tuple[Examples, jax.Array]:
  """Returns a batch as the networks see it in a step, and its dropout key.

  Args:
    task: what a step is made of.
    batch: `B` examples as stored.
    key: the run's key.
    step: scalar, which step.

  Returns:
    The examples and a key.
  """
  step_key = jax.random.fold_in(key, step)
  augment_key, dropout_key = jax.random.split(step_key)
  inputs = task.normalise(task.augment(augment_key, batch.inputs))
  examples = Examples(inputs, batch.labels, batch.teacher_logits)
  if task.mixup:
    inputs, shares = data.mixup(
      jax.random.fold_in(augment_key, 1), inputs, alpha=task.mixup
    )
    partners = jnp.roll(batch.labels, 1, axis=0)
    examples = examples._replace(
      inputs=inputs, shares=shares, partners=partners
    )
  return examples, dropout_key


def answer(
  task: Task,
  params: models.Tree,
  state: State,
  teacher: Weights | None,
  examples: Examples,
  key: jax.Array,
) -> Answers:
  """Returns what both networks say of a batch, and the loss of each example.

  Args:
    task: what a step is made of.
    params: the student's parameters.
    state: the rest of the student, and the step.
    teacher: the frozen teacher, or None.
    examples: `B` of them.
    key: of the dropout.

  Returns:
    The answers.
  """
  outputs, rest = models.apply(
    task.student,
    task.gather(params),
    state.rest,
    examples.inputs,
    train=True,
    key=key,
  )
  mentor, class_weights = _consult(task, teacher, examples)
  epoch = state.step / task.steps_per_epoch

  def losses_of(labels: jax.Array) -> jax.Array:
    exchange = methods.Exchange(outputs, mentor, class_weights, labels, epoch)
    return task.loss(exchange, task.settings)

  losses = losses_of(examples.labels)
  if examples.shares is not None:
    share = examples.shares
    losses = share * losses + (1 - share) * losses_of(examples.partners)
  return Answers(losses, outputs.logits, mentor and mentor.logits, rest)


def zero_sums() -> dict[str, jax.Array]:
  """Returns the metrics' sums before the first step."""
  return {name: jnp.zeros(()) for name in (*METRICS, 'steps', 'skipped')}


def _update(
  task: Task, state: State, rest: models.Tree, gradient: models.Tree
) -> State:
  """The state after an update by `gradient`."""
  updates, opt_state = task.optimizer.update(
    gradient, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema is not None:
    # Early on the average is short: it forgets the initialisation.
    early = (1 + state.step) / (10 + state.step)
    decay = jnp.minimum(task.settings.ema_decay, early)
    ema = optax.incremental_update(Weights(params, rest), ema, 1 - decay)
  return State(state.step + 1, params, rest, opt_state, ema)


def _mean_over_batch(
  task: Task,
  state: State,
  teacher: Weights | None,
  examples: Examples,
  key: jax.Array,
) -> tuple[jax.Array, jax.Array, models.Tree, models.Tree]:
  """Mean loss, accuracy, new batch statistics, and gradient."""

  def mean_loss(params: models.Tree) -> tuple[jax.Array, Answers]:
    answers = answer(task, params, state, teacher, examples, key)
    return jnp.mean(answers.losses), answers

  (loss, answers), gradient = jax.value_and_grad(mean_loss, has_aux=True)(
    state.params
  )
  correct = jnp.argmax(answers.logits, -1) == examples.labels
  return loss, jnp.mean(correct), answers.rest, gradient


def _mean_over_parts(
  task: Task,
  state: State,
  teacher: Weights | None,
  examples: Examples,
  key: jax.Array,
) -> tuple[jax.Array, jax.Array, models.Tree, models.Tree]:
  """The same over parts of the batch, one after the other.

  Each takes every `parts`-th example, so that all devices share each part.
  """
  split = jax.tree.map(
    lambda a: jnp.swapaxes(a.reshape(-1, task.parts, *a.shape[1:]), 0, 1),
    examples,
  )

  def body(carry: tuple, part: tuple) -> tuple[tuple, None]:
    rest, totals = carry
    index, examples = part
    *means, rest, gradient = _mean_over_batch(
      task,
      dataclasses.replace(state, rest=rest),
      teacher,
      examples,
      jax.random.fold_in(key, index),
    )
    return (rest, jax.tree.map(jnp.add, totals, (means, gradient))), None

  zero = jnp.zeros(())
  totals = [zero, zero], jax.tree.map(jnp.zeros_like, state.params)
  (rest, totals), _ = jax.lax.scan(
    body, (state.rest, totals), (jnp.arange(task.parts), split)
  )
  (loss, accuracy), gradient = jax.tree.map(lambda t: t / task.parts, totals)
  return loss, accuracy, rest, gradient


def _all_finite(tree: models.Tree) -> jax.Array:
  checks = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
  return functools.reduce(jnp.logical_and, checks, jnp.ones((), bool))


def _consult(
  task: Task, teacher: Weights | None, examples: Examples
) -> tuple[models.Outputs | None, jax.Array | None]:
  """The teacher's outputs on a batch, and its class weights."""
  if teacher is None:
    return None, None
  params = task.gather(teacher.params)
  class_weights = models.merge(task.teacher, params, teacher.rest).class_weights
  if examples.teacher_logits is not None:
    return models.Outputs(examples.teacher_logits, {}), class_weights
  outputs, _ = models.apply(
    task.teacher, params, teacher.rest, examples.inputs, train=False
  )
  return outputs, class_weights
