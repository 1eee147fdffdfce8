"""Fidelity: how closely a student follows its teacher.

A student can be accurate without following, and follow without being
accurate; these say the former apart from the latter.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kdjax import numerics
from kdjax.checks import Array, Scalar, check_between, check_positive, typed


@typed
def agreement(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
) -> Float[jax.Array, '']:
  """Top-1 agreement: how often both name the same class.

  `mean 1[argmax s = argmax t]`, over all examples; of equal logits the lower
  class counts.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    teacher_logits: `[..., K]`, reals or `-inf`.

  Returns:
    A scalar in [0, 1], a fraction; NaN if a logit is.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Stanton et al., arXiv:2106.05945, section 3.

  >>> s, t = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[3.0, 2.0]] * 2)
  >>> float(agreement(s, t.at[1, 1].set(4.0)))
  0.5
  """
  student, teacher = map(numerics.as_float, (student_logits, teacher_logits))
  same = jnp.argmax(student, axis=-1) == jnp.argmax(teacher, axis=-1)
  return jnp.mean(_nan_with(same.astype(student.dtype), student, teacher))


@typed
def topk_agreement(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  *,
  k: int,
) -> Float[jax.Array, '']:
  """How many of the teacher's k likeliest classes are among the student's.

  `mean |top_k(s) ∩ top_k(t)| / k`, in whatever order; of equal logits the
  lower class goes first. `k = 1` is `agreement`, `k = K` is 1.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    teacher_logits: `[..., K]`, reals or `-inf`.
    k: in 1..K.

  Returns:
    A scalar in [0, 1], a fraction; NaN if a logit is.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `k` lies outside 1..K.

  Reference: Stanton et al., arXiv:2106.05945, section 3, for k = 1.

  >>> s, t = (
  ...   jnp.array([[4.0, 3.0, 2.0, 1.0]]),
  ...   jnp.array([[3.0, 1.0, 4.0, 2.0]]),
  ... )
  >>> float(topk_agreement(s, t, k=2))  # {0, 1} and {0, 2}
  0.5
  """
  check_between('k', k, 1, student_logits.shape[-1])
  student, teacher = map(numerics.as_float, (student_logits, teacher_logits))
  both = _is_top(student, k) & _is_top(teacher, k)
  share = jnp.sum(both, axis=-1).astype(student.dtype) / k
  return jnp.mean(_nan_with(share, student, teacher))


@typed
def teacher_kl(
  student_logits: Float[Array, '*batch K'],
  teacher_logits: Float[Array, '*batch K'],
  *,
  temperature: Scalar = 1.0,
) -> Float[jax.Array, '']:
  """How far the student's answer is from the teacher's.

  `mean KL(p̃ ‖ q̃)`. Without the factor T² of the loss `kdjax.losses.kd`, so
  that it is a divergence at any temperature.

  Args:
    student_logits: `[..., K]`, reals or `-inf`.
    teacher_logits: `[..., K]`, reals or `-inf`.
    temperature: T > 0.

  Returns:
    A scalar ≥ 0, in nats; `inf` where the student masks a class that the
    teacher does not.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `temperature` is not positive.

  Reference: Stanton et al., arXiv:2106.05945, section 3.

  >>> s, t = jnp.array([[0.0, 0.0]]), jnp.array([[4.0, 0.0]])
  >>> round(float(teacher_kl(s, t, temperature=2.0)), 4)
  0.3278
  """
  check_positive('temperature', temperature)
  divergence = numerics.kl(
    numerics.log_probs(teacher_logits, temperature),
    numerics.log_probs(student_logits, temperature),
  )
  return jnp.mean(divergence)


@typed
def linear_cka(
  x: Float[Array, 'N *x_shape'], y: Float[Array, 'N *y_shape']
) -> Float[jax.Array, '']:
  """Linear CKA: whether two layers find the same examples alike.

  `‖YᵀX‖²_F / (‖XᵀX‖_F · ‖YᵀY‖_F)`, X and Y the features of an example in a
  row, centred; or the same from the `[N, N]` Gram matrices, where that is the
  smaller. It does not see rotation, nor scale, nor the width of a layer.

  Args:
    x: `[N, ...]`, features, N ≥ 2; all axes but the first are flattened.
    y: `[N, ...]`, of the same examples.

  Returns:
    A scalar in [0, 1], without unit; 0 where either does not vary.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: there is one example only.

  Reference: Kornblith et al., arXiv:1905.00414, section 3.

  >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
  >>> print(round(float(linear_cka(x, 5 * x[:, ::-1] + 2)), 4))
  1.0
  >>> print(float(linear_cka(x, jnp.ones((3, 4, 4)))))
  0.0
  """
  return _cka(_centred('x', x), _centred('y', y))


@typed
def cka_matrix(
  features_a: Mapping[str, Array], features_b: Mapping[str, Array]
) -> Float[jax.Array, 'A B']:
  """Linear CKA between every layer of one network and every one of another.

  Args:
    features_a: features `[N, ...]` by the name of their layer, N ≥ 2.
    features_b: of the other network, on the same examples.

  Returns:
    `[A, B]`, in [0, 1], in the order of the mappings.

  Raises:
    TypeError: an entry is no array.
    ValueError: there is no layer, or a layer has other examples.

  Reference: Kornblith et al., arXiv:1905.00414, layer against layer.

  >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
  >>> table = cka_matrix({'stem': x, 'head': 0 * x}, {'stem': 2 * x})
  >>> print(table.round(4))
  [[1.]
   [0.]]
  """
  layers = (
    *_named('features_a', features_a),
    *_named('features_b', features_b),
  )
  first, examples = layers[0][0], layers[0][1].shape[:1]
  for name, layer in layers:
    if layer.shape[:1] != examples:
      raise ValueError(
        f'{name} has shape {layer.shape} and {first} {layers[0][1].shape}: all'
        ' layers need the same examples'
      )
  centred = [_centred(name, layer) for name, layer in layers]
  return _cka_table(centred[: len(features_a)], centred[len(features_a) :])


def _named(
  argument: str, features: Mapping[str, Array]
) -> list[tuple[str, Array]]:
  if not features:
    raise ValueError(f'{argument} is empty; give at least one layer')
  for name, layer in features.items():
    if not isinstance(layer, Array):
      raise TypeError(
        f'{argument}[{name!r}] is of {type(layer).__name__}; give an array'
      )
  return [(f'{argument}[{name!r}]', layer) for name, layer in features.items()]


# Compiled as one program, which takes each layer's products once.
@jax.jit
def _cka_table(a: list[jax.Array], b: list[jax.Array]) -> jax.Array:
  return jnp.stack([jnp.stack([_cka(x, y) for y in b]) for x in a])


def _cka(x: jax.Array, y: jax.Array) -> jax.Array:
  """Of centred rows."""
  square = _overlap(x, x) * _overlap(y, y)
  constant = square == 0
  cka = _overlap(x, y) / jnp.sqrt(jnp.where(constant, 1.0, square))
  return jnp.minimum(jnp.where(constant, 0.0, cka), 1.0)


def _overlap(x: jax.Array, y: jax.Array) -> jax.Array:
  """`‖YᵀX‖²_F = <XXᵀ, YYᵀ>`, by the smaller of the two forms."""
  dot = lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
  if x.shape[0] <= max(x.shape[1], y.shape[1]):
    return jnp.sum(dot(x, x.T) * dot(y, y.T))
  return jnp.sum(dot(y.T, x) ** 2)


def _centred(name: str, x: Array) -> jax.Array:
  """An example a row, with columns of mean 0, scaled to Frobenius norm 1."""
  if x.ndim == 0 or x.shape[0] < 2:
    raise ValueError(f'{name} of shape {x.shape} needs at least 2 examples')
  x = numerics.as_float(x).reshape(x.shape[0], -1)
  # Seen from its first row a constant is exactly 0, without rounding.
  x = x - x[:1]
  x = x - jnp.mean(x, axis=0, keepdims=True)
  square = jnp.sum(x**2)
  zero = square == 0
  return jnp.where(zero, 0.0, x) / jnp.sqrt(jnp.where(zero, 1.0, square))


def _is_top(logits: jax.Array, k: int) -> jax.Array:
  """Whether a class is among the k likeliest."""
  _, top = jax.lax.top_k(logits, k)
  none = jnp.zeros(logits.shape, bool)
  return jnp.put_along_axis(none, top, True, axis=-1, inplace=False)


def _nan_with(values: jax.Array, *logits: jax.Array) -> jax.Array:
  """NaN where a logit is: as the largest it would count as an answer."""
  for x in logits:
    values = jnp.where(jnp.any(jnp.isnan(x), axis=-1), jnp.nan, values)
  return values
