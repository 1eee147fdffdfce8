"""Losses on relations: how the examples of a batch lie to one another.

`s_i` and `t_i` are the embeddings of example i by student and teacher. Only
relations within one network are compared to the other's, so the two may have
different sizes, except for `cc`. Every loss is one number of the batch. An
embedding of zeros, or two that are identical, give finite values and
gradients. Half-precision embeddings are compared in float32. Gradients of
distances and angles are written out, so there is no `jax.jvp` of `irg`,
`rkd_angle` and `rkd_distance`.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kdjax import numerics
from kdjax.checks import Array, Scalar, check_positive, typed
from kdjax.losses import batch_geometry

# PKT's, as published: against division by zero, and in the logarithm.
_EPSILON = 1e-7


@typed
def rkd_distance(
  student: Float[Array, 'B D'], teacher: Float[Array, 'B E']
) -> Float[jax.Array, '']:
  """Relational KD by distances: the shape of the batch, without its scale.

  `RKD-D = mean_ij ℓ(d(s)_ij − d(t)_ij)`, where `d(x)_ij = ‖x_i − x_j‖ / μ`,
  μ is the mean of the positive distances, and `ℓ(u) = u²/2` up to |u| = 1,
  `|u| − 1/2` beyond.

  Args:
    student: `[B, D]`, reals.
    teacher: `[B, E]`, reals.

  Returns:
    A scalar of the batch, without unit; 0 for a batch of one.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Park et al., arXiv:1904.05068, section 3.2.1.

  >>> s = jnp.array([[0.0], [1.0], [3.0]])
  >>> round(float(rkd_distance(s, 5 * s)), 4)  # scale does not matter
  0.0
  >>> round(float(rkd_distance(s, s**2)), 4)  # distances 1, 8, 9 for 1, 2, 3
  0.0247
  """
  gap = batch_geometry.scaled_distances(
    student
  ) - batch_geometry.scaled_distances(teacher)
  return batch_geometry.smooth_l1(gap).mean()


@typed
def rkd_angle(
  student: Float[Array, 'B D'], teacher: Float[Array, 'B E']
) -> Float[jax.Array, '']:
  """Relational KD by angles: the shape of every triplet.

  `RKD-A = mean_ijk ℓ(e(s)_ij · e(s)_ik − e(t)_ij · e(t)_ik)`, where
  `e(x)_ij = (x_j − x_i) / ‖x_j − x_i‖`, 0 if the two are identical, and ℓ is
  that of `rkd_distance`. It works through a few anchors i at a time, and
  takes the gradient on the way: memory grows with B², not with B³ angles.

  Args:
    student: `[B, D]`, reals.
    teacher: `[B, E]`, reals.

  Returns:
    A scalar of the batch, without unit.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Park et al., arXiv:1904.05068, section 3.2.2.

  >>> s = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  >>> t = jnp.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
  >>> round(float(rkd_angle(s, t)), 4)  # 0, 45°, 45° against 180°, 0, 0
  0.0434
  """
  student, teacher = numerics.as_float(student), numerics.as_float(teacher)
  return (
    batch_geometry.sum_over_angles(student, teacher) / float(len(student)) ** 3
  )


@typed
def sp(
  student: Float[Array, 'B *student_shape'],
  teacher: Float[Array, 'B *teacher_shape'],
) -> Float[jax.Array, '']:
  """Similarity preservation: which examples excite the same features.

  `SP = ‖G(t) − G(s)‖² / B²` (Frobenius), where `G(x)` is `x xᵀ` of the
  flattened examples with its rows at norm 1.

  Args:
    student: `[B, ...]`, maps or embeddings, reals.
    teacher: `[B, ...]`, maps or embeddings, reals.

  Returns:
    A scalar of the batch, without unit.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Tung, Mori, arXiv:1907.09682, section 3.1.

  >>> s = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> round(float(sp(s, jnp.ones((2, 3)))), 4)  # 1 − √½ and √½, squared
  0.2929
  """
  gap = _similarities(batch_geometry.flat(teacher)) - _similarities(
    batch_geometry.flat(student)
  )
  return jnp.mean(gap**2)


@typed
def pkt(
  student: Float[Array, 'B D'], teacher: Float[Array, 'B E']
) -> Float[jax.Array, '']:
  """Probabilistic knowledge transfer: who is whose neighbour.

  `PKT = mean_ij K(t)_ij log ((K(t)_ij + ε) / (K(s)_ij + ε))`, where `K(x)` is
  `(cos(x_i, x_j) + 1) / 2` with its rows divided by their sums, the diagonal
  included, and ε = 1e-7. The mean over B² is the published code's.

  Args:
    student: `[B, D]`, reals.
    teacher: `[B, E]`, reals.

  Returns:
    A scalar of the batch, in nats.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Passalis, Tefas, arXiv:1803.10837, section 3.

  >>> s, t = jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 0.0]])
  >>> round(float(pkt(s, t)), 4)  # a half each, against 2/3 and 1/3
  0.0294
  """
  student, teacher = _neighbours(student), _neighbours(teacher)
  log_ratio = jnp.log(teacher + _EPSILON) - jnp.log(student + _EPSILON)
  return jnp.mean(teacher * log_ratio)


@typed
def cc(
  student: Float[Array, 'B D'], teacher: Float[Array, 'B D']
) -> Float[jax.Array, '']:
  """Correlation congruence, as published in code: gaps of neighbours.

  `CC = mean_i Σ_d δ_id δ_(i+1)d` over the B−1 pairs of examples that follow
  one another, with `δ = |s − t|`.

  Args:
    student: `[B, D]`, reals, of as many features as the teacher's.
    teacher: `[B, D]`, reals.

  Returns:
    A scalar of the batch, in units of the features squared.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a batch of one has no pairs.

  Reference: Peng et al., arXiv:1904.01802, section 3.3; Tian et al.,
  arXiv:1910.10699, whose code this is the formula of.

  >>> s, t = jnp.array([[1.0, 2.0], [0.0, 3.0]]), jnp.zeros((2, 2))
  >>> float(cc(s, t))
  6.0
  """
  if len(student) < 2:
    raise ValueError(
      f'a batch of {len(student)} has no pairs of neighbours; cc needs 2'
    )
  gap = jnp.abs(numerics.as_float(student) - numerics.as_float(teacher))
  # The last example has no next one. Slices of `gap` would take longer.
  paired = jnp.arange(len(gap))[:, None] < len(gap) - 1
  products = jnp.where(paired, gap * jnp.roll(gap, -1, axis=0), 0.0)
  return jnp.sum(jnp.sum(products, axis=-1)) / (len(gap) - 1)


@typed
def irg(
  students: Sequence[Array], teachers: Sequence[Array]
) -> Float[jax.Array, '']:
  """Instance relationship graph: distances at each stage, and their change.

  `IRG = mean_l mean_ij (E(s)ˡ_ij − E(t)ˡ_ij)² + mean_l mean_ij (ΔE(s)ˡ_ij −
  ΔE(t)ˡ_ij)²`, where `Eˡ` holds the Euclidean distances between the flattened
  features of stage l over the mean of the positive ones, and `ΔEˡ = Eˡ⁺¹ − Eˡ`;
  with one stage there is no change. This is a reconstruction: the paper also
  compares the graph's vertices, which is left out, since it compares members
  and not structure; and distances are scaled, so that networks of different
  widths can be compared.

  Args:
    students: `[B, ...]` of each stage, maps or embeddings, reals.
    teachers: `[B, ...]` of as many stages.

  Returns:
    A scalar of the batch, without unit; 0 for a batch of one.

  Raises:
    TypeError: a stage is no array.
    ValueError: the numbers of stages or of examples differ, or there are none.

  Reference: Liu et al., "Knowledge Distillation via Instance Relationship
  Graph", CVPR 2019, section 3.

  >>> s = jnp.array([[0.0], [1.0], [3.0]])
  >>> round(float(irg([s, s], [5 * s, s**2])), 4)  # distances 1, 8, 9; change
  0.0741
  """
  _check_stages(students, teachers)
  gaps = [
    batch_geometry.scaled_distances(s) - batch_geometry.scaled_distances(t)
    for s, t in zip(students, teachers, strict=True)
  ]
  changes = [after - before for before, after in itertools.pairwise(gaps)]
  return sum(
    jnp.mean(part**2) / len(parts)
    for parts in (gaps, changes)
    for part in parts
  )


@typed
def attention_relation(
  student: Float[Array, 'B D'],
  teacher: Float[Array, 'B E'],
  *,
  temperature: Scalar = 0.1,
  num_heads: int = 1,
) -> Float[jax.Array, '']:
  """Attention between instances: which others each example looks at.

  `mean_hi KL(A(t)_hi ‖ A(s)_hi)` with `A(x)_hij = softmax_{j≠i}(cos(x_hi, x_hj)
  / T)`, where `x_h` is the h-th of equal groups of the features. With two
  examples there is but one to look at, and the loss is 0. This is a
  reconstruction: the paper learns the projections of its heads, and here the
  features are cut into groups instead.

  Args:
    student: `[B, D]`, B ≥ 2, reals.
    teacher: `[B, E]`, reals.
    temperature: T > 0.
    num_heads: groups; it divides both D and E.

  Returns:
    A scalar of the batch, in nats.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: a batch of one, features that cannot be cut into equal groups,
      or `temperature` is not positive.

  Reference: Lee, Song, arXiv:1907.02226, section 3.

  >>> s, t = jnp.eye(3), jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  >>> loss = attention_relation(s, t, temperature=1.0)
  >>> round(float(loss), 4)  # 0.73 and 0.27 against a half each, twice of three
  0.074
  """
  check_positive('temperature', temperature)
  if len(student) < 2:
    raise ValueError(
      f'a batch of {len(student)} has no relations; attention needs 2'
    )
  log_attention = [
    _log_attention(_heads(name, x, num_heads), temperature)
    for name, x in (('teacher', teacher), ('student', student))
  ]
  return numerics.kl(*log_attention).mean()


def _similarities(x: jax.Array) -> jax.Array:
  """`x xᵀ` with rows at norm 1."""
  return numerics.unit_rows(batch_geometry.product(x, x.T))


def _neighbours(x: Array) -> jax.Array:
  """Each row: how probably the others are its example's neighbours."""
  x = numerics.as_float(x)
  square = jnp.sum(x**2, axis=-1, keepdims=True)
  zero = square == 0
  norm = jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))
  x = x / (norm + _EPSILON)
  # Rounding takes a cosine below −1.
  affinity = jnp.maximum((batch_geometry.product(x, x.T) + 1) / 2, 0)
  return affinity / jnp.sum(affinity, axis=-1, keepdims=True)


