"""A batch as the networks see it, and what they say of it."""

import dataclasses
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
  mentor, rows = _consult(task, teacher, examples)
  epoch = state.step / task.steps_per_epoch

  def losses_of(labels: jax.Array) -> jax.Array:
    exchange = methods.Exchange(outputs, mentor, rows, labels, epoch)
    return task.loss(exchange, task.settings)

  losses = losses_of(examples.labels)
  if examples.shares is not None:
    share = examples.shares
    losses = share * losses + (1 - share) * losses_of(examples.partners)
  return Answers(losses, outputs.logits, mentor and mentor.logits, rest)


def part_key(task: Task, key: jax.Array, part: jax.Array | int) -> jax.Array:
  """Returns the dropout key of a part of the batch.

  Args:
    task: what a step is made of.
    key: the step's dropout key.
    part: scalar, which part.

  Returns:
    A key; the step's own where a batch is one part.
  """
  return jax.random.fold_in(key, part) if task.parts > 1 else key


def ask_teacher(
  task: Task, teacher: Weights | None, examples: Examples
) -> Examples:
  """Returns the examples with the teacher's logits, if there is a teacher.

  Args:
    task: what a step is made of.
    teacher: the frozen teacher, or None.
    examples: `B` of them; logits that they have already stay.

  Returns:
    The examples.
  """
  if teacher is None or examples.teacher_logits is not None:
    return examples
  outputs, _ = models.apply(
    task.teacher,
    task.gather(teacher.params),
    teacher.rest,
    examples.inputs,
    train=False,
  )
  return examples._replace(teacher_logits=outputs.logits)


def class_weights(task: Task, teacher: Weights) -> jax.Array:
  """Returns the rows of the teacher's last layer, `[K, D]`."""
  params = task.gather(teacher.params)
  return models.merge(task.teacher, params, teacher.rest).class_weights


def _consult(
  task: Task, teacher: Weights | None, examples: Examples
) -> tuple[models.Outputs | None, jax.Array | None]:
  """The teacher's outputs on a batch, and its class weights."""
  if teacher is None:
    return None, None
  logits = ask_teacher(task, teacher, examples).teacher_logits
  return models.Outputs(logits, {}), class_weights(task, teacher)
