"""A finished run: its networks, and what they say of its data."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kdjax import config as configuration
from kdjax import data, methods, models
from kdjax.data.dataset import take
from kdjax.train import (
  excerpts,
  experiment,
  feeds,
  predictions,
  reading,
  sharding,
  teacher,
  workdirs,
)
from kdjax.train.files import read_json
from kdjax.train.loop import restore
from kdjax.train.networks import reads_in_order
from kdjax.train.state import Network, Weights


class Run(NamedTuple):
  """A finished run.

  Attributes:
    config: its configuration.
    dataset: its data; `train` is what the student saw.
    networks: 'teacher', 'student' and, where it was trained, 'baseline'.
    mesh: the devices.
  """

  config: ConfigDict
  dataset: data.Dataset
  networks: dict[str, Network]
  mesh: Mesh

  def logits(
    self, name: str, split: data.Split, tokens: np.ndarray | None = None
  ) -> np.ndarray:
    """Returns what a network says of a split, `[N, K]`.

    Args:
      name: of the network.
      split: examples, or rows of text.
      tokens: `[N]`, of a text, from `excerpts.choose`; None for all.
    """
    network = self.networks[name]
    if self.dataset.text is None:
      return logits(
        network,
        split,
        config=self.config,
        dataset=self.dataset,
        mesh=self.mesh,
      )
    if tokens is None:
      tokens = excerpts.choose(split, at_most=split.labels.size)
    in_order = reads_in_order(self.dataset)
    return excerpts.logits(
      reading.Reader(network.graphdef, in_order),
      Weights(network.params, network.rest),
      split,
      tokens,
      batch_size=self.config.eval_batch_size,
      mesh=self.mesh,
    )


def read(workdir: Path, *, data_dir: str = '') -> Run:
  """Restores the networks of a run with a teacher.

  Args:
    workdir: its folder; nothing in it is changed.
    data_dir: where the data is now, if it is not where the run found it.

  Returns:
    The run, with every network after its last step.

  Raises:
    ValueError: there is no finished run with a teacher, its data is not what
      it was, or a checkpoint is damaged.
  """
  config = config_of(workdir, data_dir=data_dir)
  if not methods.needs_teacher(config):
    raise ValueError(
      f'{workdir} was trained by {config.method!r}, without a teacher'
    )
  whole = experiment.load(config)
  dataset = _seen(config, whole)
  mesh = sharding.make_mesh()
  mentor = teacher.restore_all(config, whole, workdir=workdir, mesh=mesh)
  networks = {
    'teacher': mentor,
    'student': restore(
      config, dataset, directory=workdir, mesh=mesh, teacher=mentor
    ),
  }
  if config.baseline:
    networks['baseline'] = restore(
      experiment.baseline_of(config),
      dataset,
      directory=workdir / 'baseline',
      mesh=mesh,
    )
  return Run(config, dataset, networks, mesh)


def student(workdir: Path, *, data_dir: str = '') -> Network:
  """Restores the student alone, of a run with or without a teacher.

  Args:
    workdir: its folder.
    data_dir: as in `read`.

  Returns:
    The network after its last step.

  Raises:
    ValueError: as `read`.
  """
  config = config_of(workdir, data_dir=data_dir)
  whole = experiment.load(config)
  mentor = None
  if methods.terms_of(config):
    mentor = teacher.shapes(config, whole)
  return restore(
    config,
    _seen(config, whole),
    directory=workdir,
    mesh=sharding.make_mesh(),
    teacher=mentor,
  )


def _seen(config: ConfigDict, whole: data.Dataset) -> data.Dataset:
  """The data with what the student trained on."""
  return dataclasses.replace(
    whole, train=experiment.transfer_set(config, whole)
  )


def config_of(workdir: Path, *, data_dir: str = '') -> ConfigDict:
  """Returns the configuration of a run, as it would be carried out now.

  Args:
    workdir: its folder.
    data_dir: as in `read`.

  Returns:
    The configuration.

  Raises:
    ValueError: the folder is no run's, or of another version.
  """
  path = workdir / 'config.json'
  if not path.exists():
    raise ValueError(f'--workdir={workdir} is no run: it has no config.json')
  saved, default = read_json(path), configuration.default()
  if not isinstance(saved, dict):
    raise ValueError(f'{path} is not a configuration')
  others = set(configuration.keys(ConfigDict(saved), '')) ^ set(
    configuration.keys(default, '')
  )
  if not others <= workdirs.CIRCUMSTANCES:
    raise ValueError(
      f'{path} is not of this version of kdjax: its keys are others'
    )
  found = workdirs.carried_out_as(default, saved)
  found.dataset.data_dir = data_dir or saved['dataset']['data_dir']
  # As many streams as the run evaluated: of a text that decides what a network
  # remembers.
  found.eval_batch_size = saved['eval_batch_size']
  return found


def class_weights(network: Network) -> np.ndarray:
  """Returns the rows of a network's last layer, `[K, D]`."""
  return np.asarray(models.merge(*network).class_weights)


def sample(split: data.Split, *, at_most: int) -> data.Split:
  """Returns so many examples, evenly over a split, or all if it has fewer.

  Args:
    split: N examples.
    at_most: how many to keep.

  Returns:
    The examples in their order.
  """
  size = len(split.labels)
  if size <= at_most:
    return split
  return take(split, np.linspace(0, size - 1, at_most).astype(int))


def logits(
  network: Network,
  split: data.Split,
  *,
  config: ConfigDict,
  dataset: data.Dataset,
  mesh: Mesh,
) -> np.ndarray:
  """Returns what a network says of a split.

  Args:
    network: the network.
    split: N examples; none is augmented.
    config: with `eval_batch_size`, and how images are decoded.
    dataset: whose inputs they are.
    mesh: the devices.

  Returns:
    `[N, K]`, float32, on the host.
  """
  predict = predictions.make_predict(
    network.graphdef,
    normalise=feeds.normaliser(dataset),
    batch_size=config.eval_batch_size,
    mesh=mesh,
  )
  weights = Weights(network.params, network.rest)
  if not isinstance(split.inputs, data.Images):
    return np.asarray(predict(weights, split.inputs))
  batches = data.batches(
    split,
    batch_size=config.eval_batch_size,
    seed=0,
    train=False,
    **feeds.reading(config),
  )
  found = [np.asarray(predict(weights, batch.inputs)) for batch in batches]
  return np.concatenate(found)[: len(split.labels)]