def _check_stages(students: Sequence[Array], teachers: Sequence[Array]) -> None:
  if len(students) != len(teachers) or not students:
    raise ValueError(
      f'{len(students)} stages of the student and {len(teachers)} of the'
      ' teacher: irg needs as many, and at least one'
    )
  shapes = [jnp.shape(x) for x in (*students, *teachers)]
  if not all(shapes) or len({shape[0] for shape in shapes}) > 1:
    raise ValueError(f'stages of one batch have [B, ...], but shapes {shapes}')


def _heads(name: str, x: Array, num_heads: int) -> jax.Array:
  """The features cut into groups, `[H, B, D / H]`."""
  batch, size = x.shape
  if num_heads < 1 or size % num_heads:
    raise ValueError(
      f'num_heads={num_heads} does not divide the {size} features of the {name}'
    )
  x = numerics.as_float(x).reshape(batch, num_heads, -1)
  return x.swapaxes(0, 1)


def _log_attention(heads: jax.Array, temperature: Scalar) -> jax.Array:
  """`[H, B, B]`, `-inf` on the diagonal."""
  unit = numerics.unit_rows(heads)
  cosine = batch_geometry.product(unit, unit.swapaxes(1, 2))
  itself = jnp.broadcast_to(jnp.eye(cosine.shape[-1], dtype=bool), cosine.shape)
  return numerics.log_probs(jnp.where(itself, -jnp.inf, cosine), temperature)
