"""What a network says of some tokens of a text, read where they stand."""

import jax
import numpy as np
from jax.sharding import Mesh

from kdjax import data
from kdjax.train import sharding
from kdjax.train.reading import Reader, streams
from kdjax.train.state import PyTree, Weights


def choose(split: data.Split, *, at_most: int) -> np.ndarray:
  """Returns so many tokens of a text, evenly over it, or all if it has fewer.

  Args:
    split: rows of text, labels `[N, T]`.
    at_most: how many to choose.

  Returns:
    `[M]`, in rising order: where they are in the labels, row after row. None
    is padding.

  >>> choose(data.Split(None, np.array([[5, 6, 7], [8, -1, -1]])), at_most=3)
  array([0, 1, 3])
  """
  tokens = np.flatnonzero(split.labels != data.PADDING)
  if len(tokens) <= at_most:
    return tokens
  return tokens[np.linspace(0, len(tokens) - 1, at_most).astype(int)]


def logits(
  reader: Reader,
  weights: Weights,
  split: data.Split,
  tokens: np.ndarray,
  *,
  batch_size: int,
  mesh: Mesh,
) -> np.ndarray:
  """Returns what a network that reads all of a text says of some tokens.

  It reads the streams that an evaluation does. Of a batch only the answers to
  these tokens are kept, so that no more than `[M, K]` is ever on the host.

  Args:
    reader: the network.
    weights: its weights.
    split: rows of text `[N, T]`.
    tokens: `[M]`, from `choose`, in any order.
    batch_size: streams at once; as many more as the devices need.
    mesh: the devices.

  Returns:
    `[M, K]`, float32.
  """
  size = min(batch_size, len(split.inputs))
  size = -(-size // mesh.size) * mesh.size
  # What fills the last streams holds no token that is asked for.
  inputs = np.pad(split.inputs, ((0, -len(split.inputs) % size), (0, 0)))
  rows = np.asarray(streams(len(inputs), size))
  row, column = np.divmod(tokens, inputs.shape[1])
  stream, batch_of = np.divmod(row, len(rows))
  place = stream * inputs.shape[1] + column
  counts = np.bincount(batch_of, minlength=len(rows))
  parts = np.split(np.argsort(batch_of, kind='stable'), np.cumsum(counts)[:-1])
  read, found = _compiled(reader, mesh), None
  carry = reader.begin(weights, size)
  for chosen_rows, part in zip(rows, parts, strict=True):
    if not len(part) and not reader.in_order:
      continue
    wanted = np.zeros(counts.max(), np.int32)  # always as many: one program
    wanted[: len(part)] = place[part]
    said, carry = read(weights, inputs[chosen_rows], carry, wanted)
    if found is None:
      found = np.empty((len(tokens), said.shape[-1]), np.float32)
    found[part] = np.asarray(said)[: len(part)]
  return found


def _compiled(reader: Reader, mesh: Mesh) -> jax.stages.Wrapped:
  """A function from a batch to the logits of some of its tokens."""
  by_row = sharding.by_example(mesh)

  def read(
    weights: Weights, inputs: jax.Array, carry: PyTree, wanted: jax.Array
  ) -> tuple[jax.Array, PyTree]:
    inputs = jax.lax.with_sharding_constraint(inputs, by_row)
    outputs, carry = reader(weights, inputs, carry)
    said = outputs.logits.reshape(-1, outputs.logits.shape[-1])
    return said[wanted], carry

  return jax.jit(read, out_shardings=(sharding.replicated(mesh), None))
