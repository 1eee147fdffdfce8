"""Losses on logits: references, gradients, transformations, extremes."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kdjax import losses, targets

STUDENT = reference.wave((4, 5), 1.0, 0.0, 3.0)
TEACHER = reference.wave((4, 5), 0.7, 0.5, 3.0)
LABELS = np.array([0, 2, 4, 1])
RHO = reference.softmax(reference.wave((4, 5), 0.4, 0.8, 2.0))
INF = np.inf


class Case(NamedTuple):
  """A loss of (s, t, y), its float64 reference and its gradient in s."""

  loss: object
  value: object
  gradient: object


def _distillation(power):
  setting = (0.7, 3.0, power)
  return Case(
    lambda s, t, y: losses.distillation(
      s,
      targets.full(t, temperature=3.0),
      y,
      weight=0.7,
      temperature=3.0,
      temperature_power=power,
    ),
    lambda s, t, y: reference.distillation(
      s, reference.softmax(t, 3.0), y, *setting
    ),
    lambda s, t, y: reference.d_distillation(
      s, reference.softmax(t, 3.0), y, *setting
    ),
  )


CASES = {
  'cross_entropy': Case(
    lambda s, t, y: losses.cross_entropy(s, y),
    lambda s, t, y: reference.cross_entropy(s, y),
    lambda s, t, y: reference.d_cross_entropy(s, y),
  ),
  'kd': Case(
    lambda s, t, y: losses.kd(s, t, temperature=4.0),
    lambda s, t, y: reference.kd(s, t, 4.0),
    lambda s, t, y: reference.d_kd(s, t, 4.0),
  ),
  'distillation_n0': _distillation(0),
  'distillation_n2': _distillation(2),
  'tckd': Case(
    functools.partial(losses.tckd, temperature=4.0),
    lambda s, t, y: reference.tckd(s, t, y, 4.0),
    lambda s, t, y: reference.d_tckd(s, t, y, 4.0),
  ),
  'nckd': Case(
    functools.partial(losses.nckd, temperature=4.0),
    lambda s, t, y: reference.nckd(s, t, y, 4.0),
    lambda s, t, y: reference.d_nckd(s, t, y, 4.0),
  ),
  'dkd': Case(
    functools.partial(
      losses.dkd, target_weight=1.5, nontarget_weight=6.0, temperature=2.0
    ),
    lambda s, t, y: (
      1.5 * reference.tckd(s, t, y, 2.0) + 6.0 * reference.nckd(s, t, y, 2.0)
    ),
    lambda s, t, y: (
      1.5 * reference.d_tckd(s, t, y, 2.0)
      + 6.0 * reference.d_nckd(s, t, y, 2.0)
    ),
  ),
}


def _each_case_but(*names):
  cases = {k: case for k, case in CASES.items() if k not in names}
  return pytest.mark.parametrize('case', cases.values(), ids=cases)


EACH_CASE = _each_case_but()
DIST = functools.partial(
  losses.dist, inter_weight=2.0, intra_weight=3.0, temperature=4.0
)


def _float32(*arrays):
  return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


@functools.cache
def _value_and_grad(loss):
  """Compiled once per loss and shape; the gradient is of the sum."""
  value = lambda s, *rest: loss(s, *rest).sum()
  return jax.jit(jax.value_and_grad(value))


def _gradient(loss, student, *rest):
  return _value_and_grad(loss)(student, *rest)[1]


# The five checks.


@EACH_CASE
@pytest.mark.parametrize('batch', [(4,), (2, 2)])
def test_value(case, batch):
  size = int(np.prod(batch))
  s, t = (x[:size].reshape(*batch, 5) for x in (STUDENT, TEACHER))
  y = LABELS[:size].reshape(batch)
  actual = case.loss(*_float32(s, t), jnp.asarray(y))
  assert actual.shape == batch
  assert actual.dtype == jnp.float32
  # A sum of terms of both signs, times T²: rounding does not shrink with it.
  np.testing.assert_allclose(actual, case.value(s, t, y), rtol=1e-5, atol=5e-6)


@EACH_CASE
def test_gradient(case):
  actual = _gradient(case.loss, *_float32(STUDENT, TEACHER), LABELS)
  expected = case.gradient(STUDENT, TEACHER, LABELS)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@EACH_CASE
def test_jit(case):
  args = (*_float32(STUDENT, TEACHER), jnp.asarray(LABELS))
  np.testing.assert_allclose(
    case.loss(*args), jax.jit(case.loss)(*args), rtol=1e-5
  )


@EACH_CASE
def test_vmap(case):
  args = (*_float32(STUDENT, TEACHER), jnp.asarray(LABELS))
  mapped = jax.jit(jax.vmap(case.loss))(*args)
  np.testing.assert_allclose(case.loss(*args), mapped, rtol=1e-5)


BAD = {
  'classes': lambda s, t, y: losses.kd(s, t[:, 1:], temperature=1.0),
  'batch': lambda s, t, y: losses.kd(s, t[:1], temperature=1.0),
  'broadcast': lambda s, t, y: losses.kd(s, t[0], temperature=1.0),
  'labels': lambda s, t, y: losses.cross_entropy(s, y[:, None]),
  'float_labels': lambda s, t, y: losses.cross_entropy(s, y * 1.0),
  'integer_logits': lambda s, t, y: losses.cross_entropy(
    s.astype(jnp.int32), y
  ),
  'target': lambda s, t, y: losses.distillation(
    s, t[:, 1:], y, weight=0.5, temperature=1.0
  ),
  'tckd': lambda s, t, y: losses.tckd(s, t, y[1:], temperature=1.0),
  'nckd': lambda s, t, y: losses.nckd(s, t, y[1:], temperature=1.0),
  'dkd': lambda s, t, y: losses.dkd(s, t[1:], y),
  'dist': lambda s, t, y: losses.dist(s[None], t),
  'dist_mask': lambda s, t, y: losses.dist(s, t, mask=jnp.ones(3, bool)),
  'standardise': lambda s, t, y: losses.standardise(y),
  'positional': lambda s, t, y: losses.kd(s, t, 1.0),
  'text': lambda s, t, y: losses.kd(s, t, temperature='4'),
  'per_row': lambda s, t, y: losses.kd(s, t, temperature=jnp.ones(4)),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call(*_float32(STUDENT, TEACHER), jnp.asarray(LABELS))


@pytest.mark.parametrize('temperature', [0.0, -1, INF, np.nan])
def test_wrong_temperature(temperature):
  s, t = _float32(STUDENT, TEACHER)
  wrong = pytest.raises(ValueError, match='temperature=')
  with wrong:
    losses.kd(s, t, temperature=temperature)
  with wrong:
    losses.distillation(s, s, LABELS, weight=0.5, temperature=temperature)
  with wrong:
    losses.tckd(s, t, LABELS, temperature=temperature)
  with wrong:
    losses.nckd(s, t, LABELS, temperature=temperature)
  with wrong:
    losses.dkd(s, t, LABELS, temperature=temperature)
  with wrong:
    losses.dist(s, t, temperature=temperature)


@pytest.mark.parametrize('weight', [-0.1, 1.1, np.nan])
def test_wrong_weight(weight):
  s, rho = _float32(STUDENT, RHO)
  with pytest.raises(ValueError, match='weight='):
    losses.distillation(s, rho, LABELS, weight=weight, temperature=1.0)


@pytest.mark.parametrize('value', [-0.5, INF, np.nan])
def test_wrong_other_weights(value):
  s, t = _float32(STUDENT, TEACHER)
  with pytest.raises(ValueError, match='nontarget_weight='):
    losses.dkd(s, t, LABELS, nontarget_weight=value)
  with pytest.raises(ValueError, match='target_weight='):
    losses.dkd(s, t, LABELS, target_weight=value)
  with pytest.raises(ValueError, match='inter_weight='):
    losses.dist(s, t, inter_weight=value)
  with pytest.raises(ValueError, match='intra_weight='):
    losses.dist(s, t, intra_weight=value)
  with pytest.raises(ValueError, match='temperature_power='):
    losses.distillation(
      s, t, LABELS, weight=0.5, temperature=1.0, temperature_power=value
    )


def test_error_names_the_argument():
  s, t = _float32(STUDENT, TEACHER)
  with pytest.raises(TypeError, match="parameter 'teacher_logits'"):
    losses.kd(s, t[:, 1:], temperature=1.0)


# Values of published implementations.

GOLDEN = {
  'cross_entropy': (lambda s, t, y: losses.cross_entropy(s, y), 2.032560501637),
  'kd_4': (lambda s, t, y: losses.kd(s, t, temperature=4.0), 3.508641802836),
  'kd_1': (lambda s, t, y: losses.kd(s, t, temperature=1.0), 1.900618984735),
  'tckd': (functools.partial(losses.tckd, temperature=4.0), 1.283505990593),
  'nckd': (functools.partial(losses.nckd, temperature=4.0), 2.480465300208),
  'dkd': (losses.dkd, 21.127228392255),
}


@pytest.mark.parametrize(('loss', 'expected'), GOLDEN.values(), ids=GOLDEN)
def test_golden(loss, expected):
  actual = loss(*_float32(STUDENT, TEACHER), jnp.asarray(LABELS)).mean()
  np.testing.assert_allclose(actual, expected, rtol=2e-6)


# DIST and standardisation, which are not per-example losses.


def test_dist_value_and_gradient():
  s, t = _float32(STUDENT, TEACHER)
  setting = (2.0, 3.0, 4.0)
  value, gradient = _value_and_grad(DIST)(s, t)
  expected = reference.dist(STUDENT, TEACHER, *setting)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(
    gradient,
    reference.d_dist(STUDENT, TEACHER, *setting),
    rtol=1e-4,
    atol=1e-5,
  )


def test_dist_jit_and_vmap():
  s, t = _float32(STUDENT, TEACHER)
  pairs = jnp.stack([s, t]), jnp.stack([t, -t])
  each = [DIST(*pair) for pair in zip(*pairs, strict=True)]
  np.testing.assert_allclose(jax.jit(DIST)(s, t), each[0], rtol=1e-5)
  np.testing.assert_allclose(jax.jit(jax.vmap(DIST))(*pairs), each, rtol=1e-5)


def test_dist_weighs_rows_and_columns():
  s, t = _float32(STUDENT, TEACHER)
  loss = jax.jit(losses.dist)
  inter = loss(s, t, inter_weight=1.0, intra_weight=0.0)
  intra = loss(s, t, inter_weight=0.0, intra_weight=1.0)
  q, p = reference.softmax(STUDENT), reference.softmax(TEACHER)
  np.testing.assert_allclose(
    inter, 1 - reference.pearson(q, p).mean(), rtol=1e-5
  )
  np.testing.assert_allclose(
    intra, 1 - reference.pearson(q.T, p.T).mean(), rtol=1e-5
  )


def test_dist_does_not_see_scale_of_probabilities():
  s = jnp.log(jnp.array([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1]]))
  t = jnp.log(0.5 * jnp.exp(s) + 0.5 / 3)
  np.testing.assert_allclose(jax.jit(losses.dist)(s, t), 0.0, atol=1e-6)


def test_dist_of_one_example_and_of_constants():
  s, t = _float32(STUDENT[:1], TEACHER[:1])
  np.testing.assert_allclose(losses.dist(s, t, inter_weight=0.0), 1.0)
  constant = jnp.full((3, 10), 0.3)
  value, gradient = _value_and_grad(losses.dist)(constant, jnp.eye(3, 10) * 5)
  np.testing.assert_allclose(value, 2.0)
  np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize('junk', [0.0, 1e4, np.nan, INF, -INF])
def test_dist_of_tokens_leaves_masked_ones_out(junk):
  """Of both relations: as if the batch did not have them."""
  s, t = (reference.wave((2, 4, 5), *x, 3.0) for x in ((1.0, 0.0), (0.7, 0.5)))
  mask = np.array([[True, True, False, True], [True, False, False, True]])
  holes = _float32(*(np.where(mask[..., None], x, junk) for x in (s, t)))
  value, gradient = _value_and_grad(functools.partial(DIST, mask=mask))(*holes)
  rows = s[mask], t[mask]
  expected, slope = _value_and_grad(DIST)(*_float32(*rows))
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  np.testing.assert_allclose(value, reference.dist(*rows, 2, 3, 4), rtol=1e-5)
  np.testing.assert_array_equal(gradient[~mask], 0.0)
  np.testing.assert_allclose(gradient[mask], slope, rtol=1e-5, atol=1e-7)


def test_dist_of_nothing_and_of_all():
  s, t = _float32(STUDENT, TEACHER)
  masked = lambda s, t, mask: DIST(s, t, mask=mask)
  value, gradient = _value_and_grad(masked)(s, t, jnp.zeros(4, bool))
  np.testing.assert_array_equal(value, 0.0)
  np.testing.assert_array_equal(gradient, 0.0)
  value, _ = _value_and_grad(masked)(s, t, jnp.ones(4, bool))
  np.testing.assert_allclose(value, DIST(s, t), rtol=1e-6)


def test_standardise_of_tokens():
  s = reference.wave((2, 3, 5), 1.0, 0.0, 3.0)
  actual = losses.standardise(*_float32(s))
  np.testing.assert_allclose(
    actual, [reference.standardise(x) for x in s], rtol=1e-5, atol=1e-6
  )


@EACH_CASE
@pytest.mark.parametrize('junk', [np.nan, INF])
def test_masked_tokens_change_nothing(case, junk):
  """Neither value nor gradient, whatever they hold, labels too."""
  mask = np.array([[True, False], [True, True]])
  s, t = (x.reshape(2, 2, 5) for x in (STUDENT, TEACHER))
  y = LABELS.reshape(2, 2)

  def mean(s, t, y):
    s, t = (losses.blank(x, mask) for x in (s, t))
    return losses.masked_mean(case.loss(s, t, y), mask)

  holes = _float32(*(np.where(mask[..., None], x, junk) for x in (s, t)))
  value, gradient = _value_and_grad(mean)(*holes, np.where(mask, y, -1))
  rows = s[mask], t[mask], y[mask]
  np.testing.assert_allclose(value, case.value(*rows).mean(), rtol=1e-5)
  np.testing.assert_array_equal(gradient[~mask], 0.0)
  np.testing.assert_allclose(
    gradient[mask], case.gradient(*rows) / 3, rtol=1e-5, atol=1e-5
  )


def test_standardise_value_and_gradient():
  s, direction = _float32(STUDENT, TEACHER)
  np.testing.assert_allclose(
    losses.standardise(s), reference.standardise(STUDENT), rtol=1e-5, atol=1e-6
  )
  _, pullback = jax.vjp(losses.standardise, s)
  np.testing.assert_allclose(
    pullback(direction)[0],
    reference.d_standardise(STUDENT, TEACHER),
    rtol=1e-4,
    atol=1e-6,
  )


def test_standardise_jit_and_vmap():
  (s,) = _float32(STUDENT)
  eager = losses.standardise(s)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  close(jax.jit(losses.standardise)(s), eager)
  close(jax.vmap(losses.standardise)(s), eager)


def test_standardised_kd_does_not_see_shift_and_scale():
  s, t = _float32(STUDENT, TEACHER)
  z = losses.standardise
  expected = losses.kd(z(s), z(t), temperature=2.0)
  actual = losses.kd(z(7 * s + 2), z(0.2 * t - 3), temperature=2.0)
  np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_standardise_leaves_masked_classes_out():
  s = jnp.array([[-INF, 1.0, 5.0], [2.0, 2.0, -INF], [-INF, 4.0, -INF]])
  np.testing.assert_allclose(
    losses.standardise(s),
    [[-INF, -1.0, 1.0], [0.0, 0.0, -INF], [-INF, 0.0, -INF]],
    rtol=1e-6,
  )


def _first_score(s):
  return losses.standardise(s)[..., 0]


@pytest.mark.parametrize('value', [0.3, 1e4, -1e4, 0.0])
def test_standardise_of_a_constant_has_no_gradient(value):
  s = jnp.full((2, 7), value)
  value, gradient = _value_and_grad(_first_score)(s)
  np.testing.assert_array_equal(value, 0.0)
  np.testing.assert_array_equal(gradient, 0.0)


# Properties.


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_kd_decouples(temperature):
  s, t = _float32(STUDENT, TEACHER)
  p_y = targets.full(t, temperature=temperature)[jnp.arange(4), LABELS]
  target = losses.tckd(s, t, LABELS, temperature=temperature)
  others = losses.nckd(s, t, LABELS, temperature=temperature)
  np.testing.assert_allclose(
    losses.kd(s, t, temperature=temperature),
    target + (1 - p_y) * others,
    rtol=1e-5,
  )


def test_label_smoothing_is_distillation_from_the_uniform_teacher():
  (s,) = _float32(STUDENT)
  smoothing = 0.3
  uniform = losses.distillation(
    s, jnp.full((4, 5), 0.2), LABELS, weight=smoothing, temperature=1.0
  )
  smooth = targets.label_smoothing(LABELS, num_classes=5, smoothing=smoothing)
  log_q = jax.nn.log_softmax(s)
  np.testing.assert_allclose(
    uniform + smoothing * np.log(5), -jnp.sum(smooth * log_q, -1), rtol=1e-5
  )


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_kd_is_distillation_at_full_weight(temperature):
  s, t = _float32(STUDENT, TEACHER)
  np.testing.assert_allclose(
    losses.distillation(
      s,
      targets.full(t, temperature=temperature),
      LABELS,
      weight=1.0,
      temperature=temperature,
    ),
    losses.kd(s, t, temperature=temperature),
    rtol=1e-5,
  )


def test_divergence_of_equals_is_zero():
  s, _ = _float32(STUDENT, TEACHER)
  for loss in (
    functools.partial(losses.kd, temperature=4.0),
    functools.partial(losses.tckd, labels=LABELS, temperature=4.0),
    functools.partial(losses.nckd, labels=LABELS, temperature=4.0),
  ):
    np.testing.assert_array_equal(loss(s, s), 0.0)


def test_gradient_reaches_the_teacher():
  """Stopping it is the caller's decision."""
  s, t = _float32(STUDENT, TEACHER)
  gradient = _gradient(lambda t: losses.kd(s, t, temperature=2.0), t)
  assert jnp.all(jnp.abs(gradient).sum(-1) > 0)


