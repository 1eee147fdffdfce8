"""What a training is fed with, by its configuration and its data set."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kdjax import data
from kdjax.train import beforehand, sharding
from kdjax.train.given import Batch, Task
from kdjax.train.resident import Resident
from kdjax.train.state import Weights
from kdjax.train.streamed import Streamed

Feed = Resident | Streamed


class Augmentation(NamedTuple):
  """What is done to the images of a batch.

  Attributes:
    apply: maps a key and stored inputs to stored inputs, on the device.
    to: 'all' inputs, 'arrays' of images, or 'encoded' images, which the host
      crops at random.
  """

  apply: Callable[[jax.Array, jax.Array], jax.Array]
  to: str


AUGMENT = {
  'none': Augmentation(lambda key, inputs: inputs, 'all'),
  'crop': Augmentation(
    functools.partial(data.pad_crop_flip, flip=False), 'arrays'
  ),
  'crop_flip': Augmentation(data.pad_crop_flip, 'arrays'),
  'resized_crop_flip': Augmentation(data.flip, 'encoded'),
}

# Folded into the seed, so that no run key is a key of the initialisation.
_RUN = 0x52554E


def check_augmentation(config: ConfigDict, dataset: data.Dataset) -> None:
  """Raises `ValueError` unless the augmentation fits the inputs.

  Args:
    config: with `dataset.augment`.
    dataset: whose inputs they are.
  """
  name = config.dataset.augment
  kind = 'arrays' if len(dataset.input_shape) == 3 else 'vectors'
  if _is_streamed(dataset):
    kind = 'encoded'
  if AUGMENT[name].to not in ('all', kind):
    allowed = [k for k, v in AUGMENT.items() if v.to in ('all', kind)]
    needed = {'arrays': 'images in arrays', 'encoded': 'encoded images'}
    raise ValueError(
      f'config.dataset.augment={name!r} needs {needed[AUGMENT[name].to]}; '
      f'for {dataset.name}, with inputs of shape {dataset.input_shape}, use '
      f'{" or ".join(map(repr, allowed))}'
    )


def make(
  config: ConfigDict,
  dataset: data.Dataset,
  task: Task,
  teacher: Weights | None,
  mesh: Mesh,
) -> Feed:
  """Returns what takes the steps: from arrays on the devices, or a stream.

  Args:
    config: a configuration.
    dataset: `train` is what the network sees.
    task: what a step is made of.
    teacher: the frozen teacher, or None.
    mesh: the devices.

  Returns:
    The feed.
  """
  everywhere = sharding.replicated(mesh)
  key = jax.jit(
    functools.partial(run_key, config.seed), out_shardings=everywhere
  )()
  if _is_streamed(dataset):
    batches = functools.partial(_batches, config, dataset.train)
    return Streamed(task, teacher, dataset.train, key, mesh, batches=batches)
  examples = sharding.place(Batch(*dataset.train[:2]), everywhere)
  if teacher and precomputes(config):
    said = beforehand.answers(config, task, teacher, examples.inputs, key, mesh)
    examples = examples._replace(teacher=said)
  return Resident(task, teacher, examples, key, mesh)


def precomputes(config: ConfigDict) -> bool:
  """Returns whether the teacher's answers may be computed once."""
  is_fixed = config.dataset.augment == 'none' and not config.dataset.mixup
  return is_fixed and config.teacher.precompute_logits


def run_key(seed: int) -> jax.Array:
  """Returns the key of a run's batch order, augmentation and dropout."""
  return jax.random.fold_in(jax.random.key(seed), _RUN)


def _batches(
  config: ConfigDict, split: data.Split, start: int
) -> Iterator[data.Streamed]:
  return data.batches(
    split,
    batch_size=config.batch_size,
    seed=config.seed,
    train=True,
    random_crop=config.dataset.augment != 'none',
    num_epochs=config.num_epochs,
    start=start,
    host=jax.process_index(),
    num_hosts=jax.process_count(),
    **reading(config),
  )


def reading(config: ConfigDict) -> dict[str, int | None]:
  """Returns with how many threads and processes images are decoded."""
  return {
    'num_threads': config.dataset.num_threads or None,
    'num_workers': config.dataset.num_workers,
  }


def _is_streamed(dataset: data.Dataset) -> bool:
  return isinstance(dataset.train.inputs, data.Images)


def normaliser(dataset: data.Dataset) -> Callable[[jax.Array], jax.Array]:
  """Returns what maps stored inputs to what the networks take."""
  if dataset.text:
    return lambda tokens: tokens
  return functools.partial(data.normalise, mean=dataset.mean, std=dataset.std)
