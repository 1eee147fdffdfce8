"""A network, and what training changes of it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from kdjax import models

# Arrays in whatever holds them.
PyTree = Any


class Network(NamedTuple):
  """A network outside training.

  Attributes:
    graphdef: its graph definition, static.
    params: its parameters.
    rest: its batch statistics.
  """

  graphdef: nnx.GraphDef
  params: models.Tree
  rest: models.Tree


class Weights(NamedTuple):
  """What a network computes with.

  Attributes:
    params: parameters.
    rest: batch statistics.
  """

  params: models.Tree
  rest: models.Tree


class Trained(NamedTuple):
  """What the optimiser sees.

  Attributes:
    params: of the network.
    aids: of what is trained beside it, for the sake of its loss alone.
  """

  params: models.Tree
  aids: models.Tree


# Of a loss that needs none.
NO_AIDS = Weights({}, {})


class Carries(NamedTuple):
  """What networks remember of the text before a batch.

  Attributes:
    student: its state, arrays `[B, ...]`.
    teacher: the teacher's.
  """

  student: PyTree = ()
  teacher: PyTree = ()


# Where batches do not go on from each other.
NO_CARRIES = Carries()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """A network in training; a pytree.

  Attributes:
    step: int32 scalar, updates so far.
    params: parameters.
    rest: batch statistics.
    opt_state: the optimiser's.
    ema: moving average of parameters and batch statistics, or None.
    aids: projectors and memories that the loss needs; no part of the network.
    carries: what the networks remember from one batch to the next.
  """

  step: jax.Array
  params: models.Tree
  rest: models.Tree
  opt_state: optax.OptState
  ema: Weights | None
  aids: Weights = NO_AIDS
  carries: Carries = NO_CARRIES

  @property
  def trained(self) -> Trained:
    """What the optimiser sees."""
    return Trained(self.params, self.aids.params)

  @property
  def evaluated(self) -> Weights:
    """What to evaluate: the average where there is one."""
    return self.ema or Weights(self.params, self.rest)


class Snapshot(NamedTuple):
  """Everything that changes in training, and so what a checkpoint holds.

  Attributes:
    state: the network in training.
    sums: running sums of the metrics since the last row.
  """

  state: State
  sums: dict[str, jax.Array]


def create(
  params: models.Tree,
  rest: models.Tree,
  optimizer: optax.GradientTransformation,
  *,
  ema_decay: float,
  aids: Weights = NO_AIDS,
  carries: Carries = NO_CARRIES,
) -> State:
  """Returns the state before the first step.

  Args:
    params: initial parameters.
    rest: initial batch statistics.
    optimizer: whose state to create.
    ema_decay: above 0, keep a moving average.
    aids: initial projectors and memories.
    carries: what the networks remember before the first batch.

  Returns:
    The state.
  """
  copy = jax.tree.map(jnp.copy, Weights(params, rest))
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    rest=rest,
    opt_state=optimizer.init(Trained(params, aids.params)),
    ema=copy if ema_decay else None,
    aids=aids,
    carries=carries,
  )
