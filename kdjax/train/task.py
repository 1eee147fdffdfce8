"""From a configuration and a data set to what training runs on."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kdjax import data, methods, models, terms
from kdjax.train import (
  answers,
  evaluate,
  examine,
  feeds,
  lesson,
  optimizer,
  parts,
  sharding,
  step,
)
from kdjax.train.state import Network, PyTree, Snapshot, Weights, create


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
  """

  task: answers.Task
  feed: feeds.Feed
  teacher: Weights | None
  ids: np.ndarray
  like: Snapshot
  initialise: Callable[[], Snapshot]
  dev: examine.Examiner
  parts: parts.Parts
  rate: Callable[[int], jax.Array]
  num_steps: int


def build(config: ConfigDict, dataset: data.Dataset) -> nnx.Module:
  """Returns the untrained network of `config.student`.

  Args:
    config: with `student`, `compute_dtype` and `seed`.
    dataset: decides the input shape and the classes.

  Returns:
    The network.

  Raises:
    ValueError: an unknown model, or options that it does not take.
  """
  options = {k: v for k, v in config.student.items() if v and k != 'name'}
  return models.build(
    config.student.name,
    input_shape=dataset.input_shape,
    num_classes=dataset.num_classes,
    seed=config.seed,
    dtype=config.compute_dtype,
    **options,
  )


def shapes(config: ConfigDict, dataset: data.Dataset) -> Network:
  """Returns what `build` would, without computing a number."""
  return Network(
    *models.split(nnx.eval_shape(functools.partial(build, config, dataset)))
  )


def evaluator(
  graphdef: nnx.GraphDef,
  split: data.Split,
  config: ConfigDict,
  dataset: data.Dataset,
  mesh: Mesh,
) -> evaluate.Evaluator:
  """Returns what counts a network's right answers in a split.

  Args:
    graphdef: the network's graph definition.
    split: of the data set.
    config: with `eval_batch_size`.
    dataset: whose inputs they are.
    mesh: the devices.

  Returns:
    The evaluator.
  """
  return evaluate.Evaluator(
    graphdef,
    split,
    normalise=feeds.normaliser(dataset),
    num_classes=dataset.num_classes,
    batch_size=config.eval_batch_size,
    mesh=mesh,
    gather=sharding.gatherer(mesh),
    **feeds.reading(config),
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
  graphdef = shapes(config, dataset).graphdef
  task = answers.Task(
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
  )
  weights = teacher and _place(
    config, 'teacher', Weights(teacher.params, teacher.rest), mesh
  )
  initialise = functools.partial(_initial, config, dataset, outline, update)
  like = _like(config, jax.eval_shape(initialise), mesh)
  count = evaluator(graphdef, dataset.dev, config, dataset, mesh)
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
    dev=examine.make(count, dataset.dev, task, weights, mesh),
    parts=parts.Parts(task, weights, feed.batch, examine.options(mesh)),
    rate=jax.jit(optimizer.schedule(config, steps_per_epoch=steps_per_epoch)),
    num_steps=config.num_epochs * steps_per_epoch,
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
  found = lesson.Outline(
    config,
    shapes(config, dataset),
    teacher,
    input_shape=dataset.input_shape,
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
  initialise = functools.partial(_initial, config, dataset, outline, update)
  return _like(config, jax.eval_shape(initialise), mesh)


def _initial(
  config: ConfigDict,
  dataset: data.Dataset,
  outline: lesson.Outline,
  update: optax.GradientTransformation,
) -> Snapshot:
  """What is before the first step."""
  _, params, rest = models.split(build(config, dataset))
  state = create(
    params,
    rest,
    update,
    ema_decay=config.ema_decay,
    aids=outline.aids(config.seed),
  )
  return Snapshot(state, step.zero_sums(outline.lesson.plan))


def _like(config: ConfigDict, shapes: Snapshot, mesh: Mesh) -> Snapshot:
  """The same with the places of the arrays."""
  places = _shardings(config, 'student', shapes, mesh)
  aids = places.state.aids._replace(
    rest=sharding.split_rows(mesh, shapes.state.aids.rest)
  )
  places = places._replace(state=dataclasses.replace(places.state, aids=aids))
  return jax.tree.map(
    lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
    shapes,
    places,
  )


def _shardings(
  config: ConfigDict, network: str, tree: PyTree, mesh: Mesh
) -> PyTree:
  if network in config.split_networks:
    return sharding.split(mesh, tree)
  return jax.tree.map(lambda _: sharding.replicated(mesh), tree)


def _place(
  config: ConfigDict, network: str, weights: Weights, mesh: Mesh
) -> Weights:
  move = jax.jit(
    lambda w: w, out_shardings=_shardings(config, network, weights, mesh)
  )
  return move(weights)