def test_traced_hyper_parameters():
  s, t = _float32(STUDENT, TEACHER)
  grid = jnp.array([1.0, 4.0])

  def both(temperature, weight):
    rho = targets.full(t, temperature=temperature)
    return losses.distillation(
      s, rho, LABELS, weight=weight, temperature=temperature
    ), losses.dkd(s, t, LABELS, target_weight=weight, temperature=temperature)

  mapped = jax.jit(jax.vmap(both))(grid, grid / 5)
  for i, temperature in enumerate([1.0, 4.0]):
    expected = both(temperature, temperature / 5)
    for actual, wanted in zip(mapped, expected, strict=True):
      np.testing.assert_allclose(actual[i], wanted, rtol=1e-5)


def test_a_term_of_weight_zero_is_left_out():
  """Also when it is infinite, and also when the weight is traced."""
  s = jnp.array([[0.0, -INF]])
  rho, y = jnp.array([[0.0, 1.0]]), jnp.array([0])

  def loss(s, weight, rho, y):
    return losses.distillation(s, rho, y, weight=weight, temperature=1.0)[0]

  value_and_grad = jax.value_and_grad(loss)
  for call in (value_and_grad, jax.jit(value_and_grad)):
    for args in ((0.0, rho, y), (1.0, 1 - rho, 1 - y)):
      value, gradient = call(s, *args)
      assert value == 0.0
      np.testing.assert_array_equal(gradient, 0.0)
    assert call(s, 0.5, rho, y)[0] == INF


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_is_scored_in_float32(dtype):
  s, t = (x.astype(dtype) for x in _float32(STUDENT, TEACHER))
  actual = losses.kd(s, t, temperature=4.0)
  assert actual.dtype == jnp.float32
  wide = [np.asarray(x, np.float64) for x in (s, t)]
  np.testing.assert_allclose(actual, reference.kd(*wide, 4.0), rtol=1e-5)


