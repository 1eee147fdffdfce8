"""Reading a split of text from its begin to its end, and looking at it.

A split is cut into as many streams as a batch has rows. In order, row after
row of each, networks remember what came before; else every row stands alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from kdjax import data, models
from kdjax.train import evaluate, insight, sharding
from kdjax.train.given import Task
from kdjax.train.state import PyTree, State, Weights


class Reader(NamedTuple):
  """How a network reads.

  Attributes:
    graphdef: the network's graph definition.
    in_order: whether rows go on from each other.
    gather: constrains parameters to lie whole on every device.
  """

  graphdef: nnx.GraphDef
  in_order: bool
  gather: Callable[[models.Tree], models.Tree] = lambda params: params

  def begin(self, weights: Weights, batch_size: int) -> PyTree:
    """Returns what it remembers before the first row; nothing out of order."""
    if not self.in_order:
      return ()
    return models.initial_carry(self.graphdef, *weights, batch_size=batch_size)

  def __call__(
    self, weights: Weights, rows: jax.Array, carry: PyTree
  ) -> tuple[models.Outputs, PyTree]:
    """Returns what it says of `[B, T]` tokens, and what it remembers then."""
    outputs, _ = models.apply(
      self.graphdef,
      self.gather(weights.params),
      weights.rest,
      rows,
      train=False,
      carry=carry,
    )
    return outputs, outputs.carry if self.in_order else ()


def streams(num_rows: int, batch_size: int) -> jax.Array:
  """Returns the rows of each batch, if `batch_size` streams are read at once.

  Args:
    num_rows: of the split; what does not fill a batch is left out.
    batch_size: B.

  Returns:
    `[⌊num_rows / B⌋, B]`; a column is a stream.

  >>> streams(7, 2).T
  Array([[0, 1, 2],
         [3, 4, 5]], dtype=int32)
  """
  steps = num_rows // batch_size
  return jnp.arange(steps * batch_size, dtype=jnp.int32).reshape(-1, steps).T


def answers(
  reader: Reader,
  weights: Weights,
  inputs: jax.Array,
  *,
  batch_size: int,
  keep: Callable[[models.Outputs, jax.Array], models.Outputs],
) -> models.Outputs:
  """Returns what is kept of all that a network says of a split.

  In order, it reads the same streams as a training with this batch size, and
  what a training leaves out is left out; else every row is answered.

  Args:
    reader: the network.
    weights: its weights.
    inputs: `[N, T]`.
    batch_size: streams at once.
    keep: maps outputs, and a number of the batch, to what is kept of them.

  Returns:
    `[N, ...]`; zeros for rows that are left out.
  """
  num_rows = len(inputs)
  if reader.in_order:
    rows = streams(num_rows, batch_size)
  else:
    num_batches = -(-num_rows // batch_size)
    rows = jnp.arange(num_batches * batch_size).reshape(-1, batch_size)
    rows = jnp.minimum(rows, num_rows - 1)

  def body(carry: PyTree, batch: tuple) -> tuple[PyTree, models.Outputs]:
    number, chosen = batch
    outputs, carry = reader(weights, inputs[chosen], carry)
    return carry, keep(outputs, number)

  begin = reader.begin(weights, batch_size)
  _, found = jax.lax.scan(body, begin, (jnp.arange(len(rows)), rows))

  def in_rows(array: jax.Array) -> jax.Array:
    if reader.in_order:
      array = jnp.swapaxes(array, 0, 1)
    array = array.reshape(-1, *array.shape[2:])[:num_rows]
    left_out = num_rows - len(array)
    return jnp.pad(array, [(0, left_out)] + [(0, 0)] * (array.ndim - 1))

  return jax.tree.map(in_rows, found)


class Read(NamedTuple):
  """What was found in a split.

  Attributes:
    totals: counted by token.
    seen: of each token `[M]`, or None; those of padding are among them.
  """

  totals: evaluate.Totals
  seen: insight.Seen | None


class Evaluator:
  """Counts what a network gets right in a split of text, token by token."""

  def __init__(
    self,
    reader: Reader,
    split: data.Split,
    *,
    num_classes: int,
    batch_size: int,
    mesh: Mesh,
    task: Task | None = None,
    teacher: Weights | None = None,
  ) -> None:
    """Takes what does not change between evaluations.

    Args:
      reader: the network.
      split: rows of text.
      num_classes: K.
      batch_size: streams at once; as many more as the devices need.
      mesh: the devices.
      task: what a step is made of, to look closer; None to count alone.
      teacher: the frozen teacher, or None.
    """
    self._reader, self._num_classes, self._task = reader, num_classes, task
    batch_size = min(batch_size, len(split.labels))
    batch_size = -(-batch_size // mesh.size) * mesh.size
    everywhere = sharding.replicated(mesh)
    self._by_row = sharding.by_example(mesh)
    self._arrays = sharding.place(
      (
        _in_streams(split.inputs, batch_size, 0),
        _in_streams(split.labels, batch_size, data.PADDING),
      ),
      everywhere,
    )
    self._teacher = teacher
    self._run = jax.jit(self._read, out_shardings=everywhere)
    self._compiled = None

  @property
  def labels(self) -> np.ndarray:
    """`[M]`, of all tokens in the order in which they are seen."""
    return jax.device_get(self._arrays[1]).reshape(-1)

  def compile(self, weights: Weights) -> None:
    """Compiles for weights that lie as these do."""
    lowered = self._run.lower(
      weights, self._teacher, self._step(0), self._arrays
    )
    self._compiled = lowered.compile()

  def __call__(self, weights: Weights) -> evaluate.Totals:
    """Returns what is counted with these weights, on the host."""
    return self.read(weights, 0).totals

  def read(self, weights: Weights, step: jax.Array | int) -> Read:
    """Returns what is found with these weights, on the host.

    Args:
      weights: of the network.
      step: updates so far.

    Returns:
      What was found.
    """
    if self._compiled is None:
      self.compile(weights)
    arguments = weights, self._teacher, self._step(step), self._arrays
    return jax.device_get(self._compiled(*arguments))

  def _step(self, step: jax.Array | int) -> jax.Array:
    if isinstance(step, jax.Array):
      return step
    return sharding.place(np.int32(step), self._arrays[0].sharding)

  def _read(
    self,
    weights: Weights,
    teacher: Weights | None,
    step: jax.Array,
    arrays: tuple[jax.Array, jax.Array],
  ) -> Read:
    """Both networks read the split together."""
    size = arrays[0].shape[1]
    carries = [self._reader.begin(weights, size)]
    if teacher is not None:
      mentor = self._reader._replace(graphdef=self._task.teacher)
      carries.append(mentor.begin(teacher, size))

    def body(carries: list, batch: tuple) -> tuple[list, Read]:
      inputs, labels = jax.lax.with_sharding_constraint(batch, self._by_row)
      outputs, carry = self._reader(weights, inputs, carries[0])
      now, asked = [carry], None
      if teacher is not None:
        asked, carry = mentor(teacher, inputs, carries[1])
        now.append(carry)
      return now, self._look(outputs, asked, teacher, labels, step)

    _, found = jax.lax.scan(body, carries, arrays)
    totals = jax.tree.map(lambda a: jnp.sum(a, 0), found.totals)
    seen = jax.tree.map(lambda a: a.reshape(-1), found.seen)
    return Read(totals, seen)

  def _look(
    self,
    outputs: models.Outputs,
    asked: models.Outputs | None,
    teacher: Weights | None,
    labels: jax.Array,
    step: jax.Array,
  ) -> Read:
    """Of one batch."""

    def in_rows(said: models.Outputs | None) -> jax.Array | None:
      return said and said.logits.reshape(-1, self._num_classes)

    logits, labels = in_rows(outputs), labels.reshape(-1)
    totals = evaluate.count(logits, labels, self._num_classes)
    if self._task is None:
      return Read(totals, None)
    seen = insight.see(
      self._task,
      teacher,
      in_rows(asked),
      logits,
      jnp.maximum(labels, 0),
      step,
      num_examples=len(labels),
    )
    return Read(totals, seen)


def _in_streams(
  array: np.ndarray, batch_size: int, constant: int
) -> np.ndarray:
  """`[steps, B, T]`; the last rows are filled up, with nothing to predict."""
  filling = -len(array) % batch_size
  filled = np.pad(array, ((0, filling), (0, 0)), constant_values=constant)
  steps = len(filled) // batch_size
  return np.swapaxes(filled.reshape(batch_size, steps, -1), 0, 1)


class Examiner:
  """Evaluates a network in training on the held-out text."""

  def __init__(
    self, reader: Evaluator, *, num_characters: int, token_counts: np.ndarray
  ) -> None:
    """Takes what reads, and what is known of the text.

    Args:
      reader: of the held-out text.
      num_characters: of it.
      token_counts: `[K]`, how often each token is in the training text.
    """
    self._reader, self._num_characters = reader, num_characters
    self._token_counts = token_counts

  def compile(self, state: State) -> None:
    """Compiles for states that lie as this one does."""
    self._reader.compile(state.evaluated)

  def __call__(
    self,
    state: State,
    going: Callable[[], bool] = lambda: True,
  ) -> dict[str, float] | None:
    """Returns what a row of metrics says of the network.

    Args:
      state: of the network.
      going: asked before the text is read.

    Returns:
      Figures by name, or None if it was not to go on.
    """
    if not going():
      return None
    totals, seen = self._reader.read(state.evaluated, state.step)
    found = evaluate.text_scores(totals, self._num_characters)
    if seen is not None:
      labels = self._reader.labels
      is_token = labels != data.PADDING
      seen = jax.tree.map(lambda a: a[is_token], seen)
      found |= insight.summary(seen)
      if seen.taught is not None:
        counts = self._token_counts[labels[is_token]]
        found |= insight.by_frequency(seen.taught.rescaling, counts)
    return found
