"""The network of a configuration, and what evaluates it."""

import functools

from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kdjax import data, models
from kdjax.train import evaluate, feeds, reading, sharding
from kdjax.train.state import Network


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
  name = config.student.name
  check_reads(name, dataset)
  options = {k: v for k, v in config.student.items() if v and k != 'name'}
  if dataset.text and dataset.text.boundary is not None:
    options['boundary'] = dataset.text.boundary
  return models.build(
    name,
    input_shape=dataset.input_shape,
    num_classes=dataset.num_classes,
    seed=config.seed,
    dtype=config.compute_dtype,
    **options,
  )


def check_reads(name: str, dataset: data.Dataset) -> None:
  """Raises `ValueError` unless a network of this name reads such data."""
  if name in models.MODELS and models.reads_tokens(name) != bool(dataset.text):
    fitting = [
      known
      for known in models.MODELS
      if models.reads_tokens(known) == bool(dataset.text)
    ]
    raise ValueError(
      f'the network {name!r} does not read the data set {dataset.name!r}, '
      f'{"tokens" if dataset.text else "no tokens"}; those that do are '
      f'{", ".join(fitting)}'
    )


def reads_in_order(dataset: data.Dataset) -> bool:
  """Returns whether rows go on from each other, and networks remember."""
  return bool(dataset.text) and dataset.text.batching == 'contiguous'


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
) -> evaluate.Evaluator | reading.Evaluator:
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
  if dataset.text:
    return reading.Evaluator(
      reading.Reader(
        graphdef, reads_in_order(dataset), sharding.gatherer(mesh)
      ),
      split,
      num_classes=dataset.num_classes,
      batch_size=config.eval_batch_size,
      mesh=mesh,
    )
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
