"""Losses on relations: references, gradients, transformations, extremes."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import relation_reference as plain

from kdjax import losses
from kdjax.losses import batch_geometry


class Case(NamedTuple):
  """A loss of (s, t), its float64 reference, and the sizes of both."""

  loss: object
  value: object
  shapes: tuple = ((5, 6), (5, 8))


def _irg(s, t):
  """Two stages, of sizes that differ, from one array of each."""
  return losses.irg([s, s[:, ::2] ** 2], [t, t[:, 1:] ** 3])


def _plain_irg(s, t):
  return plain.irg([s, s[:, ::2] ** 2], [t, t[:, 1:] ** 3])


def _attention(num_heads, **setting):
  return Case(
    functools.partial(
      losses.attention_relation, num_heads=num_heads, **setting
    ),
    lambda s, t: plain.attention_relation(
      s, t, setting.get('temperature', 0.1), num_heads
    ),
  )


CASES = {
  'rkd_distance': Case(losses.rkd_distance, plain.rkd_distance),
  'rkd_angle': Case(losses.rkd_angle, plain.rkd_angle),
  'sp': Case(losses.sp, plain.sp),
  'sp_of_maps': Case(losses.sp, plain.sp, ((3, 2, 2, 3), (3, 4, 4, 2))),
  'pkt': Case(losses.pkt, plain.pkt),
  'cc': Case(losses.cc, plain.cc, ((5, 6), (5, 6))),
  'irg': Case(_irg, _plain_irg),
  'irg_one_stage': Case(
    lambda s, t: losses.irg([s], [t]), lambda s, t: plain.irg([s], [t])
  ),
  'irg_of_maps': Case(
    lambda s, t: losses.irg((s, s[:, 0] ** 2), (t, t[..., 0] ** 2)),
    lambda s, t: plain.irg((s, s[:, 0] ** 2), (t, t[..., 0] ** 2)),
    ((3, 2, 2, 3), (3, 4, 4, 2)),
  ),
  'attention': _attention(1),
  'attention_2_heads': _attention(2, temperature=0.5),
}
EACH_CASE = pytest.mark.parametrize('case', CASES.values(), ids=CASES)
ES, ET = reference.wave((4, 6), 0.9, 0.2), reference.wave((4, 8), 0.6, 0.3)
POWERS = ('irg', 'irg_of_maps')  # which make the stages of one array
NEEDS_TWO = ('cc', 'attention', 'attention_2_heads')


def _inputs(case, shift=0.0):
  student, teacher = case.shapes
  return (
    reference.wave(student, 0.9, 0.2 + shift, 2.0),
    reference.wave(teacher, 0.6, 0.3 - shift, 2.0),
  )


def _float32(*arrays):
  return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


@functools.cache
def _value_and_grads(loss):
  """Compiled once per loss and shape; of student and teacher."""
  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def _assert_close(actual, expected, tolerance=1e-5):
  """Relative to the largest entry."""
  scale = tolerance * np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=scale)


def _check_gradients(case, s, t, tolerance=1e-5):
  _, (at_s, at_t) = _value_and_grads(case.loss)(*_float32(s, t))
  expected = plain.gradient(lambda x: case.value(x, t), s)
  _assert_close(at_s, expected, tolerance)
  expected = plain.gradient(lambda x: case.value(s, x), t)
  _assert_close(at_t, expected, tolerance)


# The five checks.


@EACH_CASE
def test_value(case):
  s, t = _inputs(case)
  actual, _ = _value_and_grads(case.loss)(*_float32(s, t))
  assert actual.shape == ()
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, case.value(s, t), rtol=1e-5)


@EACH_CASE
def test_gradients(case):
  _check_gradients(case, *_inputs(case))


@EACH_CASE
def test_jit(case):
  args = _float32(*_inputs(case))
  np.testing.assert_allclose(
    case.loss(*args), jax.jit(case.loss)(*args), rtol=1e-5
  )


@EACH_CASE
def test_vmap(case):
  both = [_float32(*_inputs(case, shift)) for shift in (0.0, 1.0)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *both)
  function = _value_and_grads(case.loss)
  mapped = jax.jit(jax.vmap(function))(*stacked)
  for i, args in enumerate(both):
    for a, b in zip(*map(jax.tree.leaves, (mapped, function(*args)))):  # noqa: B905
      _assert_close(a[i], b)


BAD = {
  'batch': lambda s, t: losses.rkd_distance(s, t[:1]),
  'angle_batch': lambda s, t: losses.rkd_angle(s, t[:1]),
  'angle_map': lambda s, t: losses.rkd_angle(s[None], t[None]),
  'sp_batch': lambda s, t: losses.sp(s, t[1:]),
  'pkt_vector': lambda s, t: losses.pkt(s[0], t[0]),
  'cc_sizes': losses.cc,
  'integers': lambda s, t: losses.pkt(s.astype(jnp.int32), t),
  'irg_array': lambda s, t: losses.irg(s, t),
  'irg_text': lambda s, t: losses.irg('s', 't'),
  'attention_batch': lambda s, t: losses.attention_relation(s[1:], t),
  'positional': lambda s, t: losses.attention_relation(s, t, 0.1),
  'half_a_head': lambda s, t: losses.attention_relation(s, t, num_heads=0.5),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call(*_float32(ES, ET))


WRONG = {
  'temperature=0.0 must': lambda s, t: losses.attention_relation(
    s, t, temperature=0.0
  ),
  'num_heads=4 does not divide the 6 features of the student': (
    lambda s, t: losses.attention_relation(s, t, num_heads=4)
  ),
  'num_heads=3 does not divide the 8 features of the teacher': (
    lambda s, t: losses.attention_relation(s, t, num_heads=3)
  ),
  'num_heads=0 ': lambda s, t: losses.attention_relation(s, t, num_heads=0),
  'a batch of 1 has no relations': lambda s, t: losses.attention_relation(
    s[:1], t[:1]
  ),
  'a batch of 1 has no pairs': lambda s, t: losses.cc(s[:1], s[1:2]),
  '2 stages of the student and 1 of': lambda s, t: losses.irg([s, s], [t]),
  '0 stages of the student and 0 of': lambda s, t: losses.irg([], []),
  r'shapes \[\(4, 6\), \(3, 8\)\]': lambda s, t: losses.irg([s], [t[1:]]),
  r'shapes \[\(\), \(\)\]': lambda s, t: losses.irg([s[0, 0]], [t[0, 0]]),
}


@pytest.mark.parametrize('message', WRONG)
def test_wrong_values(message):
  with pytest.raises(ValueError, match=message):
    WRONG[message](*_float32(ES, ET))


def test_cc_names_both_shapes():
  with pytest.raises(TypeError, match=r'(?s)\[4,8\].*\[4,6\]'):
    losses.cc(*_float32(ES, ET))


# Values of published implementations.

GOLDEN = {
  'rkd_distance': (losses.rkd_distance, 0.039123535338),
  'rkd_angle': (losses.rkd_angle, 0.060409454623),
  'rkd': (
    lambda s, t: 25 * losses.rkd_distance(s, t) + 50 * losses.rkd_angle(s, t),
    3.998561114583,
  ),
  'pkt': (losses.pkt, 0.088028471197),
}


@pytest.mark.parametrize('mode', [lambda f: f, jax.jit], ids=['eager', 'jit'])
@pytest.mark.parametrize(('loss', 'expected'), GOLDEN.values(), ids=GOLDEN)
def test_golden(loss, expected, mode):
  actual = mode(loss)(*_float32(ES, ET))
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize('mode', [lambda f: f, jax.jit], ids=['eager', 'jit'])
def test_golden_of_equal_sizes_and_of_maps(mode):
  et6 = reference.wave((4, 6), 0.6, 0.3)
  actual = mode(losses.cc)(*_float32(ES, et6))
  np.testing.assert_allclose(actual, 3.162914199600, rtol=1e-5)
  fs = reference.wave((4, 3, 6, 6), 0.37, 0.1)
  ft = reference.wave((4, 5, 6, 6), 0.23, 0.4)
  for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
    maps = _float32(fs.transpose(order), ft.transpose(order))
    actual = mode(losses.sp)(*maps)
    np.testing.assert_allclose(actual, 0.089676882463, rtol=1e-5)


# Blocks of anchors, and precision.


@pytest.mark.parametrize('anchors', [1, 4, 5, 7, 13])
def test_angles_do_not_depend_on_blocks(anchors, monkeypatch):
  """13 is no multiple of most of them."""
  s, t = reference.wave((13, 3), 0.9, 0.2), reference.wave((13, 5), 0.6, 0.3)
  monkeypatch.setattr(batch_geometry, '_BLOCK', 13 * 13 * anchors)
  loss = lambda s, t: losses.rkd_angle(s, t)  # compiled anew
  case = Case(loss, plain.rkd_angle)
  blocks, _, counts = batch_geometry._blocks(*_float32(s, t))
  assert blocks.shape[1] <= anchors
  assert counts.sum() == 13
  value, _ = _value_and_grads(loss)(*_float32(s, t))
  np.testing.assert_allclose(loss(*_float32(s, t)), value, rtol=1e-6)
  np.testing.assert_allclose(value, plain.rkd_angle(s, t), rtol=1e-5)
  _check_gradients(case, s, t)


def test_gradient_of_one_side_is_that_of_both():
  args = _float32(ES, ET)
  _, both = _value_and_grads(losses.rkd_angle)(*args)
  for i in (0, 1):
    alone = jax.jit(jax.grad(losses.rkd_angle, argnums=i))(*args)
    _assert_close(alone, both[i], 1e-6)


def test_gradient_of_distances_with_unequal_weights():
  """d_ij and d_ji are the same, what they weigh in a loss may differ."""
  weights = reference.wave((5, 5), 1.1, 0.3)

  def value(x):
    return (weights * np.linalg.norm(x[:, None] - x[None], axis=-1)).sum()

  x, _ = _inputs(CASES['rkd_distance'])
  (x32,) = _float32(x)
  loss = lambda x: jnp.sum(_float32(weights)[0] * batch_geometry._distances(x))
  actual = jax.jit(jax.grad(loss))(x32)
  _assert_close(actual, plain.gradient(value, x))


@pytest.mark.parametrize('seed', range(5))
def test_cosines_rounded_below_minus_one(seed):
  """(cos + 1) / 2 is then less than −ε, which has no logarithm."""
  x = np.random.default_rng(seed).normal(size=(1, 4000)) * 100
  s, t = _float32(np.concatenate([x, -x]), ET[:2])
  value, gradients = _value_and_grads(losses.pkt)(s, t)
  wide = np.asarray(s, np.float64), ET[:2]
  np.testing.assert_allclose(value, plain.pkt(*wide), rtol=0.2)
  assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize('name', ['rkd_distance', 'rkd_angle', 'irg_one_stage'])
def test_near_duplicates_far_from_the_origin(name):
  """By products of the embeddings their distance would be noise."""
  case = CASES[name]
  s, t = (np.float32(x) + 8 for x in _inputs(case))
  s[1] = s[0] + np.float32(2**-14) * np.arange(6)
  value, _ = _value_and_grads(case.loss)(*_float32(s, t))
  wide = [x.astype(np.float64) for x in (s, t)]
  np.testing.assert_allclose(value, case.value(*wide), rtol=1e-5)
  _, (at_s, _) = _value_and_grads(case.loss)(*_float32(s, t))
  expected = plain.gradient(lambda x: case.value(x, wide[1]), wide[0], 1e-8)
  _assert_close(at_s, expected, 1e-3)


@pytest.mark.parametrize('name', ['rkd_distance', 'rkd_angle', 'irg_one_stage'])
@pytest.mark.parametrize(
  'layer',
  [lambda x: x * np.float32(0.3), lambda x: x**3],
  ids=['scaled', 'cube'],
)
def test_identical_examples_of_a_layer_compiled_along(name, layer):
  """XLA then subtracts a rounded product from one that is not rounded."""
  case = CASES[name]
  s, t = _float32(*(x[[0, 0, 1, 1, 2]] for x in _inputs(case)))
  alone = _value_and_grads(case.loss)(layer(s), layer(t))
  together = jax.jit(lambda s, t: case.loss(layer(s), layer(t)))(s, t)
  np.testing.assert_allclose(together, alone[0], rtol=1e-5)


# Properties.


@pytest.mark.parametrize('name', CASES)
def test_equals_have_no_loss(name):
  case = CASES[name]
  s, _ = _float32(*_inputs(case))
  if name in POWERS:
    loss = lambda s, t: losses.irg([s, s**2], [t, t**2])
  else:
    loss = case.loss
  value, gradients = _value_and_grads(loss)(s, s)
  np.testing.assert_allclose(value, 0, atol=1e-7)
  for gradient in gradients:
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize(
  'name', ['rkd_distance', 'rkd_angle', 'irg_one_stage', 'sp', 'attention']
)
def test_rotation_and_scale_do_not_matter(name):
  case = CASES[name]
  s, t = _inputs(case)
  rotation, _ = np.linalg.qr(reference.wave((6, 6), 1.7, 0.4))
  moved = 3.0 * s @ rotation
  expected = case.value(s, t)
  actual, _ = _value_and_grads(case.loss)(*_float32(moved, t))
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  if name in ('rkd_distance', 'rkd_angle', 'irg_one_stage'):
    actual, _ = _value_and_grads(case.loss)(*_float32(moved + 1.5, t))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_attention_is_among_the_others():
  """Whatever a head's diagonal is, two examples see but each other."""
  loss = CASES['attention'].loss
  value, gradients = _value_and_grads(loss)(*_float32(ES[:2], ET[:2]))
  assert value == 0
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0)


