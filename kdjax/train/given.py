"""What a step is given: a batch, and what is made of it."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from kdjax import data, methods, models
from kdjax.train.lesson import NO_LESSON, Lesson


class Batch(NamedTuple):
  """Examples, or a whole data set.

  Attributes:
    inputs: `[B, ...]`, as stored: uint8 images, float vectors, or tokens.
    labels: `[B]`; of a text `[B, T]`.
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
    in_order: each row of a batch goes on where that of the last one ended, and
      the networks remember; else an epoch is a permutation.
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
  in_order: bool = False


class Examples(NamedTuple):
  """A batch, ready for the networks.

  Attributes:
    inputs: `[B, ...]`, augmented and normalised.
    labels: `[B]`; of a text `[B, T]`.
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
