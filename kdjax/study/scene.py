"""What all students of a scenario see: data and teacher, on the devices."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from kdjax import data, models
from kdjax.study import scores
from kdjax.study.members import AXIS, Stream
from kdjax.train import (
  evaluate,
  experiment,
  feeds,
  networks,
  predictions,
  reading,
  sharding,
)
from kdjax.train.given import Batch
from kdjax.train.state import Network, PyTree, Weights

Batches = tuple[jax.Array, jax.Array]


class Scene(NamedTuple):
  """What all students of a scenario see, on every device.

  Attributes:
    config: of the scenario.
    dataset: its data.
    teacher: trained, or None.
    examples: the training set.
    dev: batches of inputs `[n, B, ...]` and of labels `[n, B]`; of a text
      streams of rows, `[n, B, T]` each.
    test: likewise.
    dev_logits: the teacher's, `[N, K]`, or None, as for a text.
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
  def dev_labels(self) -> np.ndarray | jax.Array:
    """`[N]`, without padding; of a text those of the streams."""
    return self.dev[1] if self.dataset.text else self.dataset.dev.labels

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
    said, dev_logits = _answers(config, dataset, teacher, mesh, examples)
  return Scene(
    config=config,
    dataset=dataset,
    teacher=teacher,
    examples=examples._replace(teacher=said),
    dev=_batches(config, dataset, 'dev', mesh),
    test=_batches(config, dataset, 'test', mesh),
    dev_logits=dev_logits,
  )


def _answers(
  config: ConfigDict,
  dataset: data.Dataset,
  teacher: Network,
  mesh: Mesh,
  examples: Batch,
) -> tuple[models.Outputs | None, jax.Array | None]:
  """What the teacher says of the training set, if it is asked once, and dev."""
  weights = Weights(teacher.params, teacher.rest)
  said = None
  if dataset.text:
    if feeds.precomputes(config):
      ask = _asks_text(config, dataset, teacher, mesh)
      size = _num_bytes(jax.eval_shape(ask, weights, examples.inputs))
      if size <= config.teacher.precompute_megabytes * 2**20:
        said = ask(weights, examples.inputs)
    return said, None
  predict = predictions.make_predict(
    teacher.graphdef,
    normalise=feeds.normaliser(dataset),
    batch_size=config.eval_batch_size,
    mesh=mesh,
  )
  dev = sharding.place(dataset.dev.inputs, sharding.replicated(mesh))
  dev_logits = predict(weights, dev)
  if feeds.precomputes(config):
    said = models.Outputs(predict(weights, examples.inputs), {})
  return said, dev_logits


def _asks_text(
  config: ConfigDict, dataset: data.Dataset, teacher: Network, mesh: Mesh
) -> Callable[[Weights, jax.Array], models.Outputs]:
  """From weights and all rows to logits, read as in a training."""
  reader = reading.Reader(teacher.graphdef, networks.reads_in_order(dataset))
  ask = functools.partial(
    reading.answers,
    reader,
    batch_size=config.batch_size,
    keep=lambda outputs, _: models.Outputs(outputs.logits, {}),
  )
  return jax.jit(ask, out_shardings=sharding.replicated(mesh))


def _num_bytes(tree: PyTree) -> int:
  return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))


def teacher_scores(where: Scene) -> dict[str, Any]:
  """Returns how good the teacher is, and how large.

  Args:
    where: a scene with a teacher.

  Returns:
    `dev_accuracy` and `test_accuracy`, or perplexities; and `num_params`.
  """
  score, found = scores.of_data(where.dataset), {}
  mesh = sharding.make_mesh()  # as a run evaluates
  weights = jax.device_put(where.teacher_weights, sharding.replicated(mesh))
  for name in ('dev', 'test'):
    count = networks.evaluator(
      where.teacher.graphdef,
      getattr(where.dataset, name),
      where.config,
      where.dataset,
      mesh,
    )
    totals = evaluate.scores(count(weights))
    found[f'{name}_{score.name}'] = score.of(
      totals['accuracy'], totals['cross_entropy'], 1
    )
  return found | {'num_params': models.num_params(where.teacher.params)}


def _batches(
  config: ConfigDict, dataset: data.Dataset, name: str, mesh: Mesh
) -> Batches:
  split, everywhere = getattr(dataset, name), sharding.replicated(mesh)
  size = min(config.eval_batch_size, len(split.labels))
  if dataset.text:
    # As many streams as a run on these devices reads.
    size = -(-size // mesh.size) * mesh.size
  arrays = sharding.place(tuple(split[:2]), everywhere)
  cut = _in_streams if dataset.text else predictions.in_batches
  return jax.jit(lambda arrays: cut(arrays, size), out_shardings=everywhere)(
    arrays
  )


def _in_streams(arrays: tuple, size: int) -> tuple:
  """`[n, B, T]` each; there is nothing to predict in rows that are added."""
  inputs, labels = arrays
  missing = (0, -len(labels) % size), (0, 0)
  filled = (
    jnp.pad(inputs, missing),
    jnp.pad(labels, missing, constant_values=data.PADDING),
  )
  rows = reading.streams(len(filled[0]), size)
  return tuple(a[rows] for a in filled)


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
    lambda: jnp.stack([feeds.run_key(seed) for seed in seeds]),
    out_shardings=everywhere,
  )()
  return Stream(keys, sharding.place(np.stack(rows), everywhere))
