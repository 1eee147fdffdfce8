"""Losses of a text in one pass, from hidden states and output matrices.

`kdjax.losses.blockwise` put to work: means over the real tokens, exact, without
`[N, K]` logits of either network or their gradients. Whoever wants more than
the mean, or another loss, calls it with a loss of the own. Gradients are the
student's; the teacher is a constant.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from kdjax import losses, numerics, targets, targets_sparse
from kdjax.checks import (
  Array,
  Scalar,
  check_between,
  check_fraction,
  check_not_negative,
  typed,
)
from kdjax.losses import Head


@typed
def cross_entropy(
  student: Head,
  labels: Integer[Array, 'N'],
  *,
  mask: Bool[Array, 'N'] | None = None,
  block_size: int = 256,
) -> Float[jax.Array, '']:
  """Cross-entropy with the labels, `kdjax.losses.cross_entropy`.

  `mean_i CE(y_i, q_i)`.

  Args:
    student: of N tokens.
    labels: `[N]`, in 0..K-1 where a token is real.
    mask: `[N]`, where a token is real; all are if None.
    block_size: tokens whose logits exist at a time, at most.

  Returns:
    A scalar, in nats a token.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Hinton, Vinyals, Dean, arXiv:1503.02531, section 2.

  >>> student = Head(jnp.eye(3), jnp.zeros((4, 3)), jnp.zeros(4))
  >>> round(float(cross_entropy(student, jnp.arange(3))), 4)  # log 4
  1.3863
  """
  loss = lambda s, _, y: losses.cross_entropy(s, y)
  return _mean(loss, student, None, labels, mask, block_size)


@typed
def distillation(
  student: Head,
  teacher: Head,
  labels: Integer[Array, 'N'],
  *,
  mask: Bool[Array, 'N'] | None = None,
  weight: Scalar,
  temperature: Scalar,
  temperature_power: Scalar = 2,
  block_size: int = 256,
) -> Float[jax.Array, '']:
  """The label's term and all of the teacher's, `kdjax.losses.distillation`.

  `mean_i (1-λ) · CE(y_i, q_i) + λ · Tⁿ · KL(p̃_i ‖ q̃_i)`.

  Args:
    student: of N tokens.
    teacher: of the same tokens and classes; its width may be another.
    labels: `[N]`, in 0..K-1 where a token is real.
    mask: `[N]`, where a token is real; all are if None.
    weight: λ in [0, 1].
    temperature: T > 0.
    temperature_power: n ≥ 0.
    block_size: tokens whose logits exist at a time, at most.

  Returns:
    A scalar, in nats a token.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Tang et al., arXiv:2002.03532, the distillation loss.

  >>> head = Head(jnp.eye(3), jnp.zeros((4, 3)), jnp.zeros(4))
  >>> y = jnp.arange(3)
  >>> loss = distillation(head, head, y, weight=0.5, temperature=2.0)
  >>> round(float(loss), 4)  # half of log 4
  0.6931
  """

  def loss(s: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
    return losses.distillation(
      s,
      targets.full(t, temperature=temperature),
      y,
      weight=weight,
      temperature=temperature,
      temperature_power=temperature_power,
    )

  return _mean(loss, student, teacher, labels, mask, block_size)


@typed
def topk(
  student: Head,
  teacher: Head,
  labels: Integer[Array, 'N'],
  *,
  mask: Bool[Array, 'N'] | None = None,
  k: int,
  weight: Scalar,
  temperature: Scalar,
  temperature_power: Scalar = 2,
  block_size: int = 256,
) -> Float[jax.Array, '']:
  """The label's term and KD-topk, `kdjax.losses.kl_uniform_tail`.

  `mean_i (1-λ) · CE(y_i, q_i) + λ · Tⁿ · KL(ρ_i ‖ q̃_i)`, ρ the teacher's k
  likeliest classes with the rest spread evenly.

  Args:
    student: of N tokens.
    teacher: of the same tokens and classes; its width may be another.
    labels: `[N]`, in 0..K-1 where a token is real.
    mask: `[N]`, where a token is real; all are if None.
    k: in 1..K.
    weight: λ in [0, 1].
    temperature: T > 0.
    temperature_power: n ≥ 0.
    block_size: tokens whose logits exist at a time, at most.

  Returns:
    A scalar, in nats a token.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Tang et al., arXiv:2002.03532, KD-topk.

  >>> head = Head(jnp.eye(3), jnp.zeros((4, 3)), jnp.zeros(4))
  >>> y = jnp.arange(3)
  >>> loss = topk(head, head, y, k=2, weight=0.5, temperature=2.0)
  >>> round(float(loss), 4)  # half of log 4
  0.6931
  """
  check_fraction('weight', weight)
  check_between('k', k, 1, len(teacher.bias))

  def loss(s: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
    sparse = targets_sparse.sparse_topk(t, k=k, temperature=temperature)
    term = losses.kl_uniform_tail(
      s,
      *sparse,
      temperature=temperature,
      temperature_power=temperature_power,
    )
    return numerics.times(
      1 - weight, losses.cross_entropy(s, y)
    ) + numerics.times(weight, term)

  return _mean(loss, student, teacher, labels, mask, block_size)


@typed
def dkd(
  student: Head,
  teacher: Head,
  labels: Integer[Array, 'N'],
  *,
  mask: Bool[Array, 'N'] | None = None,
  label_weight: Scalar = 1.0,
  target_weight: Scalar = 1.0,
  nontarget_weight: Scalar = 8.0,
  temperature: Scalar = 4.0,
  block_size: int = 256,
) -> Float[jax.Array, '']:
  """The label's term and decoupled distillation, `kdjax.losses.dkd`.

  `mean_i c · CE(y_i, q_i) + α · TCKD_i + β · NCKD_i`.

  Args:
    student: of N tokens.
    teacher: of the same tokens and classes; its width may be another.
    labels: `[N]`, in 0..K-1 where a token is real.
    mask: `[N]`, where a token is real; all are if None.
    label_weight: c ≥ 0. A term of weight 0 is left out.
    target_weight: α ≥ 0.
    nontarget_weight: β ≥ 0.
    temperature: T > 0.
    block_size: tokens whose logits exist at a time, at most.

  Returns:
    A scalar, in nats a token.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a hyper-parameter is out of its range.

  Reference: Zhao et al., arXiv:2203.08679, section 3.3.

  >>> head = Head(jnp.eye(3), jnp.zeros((4, 3)), jnp.zeros(4))
  >>> round(float(dkd(head, head, jnp.arange(3))), 4)  # log 4
  1.3863
  """
  check_not_negative('label_weight', label_weight)

  def loss(s: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
    term = losses.dkd(
      s,
      t,
      y,
      target_weight=target_weight,
      nontarget_weight=nontarget_weight,
      temperature=temperature,
    )
    return numerics.times(label_weight, losses.cross_entropy(s, y)) + term

  return _mean(loss, student, teacher, labels, mask, block_size)


def _mean(
  loss: Callable[[jax.Array, jax.Array | None, jax.Array], jax.Array],
  student: Head,
  teacher: Head | None,
  labels: Array,
  mask: Array | None,
  block_size: int,
) -> jax.Array:
  value, _ = losses.blockwise(
    lambda s, t, y, _: (loss(s, t, y), None),
    student,
    labels,
    teacher=teacher,
    weights=_shares(len(labels), mask),
    block_size=block_size,
  )
  return value


@typed
def _shares(
  num_tokens: int, mask: Bool[Array, 'N'] | None
) -> Float[jax.Array, 'N']:
  """What each token weighs in a mean over the real ones."""
  real = jnp.ones(num_tokens, bool) if mask is None else jnp.asarray(mask)
  return real / jnp.maximum(jnp.sum(real), 1)