def test_traced_temperature():
  s, t = _float32(ES, ET)
  loss = lambda x: losses.attention_relation(s, t, temperature=x)
  mapped = jax.jit(jax.vmap(loss))(jnp.array([0.1, 2.0]))
  np.testing.assert_allclose(mapped, [loss(0.1), loss(2.0)], rtol=1e-5)


# Extremes.


def _opposite(s, t):
  return np.stack([s[0], -s[0], s[1], -s[1]]), t[:4]


EXTREMES = {
  'both_zero': lambda s, t: (0 * s, 0 * t),
  'student_zero': lambda s, t: (0 * s, t),
  'teacher_zero': lambda s, t: (s, 0 * t),
  'a_row_of_zeros': lambda s, t: (s * (np.arange(len(s)) > 0)[:, None], t),
  'student_identical': lambda s, t: (np.repeat(s[:1], len(s), 0), t),
  'all_identical': lambda s, t: (
    np.repeat(s[:1], len(s), 0),
    np.repeat(t[:1], len(t), 0),
  ),
  'student_duplicates': lambda s, t: (s[[0, 0, 1, 1, 2]], t),
  'duplicates_of_both': lambda s, t: (s[[0, 0, 1, 1, 2]], t[[0, 0, 1, 2, 2]]),
  'opposite': _opposite,
  'large': lambda s, t: (1e4 * s, 1e4 * t),
  'small': lambda s, t: (1e-8 * s, 1e-8 * t),
  'batch_of_two': lambda s, t: (s[:2], t[:2]),
  'batch_of_one': lambda s, t: (s[:1], t[:1]),
}
VECTORS = [name for name, case in CASES.items() if len(case.shapes[0]) == 2]


