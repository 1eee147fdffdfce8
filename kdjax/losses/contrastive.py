"""Contrastive representation distillation (CRD), with its memory banks.

Student and teacher each keep a bank: an embedding of every training example,
`[N, D]`, at norm 1. An embedding of one is to recognise the same example in
the other's bank, among M examples of other classes. All functions are pure:
the caller keeps the banks and moves them after a step.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer

from kdjax import numerics
from kdjax.checks import (
  Array,
  Scalar,
  check_fraction,
  check_positive,
  typed,
)


@typed
def crd(
  student: Float[Array, 'B D'],
  teacher: Float[Array, 'B D'],
  student_bank: Float[Array, 'N D'],
  teacher_bank: Float[Array, 'N D'],
  candidates: Integer[Array, 'B C'],
  *,
  log_partition: tuple[Scalar, Scalar],
  temperature: Scalar = 0.07,
) -> Float[jax.Array, '']:
  """CRD: recognise one's own example in the other network's memory.

  With embeddings v of one side and the bank m of the other, a candidate j of
  example b has `P_bj = exp(v_b · m_j / T) / Z` and `h_bj = P_bj / (P_bj +
  M/N)`, and the side's loss is `−mean_b (log h_b,pos + Σ_neg log (1 − h_bj))`.
  CRD is the sum of both sides, so that both embeddings are trained.

  Z is a constant. As published, it is `crd_log_partition` of the first batch,
  and is kept from then on.

  Args:
    student: `[B, D]`, rows at norm 1.
    teacher: `[B, D]`, rows at norm 1.
    student_bank: `[N, D]`, rows at norm 1; the teacher is scored against it.
    teacher_bank: `[N, D]`, rows at norm 1; the student is scored against it.
    candidates: `[B, 1+M]`, in 0..N-1: the example's own position in the banks,
      then those of M ≥ 1 negatives. A position from N on gives NaN.
    log_partition: log Z of the student's side, and of the teacher's.
    temperature: T > 0.

  Returns:
    A scalar of the batch, in nats.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: there are no negatives, or `temperature` is not positive.

  Reference: Tian, Krishnan, Isola, arXiv:1910.10699, sections 3.2 and 3.4; Wu
  et al., arXiv:1805.01978, section 3, for the banks and Z.

  >>> v, bank = jnp.array([[1.0, 0.0]]), jnp.eye(2)
  >>> own, log_z = jnp.array([[0, 1]]), jnp.log(2.0)
  >>> loss = crd(v, v, bank, bank, own, log_partition=(log_z, log_z))
  >>> round(float(loss), 4)  # the negative has P = M/N: log 2, from both sides
  1.3863
  """
  check_positive('temperature', temperature)
  _check_negatives(candidates)
  sides = (student, teacher_bank), (teacher, student_bank)
  return sum(
    _side(_scores(*side, candidates, temperature) - log_z, len(student_bank))
    for side, log_z in zip(sides, log_partition, strict=True)
  )


@typed
def crd_log_partition(
  embeddings: Float[Array, 'B D'],
  bank: Float[Array, 'N D'],
  candidates: Integer[Array, 'B C'],
  *,
  temperature: Scalar = 0.07,
) -> Float[jax.Array, '']:
  """The logarithm of CRD's Z of one side, estimated from a batch.

  `log Z = log (N · mean_bj exp(v_b · m_j / T))` over all candidates.

  Args:
    embeddings: `[B, D]`, rows at norm 1.
    bank: `[N, D]`, of the other side.
    candidates: `[B, 1+M]`, in 0..N-1.
    temperature: T > 0.

  Returns:
    A scalar, in nats.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `temperature` is not positive.

  Reference: Wu et al., arXiv:1805.01978, section 3.2.

  >>> v, own = jnp.array([[0.0, 0.0]]), jnp.array([[0, 1]])
  >>> round(float(crd_log_partition(v, jnp.eye(2), own)), 4)  # log 2
  0.6931
  """
  check_positive('temperature', temperature)
  scores = _scores(embeddings, bank, candidates, temperature)
  total = jax.scipy.special.logsumexp(scores)
  return total + jnp.log(len(bank) / scores.size)


def by_class(labels: Array, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
  """Positions sorted by class, and where each class begins among them.

  Class c is `order[starts[c]:starts[c + 1]]`; within it positions ascend.

  Args:
    labels: `[N]`, in 0..K-1.
    num_classes: K.

  Returns:
    `order`, `[N]`, and `starts`, `[K+1]`; NumPy, int32.

  Raises:
    ValueError: `labels` is no vector of integers, or one is no class.

  >>> order, starts = by_class(np.array([1, 0, 1]), 2)
  >>> order.tolist(), starts.tolist()
  ([1, 0, 2], [0, 1, 3])
  """
  labels = np.asarray(labels)
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f'labels are a vector of integers, but {labels.dtype}{[*labels.shape]}'
    )
  wrong = labels[(labels < 0) | (labels >= num_classes)]
  if wrong.size:
    raise ValueError(f'label {wrong[0]} is not in 0..{num_classes - 1}')
  order = np.argsort(labels, kind='stable')
  starts = np.searchsorted(labels[order], np.arange(num_classes + 1))
  return order.astype(np.int32), starts.astype(np.int32)


@typed
def draw_candidates(
  key: jax.Array,
  positions: Integer[Array, 'B'],
  labels: Integer[Array, 'B'],
  *,
  order: Integer[Array, 'N'],
  starts: Integer[Array, 'classes_and_one'],
  num_negatives: int,
) -> Integer[jax.Array, 'B C']:
  """Draws negatives for CRD: examples of any class but the own.

  Uniform over the examples of all other classes, with replacement: of the N −
  n_c places in `order` outside the stretch of class c, one is drawn.

  Args:
    key: of JAX's random numbers.
    positions: `[B]`, of the batch's examples in the banks, in 0..N-1.
    labels: `[B]`, their classes, in 0..K-1.
    order: `[N]`, of `by_class`.
    starts: `[K+1]`, of `by_class`.
    num_negatives: M ≥ 1. Where a class holds all examples there is nothing to
      draw, and its own are drawn: the caller makes sure of two classes.

  Returns:
    `[B, 1+M]`, int32: the positions, then the negatives.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `num_negatives` is not positive.

  Reference: Tian, Krishnan, Isola, arXiv:1910.10699, section 4 ("negatives of
  another class").

  >>> order, starts = by_class(np.array([0, 0, 1]), 2)
  >>> draw_candidates(
  ...   jax.random.key(0),
  ...   jnp.array([0, 1]),
  ...   jnp.array([0, 0]),
  ...   order=order,
  ...   starts=starts,
  ...   num_negatives=2,
  ... ).tolist()
  [[0, 2, 2], [1, 2, 2]]
  """
  check_positive('num_negatives', num_negatives)
  order, starts = jnp.asarray(order), jnp.asarray(starts)
  labels = jnp.asarray(labels, jnp.int32)
  begin, end = starts[labels][:, None], starts[labels + 1][:, None]
  shape = len(positions), num_negatives
  others = len(order) - (end - begin)
  place = jax.random.randint(key, shape, 0, others)
  place = jnp.where(place < begin, place, place + end - begin)
  found = jnp.column_stack([jnp.asarray(positions), order[place]])
  return found.astype(jnp.int32)


@typed
def moved_bank(
  bank: Float[Array, 'N D'],
  embeddings: Float[Array, 'B D'],
  positions: Integer[Array, 'B'],
  *,
  momentum: Scalar = 0.5,
) -> Float[jax.Array, 'N D']:
  """A bank after a step: the batch's rows follow its embeddings.

  `m_p ← n̂(momentum · m_p + (1 − momentum) · v_b)` at `p = positions_b`, where
  n̂ divides by the norm; other rows stay.

  Args:
    bank: `[N, D]`, rows at norm 1.
    embeddings: `[B, D]`, rows at norm 1.
    positions: `[B]`, in 0..N-1, each once: of two rows with the same position
      one is kept. A row with a position from N on is left out.
    momentum: in [0, 1].

  Returns:
    `[N, D]`, in the dtype of the bank.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `momentum` is out of its range.

  Reference: Wu et al., arXiv:1805.01978, section 3.

  >>> bank = moved_bank(jnp.eye(2), jnp.array([[0.0, 1.0]]), jnp.array([0]))
  >>> print(bank.round(3))
  [[0.707 0.707]
   [0.    1.   ]]
  """
  check_fraction('momentum', momentum)
  bank = jnp.asarray(bank)
  old = numerics.as_float(bank[positions])
  rows = momentum * old + (1 - momentum) * numerics.as_float(embeddings)
  return bank.at[positions].set(numerics.unit_rows(rows).astype(bank.dtype))


def _check_negatives(candidates: Array) -> None:
  if candidates.shape[1] < 2:
    raise ValueError(
      f'candidates of shape {candidates.shape} hold no negatives; they are'
      ' [B, 1+M] with M ≥ 1'
    )


def _scores(
  embeddings: Array, bank: Array, candidates: Array, temperature: Scalar
) -> jax.Array:
  """`v_b · m_j / T` of the candidates, `[B, 1+M]`.

  Of the whole bank, and then those asked for: rows of the bank for each
  candidate of each example would be an array of B × (1+M) × D.
  """
  scores = jnp.matmul(
    numerics.as_float(embeddings),
    numerics.as_float(bank).T,
    precision=jax.lax.Precision.HIGHEST,
  )
  return jnp.take_along_axis(scores, candidates, axis=1) / temperature


def _side(log_p: jax.Array, num_examples: int) -> jax.Array:
  """One side's loss, of `log P`, the positive first."""
  num_negatives = log_p.shape[1] - 1
  odds = log_p - jnp.log(num_negatives / num_examples)
  positive = jax.nn.softplus(-odds[:, 0])
  negatives = jax.nn.softplus(odds[:, 1:]).sum(axis=1)
  return jnp.mean(positive + negatives)
