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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """A network in training; a pytree.

  Attributes:
    step: int32 scalar, updates so far.
    params: parameters.
    rest: batch statistics.
    opt_state: the optimiser's.
    ema: moving average of the parameters, or None.
  """

  step: jax.Array
  params: models.Tree
  rest: models.Tree
  opt_state: optax.OptState
  ema: models.Tree | None

  @property
  def evaluated_params(self) -> models.Tree:
    """The parameters to evaluate: their average where there is one."""
    return self.params if self.ema is None else self.ema


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
    ema_decay: above 0, keep a moving average of the parameters.

  Returns:
    The state.
  """
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    rest=rest,
    opt_state=optimizer.init(params),
    ema=jax.tree.map(jnp.copy, params) if ema_decay else None,
  )