def test_a_large_vocabulary():
  """Sums of thousands of terms of both signs; only some classes are likely."""
  s, t = (reference.wave((3, 4000), *x, 8.0) for x in ((1.0, 0.0), (0.7, 0.5)))
  y = np.array([0, 7, 3999])
  for case in (CASES['kd'], CASES['distillation_n2']):
    value, gradient = _value_and_grad(case.loss)(*_float32(s, t), y)
    expected = case.value(s, t, y).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(
      gradient, case.gradient(s, t, y), rtol=1e-4, atol=1e-6
    )


def test_curvature():
  """`Tⁿ⁻² (diag q̃ − q̃ q̃ᵀ)`, in both modes."""
  s, t = (x[0] for x in _float32(STUDENT, TEACHER))
  q = reference.softmax(STUDENT[0], 3.0)
  expected = np.diag(q) - np.outer(q, q)
  loss = functools.partial(losses.kd, temperature=3.0)
  for outer in (jax.jacfwd, jax.jacrev):
    hessian = outer(jax.grad(loss))(s, t)
    np.testing.assert_allclose(hessian, expected, rtol=1e-5, atol=1e-7)


def test_a_broken_teacher_of_weight_zero_is_left_out():
  (s,) = _float32(STUDENT)
  broken = jnp.full(s.shape, jnp.nan)
  term = lambda s, weight: losses.distillation(
    s, broken, LABELS, weight=weight, temperature=2.0
  )
  value, gradient = _value_and_grad(term)(s, 0.0)
  np.testing.assert_allclose(
    value, reference.cross_entropy(STUDENT, LABELS).sum(), rtol=1e-6
  )
  expected = reference.d_cross_entropy(STUDENT, LABELS)
  np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
  assert jnp.isnan(_value_and_grad(term)(s, 0.5)[0])


