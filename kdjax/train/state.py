"""A network, and what training changes of it."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from kdjax import models


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
  """

  step: jax.Array
  params: models.Tree
  rest: models.Tree
  opt_state: optax.OptState
  ema: Weights | None

  @property
  def evaluated(self) -> Weights:
    """What to evaluate: the average where there is one."""
    return self.ema or Weights(self.params, self.rest)


def create(
  params: models.Tree,
  rest: models.Tree,
  optimizer: optax.GradientTransformation,
  *,
  ema_decay: float,
) -> State:
  """Returns the state before the first step.

  Args:
    params: initial parameters.
    rest: initial batch statistics.
    optimizer: whose state to create.
    ema_decay: above 0, keep a moving average.

  Returns:
    The state.
  """
  copy = jax.tree.map(jnp.copy, Weights(params, rest))
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    rest=rest,
    opt_state=optimizer.init(params),
    ema=copy if ema_decay else None,
  )