@pytest.mark.parametrize('name', VECTORS)
@pytest.mark.parametrize('extreme', EXTREMES)
def test_extremes(name, extreme):
  case = CASES[name]
  arrays = EXTREMES[extreme](*_inputs(case))
  if extreme == 'batch_of_one' and name in NEEDS_TWO:
    with pytest.raises(ValueError, match='a batch of 1'):
      case.loss(*_float32(*arrays))
    return
  value, gradients = _value_and_grads(case.loss)(*_float32(*arrays))
  # Our stages are powers; PKT's ε is no larger than the rounding of 1.
  if (extreme, name) not in (
    ('large', 'irg'),
    ('small', 'irg'),
    ('opposite', 'pkt'),
  ):
    expected = case.value(*arrays)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)
  assert np.isfinite(value)
  assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize(
  'case', [c for name, c in CASES.items() if name not in POWERS]
)
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_is_compared_in_float32(case, dtype):
  s, t = (x.astype(dtype) for x in _float32(*_inputs(case)))
  actual = case.loss(s, t)
  assert actual.dtype == jnp.float32
  wide = [np.asarray(x, np.float64) for x in (s, t)]
  np.testing.assert_allclose(actual, case.value(*wide), rtol=1e-5)


@EACH_CASE
@pytest.mark.parametrize('which', [0, 1], ids=['student', 'teacher'])
def test_nan_comes_through(case, which):
  arrays = list(_float32(*_inputs(case)))
  arrays[which] = arrays[which].at[(0,) * arrays[which].ndim].set(jnp.nan)
  value, _ = _value_and_grads(case.loss)(*arrays)
  assert jnp.isnan(value)
