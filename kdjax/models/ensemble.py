"""Several trained networks as one teacher."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Num

from kdjax.checks import Array
from kdjax.models.outputs import Outputs


def average_logits(
  logits: Float[Array, '*B M K'], shares: Float[Array, ' M'], temperature: float
) -> Float[jax.Array, '*B K']:
  """`Σ_m w_m t_m`: the geometric mean of the networks' probabilities."""
  del temperature
  return jnp.einsum('...mk,m->...k', logits, shares)


def average_probs(
  logits: Float[Array, '*B M K'], shares: Float[Array, ' M'], temperature: float
) -> Float[jax.Array, '*B K']:
  """`T log Σ_m w_m softmax(t_m / T)`: logits of the mean distribution at T.

  >>> logits = jnp.array([[[2.0, 0.0], [0.0, 2.0]]])
  >>> both = average_probs(logits, jnp.array([0.5, 0.5]), 4.0)
  >>> jax.nn.softmax(both / 4.0).tolist()
  [[0.5, 0.5]]
  """
  log_probs = jax.nn.log_softmax(logits / temperature, axis=-1)
  columns = (*range(logits.ndim - 2), -1)
  weighted = log_probs + jnp.expand_dims(jnp.log(shares), columns)
  return temperature * jax.nn.logsumexp(weighted, axis=-2)


# By what is averaged. The mean of losses needs every network's logits: those
# are the feature 'members'; the logits shown beside them are of the mean
# distribution.
AVERAGES = {
  'logits': average_logits,
  'probs': average_probs,
  'losses': average_probs,
}


class Ensemble(nnx.Module):
  """Networks that answer as one; features are those of one of them.

  Features: those of the chosen network, and `'members'` `[B, M, K]`, the
  logits of all; of language models, `[B, T, M, K]`. The carry holds every
  member's.

  Args:
    members: M networks of the same classes.
    shares: of each in the average, not negative; they are scaled to sum to 1.
    average: a row of `AVERAGES`.
    temperature: T > 0, at which probabilities are averaged.
    features_from: which member's features and last layer are the ensemble's.
  """

  def __init__(
    self,
    members: Sequence[nnx.Module],
    *,
    shares: Sequence[float],
    average: str,
    temperature: float,
    features_from: int,
  ) -> None:
    self.members = nnx.List(members)
    self.shares = tuple(share / sum(shares) for share in shares)
    self.average, self.temperature = average, temperature
    self.features_from = features_from

  @property
  def inner(self) -> nnx.Module:
    """The member whose features are taken."""
    return self.members[self.features_from]

  @property
  def class_weights(self) -> Float[jax.Array, 'K D']:
    """The chosen member's."""
    return self.inner.class_weights

  def initial_carry(self, batch_size: int) -> tuple:
    """Returns the members'; `()` where none of them has a memory."""
    carries = tuple(
      member.initial_carry(batch_size)
      if hasattr(member, 'initial_carry')
      else ()
      for member in self.members
    )
    return carries if jax.tree.leaves(carries) else ()

  def __call__(
    self,
    inputs: Num[Array, 'B ...'],
    *,
    train: bool,
    key: jax.Array | None = None,
    carry: tuple = (),
  ) -> Outputs:
    """Returns the averaged logits and the chosen features.

    Args:
      inputs: examples, `[B, *input_shape]`.
      train: as of the members.
      key: as of the members.
      carry: as the rows before these left it; `()`: nothing came before.

    Returns:
      The outputs.
    """
    own = carry or ((),) * len(self.members)
    outputs = [
      member(inputs, train=train, key=key, **_memory(carry))
      for member, carry in zip(self.members, own, strict=True)
    ]
    logits = jnp.stack([output.logits for output in outputs], axis=-2)
    average = AVERAGES[self.average]
    features = {**outputs[self.features_from].features, 'members': logits}
    shares = jnp.asarray(self.shares)
    carries = tuple(output.carry for output in outputs)
    return Outputs(
      average(logits, shares, self.temperature),
      features,
      carries if jax.tree.leaves(carries) else (),
    )


def _memory(carry: Any) -> dict:  # noqa: ANN401
  """The argument of a member that has a memory."""
  return {'carry': carry} if jax.tree.leaves(carry) else {}
