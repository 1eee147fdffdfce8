"""Predictions on a whole data set, exact to its last partial batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from kdjax import losses, models

Predict = Callable[[models.Tree, models.Tree, jax.Array], jax.Array]


def make_predict(
  graphdef: nnx.GraphDef,
  normalise: Callable[[jax.Array], jax.Array],
  *,
  batch_size: int,
  place: Callable[[jax.Array], jax.Array] = lambda batch: batch,
) -> Predict:
  """Returns a compiled function from a data set to its logits.

  The last batch is filled up with zeros and its surplus rows are cut off, so
  every example counts once whatever `N` is.

  Args:
    graphdef: the network's graph definition.
    normalise: maps stored inputs to what the network takes.
    batch_size: examples at once.
    place: constrains how a batch lies on the devices.

  Returns:
    `predict(params, rest, inputs)`: `[N, ...]` to logits `[N, K]`.
  """

  def predict(
    params: models.Tree, rest: models.Tree, inputs: jax.Array
  ) -> jax.Array:
    num_examples = len(inputs)
    surplus = -num_examples % batch_size
    widths = [(0, surplus)] + [(0, 0)] * (inputs.ndim - 1)
    batches = jnp.pad(inputs, widths).reshape(-1, batch_size, *inputs.shape[1:])

    def logits_of(batch: jax.Array) -> jax.Array:
      outputs, _ = models.apply(
        graphdef, params, rest, normalise(place(batch)), train=False
      )
      return outputs.logits

    logits = jax.lax.map(logits_of, batches)
    return logits.reshape(-1, logits.shape[-1])[:num_examples]

  return jax.jit(predict)


def scores(logits: jax.Array, labels: jax.Array) -> dict[str, float]:
  """Returns accuracy in [0, 1] and mean cross-entropy in nats.

  Args:
    logits: `[N, K]`.
    labels: `[N]`.

  Returns:
    `accuracy` and `cross_entropy`.
  """
  num_correct, cross_entropy = jax.device_get(_totals(logits, labels))
  return {
    'accuracy': int(num_correct) / len(labels),
    'cross_entropy': float(cross_entropy) / len(labels),
  }


@jax.jit
def _totals(
  logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  correct = jnp.argmax(logits, -1) == labels
  return jnp.sum(correct), jnp.sum(losses.cross_entropy(logits, labels))
