"""What is not finite, where it begins, and in which examples."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax import models
from kdjax.train import answers, given
from kdjax.train.state import PyTree, State, Trained, Weights


class _Trees(NamedTuple):
  """Arrays of a step, in the order in which they are computed."""

  term: dict[str, jax.Array]
  gradient: PyTree
  batch_statistics: PyTree
  aids: PyTree
  params: PyTree


def first_bad_leaf(tree: PyTree) -> str | None:
  """Returns the path of the first array that is not finite, or None.

  >>> first_bad_leaf({'a': jnp.ones(2), 'b': {'c': jnp.array([0.0, jnp.nan])}})
  'b/c'
  """
  return _first(_bad_leaves(tree))


def explain(
  task: given.Task,
  state: State,
  teacher: Weights | None,
  batch: given.Batch,
  ids: np.ndarray,
  key: jax.Array,
) -> str:
  """Says what went wrong in a step that made no update.

  The step is taken once more, in the order of its computation: inputs,
  teacher, student, loss, gradient, batch statistics.

  Args:
    task: what the step is made of.
    state: the state before the step.
    teacher: the frozen teacher, or None.
    batch: the examples of the step.
    ids: `[B]`, which examples of the training split they are.
    key: the run's key.

  Returns:
    The first bad leaf, the step and the examples.
  """
  at = f'in step {int(state.step)}'
  # Every host has to see all rows, as it sees the step.
  everywhere = state.step.sharding
  prepare = jax.jit(functools.partial(given.prepare, task))
  find = jax.jit(functools.partial(_find, task), out_shardings=everywhere)
  examples, dropout_key = prepare(batch, key, state.step)
  for part in range(task.parts):
    chosen = slice(part, None, task.parts)
    rows, trees, rests = find(
      _of_part(state, chosen),
      teacher,
      jax.tree.map(lambda a, chosen=chosen: a[chosen], examples),
      given.part_key(task, dropout_key, part),
    )
    for name, bad in zip(_ROWS, jax.device_get(rows), strict=True):
      if bad.any():
        return f'{name} is not finite {at}, {_examples(ids[chosen][bad])}'
    leaf = _first(trees)
    if leaf:
      return f'{leaf} is not finite {at}, {_examples(ids[chosen])}'
    rest, aids = rests
    state = dataclasses.replace(
      state, rest=rest, aids=state.aids._replace(rest=aids)
    )
  return f'a mean over the batch is not finite {at}, {_examples(ids)}'


_ROWS = (
  'an input',
  'a logit of the teacher',
  'a logit of the student',
  'the loss',
)


def _find(
  task: given.Task,
  state: State,
  teacher: Weights | None,
  examples: given.Examples,
  dropout_key: jax.Array,
) -> tuple[list[jax.Array], _Trees, tuple[models.Tree, models.Tree]]:
  """Which examples are bad, by `_ROWS`, which leaves; new statistics."""

  def mean_loss(trained: Trained) -> tuple[jax.Array, answers.Answers]:
    found = answers.answer(task, trained, state, teacher, examples, dropout_key)
    return found.loss, found

  gradient, found = jax.grad(mean_loss, has_aux=True)(state.trained)
  updates, _ = task.optimizer.update(gradient, state.opt_state, state.trained)
  trained = optax.apply_updates(state.trained, updates)
  said = found.said
  parts = (examples.inputs, found.teacher_logits, said.logits, said.losses)
  nothing = jnp.zeros(len(said.losses))
  rows = [_bad_rows(nothing if x is None else x) for x in parts]
  trees = _Trees(
    found.terms,
    _of_student(gradient),
    found.rest,
    found.aids,
    _of_student(trained),
  )
  return rows, _bad_leaves(trees), (found.rest, found.aids)


def _bad_rows(array: jax.Array) -> jax.Array:
  return ~jnp.isfinite(array).reshape(len(array), -1).all(-1)


def _of_part(state: State, chosen: slice) -> State:
  """The state with what the networks remember of the chosen rows."""
  carries = jax.tree.map(lambda a: a[chosen], state.carries)
  return dataclasses.replace(state, carries=carries)


def _of_student(trained: Trained) -> PyTree:
  """The student's at the top, what helps it below 'aids'."""
  aids = {'aids': trained.aids} if trained.aids else {}
  return {**trained.params, **aids}


@jax.jit
def _bad_leaves(tree: PyTree) -> PyTree:
  """Whether each array holds a number that is not finite."""
  return jax.tree.map(lambda leaf: ~jnp.all(jnp.isfinite(leaf)), tree)


def _first(bad: PyTree) -> str | None:
  """The path of the first leaf that is true."""
  for path, is_bad in jax.tree_util.tree_leaves_with_path(jax.device_get(bad)):
    if is_bad:
      return jax.tree_util.keystr(path, simple=True, separator='/')
  return None


def _examples(ids: np.ndarray) -> str:
  shown = ', '.join(map(str, np.sort(ids)[:8]))
  more = len(ids) - 8
  end = f' and {more} more' if more > 0 else ''
  return f'examples {shown}{end} of the training split'
