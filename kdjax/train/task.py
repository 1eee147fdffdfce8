"""From a configuration and a data set to what training runs on."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kdjax import data, methods, terms
from kdjax.train import (
  beginning,
  examine,
  feeds,
  given,
  lesson,
  networks,
  optimizer,
  parts,
  reading,
  sharding,
)
from kdjax.train.state import (
  Network,
  Snapshot,
  Weights,
)


class Job(NamedTuple):
  """One network's training, placed on the devices.

  Attributes:
    task: what a step is made of.
    feed: takes its steps.
    teacher: the frozen teacher, or None.
    ids: where in the published training split each example is.
    like: shapes, types and places of what changes in the training.
    initialise: makes it, as it is before the first step.
    dev: evaluates the network on the held-out set.
    parts: measures the parts of the loss.
    rate: the learning rate as a function of the step.
    num_steps: steps in the whole training.
    unit: what examples are counted in: 'images', or 'tokens' of a text.
    unit_size: so many units are an example.
  """

  task: given.Task
  feed: feeds.Feed
  teacher: Weights | None
  ids: np.ndarray
  like: Snapshot
  initialise: Callable[[], Snapshot]
  dev: examine.Examiner
  parts: parts.Parts
  rate: Callable[[int], jax.Array]
  num_steps: int
  unit: str = 'images'
  unit_size: int = 1


def examiner(
  config: ConfigDict,
  dataset: data.Dataset,
  task: given.Task,
  teacher: Weights | None,
  mesh: Mesh,
) -> examine.Examiner | reading.Examiner:
  """Returns what evaluates a network in training on dev.

  Args:
    config: a configuration.
    dataset: with what is held out.
    task: what a step is made of.
    teacher: the frozen teacher, or None.
    mesh: the devices.

  Returns:
    The examiner.
  """
  if not dataset.text:
    count = networks.evaluator(task.student, dataset.dev, config, dataset, mesh)
    return examine.make(count, dataset.dev, task, teacher, mesh)
  looks = config.analysis
  reader = reading.Evaluator(
    reading.Reader(task.student, task.in_order, task.gather),
    dataset.dev,
    num_classes=dataset.num_classes,
    batch_size=config.eval_batch_size,
    mesh=mesh,
    task=task if looks else None,
    teacher=teacher if looks else None,
  )
  return reading.Examiner(
    reader,
    num_characters=dataset.text.num_characters['dev'],
    token_counts=dataset.text.token_counts,
  )


def check(
  config: ConfigDict, dataset: data.Dataset, mesh: Mesh, *, prefix: str = ''
) -> int:
  """Returns the steps in an epoch, if batch, data and devices go together.

  Args:
    config: what trains.
    dataset: `train` is what it trains on.
    mesh: the devices.
    prefix: of the keys to name, 'teacher.' for a teacher's own.

  Returns:
    Whole batches in the training set.

  Raises:
    ValueError: the batch does not fit the data or the devices, the
      augmentation does not fit the data, or the warm-up not the run.
  """
  num_examples = len(dataset.train.labels)
  if config.batch_size > num_examples:
    raise ValueError(
      f'config.{prefix}batch_size={config.batch_size} is larger than the '
      f'{num_examples} training examples'
    )
  sharding.check_divides(
    config.batch_size, mesh, f'{prefix}batch_size', config.accumulate_steps
  )
  feeds.check_augmentation(config, dataset)
  steps_per_epoch = num_examples // config.batch_size
  optimizer.schedule(config, steps_per_epoch=steps_per_epoch)
  return steps_per_epoch


def prepare(
  config: ConfigDict,
  dataset: data.Dataset,
  teacher: Network | None,
  mesh: Mesh,
) -> Job:
  """Returns the training of `config.student` by `config.method`.

  Args:
    config: a configuration.
    dataset: `train` is what the network sees.
    teacher: a trained network, or None for a method without one.
    mesh: the devices.

  Returns:
    Everything that the loop needs.

  Raises:
    ValueError: the batch does not fit the data or the devices, or the
      augmentation does not fit the data.
  """
  steps_per_epoch = check(config, dataset, mesh)
  update = optimizer.make(config, steps_per_epoch=steps_per_epoch)
  outline = outlined(config, dataset, teacher)
  graphdef = networks.shapes(config, dataset).graphdef
  task = given.Task(
    student=graphdef,
    teacher=teacher and teacher.graphdef,
    loss=methods.get(config.method).loss,
    settings=config,
    optimizer=update,
    augment=feeds.AUGMENT[config.dataset.augment].apply,
    normalise=feeds.normaliser(dataset),
    steps_per_epoch=steps_per_epoch,
    batch_size=config.batch_size,
    place=sharding.placer(mesh),
    gather=sharding.gatherer(mesh),
    parts=config.accumulate_steps,
    mixup=config.dataset.mixup,
    skip_nonfinite=config.nonfinite == 'skip',
    lesson=outline.lesson,
    in_order=networks.reads_in_order(dataset),
  )
  weights = teacher and beginning.place(
    config, 'teacher', Weights(teacher.params, teacher.rest), mesh
  )
  initialise = functools.partial(
    beginning.initial, config, dataset, outline, update, teacher
  )
  like = beginning.like(config, jax.eval_shape(initialise), mesh)
  feed = feeds.make(config, dataset, task, weights, mesh)
  return Job(
    task=task,
    feed=feed,
    teacher=weights,
    ids=_ids(dataset.train),
    like=like,
    initialise=jax.jit(
      initialise, out_shardings=jax.tree.map(lambda a: a.sharding, like)
    ),
    dev=examiner(config, dataset, task, weights, mesh),
    parts=parts.Parts(task, weights, feed.batch, examine.options(mesh)),
    rate=jax.jit(optimizer.schedule(config, steps_per_epoch=steps_per_epoch)),
    num_steps=config.num_epochs * steps_per_epoch,
    unit='tokens' if dataset.text else 'images',
    unit_size=dataset.input_shape[0] if dataset.text else 1,
  )


def _ids(split: data.Split) -> np.ndarray:
  return np.arange(len(split.labels)) if split.ids is None else split.ids


def outlined(
  config: ConfigDict,
  dataset: data.Dataset,
  teacher: Network | None,
  labels: np.ndarray | None = None,
) -> lesson.Outline:
  """Returns what the loss compares beside logits, before the first step.

  Args:
    config: what trains.
    dataset: `train` is what it trains on.
    teacher: a network or its shapes, or None for a method without one.
    labels: of what it trains on, where that is not all of `train`.

  Returns:
    The outline.

  Raises:
    ValueError: a term of the loss cannot compare these networks, or needs what
      there is not.
  """
  labels = dataset.train.labels if labels is None else labels
  if dataset.text:
    check_text(config)
  elif config.loss_block_tokens:
    raise ValueError(
      f'config.loss_block_tokens={config.loss_block_tokens} is for texts; for '
      f'{dataset.name} leave it at 0'
    )
  found = lesson.Outline(
    config,
    networks.shapes(config, dataset),
    teacher,
    input_shape=dataset.input_shape,
    dtype=jnp.int32 if dataset.text else jnp.float32,
    data=terms.DataSet(labels, dataset.num_classes),
  )
  remembers = any(term.name == 'crd' for term in found.lesson.plan)
  if remembers and config.dataset.mixup:
    raise ValueError(
      f'config.dataset.mixup={config.dataset.mixup}: crd remembers each '
      f'example, and a mixed one is none'
    )
  if remembers and len(np.unique(labels)) < 2:
    raise ValueError('crd needs examples of at least two classes')
  return found


def check_text(config: ConfigDict) -> None:
  """Raises `ValueError` for what cannot be done with a text."""
  inside = [
    name
    for name in methods.terms_of(config)
    if terms.TERMS[name].pairs is not None
  ]
  if inside:
    raise ValueError(
      f'{", ".join(inside)} cannot be used on a text: features of tokens are '
      f'not compared; methods and terms of the logits are'
    )
  c = config.teacher
  if c.num_seeds > 1 or c.others:
    raise ValueError(
      'config.teacher.num_seeds and config.teacher.others: a language model '
      'learns from one teacher'
    )
  if config.dataset.mixup:
    raise ValueError(
      f'config.dataset.mixup={config.dataset.mixup}: tokens cannot be mixed'
    )
  if config.method == 'dist' and config.loss_block_tokens:
    raise ValueError(
      f'config.loss_block_tokens={config.loss_block_tokens}: dist relates all '
      f'tokens of a batch to each other; leave it at 0'
    )


def like(
  config: ConfigDict,
  dataset: data.Dataset,
  mesh: Mesh,
  teacher: Network | None = None,
) -> Snapshot:
  """Returns shapes, types and places of what a training saves.

  Args:
    config: what trains.
    dataset: what it trains on.
    mesh: the devices.
    teacher: a network or its shapes, or None for a method without one.

  Returns:
    A snapshot without values.
  """
  steps_per_epoch = len(dataset.train.labels) // config.batch_size
  update = optimizer.make(config, steps_per_epoch=steps_per_epoch)
  outline = outlined(config, dataset, teacher)
  initialise = functools.partial(
    beginning.initial, config, dataset, outline, update, teacher
  )
  return beginning.like(config, jax.eval_shape(initialise), mesh)
