"""The training step: one pure function."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdjax import models
from kdjax.plans import Plan
from kdjax.train import verdict
from kdjax.train.answers import Answers, answer
from kdjax.train.given import Batch, Examples, Task, part_key, prepare
from kdjax.train.state import Carries, PyTree, State, Trained, Weights

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
    The new state, and the batch's scalars named by `METRICS` and `loss_NAME`
    for each term of the loss, beside `steps` and `skipped`: 1 and 0, or 0 and 1
    with the others 0 for no update.
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
  means, rests, gradient = mean(task, state, teacher, examples, key)
  norm = optax.tree.norm(gradient)
  finite = (
    jnp.isfinite(means['loss'])
    & jnp.isfinite(norm)
    & _all_finite(rests)
    & going
  )

  def keep() -> State:
    if not task.skip_nonfinite:
      return state
    # The text goes on, whatever is left out of the training.
    carries = jax.tree.map(
      lambda a: jnp.where(jnp.isfinite(a), a, 0), rests.carries
    )
    return dataclasses.replace(state, step=state.step + 1, carries=carries)

  state = jax.lax.cond(
    finite, lambda: _update(task, state, rests, gradient), keep
  )
  metrics = {**means, 'gradient_norm': norm, 'steps': 1.0}
  metrics = {k: jnp.where(finite, v, 0.0) for k, v in metrics.items()}
  return state, metrics | {'skipped': jnp.where(finite, 0.0, 1.0)}


def zero_sums(plan: Plan = ()) -> dict[str, jax.Array]:
  """Returns the metrics' sums before the first step of a loss with terms."""
  names = (*METRICS, *(f'loss_{term.name}' for term in plan))
  return {name: jnp.zeros(()) for name in (*names, 'steps', 'skipped')}


class _Rests(NamedTuple):
  """What changes without a gradient."""

  student: models.Tree
  aids: models.Tree
  carries: Carries


def _update(
  task: Task, state: State, rests: _Rests, gradient: Trained
) -> State:
  """The state after an update by `gradient`."""
  updates, opt_state = task.optimizer.update(
    gradient, state.opt_state, state.trained
  )
  params, aids = optax.apply_updates(state.trained, updates)
  ema = state.ema
  if ema is not None:
    # Early on the average is short: it forgets the initialisation.
    early = (1 + state.step) / (10 + state.step)
    decay = jnp.minimum(task.settings.ema_decay, early)
    new = Weights(params, rests.student)
    ema = optax.incremental_update(new, ema, 1 - decay)
  return State(
    step=state.step + 1,
    params=params,
    rest=rests.student,
    opt_state=opt_state,
    ema=ema,
    aids=Weights(aids, rests.aids),
    carries=rests.carries,
  )


def _mean_over_batch(
  task: Task,
  state: State,
  teacher: Weights | None,
  examples: Examples,
  key: jax.Array,
) -> tuple[dict[str, jax.Array], _Rests, Trained]:
  """Means by the names of metrics, what else changes, and the gradient."""

  def mean_loss(trained: Trained) -> tuple[jax.Array, Answers]:
    answers = answer(task, trained, state, teacher, examples, key)
    return answers.loss, answers

  (loss, answers), gradient = jax.value_and_grad(mean_loss, has_aux=True)(
    state.trained
  )
  mask = verdict.mask_of(examples.labels)
  accuracy = verdict.mean(answers.said.correct, mask)
  means = {'loss': loss, 'accuracy': accuracy}
  means |= {f'loss_{name}': value for name, value in answers.terms.items()}
  rests = _Rests(answers.rest, answers.aids, answers.carries)
  return means, rests, gradient


def _mean_over_parts(
  task: Task,
  state: State,
  teacher: Weights | None,
  examples: Examples,
  key: jax.Array,
) -> tuple[dict[str, jax.Array], _Rests, Trained]:
  """The same over parts of the batch, one after the other.

  Each takes every `parts`-th example, so that all devices share each part. A
  part counts by its examples, or by its tokens to predict.
  """
  split = jax.tree.map(
    lambda a: jnp.swapaxes(a.reshape(-1, task.parts, *a.shape[1:]), 0, 1),
    (examples, state.carries),
  )

  def mean(
    rests: tuple, index: jax.Array, part: Examples, carries: Carries
  ) -> tuple[dict[str, jax.Array], _Rests, Trained]:
    rest, aids = rests
    now = dataclasses.replace(
      state, rest=rest, aids=state.aids._replace(rest=aids), carries=carries
    )
    of_part = part_key(task, key, index)
    return _mean_over_batch(task, now, teacher, part, of_part)

  def body(carry: tuple, part: tuple) -> tuple[tuple, Carries]:
    rests, totals = carry
    means, rests, gradient = mean(rests, *part)
    size = verdict.size(part[1].labels)
    found = jax.tree.map(lambda a: size * a, (means, gradient))
    totals = jax.tree.map(jnp.add, totals, (*found, size))
    return ((rests.student, rests.aids), totals), rests.carries

  parts = jnp.arange(task.parts), *split
  rests = state.rest, state.aids.rest
  first = jax.tree.map(lambda a: a[0], parts)
  means, _, gradient = jax.eval_shape(mean, rests, *first)
  totals = jax.tree.map(
    lambda a: jnp.zeros(jnp.shape(a), jnp.float32), (means, gradient, 0.0)
  )
  (rests, totals), carries = jax.lax.scan(body, (rests, totals), parts)
  means, gradient, size = totals
  means, gradient = jax.tree.map(
    lambda t: t / jnp.maximum(size, 1.0), (means, gradient)
  )
  carries = jax.tree.map(
    lambda a: jnp.swapaxes(a, 0, 1).reshape(-1, *a.shape[2:]), carries
  )
  return means, _Rests(*rests, carries), gradient


def _all_finite(tree: PyTree) -> jax.Array:
  checks = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
  return functools.reduce(jnp.logical_and, checks, jnp.ones((), bool))