# Extremes.


EXTREMES = {
  'teacher_masks': ([1, 2, 3], [0, -INF, 1], 0),
  'both_mask': ([1, -INF, 3], [0, -INF, 1], 0),
  'teacher_one_hot': ([1, 2, 3], [0, -INF, -INF], 0),
  'teacher_one_hot_elsewhere': ([1, 2, 3], [-INF, 0, -INF], 0),
  'both_one_hot': ([1, -INF, -INF], [0, -INF, -INF], 0),
  'teacher_masks_label': ([1, 2, 3], [-INF, 1, 0], 0),
  'student_equal': ([1, 1, 1], [0, 1, 2], 0),
  'teacher_equal': ([0, 1, 2], [1, 1, 1], 0),
  'both_equal': ([0, 0, 0], [5, 5, 5], 0),
  'student_large': ([1e4, -1e4, 0], [0, 1, 2], 1),
  'teacher_large': ([0, 1, 2], [1e4, -1e4, 0], 1),
  'both_large': ([1e4, -1e4, 1], [-1e4, 1e4, 1], 2),
  'large_label': ([1e4, 0, 1], [1e4, 1, 0], 0),
  'two_classes': ([1, 2], [2, -1], 0),
  'one_class': ([3], [2], 0),
}
EACH_EXTREME = pytest.mark.parametrize(
  ('student', 'teacher', 'label'), EXTREMES.values(), ids=EXTREMES
)


