"""From a configuration and a data set to what training runs on."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kdjax import data, methods, models
from kdjax.train import evaluate, optimizer, sharding, step
from kdjax.train.state import Network, State, Weights, create

_AUGMENT = {
  'none': lambda key, inputs: inputs,
  'crop': functools.partial(data.pad_crop_flip, flip=False),
  'crop_flip': data.pad_crop_flip,
}


# Folded into the seed, so that no run key is a key of the initialisation.
_RUN = 0x52554E


class Job(NamedTuple):
  """One network's training, placed on the devices.

  Attributes:
    task: what a step is made of.
    initial: the state before the first step.
    teacher: the frozen teacher, or None.
    examples: the training set.
    dev: the held-out set.
    key: the run's key.
    predict: maps parameters, batch statistics and inputs to logits.
    rate: the learning rate as a function of the step.
    num_steps: steps in the whole training.
  """

  task: step.Task
  initial: State
  teacher: Weights | None
  examples: step.Batch
  dev: step.Batch
  key: jax.Array
  predict: evaluate.Predict
  rate: Callable[[int], jax.Array]
  num_steps: int


def build(config: ConfigDict, dataset: data.Dataset) -> Network:
  """Returns the untrained network of `config.student`.

  Args:
    config: with `student` and `seed`.
    dataset: decides the input shape and the classes.

  Returns:
    The network.

  Raises:
    ValueError: an unknown model, or options that it does not take.
  """
  options = {k: v for k, v in config.student.items() if v and k != 'name'}
  model = models.build(
    config.student.name,
    input_shape=dataset.input_shape,
    num_classes=dataset.num_classes,
    seed=config.seed,
    **options,
  )
  return Network(*models.split(model))


def predictor(
  graphdef: nnx.GraphDef,
  config: ConfigDict,
  dataset: data.Dataset,
  mesh: Mesh,
) -> evaluate.Predict:
  """Returns the compiled function from a set's inputs to its logits.

  Args:
    graphdef: the network's graph definition.
    config: with `eval_batch_size`.
    dataset: whose inputs they are.
    mesh: the devices.

  Returns:
    `predict(params, rest, inputs)`.
  """
  size = mesh.shape['data']
  return evaluate.make_predict(
    graphdef,
    _normaliser(dataset),
    batch_size=-(-config.eval_batch_size // size) * size,
    place=_placer(mesh),
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
  sharding.check_divides(config.batch_size, mesh, f'{prefix}batch_size')
  if config.dataset.augment != 'none' and len(dataset.input_shape) != 3:
    raise ValueError(
      f'config.dataset.augment={config.dataset.augment!r} needs images; '
      f"{dataset.name} has inputs of shape {dataset.input_shape}: use 'none'"
    )
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
    config: a configuration; of its `teacher` only `precompute_logits` is read.
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
  network = build(config, dataset)
  update = optimizer.make(config, steps_per_epoch=steps_per_epoch)
  task = step.Task(
    student=network.graphdef,
    teacher=teacher and teacher.graphdef,
    loss=methods.get(config.method).loss,
    settings=config,
    optimizer=update,
    augment=_AUGMENT[config.dataset.augment],
    normalise=_normaliser(dataset),
    steps_per_epoch=steps_per_epoch,
    batch_size=config.batch_size,
    place=_placer(mesh),
  )
  initial = create(
    network.params, network.rest, update, ema_decay=config.ema_decay
  )
  place = functools.partial(jax.device_put, device=sharding.replicated(mesh))
  return Job(
    task=task,
    initial=place(initial),
    teacher=teacher and place(Weights(teacher.params, teacher.rest)),
    examples=place(_examples(config, dataset, teacher, mesh)),
    dev=place(step.Batch(*dataset.dev)),
    key=place(jax.random.fold_in(jax.random.key(config.seed), _RUN)),
    predict=predictor(network.graphdef, config, dataset, mesh),
    rate=jax.jit(optimizer.schedule(config, steps_per_epoch=steps_per_epoch)),
    num_steps=config.num_epochs * steps_per_epoch,
  )


def _examples(
  config: ConfigDict,
  dataset: data.Dataset,
  teacher: Network | None,
  mesh: Mesh,
) -> step.Batch:
  """The training set, with the teacher's logits where they never change."""
  examples = step.Batch(*dataset.train)
  fixed = config.dataset.augment == 'none'
  if teacher is None or not fixed or not config.teacher.precompute_logits:
    return examples
  predict = predictor(teacher.graphdef, config, dataset, mesh)
  logits = predict(teacher.params, teacher.rest, examples.inputs)
  return examples._replace(teacher_logits=logits)


def _normaliser(dataset: data.Dataset) -> Callable[[jax.Array], jax.Array]:
  return functools.partial(data.normalise, mean=dataset.mean, std=dataset.std)


def _placer(mesh: Mesh) -> Callable[[Any], Any]:
  """Splits a batch over the mesh's data axis."""
  by_example = sharding.by_example(mesh)
  return lambda batch: jax.lax.with_sharding_constraint(batch, by_example)
