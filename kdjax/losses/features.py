"""Losses on features: what the student computes on its way to an answer.

Maps are `[B, H, W, C]`, embeddings `[B, D]`; the result is a scalar of the
batch. Where two maps differ in size, the larger side is average-pooled. With
`n̂(x) = x / max(‖x‖, 1e-12)` a vector of zeros stays, and gets no gradient.
Half-precision features are compared in float32.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from kdjax import numerics
from kdjax.checks import Array, Scalar, check_positive, typed

_EPSILON = 1e-12


@typed
def average_pool(
  feature_map: Float[Array, 'B H W C'], *, size: tuple[int, int]
) -> Float[jax.Array, 'B h w C']:
  """Averages a map down to a size, also one that does not divide its own.

  `out_i = mean_{⌊iH/h⌋ ≤ j < ⌈(i+1)H/h⌉} map_j`, and so for the columns: the
  windows overlap where `h` does not divide `H`.

  Args:
    feature_map: `[B, H, W, C]`.
    size: `(h, w)`, from 1 to `(H, W)`.

  Returns:
    `[B, h, w, C]`, in the unit of the map.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `size` is larger than the map, or not positive.

  Reference: the windows are those of PyTorch's adaptive average pooling.

  >>> row = jnp.arange(3.0).reshape(1, 1, 3, 1)
  >>> print(average_pool(row, size=(1, 2)).ravel())
  [0.5 1.5]
  """
  sides = feature_map.shape[1:3]
  if not all(1 <= n <= side for n, side in zip(size, sides, strict=True)):
    raise ValueError(
      f'size={size} must lie in (1, 1)..{sides} to pool a map of shape'
      f' {feature_map.shape}'
    )
  feature_map = numerics.as_float(feature_map)
  if size == sides:
    return feature_map
  rows, columns = (
    _windows(side, n) for side, n in zip(sides, size, strict=True)
  )
  return jnp.einsum(
    'iy,jx,byxc->bijc', rows, columns, feature_map, precision='highest'
  )


@typed
def hint(
  student_map: Float[Array, 'B H W C'], teacher_map: Float[Array, 'B h w c']
) -> Float[jax.Array, '']:
  """Hint: make the teacher's map, through a regressor that the caller trains.

  `hint = mean (s − t)²`, over the batch, space and channels.

  Args:
    student_map: `[B, H, W, C]`, the regressor's output.
    teacher_map: `[B, h, w, C]`, of as many channels.

  Returns:
    A scalar of the batch, in the squared unit of the maps.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: the maps differ in their channels.

  Reference: Romero et al., arXiv:1412.6550, section 2.2; half a sum there, a
  mean in the published code.

  >>> s, t = jnp.zeros((1, 2, 2, 1)), jnp.full((1, 4, 4, 1), 3.0)
  >>> round(float(hint(s, t)), 4)
  9.0
  """
  _check_channels('student_map', student_map, teacher_map)
  student, teacher = _same_size(student_map, teacher_map)
  return jnp.mean(_channel_errors(student, teacher))


@typed
def at(
  student_map: Float[Array, 'B H W C'], teacher_map: Float[Array, 'B h w c']
) -> Float[jax.Array, '']:
  """Attention transfer: look where the teacher looks.

  `a = n̂(mean_c f²)`, over space; `AT = mean (a_s − a_t)²`, over the batch and
  space. Of one pair of maps: the published loss adds up those of three stages.

  Args:
    student_map: `[B, H, W, C]`.
    teacher_map: `[B, h, w, c]`; the channels may differ.

  Returns:
    A scalar of the batch, without unit.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Zagoruyko, Komodakis, arXiv:1612.03928, section 3.1. The published
  code has the mean where the equation has a norm.

  >>> s = jnp.array([3.0, 0.0]).reshape(1, 1, 2, 1)
  >>> round(float(at(s, 5 * s)), 4), round(float(at(s, s[:, :, ::-1])), 4)
  (0.0, 1.0)
  """
  student, teacher = (
    _unit(jnp.mean(x**2, axis=-1), axes=(1, 2))
    for x in _same_size(student_map, teacher_map)
  )
  return jnp.mean((student - teacher) ** 2)


@typed
def nst(
  student_map: Float[Array, 'B H W C'], teacher_map: Float[Array, 'B h w c']
) -> Float[jax.Array, '']:
  """Neuron selectivity transfer: the channels are distributed as the teacher's.

  The squared maximum mean discrepancy between the channels `n̂(f_:,c)`, over
  space, with the kernel `k(a, b) = (aᵀb)²`: `NST = mean k(t, t) + mean k(s, s)
  − 2 mean k(s, t)`, over all pairs of channels and the batch.

  Args:
    student_map: `[B, H, W, C]`.
    teacher_map: `[B, h, w, c]`; the channels may differ.

  Returns:
    A scalar of the batch, without unit; never below 0 but for rounding.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Huang, Wang, arXiv:1707.01219, section 4, with the polynomial
  kernel.

  >>> s = jnp.array([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
  >>> round(float(nst(s, s[..., ::-1])), 4), round(float(nst(s, s[..., :1])), 4)
  (0.0, 0.5)
  """
  student, teacher = (
    _channel_vectors(x) for x in _same_size(student_map, teacher_map)
  )
  return jnp.mean(_square_discrepancy(student, teacher))


@typed
def vid(
  mean_map: Float[Array, 'B H W C'],
  teacher_map: Float[Array, 'B h w c'],
  *,
  variance: Scalar | Float[Array, 'C'],
) -> Float[jax.Array, '']:
  """Variational information distillation: how well the student tells the map.

  `VID = mean ½ ((μ − f_t)² / σ² + log σ²)`, the negative log-likelihood of the
  teacher's map without its constant `½ log 2π`; less means more information.

  Args:
    mean_map: `[B, H, W, C]`, μ, what a network makes of the student's map.
    teacher_map: `[B, h, w, C]`, of as many channels.
    variance: σ² > 0, one or `[C]`; it is to be trained, and is differentiated.

  Returns:
    A scalar of the batch, in nats a number of the map.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: the maps differ in their channels, or σ² is not positive.

  Reference: Ahn et al., arXiv:1904.05835, section 2.

  >>> mean, target = jnp.zeros((1, 2, 2, 1)), jnp.full((1, 2, 2, 1), 4.0)
  >>> round(float(vid(mean, target, variance=1.0)), 4)  # ½ · 4²
  8.0
  """
  check_positive('variance', variance)
  _check_channels('mean_map', mean_map, teacher_map)
  errors = _channel_errors(*_same_size(mean_map, teacher_map))
  variance = jnp.broadcast_to(numerics.as_float(variance), errors.shape)
  return jnp.mean(errors / variance + jnp.log(variance)) / 2


@typed
def cosine(
  student: Float[Array, 'B D'], teacher: Float[Array, 'B D']
) -> Float[jax.Array, '']:
  """Cosine distance: embeddings point where the teacher's do.

  `mean_b (1 − cos(s_b, t_b))`; a row of zeros points nowhere, `cos = 0`.

  Args:
    student: `[B, D]`.
    teacher: `[B, D]`.

  Returns:
    A scalar of the batch in [0, 2], without unit.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Sanh et al., arXiv:1910.01108, section 2.

  >>> s = jnp.array([[1.0, 0.0], [0.0, 2.0]])
  >>> round(float(cosine(s, -s)), 4)
  2.0
  """
  student, teacher = (
    _unit(numerics.as_float(x), axes=-1) for x in (student, teacher)
  )
  return jnp.mean(1 - jnp.sum(student * teacher, axis=-1))


@typed
def l2(
  student: Float[Array, 'B D'], teacher: Float[Array, 'B D']
) -> Float[jax.Array, '']:
  """Squared error of embeddings.

  `mean (s − t)²`, over the batch and the width.

  Args:
    student: `[B, D]`.
    teacher: `[B, D]`.

  Returns:
    A scalar of the batch, in the squared unit of the embeddings.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Ba, Caruana, arXiv:1312.6184, section 2; of logits there.

  >>> s = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  >>> round(float(l2(s, -s)), 4)
  2.0
  """
  return jnp.mean(
    (numerics.as_float(student) - numerics.as_float(teacher)) ** 2
  )


def _windows(side: int, size: int) -> np.ndarray:
  """The weight of each of `side` inputs in each of `size` averages."""
  windows = np.zeros((size, side), np.float32)
  for i in range(size):
    window = slice(i * side // size, math.ceil((i + 1) * side / size))
    windows[i, window] = 1 / (window.stop - window.start)
  return windows


def _same_size(student_map: Array, teacher_map: Array) -> list[jax.Array]:
  """Both maps as floats, of the height and the width of the smaller one."""
  maps = student_map, teacher_map
  size = tuple(min(x.shape[axis] for x in maps) for axis in (1, 2))
  return [average_pool(x, size=size) for x in maps]


def _check_channels(name: str, student_map: Array, teacher_map: Array) -> None:
  if student_map.shape[-1] != teacher_map.shape[-1]:
    raise ValueError(
      f'{name} of shape {student_map.shape} and teacher_map of shape'
      f' {teacher_map.shape} must have as many channels (the last axis)'
    )


def _channel_errors(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """`mean (s − t)²` of each channel, `[C]`.

  A sum by channels first: one long sum in float32 would lose digits.
  """
  return jnp.mean((student - teacher) ** 2, axis=(0, 1, 2))


def _unit(x: jax.Array, axes: int | tuple[int, ...]) -> jax.Array:
  """`n̂(x)` over some axes, without a gradient at 0."""
  square = jnp.sum(x**2, axis=axes, keepdims=True)
  zero = square == 0
  norm = jnp.sqrt(jnp.where(zero, 1.0, square))
  return jnp.where(zero, 0.0, x) / jnp.maximum(norm, _EPSILON)


def _channel_vectors(feature_map: jax.Array) -> jax.Array:
  """`A / √C` with `A = n̂(f_:,c)`, `[B, HW, C]`."""
  batch, height, width, channels = feature_map.shape
  vectors = feature_map.reshape(batch, height * width, channels)
  return _unit(vectors, axes=1) / math.sqrt(channels)


def _square_discrepancy(a: jax.Array, b: jax.Array) -> jax.Array:
  """`‖A Aᵀ − B Bᵀ‖²`, `[B]`, which is the discrepancy of the kernel `(xᵀy)²`.

  No large numbers are subtracted: A = B gives exactly 0.
  """
  wide = max(a.shape[-1], b.shape[-1])
  if a.shape[1] <= wide:
    outer = lambda x: jnp.einsum('bxc,byc->bxy', x, x, precision='highest')
    return jnp.sum((outer(a) - outer(b)) ** 2, axis=(1, 2))
  # With D = A − B and S = A + B it is ‖(D Sᵀ + S Dᵀ) / 2‖², which takes only
  # products over space. Channels of zeros, to make A as wide as B, add nothing.
  a, b = (jnp.pad(x, ((0, 0), (0, 0), (0, wide - x.shape[-1]))) for x in (a, b))
  both = jnp.concatenate([a - b, a + b], axis=-1)
  gram = jnp.einsum('bxc,bxd->bcd', both, both, precision='highest')
  gaps, sums = gram[:, :wide, :wide], gram[:, wide:, wide:]
  cross = gram[:, :wide, wide:]
  squares = gaps * sums + cross * jnp.matrix_transpose(cross)
  return jnp.sum(squares, axis=(1, 2)) / 2