def _row(*logits):
  return tuple(np.array([x], np.float64) for x in logits)


@EACH_CASE
@EACH_EXTREME
def test_extremes(case, student, teacher, label):
  s, t = _row(student, teacher)
  y = jnp.array([label])
  value, gradient = _value_and_grad(case.loss)(*_float32(s, t), y)
  assert jnp.isfinite(value)
  assert np.all(np.isfinite(gradient))
  np.testing.assert_array_equal(np.asarray(gradient)[np.isneginf(s)], 0.0)


@EACH_EXTREME
@pytest.mark.parametrize(
  'case',
  [CASES[name] for name in ('cross_entropy', 'kd', 'distillation_n2', 'tckd')],
)
def test_extreme_values(case, student, teacher, label):
  s, t = _row(student, teacher)
  y = jnp.array([label])
  value, _ = _value_and_grad(case.loss)(*_float32(s, t), y)
  expected = case.value(s, t, [label])[0]
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def _standardised(s, t):
  return losses.kd(
    losses.standardise(s), losses.standardise(t), temperature=2.0
  )


@EACH_EXTREME
@pytest.mark.parametrize('loss', [DIST, _standardised])
def test_extremes_of_dist_and_standardise(loss, student, teacher, label):
  s, t = (np.repeat(x, 2, axis=0) for x in _row(student, teacher))
  value, gradient = _value_and_grad(loss)(*_float32(s, t))
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))


