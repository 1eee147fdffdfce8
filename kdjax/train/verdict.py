"""What a loss makes of the logits, at once or in blocks of tokens."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdjax import data, losses, methods, models
from kdjax.exchange import Exchange


class Verdict(NamedTuple):
  """What the loss makes of the logits of a batch.

  Attributes:
    mean: scalar, over the examples, or over all tokens to predict, in nats.
    losses: `[B]`, or `[B, T]` with zeros where there is nothing to predict.
    correct: likewise, whether the answer is the label; of a text, whether no
      class is likelier.
    logits: the student's, `[B, K]` or `[B, T, K]`; None where they were never
      there at once.
  """

  mean: jax.Array
  losses: jax.Array
  correct: jax.Array
  logits: jax.Array | None


def mask_of(labels: jax.Array) -> jax.Array | None:
  """Returns where a text has something to predict; None for other data."""
  return None if labels.ndim == 1 else labels != data.PADDING


def mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
  """Returns the mean over examples, or over the tokens to predict."""
  if mask is None:
    return jnp.mean(values)
  return losses.masked_mean(values.astype(jnp.float32), mask)


def size(labels: jax.Array) -> jax.Array:
  """Returns how much a part of a batch counts beside the others."""
  mask = mask_of(labels)
  return jnp.ones(()) if mask is None else jnp.sum(mask, dtype=jnp.float32)


def blanked(exchange: Exchange, mask: jax.Array) -> Exchange:
  """Returns an exchange in which masked tokens hold zeros.

  So nothing there reaches value or gradient, whatever it is.

  Args:
    exchange: of a text.
    mask: `[B, T]`, where there is something to predict.

  Returns:
    The exchange with the mask.
  """

  def clean(outputs: models.Outputs | None) -> models.Outputs | None:
    if outputs is None or outputs.logits is None:
      return outputs
    return outputs._replace(logits=losses.blank(outputs.logits, mask))

  return exchange._replace(
    student=clean(exchange.student),
    teacher=clean(exchange.teacher),
    labels=jnp.where(mask, exchange.labels, 0),
    mask=mask,
  )


def of(
  exchange: Exchange, values: jax.Array, mask: jax.Array | None
) -> Verdict:
  """Returns the verdict from the values of a loss.

  Args:
    exchange: what both networks say.
    values: of its examples, or of its tokens.
    mask: which of them count; None for all.

  Returns:
    The verdict.
  """
  logits, labels = exchange.student.logits, exchange.labels
  if mask is None:
    correct = jnp.argmax(logits, -1) == labels
    return Verdict(mean(values, mask), values, correct, logits)
  values, correct = jnp.where(mask, values, 0.0), _is_top(logits, labels) & mask
  return Verdict(mean(values, mask), values, correct, logits)


def _is_top(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Whether no class is likelier than the label.

  Over a large vocabulary a CPU takes ten times as long to say which one is the
  likeliest.
  """
  at_label = jnp.take_along_axis(logits, labels[..., None], axis=-1)
  return at_label[..., 0] >= jnp.max(logits, axis=-1)


def head(network: nnx.Module, outputs: models.Outputs) -> losses.Head:
  """Returns what the logits of `[B, T]` tokens are made of, as rows."""
  hidden = outputs.features['pooled']
  return losses.Head(
    hidden.reshape(-1, hidden.shape[-1]),
    network.class_weights,
    network.class_biases,
  )


def in_blocks(
  loss: methods.Loss,
  settings: methods.Settings,
  exchange: Exchange,
  student: losses.Head,
  teacher: losses.Head | None,
  *,
  block_size: int,
) -> Verdict:
  """Returns the verdict on a text without ever holding all logits.

  Args:
    loss: of the logits.
    settings: what it reads.
    exchange: of a text; the student's logits are not looked at, nor the
      teacher's where there is its head.
    student: what the student's logits are made of.
    teacher: likewise, or None where they are there, or where there is none.
    block_size: tokens at once.

  Returns:
    The verdict.
  """
  mask = mask_of(exchange.labels)
  shape = mask.shape
  said = exchange.teacher
  if said is not None:
    few = {k: v for k, v in said.features.items() if k == 'sparse'}
    said = models.Outputs(None if teacher else said.logits, few)
  rows = jax.tree.map(
    lambda a: a.reshape(-1, *a.shape[2:]),
    (jnp.where(mask, exchange.labels, 0), said),
  )
  numbers = jnp.arange(mask.size)
  shared = exchange.class_weights, exchange.epoch, exchange.key

  weights = mask.reshape(-1) / jnp.maximum(jnp.sum(mask), 1)
  value, (values, correct) = losses.blockwise(
    functools.partial(_of_block, loss, settings),
    student,
    (rows, numbers),
    teacher=teacher,
    shared=shared,
    weights=weights,
    block_size=block_size,
  )
  return Verdict(
    value,
    jnp.where(mask, values.reshape(shape), 0.0),
    correct.reshape(shape) & mask,
    None,
  )


def _of_block(
  loss: methods.Loss,
  settings: methods.Settings,
  student: jax.Array,
  teacher: jax.Array | None,
  rows: tuple,
  shared: tuple,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """Losses `[b]`; and once more, beside whether the tokens are told right."""
  (labels, said), numbers = rows
  class_weights, epoch, key = shared
  if teacher is not None:
    said = said._replace(logits=teacher)
  exchange = Exchange(
    student=models.Outputs(student, {}),
    teacher=said,
    class_weights=class_weights,
    labels=labels,
    epoch=epoch,
    key=jax.random.fold_in(key, numbers[0]),
  )
  values = loss(exchange, settings)
  return values, (values, _is_top(student, labels))
