"""Class geometry: which classes are near each other (knowledge of the domain).

A similarity is a `[K, K]` table of cosines between classes, from the rows of
the last layer or from the mean feature of each class. Products are taken at
the highest precision, on accelerators too.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer

from kdjax import numerics
from kdjax.checks import Array, check_positive, typed

# A standard deviation of cosines up to this is rounding: a constant.
_EPSILON = 1e-6
# Up to so many classes are leaves ordered optimally, which is cubic.
_MAX_OPTIMAL = 256


@typed
def class_similarity(
  class_weights: Float[Array, 'K D'],
) -> Float[jax.Array, 'K K']:
  """How alike two classes are: the cosine between their rows.

  `C = Ŵ Ŵᵀ`, Ŵ the rows at unit norm. A row of zeros is orthogonal to every
  class, itself included: its diagonal entry is 0.

  Args:
    class_weights: `[K, D]`, one row per class: of the last layer, or from
      `class_means`.

  Returns:
    `[K, K]`, cosines in [-1, 1].

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Tang et al., arXiv:2002.03532, class relationships.

  >>> w = jnp.array([[2.0, 0.0], [3.0, 0.0], [0.0, -1.0], [0.0, 0.0]])
  >>> print(class_similarity(w))
  [[1. 1. 0. 0.]
   [1. 1. 0. 0.]
   [0. 0. 1. 0.]
   [0. 0. 0. 0.]]
  """
  unit = numerics.unit_rows(numerics.as_float(class_weights))
  cosine = jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)
  return jnp.clip(cosine, -1.0, 1.0)


@typed
def class_means(
  features: Float[Array, 'N D'],
  labels: Integer[Array, ' N'],
  *,
  num_classes: int,
) -> Float[jax.Array, 'K D']:
  """The mean feature of each class.

  `m_y = Σ_{n: y_n=y} f_n / N_y`.

  Args:
    features: `[N, D]`.
    labels: `[N]`, in 0..K-1.
    num_classes: K ≥ 1.

  Returns:
    `[K, D]`, in the unit of the features. The row of a class without examples
    is 0; all is NaN if a label is no class.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `num_classes` is not positive.

  Reference: Papyan, Han, Donoho, arXiv:2008.08186, whose class means these are.

  >>> f = jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
  >>> print(class_means(f, jnp.array([0, 0, 2]), num_classes=3))
  [[2. 0.]
   [0. 0.]
   [0. 5.]]
  """
  check_positive('num_classes', num_classes)
  features, labels = numerics.as_float(features), jnp.asarray(labels)
  ones = jnp.ones((labels.shape[0], 1), features.dtype)
  total = lambda x: jax.ops.segment_sum(x, labels, num_classes)
  means = total(features) / jnp.maximum(total(ones), 1.0)
  every = jnp.all((labels >= 0) & (labels < num_classes))
  return jnp.where(every, means, jnp.nan)


@typed
def relation_correlation(
  similarity_a: Float[Array, 'K K'], similarity_b: Float[Array, 'K K']
) -> Float[jax.Array, '']:
  """The relation score: whether two networks relate classes alike.

  Pearson's correlation between the entries off the diagonal. A constant table
  (a standard deviation of these up to 1e-6, as two classes always have)
  correlates with nothing: 0.

  Args:
    similarity_a: `[K, K]`, the student's cosines, say; K ≥ 2.
    similarity_b: `[K, K]`, the teacher's.

  Returns:
    A scalar in [-1, 1], without unit.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: there is one class only.

  Reference: Tang et al., arXiv:2002.03532, compares the tables by eye; the
    score is this project's.

  >>> a = jnp.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.2], [0.0, 0.2, 1.0]])
  >>> print(round(float(relation_correlation(a, 0.5 * a)), 4))
  1.0
  >>> print(float(relation_correlation(a, jnp.eye(3))))
  0.0
  """
  a, b = (_off_diagonal(x) for x in (similarity_a, similarity_b))
  return jnp.clip(jnp.mean(_standardised(a) * _standardised(b)), -1.0, 1.0)


@typed
def similarity_spread(
  similarity: Float[Array, 'K K'],
) -> Float[jax.Array, '']:
  """How much structure a similarity has.

  The standard deviation of the entries off the diagonal: 0 where all classes
  are equally far from each other, as label smoothing makes them.

  Args:
    similarity: `[K, K]`, cosines; K ≥ 2.

  Returns:
    A scalar in [0, 1], a cosine.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: there is one class only.

  Reference: Müller, Kornblith, Hinton, arXiv:1906.02629, section 2, show the
    effect; the score is this project's.

  >>> print(float(similarity_spread(jnp.eye(4))))
  0.0
  >>> blocks = jnp.kron(jnp.eye(2), jnp.ones((2, 2)))
  >>> print(round(float(similarity_spread(blocks)), 4))  # √(1/3 · 2/3)
  0.4714
  """
  deviations = _deviations(_off_diagonal(similarity))
  square = jnp.mean(deviations**2)
  zero = square == 0
  return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


@typed
def order_classes(
  similarity: Float[Array, 'K K'],
  *,
  groups: Sequence[int] | Integer[Array, '_'] | None = None,
) -> np.ndarray:
  """An order of the classes that puts like beside like, for a heat map.

  By super-class where one is known; within one, by class. Else the leaves of
  average-linkage clustering on `1 − cosine`, up to 256 classes arranged so
  that neighbours are as alike as the tree allows. Runs on the host.

  Args:
    similarity: `[K, K]`, cosines; the mean with its transpose is clustered.
    groups: `[K]`, the super-class of each class, or none.

  Returns:
    `[K]`, a permutation of 0..K-1: `similarity[order][:, order]` is the map.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `groups` is not one per class, or an entry is not finite.

  Reference: Bar-Joseph, Gifford, Jaakkola 2001, Fast optimal leaf ordering
    for hierarchical clustering.

  >>> towards = np.array([0.0, 2.0, 0.1, 2.5])  # angles
  >>> alike = np.cos(towards[:, None] - towards)
  >>> print(order_classes(alike))
  [0 2 1 3]
  >>> print(order_classes(alike, groups=[1, 0, 0, 1]))
  [1 2 0 3]
  """
  num_classes = similarity.shape[0]
  if groups is not None:
    if len(groups) != num_classes:
      raise ValueError(
        f'groups has {len(groups)} entries and similarity {num_classes}'
        ' classes; give one super-class per class'
      )
    return np.argsort(np.asarray(groups), kind='stable')
  alike = np.asarray(similarity, np.float64)
  if not np.all(np.isfinite(alike)):
    raise ValueError('similarity has an entry that is not finite')
  if num_classes < 2:
    return np.arange(num_classes)
  # Of all that uses this package, only a picture needs them.
  from scipy.cluster import hierarchy
  from scipy.spatial import distance

  gap = np.maximum(1.0 - (alike + alike.T) / 2, 0.0)
  tree = hierarchy.linkage(
    distance.squareform(gap, checks=False),
    method='average',
    optimal_ordering=num_classes <= _MAX_OPTIMAL,
  )
  return hierarchy.leaves_list(tree).astype(np.intp)


def _off_diagonal(table: Array) -> jax.Array:
  """The `K (K−1)` entries off the diagonal."""
  num_classes = table.shape[0]
  if num_classes < 2:
    raise ValueError(
      f'a similarity of shape {table.shape} must have at least 2 classes'
    )
  return numerics.as_float(table)[~np.eye(num_classes, dtype=bool)]


def _deviations(x: jax.Array) -> jax.Array:
  # Seen from its first entry a constant is exactly 0, without rounding.
  x = x - x[0]
  return x - jnp.mean(x)


def _standardised(x: jax.Array) -> jax.Array:
  """Mean 0 and variance 1; 0 where it is constant."""
  deviations = _deviations(x)
  square = jnp.mean(deviations**2)
  varies = ~(square <= _EPSILON**2)
  return jnp.where(varies, deviations, 0.0) / jnp.sqrt(
    jnp.where(varies, square, 1.0)
  )
