"""What is found out about students that were trained together."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kdjax import data, losses, models
from kdjax.analysis import rescaling
from kdjax.exchange import Exchange
from kdjax.study.members import Totals, Varied
from kdjax.study.settings import overlaid
from kdjax.train import answers, reading, verdict
from kdjax.train.given import Task
from kdjax.train.state import PyTree, Weights


class Examiner:
  """Looks at tables `[S, H]` of students."""

  def __init__(self, task: Task, *, over: Callable) -> None:
    """Takes what the students share.

    Args:
      task: what a step of theirs is made of.
      over: works on students side by side, as `jax.vmap`, or in turn.
    """
    self._task, self._over = task, over
    self._read = reading.Reader(task.student, task.in_order)

  def evaluate(
    self, weights: Weights, inputs: jax.Array, labels: jax.Array
  ) -> Totals:
    """Counts batches of inputs `[n, B, ...]` and labels `[n, B]`.

    Args:
      weights: of all students.
      inputs: as stored; of a text, streams of rows `[n, B, T]`.
      labels: `data.PADDING` where there is nothing to count.

    Returns:
      The totals.
    """

    def of_batch(memories: PyTree, batch: tuple) -> tuple[PyTree, Totals]:
      inputs, labels = batch
      inputs = self._task.normalise(inputs)
      is_real = labels != data.PADDING
      safe = jnp.where(is_real, labels, 0)

      def one(weights: Weights, memory: PyTree) -> tuple[PyTree, Totals]:
        outputs, memory = self._read(weights, inputs, memory)
        logits = outputs.logits
        correct = is_real & (jnp.argmax(logits, -1) == labels)
        nats = jnp.where(is_real, losses.cross_entropy(logits, safe), 0.0)
        return memory, Totals(jnp.sum(correct), jnp.sum(nats))

      return self._each(one)(weights, memories)

    begin = self._begin(weights, labels.shape[1])
    _, counted = jax.lax.scan(of_batch, begin, (inputs, labels))
    return jax.tree.map(lambda t: jnp.sum(t, 0), counted)

  def factors(
    self,
    weights: Weights,
    varied: Varied,
    teacher: Weights | None,
    inputs: jax.Array,
    labels: jax.Array,
    teacher_logits: jax.Array | None,
  ) -> jax.Array:
    """Returns rescaling factors of each student's loss, `[S, H, N]`.

    Args:
      weights: of all students.
      varied: their settings.
      teacher: the frozen teacher, or None.
      inputs: batches `[n, B, ...]`, as stored.
      labels: `[N]`, without padding; of a text `[n, B, T]`.
      teacher_logits: `[N, K]`; None without a teacher, and for a text, which
        the teacher reads along.

    Returns:
      Of each example, or of each token: NaN where that is padding.
    """
    if labels.ndim > 1:
      return self._of_text(weights, varied, teacher, inputs, labels)
    mentor = None
    if teacher is not None:
      mentor = models.Outputs(teacher_logits, {})

    def one(weights: Weights, varied: Varied) -> jax.Array:
      logits = jax.lax.map(
        lambda x: self._read(weights, self._task.normalise(x), ())[0].logits,
        inputs,
      )
      logits = logits.reshape(-1, logits.shape[-1])[: len(labels)]
      return self._factors(varied, teacher, logits, mentor, labels)

    return _in_turn(one)(weights, varied)

  def _of_text(
    self,
    weights: Weights,
    varied: Varied,
    teacher: Weights | None,
    inputs: jax.Array,
    labels: jax.Array,
  ) -> jax.Array:
    """All networks read the streams together, batch by batch."""
    size, heard = labels.shape[1], ()
    if teacher is not None:
      listen = self._read._replace(graphdef=self._task.teacher)
      heard = listen.begin(teacher, size)

    def of_batch(memories: tuple, batch: tuple) -> tuple[tuple, jax.Array]:
      own, heard = memories
      inputs, labels = batch
      mentor = None
      if teacher is not None:
        mentor, heard = listen(teacher, inputs, heard)

      def one(reader: tuple, varied: Varied) -> tuple[PyTree, jax.Array]:
        weights, memory = reader
        outputs, memory = self._read(weights, inputs, memory)
        found = self._factors(varied, teacher, outputs.logits, mentor, labels)
        return memory, jnp.where(labels != data.PADDING, found, jnp.nan)

      own, found = _in_turn(one)((weights, own), varied)
      return (own, heard), found

    begin = self._begin(weights, size), heard
    _, found = jax.lax.scan(of_batch, begin, (inputs, labels))
    return jnp.moveaxis(found, 0, 2).reshape(*found.shape[1:3], -1)

  def _factors(
    self,
    varied: Varied,
    teacher: Weights | None,
    logits: jax.Array,
    mentor: models.Outputs | None,
    labels: jax.Array,
  ) -> jax.Array:
    """Of one student, from what the networks say."""
    settings = overlaid(self._task.settings, varied)
    class_weights = None
    if teacher is not None:
      class_weights = answers.class_weights(self._task, teacher)
    mask = verdict.mask_of(labels)

    def total(logits: jax.Array) -> jax.Array:
      exchange = Exchange(
        models.Outputs(logits, {}),
        mentor,
        class_weights,
        labels,
        jnp.asarray(settings.num_epochs, jnp.float32),
        key=jax.random.key(0),
      )
      if mask is None:
        return jnp.sum(self._task.loss(exchange, settings))
      values = self._task.loss(verdict.blanked(exchange, mask), settings)
      return jnp.sum(jnp.where(mask, values, 0.0))

    gradient = jax.grad(total)(logits)
    safe = labels if mask is None else jnp.where(mask, labels, 0)
    return rescaling.rescaling_factor_from(gradient, logits, safe)

  def _begin(self, weights: Weights, batch_size: int) -> PyTree:
    """What each student remembers before a text."""
    return self._each(lambda own: self._read.begin(own, batch_size))(weights)

  def _each(self, function: Callable) -> Callable:
    return self._over(self._over(function))


def _in_turn(function: Callable) -> Callable:
  """From a table `[S, H]` and settings `[H]`, one student after the other."""

  def run(table: PyTree, varied: Varied) -> PyTree:
    return jax.lax.map(
      lambda row: jax.lax.map(lambda own: function(*own), (row, varied)), table
    )

  return run
