"""Losses on features: references, gradients, transformations, extremes."""

import functools
from typing import NamedTuple

import feature_reference as expected
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kdjax import losses

wave = reference.wave
STUDENT_MAP = expected.wave_map((4, 3, 6, 6), 0.37, 0.1)
TEACHER_MAP = expected.wave_map((4, 5, 6, 6), 0.23, 0.4)
AS_WIDE_MAP = expected.wave_map((4, 3, 6, 6), 0.23, 0.4)
STUDENT, TEACHER = wave((4, 6), 0.9, 0.2), wave((4, 6), 0.6, 0.3)
# Of other sizes: rows 7 against 4, columns 5 against 6; and few places.
TALL, BROAD = wave((2, 7, 5, 3), 0.37, 0.1), wave((2, 4, 6, 3), 0.23, 0.4)
MANY, FEW = wave((2, 2, 2, 6), 0.37, 0.1), wave((2, 3, 2, 4), 0.23, 0.4)
VARIANCE = np.array([0.5, 2.0, 7.0])


class Case(NamedTuple):
  """A loss of (s, t), its float64 reference, and what both are called with."""

  loss: object
  value: object
  student: object
  teacher: object


def _vid(variance):
  return (
    lambda s, t: losses.vid(s, t, variance=variance),
    lambda s, t: expected.vid(s, t, variance),
  )


HINT, AT, NST = (
  (losses.hint, expected.hint),
  (losses.at, expected.at),
  (losses.nst, expected.nst),
)
CASES = {
  'hint': Case(*HINT, STUDENT_MAP, AS_WIDE_MAP),
  'hint_sizes': Case(*HINT, TALL, BROAD),
  'at': Case(*AT, STUDENT_MAP, TEACHER_MAP),
  'at_sizes': Case(*AT, BROAD, TALL),
  'nst': Case(*NST, STUDENT_MAP, TEACHER_MAP),
  'nst_wide_student': Case(*NST, TEACHER_MAP, STUDENT_MAP),
  'nst_sizes': Case(*NST, TALL, BROAD),
  'nst_many_channels': Case(*NST, MANY, FEW),
  'vid': Case(*_vid(5.0), STUDENT_MAP, AS_WIDE_MAP),
  'vid_sizes': Case(*_vid(VARIANCE), TALL, BROAD),
  'cosine': Case(losses.cosine, expected.cosine, STUDENT, TEACHER),
  'l2': Case(losses.l2, expected.l2, STUDENT, TEACHER),
}
EACH_CASE = pytest.mark.parametrize('case', CASES.values(), ids=CASES)
# Of as many channels and places, so that both can be one map.
EQUALS = ('hint', 'at', 'nst', 'nst_many_channels', 'cosine', 'l2')


def _float32(*arrays):
  return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


@functools.cache
def _compiled(loss):
  """The value, and the gradients in student and teacher."""
  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def _value_and_gradient(loss, *args):
  value, (gradient, _) = _compiled(loss)(*args)
  return value, gradient


def _check_gradient(actual, case, s, t):
  wanted = expected.gradient(case.value, s, t)
  close = 1e-5 * np.abs(wanted).max()
  np.testing.assert_allclose(actual, wanted, rtol=0, atol=close)


# The five checks.


@EACH_CASE
def test_value(case):
  s, t = case.student, case.teacher
  actual = case.loss(*_float32(s, t))
  assert actual.shape == ()
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, case.value(s, t), rtol=1e-5)


@EACH_CASE
def test_batch_of_one(case):
  s, t = case.student[:1], case.teacher[:1]
  actual, gradient = _value_and_gradient(case.loss, *_float32(s, t))
  np.testing.assert_allclose(actual, case.value(s, t), rtol=1e-5)
  _check_gradient(gradient, case, s, t)


@EACH_CASE
def test_gradient(case):
  s, t = case.student, case.teacher
  _, actual = _value_and_gradient(case.loss, *_float32(s, t))
  _check_gradient(actual, case, s, t)


@EACH_CASE
def test_jit(case):
  args = _float32(case.student, case.teacher)
  compiled, _ = _compiled(case.loss)(*args)
  np.testing.assert_allclose(compiled, case.loss(*args), rtol=1e-5)


@EACH_CASE
def test_vmap(case):
  s, t = _float32(case.student, case.teacher)
  pairs = jnp.stack([s, s[::-1]]), jnp.stack([t, t**2])
  each = [case.loss(*pair) for pair in zip(*pairs, strict=True)]
  np.testing.assert_allclose(
    jax.jit(jax.vmap(case.loss))(*pairs), each, rtol=1e-5
  )


