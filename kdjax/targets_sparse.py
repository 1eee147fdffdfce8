"""Sparse teacher distributions: a few classes, and the mass of the others.

A teacher over a large vocabulary is kept or sent as k classes a token, in place
of all K. `kdjax.losses` has the losses that read them, by `kl_uniform_tail`,
`kl_bucket_tail` and `kl_renormalised` for the likeliest classes, and by
`kl_samples` for drawn ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kdjax import numerics
from kdjax.checks import (
  Array,
  Scalar,
  check_between,
  check_not_negative,
  check_positive,
  typed,
)


class Sparse(NamedTuple):
  """A few classes of a teacher's answer.

  Attributes:
    indices: `[..., k]`, int32, classes.
    probs: `[..., k]`, what the teacher gives each; of drawn classes their
      weight.
    tail: `[...]`, what it gives all others together.
  """

  indices: Array
  probs: Array
  tail: Array


@typed
def sparse_topk(
  teacher_logits: Float[Array, '*batch K'], *, k: int, temperature: Scalar
) -> Sparse:
  """The teacher's k likeliest classes, and the mass of the rest.

  The k largest entries of `p̃ = softmax(t/T)`, from the largest on. Of equal
  entries the lower class goes first, so the classes are those of
  `kdjax.targets.topk`. The rest is the sum of the other entries: `1 − Σ p_i`
  would be lost to rounding where the teacher is sure.

  Args:
    teacher_logits: `[..., K]`, reals or `-inf`.
    k: in 1..K.
    temperature: T > 0.

  Returns:
    Of k classes.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Tang et al., arXiv:2002.03532, KD-topk.

  >>> logits = jnp.log(jnp.array([[0.125, 0.5, 0.125, 0.25]]))
  >>> sparse = sparse_topk(logits, k=2, temperature=1.0)
  >>> print(sparse.indices, sparse.probs.round(3), sparse.tail.round(3))
  [[1 3]] [[0.5  0.25]] [0.25]
  """
  check_between('k', k, 1, teacher_logits.shape[-1])
  check_positive('temperature', temperature)
  probs = jnp.exp(numerics.log_probs(teacher_logits, temperature))
  kept, indices = jax.lax.top_k(probs, k)
  others = jnp.put_along_axis(probs, indices, 0.0, axis=-1, inplace=False)
  return Sparse(indices.astype(jnp.int32), kept, jnp.sum(others, axis=-1))


@typed
def sparse_sample(
  key: jax.Array,
  teacher_logits: Float[Array, '*batch K'],
  *,
  num_samples: int,
  temperature: Scalar,
  proposal_power: Scalar = 1.0,
) -> Sparse:
  """Draws classes from the teacher, so that on average all of it is taught.

  m classes are drawn with replacement from `g ∝ p̃^a`, `p̃ = softmax(t/T)`, and
  each has the weight `p̃_i / (m g_i)`, which is 1/m at a = 1. However few they
  are, `E Σ_i w_i 1[i] = p̃`; the likeliest k are never that, whatever is done
  with their tail. Less than a = 1 draws rare classes more often.

  Args:
    key: of JAX's random numbers.
    teacher_logits: `[..., K]`, reals or `-inf`.
    num_samples: m ≥ 1.
    temperature: T > 0.
    proposal_power: a ≥ 0.

  Returns:
    Of m draws, with a tail of 0.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Anshumann et al., arXiv:2503.16870, Random Sampling Knowledge
  Distillation.

  >>> logits = jnp.array([0.0, -jnp.inf, 0.0, 0.0])
  >>> sparse_sample(
  ...   jax.random.key(0), logits, num_samples=4, temperature=1.0
  ... ).probs.tolist()
  [0.25, 0.25, 0.25, 0.25]
  """
  check_positive('num_samples', num_samples)
  check_positive('temperature', temperature)
  check_not_negative('proposal_power', proposal_power)
  log_p = numerics.log_probs(teacher_logits, temperature)
  possible = ~jnp.isneginf(log_p)
  powered = jnp.where(possible, proposal_power * log_p, -jnp.inf)
  log_g = numerics.log_probs(powered, 1.0)
  indices = _draw(key, jnp.exp(log_g), num_samples)
  # Rounding of a cumulative sum might draw what has no mass: no weight either.
  log_ratio = jnp.where(possible, log_p - log_g, -jnp.inf)
  weights = jnp.exp(jnp.take_along_axis(log_ratio, indices, axis=-1))
  return Sparse(indices, weights / num_samples, jnp.zeros_like(weights[..., 0]))


def _draw(key: jax.Array, probs: jax.Array, num_samples: int) -> jax.Array:
  """Inverts the cumulative sum; Gumbel noise would be `[..., m, K]`."""
  *batch, num_classes = probs.shape
  edges = jnp.cumsum(probs, axis=-1).reshape(-1, num_classes)
  points = jax.random.uniform(key, (len(edges), num_samples), edges.dtype)
  found = jax.vmap(lambda e, u: jnp.searchsorted(e, u * e[-1], side='right'))(
    edges, points
  )
  found = jnp.minimum(found, num_classes - 1).astype(jnp.int32)
  return found.reshape(*batch, num_samples)
