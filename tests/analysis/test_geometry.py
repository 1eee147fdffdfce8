"""Class geometry: references, constants, orders that show the groups."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kdjax.analysis import geometry
from kdjax.data import synthetic

WEIGHTS = reference.wave((5, 3), 0.9, 0.2)
OTHER = reference.wave((5, 3), 0.5, 0.9)
FEATURES = reference.wave((12, 3), 0.7, 0.5, 2.0)
LABELS = np.array([0, 2, 4, 1, 2, 2, 0, 4, 4, 1, 0, 2])  # none of class 3


# References, in float64.


def _cosine(w):
  unit = w / np.linalg.norm(w, axis=-1, keepdims=True)
  return unit @ unit.T


def _off(table):
  return np.array(
    [
      table[i, j]
      for i in range(len(table))
      for j in range(len(table))
      if i != j
    ]
  )


def _means(f, y):
  return np.stack(
    [f[y == k].mean(0) if k in y else np.zeros(f.shape[1]) for k in range(5)]
  )


A, B = _cosine(WEIGHTS), _cosine(OTHER)
UNEVEN = reference.wave((5, 5), 0.3, 0.1)  # not symmetric, as a confusion

CASES = {
  'class_similarity': (geometry.class_similarity, _cosine, (WEIGHTS,)),
  'class_means': (
    functools.partial(geometry.class_means, num_classes=5),
    _means,
    (FEATURES, LABELS),
  ),
  'relation_correlation': (
    geometry.relation_correlation,
    lambda a, b: reference.pearson(_off(a), _off(b)),
    (A, B),
  ),
  'relation_correlation_uneven': (
    geometry.relation_correlation,
    lambda a, b: reference.pearson(_off(a), _off(b)),
    (UNEVEN, B),
  ),
  'similarity_spread': (
    geometry.similarity_spread,
    lambda a: np.std(_off(a)),
    (A,),
  ),
}
EACH = pytest.mark.parametrize(
  ('function', 'value', 'args'), CASES.values(), ids=CASES
)


def _device(x):
  x = np.asarray(x)
  return jnp.asarray(x, jnp.float32 if x.dtype.kind == 'f' else jnp.int32)


# The checks that every function passes.


@EACH
def test_value(function, value, args):
  actual = function(*map(_device, args))
  expected = value(*args)
  assert actual.shape == expected.shape
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@EACH
def test_jit_and_vmap(function, value, args):
  args = [_device(x) for x in args]
  eager = function(*args)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  close(jax.jit(function)(*args), eager)
  twice = [jnp.stack([x, x[::-1]]) for x in args]
  mapped = jax.jit(jax.vmap(function))(*twice)
  close(mapped, [eager, function(*(x[1] for x in twice))])


@pytest.mark.parametrize(
  ('function', 'value', 'x'),
  [
    (
      lambda w: geometry.class_similarity(w)[0, 1],
      lambda w: _cosine(w)[0, 1],
      WEIGHTS,
    ),
    (
      lambda a: geometry.relation_correlation(a, _device(B)),
      lambda a: reference.pearson(_off(a), _off(B)),
      A,
    ),
    (geometry.similarity_spread, lambda a: np.std(_off(a)), A),
  ],
  ids=['cosine', 'correlation', 'spread'],
)
def test_gradient(function, value, x):
  step = 1e-6 * reference.wave(x.shape, 1.3, 0.4)
  expected = (value(x + step) - value(x - step)) / 2
  gradient = jax.jit(jax.grad(function))(_device(x))
  np.testing.assert_allclose(np.sum(gradient * step), expected, rtol=1e-3)


# Similarity.


def test_similarity_of_parallel_opposite_and_zero_rows():
  w = jnp.array([[1.0, 0.0], [1e-8, 0.0], [-1e8, 0.0], [0.0, 3.0], [0.0, 0.0]])
  expected = np.zeros((5, 5))
  expected[:3, :3] = np.outer([1, 1, -1], [1, 1, -1])
  expected[3, 3] = 1
  np.testing.assert_allclose(geometry.class_similarity(w), expected, rtol=1e-6)
  total = lambda w: geometry.class_similarity(w).sum()
  assert jnp.all(jnp.isfinite(jax.jit(jax.grad(total))(w)))


def test_similarity_stays_in_range():
  w = _device(np.random.default_rng(0).normal(size=(200, 7)))
  assert jnp.max(jnp.abs(geometry.class_similarity(w))) <= 1


def test_similarity_of_the_synthetic_classes_is_their_correlation():
  w = synthetic.class_embeddings(
    jax.random.key(0),
    num_inputs=20,
    num_classes=6,
    num_groups=2,
    correlation=0.75,
  )
  expected = np.kron(np.eye(2), np.full((3, 3), 0.75)) + 0.25 * np.eye(6)
  np.testing.assert_allclose(geometry.class_similarity(w), expected, atol=1e-6)


# Means.


def test_class_without_examples_has_a_zero_mean():
  means = geometry.class_means(_device(FEATURES), LABELS, num_classes=9)
  np.testing.assert_array_equal(means[np.array([3, 5, 6, 7, 8])], 0.0)
  assert jnp.all(jnp.abs(means[np.array([0, 1, 2, 4])]).sum(-1) > 0.1)


@pytest.mark.parametrize('label', [-1, 5, 300])
def test_a_label_that_is_no_class_gives_nan(label):
  y = _device(LABELS).at[3].set(label)
  means = geometry.class_means(_device(FEATURES), y, num_classes=5)
  assert jnp.all(jnp.isnan(means))


# Relation score and spread.


@pytest.mark.parametrize(('scale', 'score'), [(0.5, 1.0), (-2.0, -1.0)])
def test_correlation_does_not_see_scale_shift_and_diagonal(scale, score):
  a = _device(A)
  other = scale * a + 0.3 + 9 * jnp.eye(5)
  actual = geometry.relation_correlation(a, other)
  np.testing.assert_allclose(actual, score, rtol=1e-5)
  assert abs(actual) <= 1
  np.testing.assert_allclose(
    geometry.similarity_spread(other),
    abs(scale) * geometry.similarity_spread(a),
    rtol=1e-5,
  )


def test_constant_relations():
  a, even = _device(A), jnp.full((5, 5), 0.1)
  rounded = even + 1e-7 * _device(B)
  for constant in (even, rounded, jnp.eye(5)):
    assert geometry.relation_correlation(a, constant) == 0
    assert geometry.relation_correlation(constant, a) == 0
    np.testing.assert_allclose(
      geometry.similarity_spread(constant), 0.0, atol=1e-6
    )
  for function in (
    lambda x: geometry.relation_correlation(x, a),
    geometry.similarity_spread,
  ):
    value, gradient = jax.jit(jax.value_and_grad(function))(even)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)


def test_two_classes_have_one_relation():
  a = geometry.class_similarity(jnp.array([[1.0, 0.2], [0.3, 1.0]]))
  assert geometry.relation_correlation(a, a) == 0
  np.testing.assert_allclose(geometry.similarity_spread(a), 0.0, atol=1e-7)


def test_an_undefined_similarity_gives_nan():
  wrong = _device(A).at[0, 1].set(jnp.nan)
  assert jnp.isnan(geometry.relation_correlation(wrong, _device(B)))
  assert jnp.isnan(geometry.similarity_spread(wrong))


# Order.


def _blocks(sizes, correlation, seed):
  """Shuffled classes of a known group, and their groups."""
  groups = np.repeat(np.arange(len(sizes)), sizes)
  same = groups[:, None] == groups
  table = np.where(same, correlation, 0.0)
  np.fill_diagonal(table, 1.0)
  shuffle = np.random.default_rng(seed).permutation(len(groups))
  return table[shuffle][:, shuffle], groups[shuffle]


def _is_contiguous(groups):
  return np.count_nonzero(np.diff(groups)) == len(set(groups)) - 1


@pytest.mark.parametrize('seed', range(3))
def test_order_recovers_the_groups(seed):
  """From noise that chains single neighbours into another group."""
  table, groups = _blocks([5, 5, 5], 0.6, seed)
  noise = 0.3 * np.random.default_rng(9).normal(size=table.shape)
  assert not _is_contiguous(groups)
  order = geometry.order_classes(table + noise)
  np.testing.assert_array_equal(np.sort(order), np.arange(15))
  assert _is_contiguous(groups[order])


def test_order_of_the_synthetic_classes():
  w = synthetic.class_embeddings(
    jax.random.key(1),
    num_inputs=80,
    num_classes=50,
    num_groups=10,
    correlation=0.5,
  )
  groups = np.arange(50) // 5
  shuffle = np.random.default_rng(0).permutation(50)
  order = geometry.order_classes(geometry.class_similarity(w[shuffle]))
  assert _is_contiguous(groups[shuffle][order])


def test_neighbours_are_as_alike_as_the_tree_allows():
  angles = np.linspace(0.0, 2.5, 12)
  shuffle = np.random.default_rng(0).permutation(12)
  table = np.cos(angles[shuffle][:, None] - angles[shuffle])
  steps = np.diff(shuffle[geometry.order_classes(table)])
  assert set(steps) in ({1}, {-1})


def test_order_of_many_classes():
  table, groups = _blocks([100, 100, 100], 0.6, 0)
  order = geometry.order_classes(table)
  np.testing.assert_array_equal(np.sort(order), np.arange(300))
  assert _is_contiguous(groups[order])


def test_order_is_deterministic_and_ignores_rounding():
  table, _ = _blocks([3, 2, 4], 0.6, 0)
  noise = np.random.default_rng(1).normal(size=(2, 9, 9))
  table = table + 0.05 * (noise[0] + noise[0].T)
  order = geometry.order_classes(table)
  np.testing.assert_array_equal(geometry.order_classes(table), order)
  for uneven in (table + 1e-7 * noise[1], _device(table)):
    np.testing.assert_array_equal(geometry.order_classes(uneven), order)


@pytest.mark.parametrize('half', [np.tril, np.triu])
def test_order_sees_both_halves(half):
  table, groups = _blocks([4, 1, 7, 3], 0.6, 0)
  assert _is_contiguous(groups[geometry.order_classes(half(table))])


@pytest.mark.parametrize(
  'groups',
  [[2, 0, 2, 1, 0], (2, 0, 2, 1, 0), np.array([2, 0, 2, 1, 0])],
  ids=['list', 'tuple', 'array'],
)
def test_order_by_group(groups):
  order = geometry.order_classes(_device(A), groups=groups)
  assert isinstance(order, np.ndarray)
  np.testing.assert_array_equal(order, [1, 4, 3, 0, 2])
  device = geometry.order_classes(A, groups=jnp.asarray(groups))
  np.testing.assert_array_equal(device, order)


@pytest.mark.parametrize('num_classes', [1, 2, 3])
def test_order_of_few_and_of_equal_classes(num_classes):
  for table in (
    np.eye(num_classes),
    np.zeros((num_classes, num_classes)),
    np.full((num_classes, num_classes), 1.0 + 1e-6),
  ):
    order = geometry.order_classes(table)
    np.testing.assert_array_equal(np.sort(order), np.arange(num_classes))


# Mistakes.


BAD = {
  'weights': lambda a, y: geometry.class_similarity(a[0]),
  'integers': lambda a, y: geometry.class_similarity(y[None]),
  'labels': lambda a, y: geometry.class_means(a, y, num_classes=5),
  'float_labels': lambda a, y: geometry.class_means(
    a, y[:5] * 1.0, num_classes=5
  ),
  'not_square': lambda a, y: geometry.relation_correlation(a[1:], a[1:]),
  'sizes': lambda a, y: geometry.relation_correlation(a, a[1:, 1:]),
  'spread': lambda a, y: geometry.similarity_spread(a[0]),
  'order': lambda a, y: geometry.order_classes(a[1:]),
  'float_groups': lambda a, y: geometry.order_classes(a, groups=a[0]),
  'positional': lambda a, y: geometry.order_classes(a, [0] * 5),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call(_device(A), _device(LABELS))


OUT_OF_RANGE = {
  'num_classes=0': lambda a: geometry.class_means(
    a, np.zeros(5, int), num_classes=0
  ),
  'at least 2 classes': lambda a: geometry.similarity_spread(a[:1, :1]),
  r'\(1, 1\) must have': lambda a: geometry.relation_correlation(
    a[:1, :1], a[:1, :1]
  ),
  'groups has 4 entries and similarity 5': lambda a: geometry.order_classes(
    a, groups=[0, 1, 0, 1]
  ),
  'not finite': lambda a: geometry.order_classes(a.at[0, 1].set(jnp.nan)),
}


@pytest.mark.parametrize(
  ('match', 'call'), OUT_OF_RANGE.items(), ids=OUT_OF_RANGE
)
def test_out_of_range(match, call):
  with pytest.raises(ValueError, match=match):
    call(_device(A))


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_becomes_float32(dtype):
  a, f = _device(A).astype(dtype), _device(FEATURES).astype(dtype)
  for x in (
    geometry.class_similarity(f),
    geometry.class_means(f, LABELS, num_classes=5),
    geometry.relation_correlation(a, a),
    geometry.similarity_spread(a),
  ):
    assert x.dtype == jnp.float32
  assert len(geometry.order_classes(a)) == 5
