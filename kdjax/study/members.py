"""Students that are trained together, as arrays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.train.state import State, Weights

# The mesh axis that settings are split over.
AXIS = 'settings'

# Numbers that differ between students, `[H]`, by dotted key.
Varied = dict[str, jax.Array]


class Members(NamedTuple):
  """Students in training; every array is `[S, H, ...]`.

  Attributes:
    state: networks and optimisers.
    best: weights at the best evaluation on dev so far.
    best_correct: how many examples it recognised, -1 before the first.
    best_step: its step.
  """

  state: State
  best: Weights
  best_correct: jax.Array
  best_step: jax.Array


class Stream(NamedTuple):
  """What the students of each seed see.

  Attributes:
    key: `[S]`, the runs' keys.
    rows: `[S, N]`, the examples of the training set that they train on.
  """

  key: jax.Array
  rows: jax.Array


class Totals(NamedTuple):
  """Of every student on a split.

  Attributes:
    correct: `[S, H]`, how many examples it recognises.
    cross_entropy: `[S, H]`, the sum over them, in nats.
  """

  correct: jax.Array
  cross_entropy: jax.Array


def note_best(members: Members, dev: Totals) -> Members:
  """Takes over the weights of students that are better on dev than before.

  The latest of equals is the best, as in the checkpoints of a run.

  Args:
    members: the students.
    dev: what was counted with their weights.

  Returns:
    The members.
  """
  better = dev.correct >= members.best_correct

  def choose(new: jax.Array, old: jax.Array) -> jax.Array:
    wide = better.reshape(better.shape + (1,) * (new.ndim - better.ndim))
    return jnp.where(wide, new, old)

  return Members(
    members.state,
    jax.tree.map(choose, members.state.evaluated, members.best),
    choose(dev.correct, members.best_correct),
    choose(members.state.step, members.best_step),
  )
