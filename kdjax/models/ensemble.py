"""Several trained networks as one teacher."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from kdjax.checks import Array
from kdjax.models.outputs import Outputs


def average_logits(
  logits: Float[Array, 'B M K'], shares: Float[Array, ' M'], temperature: float
) -> Float[jax.Array, 'B K']:
  """`Σ_m w_m t_m`: the geometric mean of the networks' probabilities."""
  del temperature
  return jnp.einsum('bmk,m->bk', logits, shares)


def average_probs(
  logits: Float[Array, 'B M K'], shares: Float[Array, ' M'], temperature: float
) -> Float[jax.Array, 'B K']:
  """`T log Σ_m w_m softmax(t_m / T)`: logits of the mean distribution at T.

  >>> logits = jnp.array([[[2.0, 0.0], [0.0, 2.0]]])
  >>> both = average_probs(logits, jnp.array([0.5, 0.5]), 4.0)
  >>> jax.nn.softmax(both / 4.0).tolist()
  [[0.5, 0.5]]
  """
  log_probs = jax.nn.log_softmax(logits / temperature, axis=-1)
  weighted = log_probs + jnp.log(shares)[None, :, None]
  return temperature * jax.nn.logsumexp(weighted, axis=1)


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
  logits of all.

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

  def __call__(
    self,
    inputs: Float[Array, 'B ...'],
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> Outputs:
    """Returns the averaged logits and the chosen features.

    Args:
      inputs: examples, `[B, *input_shape]`.
      train: as of the members.
      key: as of the members.

    Returns:
      The outputs.
    """
    outputs = [member(inputs, train=train, key=key) for member in self.members]
    logits = jnp.stack([output.logits for output in outputs], axis=1)
    average = AVERAGES[self.average]
    features = {**outputs[self.features_from].features, 'members': logits}
    shares = jnp.asarray(self.shares)
    return Outputs(average(logits, shares, self.temperature), features)