BAD = {
  'hint_batch': lambda s, t, e: losses.hint(s, s[1:]),
  'at_batch': lambda s, t, e: losses.at(s, t[1:]),
  'nst_batch': lambda s, t, e: losses.nst(s, t[1:]),
  'vid_batch': lambda s, t, e: losses.vid(s, s[1:], variance=1.0),
  'cosine_batch': lambda s, t, e: losses.cosine(e, e[1:]),
  'l2_batch': lambda s, t, e: losses.l2(e, e[1:]),
  'broadcast': lambda s, t, e: losses.hint(s, s[:1]),
  'rank': lambda s, t, e: losses.at(s[0], t[0]),
  'embeddings': lambda s, t, e: losses.hint(e, e),
  'maps': lambda s, t, e: losses.l2(s, s),
  'cosine_width': lambda s, t, e: losses.cosine(e, e[:, 1:]),
  'l2_width': lambda s, t, e: losses.l2(e, e[:, :1]),
  'integers': lambda s, t, e: losses.nst(s.astype(jnp.int32), t),
  'variance': lambda s, t, e: losses.vid(s, s, variance=jnp.ones(2)),
  'variance_rank': lambda s, t, e: losses.vid(s, s, variance=s),
  'no_variance': lambda s, t, e: losses.vid(s, s),
  'positional': lambda s, t, e: losses.vid(s, s, 1.0),
  'pool_size': lambda s, t, e: losses.average_pool(s, size=3),
  'pool_rank': lambda s, t, e: losses.average_pool(e, size=(1, 1)),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call(*_float32(STUDENT_MAP, TEACHER_MAP, STUDENT))


def test_error_names_the_argument():
  s, t = _float32(STUDENT_MAP, TEACHER_MAP)
  with pytest.raises(TypeError, match="parameter 'teacher_map'"):
    losses.at(s, t[1:])


@pytest.mark.parametrize(
  ('loss', 'name'),
  [
    (losses.hint, 'student_map'),
    (functools.partial(losses.vid, variance=1.0), 'mean_map'),
  ],
)
def test_other_channels(loss, name):
  message = rf'{name} .*\(4, 6, 6, 3\).* teacher_map .*\(4, 6, 6, 5\)'
  with pytest.raises(ValueError, match=message):
    loss(*_float32(STUDENT_MAP, TEACHER_MAP))


@pytest.mark.parametrize('variance', [0.0, -1, np.inf, np.nan])
def test_wrong_variance(variance):
  s, t = _float32(STUDENT_MAP, AS_WIDE_MAP)
  with pytest.raises(ValueError, match='variance='):
    losses.vid(s, t, variance=variance)


# Values of published implementations.

GOLDEN = {
  'hint': (losses.hint, AS_WIDE_MAP, 1.008676392324),
  'at': (losses.at, TEACHER_MAP, 0.002070981649),
  'nst': (losses.nst, TEACHER_MAP, 1.021194668037),
  'vid': (CASES['vid'].loss, AS_WIDE_MAP, 0.905586595449),
}


@pytest.mark.parametrize(
  ('loss', 'teacher', 'value'), GOLDEN.values(), ids=GOLDEN
)
def test_golden(loss, teacher, value):
  args = _float32(STUDENT_MAP, teacher)
  np.testing.assert_allclose(loss(*args), value, rtol=1e-5)
  np.testing.assert_allclose(_compiled(loss)(*args)[0], value, rtol=1e-5)


# Pooling.


@pytest.mark.parametrize(
  'size', [(7, 5), (4, 5), (7, 2), (4, 3), (3, 4), (1, 1), (6, 4)]
)
def test_average_pool(size):
  (x,) = _float32(TALL)
  actual = losses.average_pool(x, size=size)
  np.testing.assert_allclose(
    actual, expected.average_pool(TALL, size), rtol=1e-5, atol=1e-7
  )


def test_average_pool_by_a_divisor_is_the_mean_of_blocks():
  (x,) = _float32(wave((2, 8, 6, 3), 0.37, 0.1))
  np.testing.assert_allclose(
    losses.average_pool(x, size=(4, 2)),
    x.reshape(2, 4, 2, 2, 3, 3).mean((2, 4)),
    rtol=1e-5,
    atol=1e-7,
  )


@pytest.mark.parametrize('size', [(8, 5), (7, 6), (0, 1), (1, -1)])
def test_average_pool_does_not_enlarge(size):
  (x,) = _float32(TALL)
  message = rf'\({size[0]}, {size[1]}\) .*\(7, 5\).*\(2, 7, 5, 3\)'
  with pytest.raises(ValueError, match=message):
    losses.average_pool(x, size=size)


# Properties.


def test_vid_variance_is_trained():
  s, t = _float32(TALL, BROAD)
  loss = lambda variance: losses.vid(s, t, variance=variance)
  np.testing.assert_allclose(
    jax.jit(jax.grad(loss))(*_float32(VARIANCE)),
    expected.d_vid_d_variance(TALL, BROAD, VARIANCE),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    jax.jit(jax.grad(loss))(2.0),
    expected.d_vid_d_variance(TALL, BROAD, np.full(3, 2.0)).sum(),
    rtol=1e-5,
  )


@pytest.mark.parametrize('name', ['at', 'nst', 'nst_many_channels', 'cosine'])
def test_scale_of_features_does_not_matter(name):
  case = CASES[name]
  s, t = _float32(case.student, case.teacher)
  np.testing.assert_allclose(
    case.loss(1e3 * s, 1e-3 * t), case.loss(s, t), rtol=1e-5
  )


@pytest.mark.parametrize('loss', [losses.at, losses.nst])
def test_order_of_channels_does_not_matter(loss):
  s, t = _float32(STUDENT_MAP, TEACHER_MAP)
  np.testing.assert_allclose(loss(s[..., ::-1], t), loss(s, t), rtol=1e-5)


def test_nst_keeps_small_differences():
  """Where means of kernels in float32 cancel to noise."""
  s = STUDENT_MAP + 1e-3 * AS_WIDE_MAP
  np.testing.assert_allclose(
    losses.nst(*_float32(s, STUDENT_MAP)),
    expected.nst(s, STUDENT_MAP),
    rtol=1e-3,
  )


def test_a_long_sum_keeps_its_digits():
  s, t = wave((32, 32, 32, 32), 0.37, 0.1), wave((32, 32, 32, 32), 0.23, 0.4)
  for loss, value in ((losses.hint, expected.hint), _vid(0.1)):
    np.testing.assert_allclose(loss(*_float32(s, t)), value(s, t), rtol=1e-6)


@EACH_CASE
def test_gradient_reaches_the_teacher(case):
  """Stopping it is the caller's decision."""
  s, t = _float32(case.student, case.teacher)
  _, (_, gradient) = _compiled(case.loss)(s, t)
  assert jnp.all(jnp.abs(gradient).sum(range(1, t.ndim)) > 0)


@EACH_CASE
def test_half_precision_is_compared_in_float32(case):
  s, t = (x.astype(jnp.bfloat16) for x in _float32(case.student, case.teacher))
  actual, gradient = _value_and_gradient(case.loss, s, t)
  assert actual.dtype == jnp.float32
  wide = [np.asarray(x, np.float64) for x in (s, t)]
  np.testing.assert_allclose(actual, case.value(*wide), rtol=1e-5)
  assert gradient.dtype == jnp.bfloat16


# Extremes.


@pytest.mark.parametrize('name', EQUALS)
def test_equals_are_at_distance_zero(name):
  case = CASES[name]
  (s,) = _float32(case.student)
  value, gradient = _value_and_gradient(case.loss, s, s)
  np.testing.assert_allclose(value, 0.0, atol=2e-7)
  np.testing.assert_allclose(gradient, 0.0, atol=2e-7)


def test_vid_of_equals_is_the_entropy_of_its_variance():
  (s,) = _float32(STUDENT_MAP)
  loss = functools.partial(losses.vid, variance=4.0)
  value, gradient = _value_and_gradient(loss, s, s)
  np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
  np.testing.assert_array_equal(gradient, 0.0)


def _dead_part(x):
  """The first example and the first channel are zero, as after a ReLU."""
  x = x.copy()
  x[0], x[..., 0] = 0, 0
  return x


ZEROS = {
  'student': (np.zeros_like, lambda t: t),
  'teacher': (lambda s: s, np.zeros_like),
  'both': (np.zeros_like, np.zeros_like),
  'parts': (_dead_part, _dead_part),
  'parts_student': (_dead_part, lambda t: t),
  'constant': (np.ones_like, np.ones_like),
  'one_place': (lambda s: s, lambda t: t[:, :1, :1] if t.ndim == 4 else t),
  'one_example': (lambda s: s[:1] * 0, lambda t: t[:1]),
}


@EACH_CASE
@pytest.mark.parametrize(('of_s', 'of_t'), ZEROS.values(), ids=ZEROS)
def test_extremes(case, of_s, of_t):
  s, t = of_s(case.student), of_t(case.teacher)
  value, gradient = _value_and_gradient(case.loss, *_float32(s, t))
  np.testing.assert_allclose(value, case.value(s, t), rtol=1e-5, atol=1e-6)
  assert np.all(np.isfinite(gradient))
  assert np.abs(gradient).max() < 1e3


@pytest.mark.parametrize('name', ['at', 'nst', 'nst_many_channels', 'cosine'])
def test_nothing_pulls_at_zeros(name):
  case = CASES[name]
  s, t = _float32(_dead_part(case.student), case.teacher)
  _, gradient = _value_and_gradient(case.loss, s, t)
  np.testing.assert_array_equal(gradient[0], 0.0)
  assert jnp.any(gradient[1:] != 0)


def test_zero_rows_point_nowhere():
  e = jnp.eye(2)
  assert losses.cosine(0 * e, e) == 1.0
  assert losses.cosine(e, 0 * e) == 1.0


@EACH_CASE
@pytest.mark.parametrize('which', [0, 1], ids=['student', 'teacher'])
def test_nan_comes_through(case, which):
  args = list(_float32(case.student, case.teacher))
  args[which] = args[which].at[(0,) * args[which].ndim].set(jnp.nan)
  assert jnp.isnan(_value_and_gradient(case.loss, *args)[0])
