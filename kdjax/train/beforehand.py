"""What a teacher says of a training set, asked once instead of every step."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kdjax import methods, models
from kdjax.train import predictions, reading, sharding
from kdjax.train.given import Task
from kdjax.train.state import Weights


def answers(
  config: ConfigDict,
  task: Task,
  teacher: Weights,
  inputs: jax.Array,
  key: jax.Array,
  mesh: Mesh,
) -> models.Outputs | None:
  """Returns what the teacher says of every example, if it may be kept.

  Of classes: logits, and the features that the loss looks at, as long as
  these take up to `config.teacher.precompute_megabytes`. Of a text: the sparse
  form where the method has one, else logits, and either up to that size.

  Args:
    config: a configuration.
    task: what a step is made of.
    teacher: the frozen teacher.
    inputs: `[N, ...]`, the training set.
    key: of what is drawn at random.
    mesh: the devices.

  Returns:
    The outputs of all examples, or None if the teacher is to be asked in
    every step.
  """
  if reads_tokens(inputs):
    ask = _asks_text(config, task, key, mesh)
  else:
    ask = predictions.make_ask(
      task.teacher,
      normalise=task.normalise,
      batch_size=config.eval_batch_size,
      mesh=mesh,
      gather=task.gather,
      features=task.lesson.teacher_features,
      taps=task.lesson.teacher_taps,
    )
  said = jax.eval_shape(ask, teacher, inputs)
  kept = said if reads_tokens(inputs) else said.features
  size = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(kept))
  if size > config.teacher.precompute_megabytes * 2**20:
    return None
  return ask(teacher, inputs)


def reads_tokens(inputs: jax.Array) -> bool:
  """Returns whether inputs are rows of a text."""
  return inputs.dtype == jnp.int32


def _asks_text(
  config: ConfigDict, task: Task, key: jax.Array, mesh: Mesh
) -> Callable[[Weights, jax.Array], models.Outputs]:
  """From weights and rows to what is kept of them."""
  sparse = methods.get(config.method).sparse

  def keep(outputs: models.Outputs, number: jax.Array) -> models.Outputs:
    if sparse is None or methods.terms_of(config):
      return models.Outputs(outputs.logits, {})
    found = sparse(jax.random.fold_in(key, number), outputs.logits, config)
    return models.Outputs(None, {'sparse': found})

  reader = reading.Reader(task.teacher, task.in_order, task.gather)
  read = functools.partial(
    reading.answers, reader, batch_size=config.batch_size, keep=keep
  )
  return jax.jit(read, out_shardings=sharding.replicated(mesh))
