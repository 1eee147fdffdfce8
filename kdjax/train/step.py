"""The training step: one pure function."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from kdjax import models
from kdjax.train.answers import (
  Answers,
  Batch,
  Examples,
  Task,
  answer,
  part_key,
  prepare,
)
from kdjax.train.state import State, Weights

METRICS = ('loss', 'accuracy', 'gradient_norm')


def train_step(
  task: Task,
  state: State,
  teacher: Weights | None,
  batch: Batch,
  key: jax.Array,
) -> tuple[State, dict[str, jax.Array]]:
  """Updates the student once. Pure; the only place where losses are reduced.

  An update from a loss, a gradient or batch statistics that are not finite is
  not made. Then the step stays the same, too, unless `task.skip_nonfinite`.

  Args:
    task: what the step is made of.
    state: the student's state.
    teacher: the frozen teacher, or None for a method without one.
    batch: `B` examples.
    key: the run's key; the step's own is `fold_in(key, state.step)`.

  Returns:
    The new state, and the batch's scalars named by `METRICS`, beside `steps`
    and `skipped`: 1 and 0, or 0 and 1 with the others 0 for no update.
  """
  examples, dropout_key = prepare(task, batch, key, state.step)
  return update(task, state, teacher, examples, dropout_key)


def update(
  task: Task,
  state: State,
  teacher: Weights | None,
  examples: Examples,
  key: jax.Array,
  *,
  going: jax.Array | bool = True,
) -> tuple[State, dict[str, jax.Array]]:
  """Updates the student once from examples that are ready for the networks.

  Args:
    task: what the step is made of.
    state: the student's state.
    teacher: the frozen teacher, or None for a method without one.
    examples: `B` of them.
    key: of the dropout.
    going: scalar; where it is False no update is made.

  Returns:
    As `train_step`.
  """
  mean = _mean_over_parts if task.parts > 1 else _mean_over_batch
  loss, accuracy, rest, gradient = mean(task, state, teacher, examples, key)
  norm = optax.tree.norm(gradient)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm) & _all_finite(rest) & going

  def keep() -> State:
    step = state.step + task.skip_nonfinite
    return dataclasses.replace(state, step=step)

  state = jax.lax.cond(
    finite, lambda: _update(task, state, rest, gradient), keep
  )
  metrics = {
    'loss': loss,
    'accuracy': accuracy,
    'gradient_norm': norm,
    'steps': 1.0,
  }
  metrics = {k: jnp.where(finite, v, 0.0) for k, v in metrics.items()}
  return state, metrics | {'skipped': jnp.where(finite, 0.0, 1.0)}


def zero_sums() -> dict[str, jax.Array]:
  """Returns the metrics' sums before the first step."""
  return {name: jnp.zeros(()) for name in (*METRICS, 'steps', 'skipped')}


def _update(
  task: Task, state: State, rest: models.Tree, gradient: models.Tree
) -> State:
  """The state after an update by `gradient`."""
  updates, opt_state = task.optimizer.update(
    gradient, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema is not None:
    # Early on the average is short: it forgets the initialisation.
    early = (1 + state.step) / (10 + state.step)
    decay = jnp.minimum(task.settings.ema_decay, early)
    ema = optax.incremental_update(Weights(params, rest), ema, 1 - decay)
  return State(state.step + 1, params, rest, opt_state, ema)


def _mean_over_batch(
  task: Task,
  state: State,
  teacher: Weights | None,
  examples: Examples,
  key: jax.Array,
) -> tuple[jax.Array, jax.Array, models.Tree, models.Tree]:
  """Mean loss, accuracy, new batch statistics, and gradient."""

  def mean_loss(params: models.Tree) -> tuple[jax.Array, Answers]:
    answers = answer(task, params, state, teacher, examples, key)
    return jnp.mean(answers.losses), answers

  (loss, answers), gradient = jax.value_and_grad(mean_loss, has_aux=True)(
    state.params
  )
  correct = jnp.argmax(answers.logits, -1) == examples.labels
  return loss, jnp.mean(correct), answers.rest, gradient


def _mean_over_parts(
  task: Task,
  state: State,
  teacher: Weights | None,
  examples: Examples,
  key: jax.Array,
) -> tuple[jax.Array, jax.Array, models.Tree, models.Tree]:
  """The same over parts of the batch, one after the other.

  Each takes every `parts`-th example, so that all devices share each part.
  """
  split = jax.tree.map(
    lambda a: jnp.swapaxes(a.reshape(-1, task.parts, *a.shape[1:]), 0, 1),
    examples,
  )

  def body(carry: tuple, part: tuple) -> tuple[tuple, None]:
    rest, totals = carry
    index, examples = part
    *means, rest, gradient = _mean_over_batch(
      task,
      dataclasses.replace(state, rest=rest),
      teacher,
      examples,
      part_key(task, key, index),
    )
    return (rest, jax.tree.map(jnp.add, totals, (means, gradient))), None

  zero = jnp.zeros(())
  totals = [zero, zero], jax.tree.map(jnp.zeros_like, state.params)
  (rest, totals), _ = jax.lax.scan(
    body, (state.rest, totals), (jnp.arange(task.parts), split)
  )
  (loss, accuracy), gradient = jax.tree.map(lambda t: t / task.parts, totals)
  return loss, accuracy, rest, gradient


def _all_finite(tree: models.Tree) -> jax.Array:
  checks = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
  return functools.reduce(jnp.logical_and, checks, jnp.ones((), bool))