def test_zero_initialised_student():
  zeros = jnp.zeros((4, 5))
  (t,) = _float32(TEACHER)
  for case in CASES.values():
    assert jnp.all(jnp.isfinite(_gradient(case.loss, zeros, t, LABELS)))


@pytest.mark.parametrize(
  'loss',
  [
    lambda s: losses.cross_entropy(s, jnp.array([1])),
    lambda s: losses.kd(s, jnp.zeros((1, 3)), temperature=2.0),
    lambda s: losses.tckd(
      s, jnp.zeros((1, 3)), jnp.array([1]), temperature=2.0
    ),
    lambda s: losses.nckd(
      s, jnp.zeros((1, 3)), jnp.array([0]), temperature=2.0
    ),
    lambda s: losses.nckd(
      s + jnp.array([[0, 0, -INF]]),
      jnp.zeros((1, 3)),
      jnp.array([0]),
      temperature=2.0,
    ),
  ],
  ids=['cross_entropy', 'kd', 'tckd', 'nckd', 'nckd_nothing_left'],
)
def test_a_masked_class_with_target_mass_is_infinitely_far(loss):
  s = jnp.array([[0.0, -INF, 1.0]])
  np.testing.assert_array_equal(loss(s), INF)
  assert jnp.all(jnp.isfinite(_gradient(loss, s)))


