"""Where arrays live: a mesh of devices, and the two placements in use."""

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh(
  *, model_devices: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns devices as a mesh `('data', 'model')`.

  Args:
    model_devices: size of the 'model' axis; the rest is the 'data' axis.
    devices: the devices; all of them if None.

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
  """The first axis is split over the mesh's 'data' axis."""
  return NamedSharding(mesh, PartitionSpec('data'))


def check_divides(batch_size: int, mesh: Mesh, key: str) -> None:
  """Raises `ValueError` unless a batch splits evenly over the data axis.

  Args:
    batch_size: examples a step.
    mesh: the mesh.
    key: the configuration key to name.
  """
  size = mesh.shape['data']
  if batch_size % size:
    raise ValueError(
      f'config.{key}={batch_size} must be a multiple of the {size} devices '
      f"on the mesh's data axis"
    )
