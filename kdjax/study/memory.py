"""How much memory there is, and how much a program takes."""

import os

import jax
from jax.sharding import Mesh


def of_device(mesh: Mesh) -> float:
  """Returns the bytes that one device may hold.

  Args:
    mesh: the devices; those of a CPU share its memory.

  Returns:
    Bytes.
  """
  stats = mesh.devices.flat[0].memory_stats()
  if stats and 'bytes_limit' in stats:
    return float(stats['bytes_limit'])
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / mesh.size


def used_by(compiled: jax.stages.Compiled) -> int:
  """Returns the bytes that one device holds while a program runs.

  Args:
    compiled: the program.

  Returns:
    Arguments, results and what is in between; what a result takes over from
    an argument counts once.
  """
  found = compiled.memory_analysis()
  return (
    found.argument_size_in_bytes
    + found.output_size_in_bytes
    + found.temp_size_in_bytes
    - found.alias_size_in_bytes
  )
