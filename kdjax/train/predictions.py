"""What a network says of a whole split, exact to its last partial batch."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from kdjax import data, models
from kdjax.train import sharding
from kdjax.train.state import Weights


def make_predict(
  graphdef: nnx.GraphDef,
  *,
  normalise: Callable[[jax.Array], jax.Array],
  batch_size: int,
  mesh: Mesh,
  gather: Callable[[models.Tree], models.Tree] = lambda params: params,
) -> Callable[[Weights, jax.Array], jax.Array]:
  """Returns a compiled function from a split's inputs to its logits.

  Args:
    graphdef: the network's graph definition.
    normalise: maps stored inputs to what the network takes.
    batch_size: examples at once; as many more as the devices need.
    mesh: the devices.
    gather: constrains parameters to lie whole on every device.

  Returns:
    `predict(weights, inputs)`: `[N, ...]` to logits `[N, K]`.
  """
  ask = make_ask(
    graphdef,
    normalise=normalise,
    batch_size=batch_size,
    mesh=mesh,
    gather=gather,
  )
  return lambda weights, inputs: ask(weights, inputs).logits


def make_ask(
  graphdef: nnx.GraphDef,
  *,
  normalise: Callable[[jax.Array], jax.Array],
  batch_size: int,
  mesh: Mesh,
  gather: Callable[[models.Tree], models.Tree] = lambda params: params,
  features: Sequence[str] = (),
  taps: Sequence[str] = (),
) -> Callable[[Weights, jax.Array], models.Outputs]:
  """Returns a compiled function from a split's inputs to what is said of it.

  The last batch is filled up with zeros and its surplus rows are cut off.

  Args:
    graphdef: the network's graph definition.
    normalise: maps stored inputs to what the network takes.
    batch_size: examples at once; as many more as the devices need.
    mesh: the devices.
    gather: constrains parameters to lie whole on every device.
    features: names of those that are wanted.
    taps: those of them that are paths of modules inside.

  Returns:
    `ask(weights, inputs)`: `[N, ...]` to outputs with these features alone.
  """
  batch_size = -(-batch_size // mesh.size) * mesh.size
  by_example = sharding.by_example(mesh)

  def ask(weights: Weights, inputs: jax.Array) -> models.Outputs:
    def of_batch(batch: jax.Array) -> models.Outputs:
      batch = jax.lax.with_sharding_constraint(batch, by_example)
      outputs, _ = models.apply(
        graphdef,
        gather(weights.params),
        weights.rest,
        normalise(batch),
        train=False,
        taps=taps,
      )
      kept = {name: outputs.features[name] for name in features}
      return models.Outputs(outputs.logits, kept)

    batches = jax.lax.map(of_batch, in_batches(inputs, batch_size))
    return jax.tree.map(
      lambda a: a.reshape(-1, *a.shape[2:])[: len(inputs)], batches
    )

  return jax.jit(ask, out_shardings=sharding.replicated(mesh))


def in_batches(arrays: tuple, batch_size: int) -> tuple:
  """Cuts arrays into batches; what is missing in the last one is padding.

  Args:
    arrays: `[N, ...]` each.
    batch_size: B.

  Returns:
    `[⌈N / B⌉, B, ...]` each.
  """

  def cut(array: jax.Array) -> jax.Array:
    surplus = -len(array) % batch_size
    widths = [(0, surplus)] + [(0, 0)] * (array.ndim - 1)
    # Labels are filled up with what is no class, inputs with zeros.
    filling = data.PADDING if array.ndim == 1 else 0
    padded = jnp.pad(array, widths, constant_values=filling)
    return padded.reshape(-1, batch_size, *array.shape[1:])

  return jax.tree.map(cut, arrays)
