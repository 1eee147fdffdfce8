"""What all students of a scenario see: data and teacher, on the devices."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from kdjax import data, models
from kdjax.study.program import AXIS, Stream
from kdjax.train import experiment, feeds, predictions, sharding
from kdjax.train.answers import Batch
from kdjax.train.state import Network, Weights

Batches = tuple[jax.Array, jax.Array]


class Scene(NamedTuple):
  """What all students of a scenario see, on every device.

  Attributes:
    config: of the scenario.
    dataset: its data.
    teacher: trained, or None.
    examples: the training set.
    dev: batches of inputs `[n, B, ...]` and of labels `[n, B]`.
    test: likewise.
    dev_logits: the teacher's, `[N, K]`, or None.
  """

  config: ConfigDict
  dataset: data.Dataset
  teacher: Network | None
  examples: Batch
  dev: Batches
  test: Batches
  dev_logits: jax.Array | None

  @property
  def teacher_weights(self) -> Weights | None:
    """What the teacher computes with."""
    return self.teacher and Weights(self.teacher.params, self.teacher.rest)

  @property
  def dev_labels(self) -> np.ndarray:
    """`[N]`, without padding."""
    return self.dataset.dev.labels

  def alone(self) -> 'Scene':
    """The same without a teacher."""
    return self.unanswered()._replace(teacher=None, dev_logits=None)

  def unanswered(self) -> 'Scene':
    """The same with a teacher that answers in every step."""
    return self._replace(examples=self.examples._replace(teacher=None))


def make_mesh() -> Mesh:
  """Returns all devices along one axis."""
  return jax.make_mesh(
    (jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,)
  )


def check(dataset: data.Dataset) -> None:
  """Raises `ValueError` for data that are streamed from disk."""
  if isinstance(dataset.train.inputs, data.Images):
    raise ValueError(
      f'config.dataset.name={dataset.name!r} is streamed from disk; a study '
      f'needs data that fit into memory'
    )


def make(
  config: ConfigDict, dataset: data.Dataset, teacher: Network | None, mesh: Mesh
) -> Scene:
  """Puts a scenario on the devices; a teacher answers once for all students.

  Args:
    config: of the scenario.
    dataset: its data, as arrays.
    teacher: a trained network, or None.
    mesh: the devices.

  Returns:
    The scene.
  """
  everywhere = sharding.replicated(mesh)
  examples = sharding.place(Batch(*dataset.train[:2]), everywhere)
  said = dev_logits = None
  if teacher is not None:
    teacher = teacher._replace(
      params=jax.device_put(teacher.params, everywhere),
      rest=jax.device_put(teacher.rest, everywhere),
    )
    predict = _predictor(config, dataset, teacher, mesh)
    weights = Weights(teacher.params, teacher.rest)
    dev_logits = predict(
      weights, sharding.place(dataset.dev.inputs, everywhere)
    )
    if feeds.precomputes(config):
      said = models.Outputs(predict(weights, examples.inputs), {})
  return Scene(
    config=config,
    dataset=dataset,
    teacher=teacher,
    examples=examples._replace(teacher=said),
    dev=_batches(config, dataset.dev, everywhere),
    test=_batches(config, dataset.test, everywhere),
    dev_logits=dev_logits,
  )


def teacher_scores(where: Scene, mesh: Mesh) -> dict[str, Any]:
  """Returns how good the teacher is, and how large.

  Args:
    where: a scene with a teacher.
    mesh: the devices.

  Returns:
    `dev_accuracy`, `test_accuracy` and `num_params`.
  """
  predict = _predictor(where.config, where.dataset, where.teacher, mesh)
  found = {}
  for name in ('dev', 'test'):
    split = getattr(where.dataset, name)
    inputs = sharding.place(split.inputs, sharding.replicated(mesh))
    logits = np.asarray(predict(where.teacher_weights, inputs))
    answers = np.argmax(logits, axis=-1)
    found[f'{name}_accuracy'] = float(np.mean(answers == split.labels))
  return found | {'num_params': models.num_params(where.teacher.params)}


def _predictor(
  config: ConfigDict, dataset: data.Dataset, teacher: Network, mesh: Mesh
) -> Callable[[Weights, jax.Array], jax.Array]:
  return predictions.make_predict(
    teacher.graphdef,
    normalise=feeds.normaliser(dataset),
    batch_size=config.eval_batch_size,
    mesh=mesh,
  )


def _batches(
  config: ConfigDict, split: data.Split, everywhere: jax.sharding.Sharding
) -> Batches:
  size = min(config.eval_batch_size, len(split.labels))
  arrays = sharding.place(tuple(split[:2]), everywhere)
  return jax.jit(
    lambda arrays: predictions.in_batches(arrays, size),
    out_shardings=everywhere,
  )(arrays)


def stream(
  config: ConfigDict,
  dataset: data.Dataset,
  seeds: Sequence[int],
  mesh: Mesh,
) -> Stream:
  """Returns what the students of each seed see, as runs of these seeds do.

  Args:
    config: with what is left out of the training set.
    dataset: the whole data set.
    seeds: `S` of them.
    mesh: the devices.

  Returns:
    Keys and rows.
  """
  labels = dataset.train.labels
  positions = dataclasses.replace(
    dataset, train=data.Split(np.arange(len(labels)), labels)
  )
  rows = []
  for seed in seeds:
    own = config.copy_and_resolve_references()
    own.seed = seed
    rows.append(experiment.transfer_set(own, positions).inputs)
  everywhere = sharding.replicated(mesh)
  keys = jax.jit(
    lambda: jax.numpy.stack([feeds.run_key(seed) for seed in seeds]),
    out_shardings=everywhere,
  )()
  return Stream(keys, sharding.place(np.stack(rows), everywhere))
