"""Scores on a whole split, exact to its last partial batch."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from kdjax import data, losses, models
from kdjax.train import predictions, sharding
from kdjax.train.state import Weights


class Totals(NamedTuple):
  """What was counted, by class.

  Attributes:
    examples: `[K]`, how many there are.
    correct: `[K]`, how many of them are recognised.
    cross_entropy: `[K]`, the sum over them, in nats.
  """

  examples: jax.Array
  correct: jax.Array
  cross_entropy: jax.Array


class Shown(NamedTuple):
  """Examples, and what a network says of them; on the devices.

  Attributes:
    inputs: `[B, ...]`, as stored.
    labels: `[B]`.
    logits: `[B, K]`, whole on every device.
    num_examples: so many of them; what follows is padding.
  """

  inputs: jax.Array
  labels: jax.Array
  logits: jax.Array
  num_examples: int


Visit = Callable[[Shown], None]

# Of a mean cross-entropy, whose exponential is still a float.
_MOST_NATS = 700.0


def scores(
  totals: Totals, classes: Iterable[int] | None = None
) -> dict[str, float]:
  """Returns accuracy in [0, 1] and mean cross-entropy in nats.

  Args:
    totals: what was counted.
    classes: only these classes, or None for all.

  Returns:
    `accuracy` and `cross_entropy`.
  """
  chosen = slice(None) if classes is None else list(classes)
  examples, correct, cross_entropy = (
    float(np.sum(np.asarray(x, np.float64)[chosen])) for x in totals
  )
  return {
    'accuracy': correct / examples,
    'cross_entropy': cross_entropy / examples,
  }


def text_scores(totals: Totals, num_characters: int) -> dict[str, float]:
  """Returns what else a split of text has, beside what `scores` returns.

  Perplexity is `exp` of the mean cross-entropy of a token; bits per character
  are the cross-entropy of all tokens, in bits, over the characters they are.

  Args:
    totals: what was counted.
    num_characters: of the text that was predicted.

  Returns:
    `accuracy`, `cross_entropy`, `perplexity` and `bits_per_character`.
  """
  found = scores(totals)
  nats = float(np.sum(np.asarray(totals.cross_entropy, np.float64)))
  return found | {
    'perplexity': math.exp(min(found['cross_entropy'], _MOST_NATS)),
    'bits_per_character': nats / math.log(2) / num_characters,
  }


def merit(found: dict[str, float]) -> float:
  """Returns what is compared to find the best network; higher is better."""
  if 'perplexity' in found:
    return -found['cross_entropy']
  return found['accuracy']


def headline(found: dict[str, float]) -> str:
  """Returns the score that people look at first.

  >>> headline({'accuracy': 0.5}), headline({'perplexity': 80.0})
  ('accuracy 50.00%', 'perplexity 80.00')
  """
  if 'perplexity' in found:
    return f'perplexity {found["perplexity"]:.2f}'
  return f'accuracy {found["accuracy"]:.2%}'


class Evaluator:
  """Counts what a network gets right in a split."""

  def __init__(
    self,
    graphdef: nnx.GraphDef,
    split: data.Split,
    *,
    normalise: Callable[[jax.Array], jax.Array],
    num_classes: int,
    batch_size: int,
    mesh: Mesh,
    gather: Callable[[models.Tree], models.Tree] = lambda params: params,
    **reading: int,
  ) -> None:
    """Takes what does not change between evaluations.

    Args:
      graphdef: the network's graph definition.
      split: arrays, which are kept on the devices, or encoded images, which
        are decoded each time.
      normalise: maps stored inputs to what the network takes.
      num_classes: K.
      batch_size: examples at once; as many more as the devices need.
      mesh: the devices.
      gather: constrains parameters to lie whole on every device.
      **reading: `num_threads` and `num_workers` that decode images.
    """
    self._split, self._mesh, self._reading = split, mesh, reading
    batch_size = min(batch_size, len(split.labels))
    self._batch_size = -(-batch_size // mesh.size) * mesh.size
    self._num_classes = num_classes
    self._is_streamed = isinstance(split.inputs, data.Images)
    by_example = sharding.by_example(mesh)

    def of_batch(
      weights: Weights, inputs: jax.Array, labels: jax.Array
    ) -> tuple[Totals, jax.Array]:
      inputs, labels = jax.lax.with_sharding_constraint(
        (inputs, labels), by_example
      )
      outputs, _ = models.apply(
        graphdef,
        gather(weights.params),
        weights.rest,
        normalise(inputs),
        train=False,
      )
      return count(outputs.logits, labels, num_classes), outputs.logits

    def of_all(
      weights: Weights, inputs: jax.Array, labels: jax.Array
    ) -> tuple[Totals, jax.Array]:
      batches = predictions.in_batches((inputs, labels), self._batch_size)
      counted, logits = jax.lax.map(
        lambda batch: of_batch(weights, *batch), batches
      )
      totals = jax.tree.map(lambda x: jnp.sum(x, 0), counted)
      return totals, logits.reshape(-1, num_classes)[: len(labels)]

    self._count = jax.jit(
      of_batch if self._is_streamed else of_all,
      out_shardings=sharding.replicated(mesh),
    )
    self._compiled = self._arrays = None
    if not self._is_streamed:
      self._arrays = sharding.place(
        (split.inputs, split.labels), sharding.replicated(mesh)
      )

  def compile(self, weights: Weights, visit: Visit | None = None) -> None:
    """Compiles for weights that lie as these do.

    Args:
      weights: of the network, or others like them.
      visit: is shown logits of zero in every shape to come, so that it can
        compile, too.
    """
    arrays = self._shapes() if self._is_streamed else self._arrays
    self._compiled = self._count.lower(weights, *arrays).compile()
    if visit:
      for size in sorted(set(self._sizes())):
        visit(self._blank(size))

  def __call__(
    self,
    weights: Weights,
    going: Callable[[], bool] = lambda: True,
    visit: Visit | None = None,
  ) -> Totals | None:
    """Returns what is counted with these weights.

    Args:
      weights: of the network.
      going: asked between batches of encoded images.
      visit: is shown all examples at once, or batch by batch where images are
        decoded.

    Returns:
      The totals on the host, or None if it was not to go on.
    """
    if self._compiled is None:
      self.compile(weights)
    if not self._is_streamed:
      totals, logits = self._compiled(weights, *self._arrays)
      if visit:
        visit(Shown(*self._arrays, logits, len(logits)))
      return jax.device_get(totals)
    totals = None
    for batch, size in zip(self._batches(), self._sizes(), strict=True):
      if not going():
        return None
      arrays = sharding.from_hosts(self._mesh, (batch.inputs, batch.labels))
      counted, logits = self._compiled(weights, *arrays)
      if visit:
        visit(Shown(*arrays, logits, size))
      totals = counted if totals is None else _add(totals, counted)
    return jax.device_get(totals)

  def _batches(self) -> Iterable[data.Streamed]:
    return data.batches(
      self._split,
      batch_size=self._batch_size,
      seed=0,
      train=False,
      host=jax.process_index(),
      num_hosts=jax.process_count(),
      **self._reading,
    )

  def _sizes(self) -> list[int]:
    """How many examples there are in each batch that is shown."""
    size = len(self._split.labels)
    if not self._is_streamed:
      return [size]
    whole, left = divmod(size, self._batch_size)
    return [self._batch_size] * whole + [left] * (left > 0)

  def _blank(self, num_examples: int) -> Shown:
    """What a call will show; what only a call knows is zero."""
    everywhere = sharding.replicated(self._mesh)
    arrays = self._arrays
    if self._is_streamed:
      arrays = jax.tree.map(_zeros, self._shapes())
    logits = np.zeros((len(arrays[1]), self._num_classes), np.float32)
    return Shown(*arrays, sharding.place(logits, everywhere), num_examples)

  def _shapes(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Of the inputs and labels of a batch."""
    return sharding.shapes(
      self._mesh, self._batch_size, (self._split.inputs, self._split.labels)
    )


def count(logits: jax.Array, labels: jax.Array, num_classes: int) -> Totals:
  """Counts a batch; padding counts nowhere.

  Args:
    logits: `[B, K]`.
    labels: `[B]`, `data.PADDING` where there is no example.
    num_classes: K.

  Returns:
    The totals.
  """
  is_example = labels != data.PADDING
  safe = jnp.where(is_example, labels, 0)
  cross_entropy = losses.cross_entropy(logits, safe)
  values = (
    is_example.astype(jnp.int32),
    (is_example & (jnp.argmax(logits, -1) == labels)).astype(jnp.int32),
    jnp.where(is_example, cross_entropy, 0.0),
  )
  return Totals(
    *(jax.ops.segment_sum(v, safe, num_segments=num_classes) for v in values)
  )


def _zeros(like: jax.ShapeDtypeStruct) -> jax.Array:
  return sharding.place(np.zeros(like.shape, like.dtype), like.sharding)


@jax.jit
def _add(a: Totals, b: Totals) -> Totals:
  return jax.tree.map(jnp.add, a, b)
