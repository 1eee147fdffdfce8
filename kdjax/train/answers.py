"""A batch as the networks see it, and what they say of it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from kdjax import data, methods, models, plans
from kdjax.exchange import Exchange
from kdjax.train.lesson import NO_LESSON, Lesson
from kdjax.train.state import State, Trained, Weights

# Folded into a step's key for what its loss draws at random.
_DRAWS = 0x44524157


class Batch(NamedTuple):
  """Examples, or a whole data set.

  Attributes:
    inputs: `[B, ...]`, as stored: uint8 images or float vectors.
    labels: `[B]`.
    teacher: what it says of them where that was computed beforehand, or None.
    positions: `[B]`, where in the training set they are; None for all of it.
  """

  inputs: jax.Array
  labels: jax.Array
  teacher: models.Outputs | None = None
  positions: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Task:
  """What a step is made of. Nothing here is an array.

  Attributes:
    student: graph definition of the network in training.
    teacher: graph definition of the teacher, or None.
    loss: of the logits; maps an exchange and settings to `[B]`, in nats.
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
    lesson: what the loss compares beside logits.
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
  lesson: Lesson = NO_LESSON


class Examples(NamedTuple):
  """A batch, ready for the networks.

  Attributes:
    inputs: `[B, ...]`, augmented and normalised.
    labels: `[B]`.
    teacher: what it says of them, or None.
    positions: `[B]`, where in the training set they are, or None.
    shares: `[B]`, of the example itself in what mixup made of it, or None.
    partners: `[B]`, labels of the examples that mixup added, or None.
  """

  inputs: jax.Array
  labels: jax.Array
  teacher: models.Outputs | None
  positions: jax.Array | None = None
  shares: jax.Array | None = None
  partners: jax.Array | None = None


class Answers(NamedTuple):
  """What the networks say of a batch.

  Attributes:
    losses: `[B]`, of the logits, in nats.
    terms: what is added to their mean, weighted scalars by name.
    logits: the student's, `[B, K]`.
    teacher_logits: `[B, K]`, or None.
    rest: the student's batch statistics after this batch.
    aids: those and the memories of what is trained beside it.
  """

  losses: jax.Array
  terms: dict[str, jax.Array]
  logits: jax.Array
  teacher_logits: jax.Array | None
  rest: models.Tree
  aids: models.Tree

  @property
  def loss(self) -> jax.Array:
    """Scalar, what is minimised."""
    return sum(self.terms.values(), jnp.mean(self.losses))


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
  examples = Examples(inputs, *batch[1:])
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
  trained: Trained,
  state: State,
  teacher: Weights | None,
  examples: Examples,
  key: jax.Array,
) -> Answers:
  """Returns what both networks say of a batch, and what the loss makes of it.

  Args:
    task: what a step is made of.
    trained: the parameters of the student, and of what helps it.
    state: the rest of them, and the step.
    teacher: the frozen teacher, or None.
    examples: `B` of them.
    key: of the dropout.

  Returns:
    The answers.
  """
  lesson = task.lesson
  outputs, rest = models.apply(
    task.student,
    task.gather(trained.params),
    state.rest,
    examples.inputs,
    train=True,
    key=key,
    taps=lesson.student_taps,
  )
  mentor, rows = _consult(task, teacher, examples)
  exchange = Exchange(
    student=outputs,
    teacher=mentor,
    class_weights=rows,
    labels=examples.labels,
    epoch=state.step / task.steps_per_epoch,
    positions=examples.positions,
    key=jax.random.fold_in(key, _DRAWS),
  )
  losses = _on_logits(task, teacher, task.loss, exchange, examples)
  aids = aids_rest = {}
  if lesson.aids is not None:
    params = task.gather(trained.aids)
    aids = models.merge(lesson.aids, params, state.aids.rest)
  found = {}
  for term in lesson.plan:
    if term.pairs:
      found[term.name] = plans.value(term, exchange, task.settings, aids)
    else:
      of_logits = functools.partial(_term, term)
      values = _on_logits(task, teacher, of_logits, exchange, examples)
      found[term.name] = jnp.mean(values)
  if lesson.aids is not None:
    aids_rest = models.split(aids)[2]
  return Answers(
    losses, found, outputs.logits, mentor and mentor.logits, rest, aids_rest
  )


def _term(
  term: plans.Planned, exchange: Exchange, settings: methods.Settings
) -> jax.Array:
  return plans.value(term, exchange, settings, {})


def _on_logits(
  task: Task,
  teacher: Weights | None,
  loss: methods.Loss,
  exchange: Exchange,
  examples: Examples,
) -> jax.Array:
  """`[B]`; over both labels of what mixup made, and over several teachers."""
  exchanges = [(1.0, exchange)]
  if task.lesson.shares:
    exchanges = _of_each(task, teacher, exchange)

  def losses_of(labels: jax.Array) -> jax.Array:
    return sum(
      share * loss(one._replace(labels=labels), task.settings)
      for share, one in exchanges
    )

  losses = losses_of(examples.labels)
  if examples.shares is None:
    return losses
  share = examples.shares
  return share * losses + (1 - share) * losses_of(examples.partners)


def _of_each(
  task: Task, teacher: Weights, exchange: Exchange
) -> list[tuple[float, Exchange]]:
  """Shares of an ensemble's members, and the exchange with each."""
  params = task.gather(teacher.params)
  network = models.merge(task.teacher, params, teacher.rest)
  answers = exchange.teacher.features['members']
  return [
    (
      share,
      exchange._replace(
        teacher=exchange.teacher._replace(logits=answers[:, i]),
        class_weights=network.members[i].class_weights,
      ),
    )
    for i, share in enumerate(task.lesson.shares)
  ]


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
  """Returns the examples with the teacher's answers, if there is a teacher.

  Args:
    task: what a step is made of.
    teacher: the frozen teacher, or None.
    examples: `B` of them; answers that they have already stay.

  Returns:
    The examples.
  """
  if teacher is None or examples.teacher is not None:
    return examples
  outputs, _ = models.apply(
    task.teacher,
    task.gather(teacher.params),
    teacher.rest,
    examples.inputs,
    train=False,
    taps=task.lesson.teacher_taps,
  )
  kept = {name: outputs.features[name] for name in task.lesson.teacher_features}
  return examples._replace(teacher=models.Outputs(outputs.logits, kept))


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
  outputs = ask_teacher(task, teacher, examples).teacher
  return outputs, class_weights(task, teacher)
