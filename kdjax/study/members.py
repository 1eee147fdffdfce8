"""Students that are trained together, as arrays."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.train.state import PyTree, State, Weights

# The mesh axis that settings are split over.
AXIS = 'settings'

# Numbers that differ between students, `[H]`, by dotted key.
Varied = dict[str, jax.Array]


class Totals(NamedTuple):
  """Of every student on a split.

  Attributes:
    correct: `[S, H]`, how many examples it recognises, or how many tokens.
    cross_entropy: `[S, H]`, the sum over them, in nats.
  """

  correct: jax.Array
  cross_entropy: jax.Array


class Members(NamedTuple):
  """Students in training; every array but the last is `[S, H, ...]`.

  Attributes:
    state: networks and optimisers.
    best: weights at the best evaluation on dev so far.
    best_dev: what was counted in it.
    best_step: its step.
    heard: what the teacher remembers of a text that is read in order, `[B,
      ...]`, the same for all.
  """

  state: State
  best: Weights
  best_dev: Totals
  best_step: jax.Array
  heard: PyTree = ()


class Stream(NamedTuple):
  """What the students of each seed see.

  Attributes:
    key: `[S]`, the runs' keys.
    rows: `[S, N]`, the examples of the training set that they train on.
  """

  key: jax.Array
  rows: jax.Array


# What anything that is counted is better than.
NOTHING = Totals(-1, float('inf'))


def note_best(
  members: Members, dev: Totals, *, merit: Callable[[Totals], jax.Array]
) -> Members:
  """Takes over the weights of students that are better on dev than before.

  The latest of equals is the best, as in the checkpoints of a run.

  Args:
    members: the students.
    dev: what was counted with their weights.
    merit: of what was counted; higher is better.

  Returns:
    The members.
  """
  better = merit(dev) >= merit(members.best_dev)

  def choose(new: jax.Array, old: jax.Array) -> jax.Array:
    wide = better.reshape(better.shape + (1,) * (new.ndim - better.ndim))
    return jnp.where(wide, new, old)

  return members._replace(
    best=jax.tree.map(choose, members.state.evaluated, members.best),
    best_dev=jax.tree.map(choose, dev, members.best_dev),
    best_step=choose(members.state.step, members.best_step),
  )
