"""Distances and angles between the examples of a batch, and their gradients.

Differences are taken before anything is squared: `‖x_i‖² + ‖x_j‖² − 2 x_i·x_j`
would lose those of examples that are close. The gradients are written out,
since those of JAX would keep an array of B × B × D, or of all B³ angles.

That two examples are identical is seen by comparing them. Their difference
does not tell: where XLA computes x along with it, one operand is not rounded.
"""

import jax
import jax.numpy as jnp

from kdjax import numerics
from kdjax.checks import Array

# Numbers in one array of cosines at a time: 2 MB, which stay in a cache.
_BLOCK = 2**19


def flat(x: Array) -> jax.Array:
  """Examples as vectors, `[B, D]`."""
  return numerics.as_float(x).reshape(len(x), -1)


def product(x: jax.Array, y: jax.Array) -> jax.Array:
  """`x y`, not rounded to fewer bits on an accelerator either."""
  return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def smooth_l1(gap: jax.Array) -> jax.Array:
  """`u²/2` up to |u| = 1, `|u| − 1/2` beyond."""
  clipped = jnp.clip(gap, -1, 1)
  return clipped * (gap - clipped / 2)


def _identical(x: jax.Array, y: jax.Array) -> jax.Array:
  """Of each pair of rows, `[A, B, 1]`."""
  return jnp.all(x[:, None] == y[None], axis=-1, keepdims=True)


@jax.custom_vjp
def _distances(x: jax.Array) -> jax.Array:
  """`‖x_i − x_j‖`; its gradient is 0 where the two are identical."""

  def add(square: jax.Array, feature: jax.Array) -> tuple:
    one, other = feature[:, None], feature[None]
    return square + jnp.where(one == other, 0.0, one - other) ** 2, None

  # Without an array of B × B × D. XLA:CPU takes ten times as long for 4 or 16
  # features at a time.
  start = jnp.zeros_like(x, shape=(len(x), len(x)))
  square, _ = jax.lax.scan(add, start, x.T, unroll=8)
  return jnp.sqrt(square)


def _distances_forward(x: jax.Array) -> tuple:
  distances = _distances(x)
  return distances, (x, distances)


def _distances_backward(kept: tuple, gradient: jax.Array) -> tuple:
  """`Σ_j (g_ij + g_ji) (x_i − x_j) / ‖x_i − x_j‖`, as products of matrices.

  That errs by no more than rounding of x does.
  """
  x, distances = kept
  zero = distances == 0
  pull = jnp.where(zero, 0.0, gradient) / jnp.where(zero, 1.0, distances)
  x = x - jnp.mean(x, axis=0, keepdims=True)
  total = jnp.sum(pull, axis=1) + jnp.sum(pull, axis=0)
  return (total[:, None] * x - product(pull, x) - product(pull.T, x),)


_distances.defvjp(_distances_forward, _distances_backward)


def scaled_distances(x: Array) -> jax.Array:
  """Distances of flattened examples over the mean of the positive ones."""
  distances = _distances(flat(x))
  count = jnp.maximum(jnp.sum(distances > 0), 1)
  total = jnp.sum(distances)
  return distances / jnp.where(total == 0, 1.0, total / count)


def _directions(anchors: jax.Array, x: jax.Array) -> jax.Array:
  """Unit vectors from each anchor to each example, `[A, B, D]`."""
  gap = x[None] - anchors[:, None]
  return numerics.unit_rows(jnp.where(_identical(anchors, x), 0.0, gap))


def _cosines(directions: jax.Array) -> jax.Array:
  return product(directions, directions.swapaxes(1, 2))


def _blocks(student: jax.Array, teacher: jax.Array) -> tuple:
  """Both's anchors, `[N, A, ...]`, the last block filled up; which count."""
  batch = len(student)
  num_blocks = min(-(-(batch**3) // _BLOCK), batch)
  size = -(-batch // num_blocks)
  rows = jnp.arange(num_blocks * size).reshape(num_blocks, size)
  anchors = [jnp.take(x, rows, axis=0, mode='clip') for x in (student, teacher)]
  return *anchors, rows < batch


def _angle_gaps(edges: tuple, counts: jax.Array) -> jax.Array:
  gaps = _cosines(edges[0]) - _cosines(edges[1])
  return jnp.where(counts[:, None, None], gaps, 0.0)


@jax.custom_vjp
def sum_over_angles(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """`Σ_ijk ℓ(…)` of `rkd_angle`, by blocks of anchors."""

  def block(args: tuple) -> jax.Array:
    *anchors, counts = args
    edges = _directions(anchors[0], student), _directions(anchors[1], teacher)
    return smooth_l1(_angle_gaps(edges, counts)).sum()

  return jax.lax.map(block, _blocks(student, teacher)).sum()


def _angles_forward(student: jax.Array, teacher: jax.Array) -> tuple:
  """The sum, and its gradients, which need the same angles."""

  def block(sums: tuple, args: tuple) -> tuple:
    *anchors, counts = args
    s, pull_s = jax.vjp(_directions, anchors[0], student)
    t, pull_t = jax.vjp(_directions, anchors[1], teacher)
    gaps = _angle_gaps((s, t), counts)
    slope = 2 * jnp.clip(gaps, -1, 1)  # of e_ij, and of e_ik as much
    at_s, to_s = pull_s(product(slope, s))
    at_t, to_t = pull_t(product(-slope, t))
    found = smooth_l1(gaps).sum(), to_s, to_t
    return jax.tree.map(jnp.add, sums, found), (at_s, at_t)

  start = (
    jnp.zeros_like(student, shape=()),
    *map(jnp.zeros_like, (student, teacher)),
  )
  (total, *to), at = jax.lax.scan(block, start, _blocks(student, teacher))
  at = [x.reshape(-1, x.shape[-1])[: len(student)] for x in at]
  return total, jax.tree.map(jnp.add, to, at)


def _angles_backward(gradients: list, scale: jax.Array) -> tuple:
  return tuple(scale * gradient for gradient in gradients)


sum_over_angles.defvjp(_angles_forward, _angles_backward)