def test_one_hot_target_is_cross_entropy():
  (s,) = _float32(STUDENT)
  one_hot = jax.nn.one_hot(LABELS, 5)
  loss = functools.partial(losses.distillation, weight=1.0, temperature=1.0)
  np.testing.assert_allclose(
    loss(s, one_hot, LABELS), losses.cross_entropy(s, LABELS), rtol=1e-5
  )
  gradient = jax.grad(lambda rho: loss(s, rho, LABELS).sum())(one_hot)
  assert jnp.all(jnp.isfinite(gradient))


def test_nckd_of_two_classes_is_zero():
  s, t = jnp.array([[1.0, 2.0]]), jnp.array([[0.0, -3.0]])
  loss = functools.partial(losses.nckd, temperature=4.0)
  np.testing.assert_array_equal(loss(s, t, jnp.array([0])), 0.0)
  np.testing.assert_array_equal(_gradient(loss, s, t, jnp.array([0])), 0.0)


def test_nckd_keeps_small_differences_below_a_large_label():
  s = np.array([[1e4, 0.0, 0.001, 0.002]])
  t = np.array([[1e4, 0.003, 0.001, 0.0]])
  gradient = _gradient(
    functools.partial(losses.nckd, temperature=1.0),
    *_float32(s, t),
    jnp.array([0]),
  )
  np.testing.assert_allclose(
    gradient, reference.d_nckd(s, t, [0], 1.0), atol=2e-7
  )


@_each_case_but('kd')  # has no label
@pytest.mark.parametrize('label', [-1, 5, 300])
def test_a_label_that_is_no_class_gives_nan(case, label):
  loss = case.loss(*_float32(STUDENT[:1], TEACHER[:1]), jnp.array([label]))
  assert jnp.isnan(loss[0])


@pytest.mark.parametrize('dtype', [np.uint8, np.int8, np.int64])
def test_narrow_labels_with_many_classes(dtype):
  s = jnp.zeros((2, 300))
  s = s.at[1, 7].set(3.0)
  actual = losses.cross_entropy(s, np.array([0, 7], dtype))
  np.testing.assert_allclose(
    actual, [np.log(300), np.log(299 + np.exp(3)) - 3], rtol=1e-5
  )


@_each_case_but('cross_entropy')  # has no teacher
@pytest.mark.parametrize('which', [0, 1], ids=['student', 'teacher'])
def test_nan_comes_through(case, which):
  logits = list(_float32(STUDENT, TEACHER))
  logits[which] = logits[which].at[0, 1].set(jnp.nan)
  loss = case.loss(*logits, jnp.asarray(LABELS))
  np.testing.assert_array_equal(jnp.isnan(loss), [True, False, False, False])
  assert jnp.isnan(_value_and_grad(DIST)(*logits)[0])
