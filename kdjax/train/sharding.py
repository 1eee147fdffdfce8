"""Where arrays live: a mesh of devices, and the placements in use."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kdjax.train.state import PyTree

# Splitting less than this many numbers costs more than it saves.
_WORTH_SPLITTING = 2**10


def make_mesh(
  *, model_devices: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns devices as a mesh `('data', 'model')`.

  Args:
    model_devices: size of the 'model' axis; the rest is the 'data' axis.
    devices: the devices; all of them, of all hosts, if None.

  Returns:
    The mesh.

  Raises:
    ValueError: `model_devices` does not divide the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  num_devices = len(devices)
  if num_devices % model_devices:
    raise ValueError(
      f'config.model_devices={model_devices} does not divide the '
      f'{num_devices} devices'
    )
  return jax.make_mesh(
    (num_devices // model_devices, model_devices),
    ('data', 'model'),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=devices,
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
  """The first axis is split over all devices, so that each has its examples."""
  return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def split(mesh: Mesh, tree: PyTree) -> PyTree:
  """Returns, for each array, how the 'model' axis shares it.

  The largest axis that its devices divide is split; small arrays, and those
  without such an axis, are copied. Parameters and what an optimiser keeps of
  them have the same shapes, so they lie alike.

  Args:
    mesh: the devices.
    tree: arrays, or their shapes.

  Returns:
    A tree of shardings.
  """
  size = mesh.shape['model']

  def of(array: jax.Array) -> NamedSharding:
    axes = [a for a, n in enumerate(array.shape) if n % size == 0]
    if size == 1 or not axes or array.size < _WORTH_SPLITTING:
      return replicated(mesh)
    largest = max(axes, key=lambda axis: array.shape[axis])
    spec = [None] * array.ndim
    spec[largest] = 'model'
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(of, tree)


def split_rows(mesh: Mesh, tree: PyTree) -> PyTree:
  """Returns, for each array, how all devices share its rows.

  Memories of a row an example are split, where their number divides; what is
  smaller is copied.

  Args:
    mesh: the devices.
    tree: arrays, or their shapes.

  Returns:
    A tree of shardings.
  """

  def of(array: jax.Array) -> NamedSharding:
    is_table = array.ndim > 1 and array.size >= _WORTH_SPLITTING
    if is_table and array.shape[0] % mesh.size == 0:
      return by_example(mesh)
    return replicated(mesh)

  return jax.tree.map(of, tree)


def place(tree: PyTree, shardings: PyTree) -> PyTree:
  """Puts values that every host has on the devices.

  Args:
    tree: arrays on the host, the same on each.
    shardings: one for all, or a tree of them.

  Returns:
    Arrays over all hosts.
  """
  return jax.device_put(jax.tree.map(np.asarray, tree), shardings)


def check_divides(
  batch_size: int, mesh: Mesh, key: str, parts: int = 1
) -> None:
  """Raises `ValueError` unless a batch splits evenly over the devices.

  Args:
    batch_size: examples a step.
    mesh: the mesh.
    key: the configuration key to name.
    parts: in how many parts each step works on it.
  """
  if batch_size % (mesh.size * parts):
    into = f', in {parts} parts each' if parts > 1 else ''
    raise ValueError(
      f'config.{key}={batch_size} must be a multiple of the {mesh.size} '
      f'devices{into}'
    )


def from_hosts(mesh: Mesh, arrays: PyTree) -> PyTree:
  """Puts batches on the devices; each host gives its own examples.

  Args:
    mesh: the devices.
    arrays: this host's part of each array, in the order of the hosts.

  Returns:
    Arrays over all hosts, split by example.
  """
  by_rows = by_example(mesh)
  return jax.tree.map(
    lambda part: jax.make_array_from_process_local_data(by_rows, part), arrays
  )


def shapes(mesh: Mesh, batch_size: int, arrays: PyTree) -> PyTree:
  """Returns what a batch of arrays looks like on the devices."""
  by_rows = by_example(mesh)
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(
      (batch_size, *a.shape[1:]), a.dtype, sharding=by_rows
    ),
    arrays,
    is_leaf=lambda a: hasattr(a, 'dtype'),
  )


def placer(mesh: Mesh) -> Callable[[PyTree], PyTree]:
  """Returns what splits a batch over the devices, inside a program."""
  rows = by_example(mesh)
  return lambda batch: jax.lax.with_sharding_constraint(batch, rows)


def gatherer(mesh: Mesh) -> Callable[[PyTree], PyTree]:
  """Returns what makes parameters whole that the 'model' axis shares."""
  if mesh.shape['model'] == 1:
    return lambda params: params
  whole = replicated(mesh)
  return lambda params: jax.lax.with_sharding_constraint(params, whole)
