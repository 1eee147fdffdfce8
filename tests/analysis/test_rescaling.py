"""Gradient rescaling: each equation against another derivation."""

import decimal
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from gradient_cases import (
  INF,
  LABELS,
  SETTING,
  STUDENT,
  TEACHER,
  distillation_gradient,
  factor_of,
  factor_reference,
  float32,
  one_row,
  value_and_grad,
)

from kdjax import losses, targets
from kdjax.analysis import gradients, rescaling

# The factor of distillation.


@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_both_ratios_of_gradients_are_the_rescaling_factor(temperature, power):
  s, t = float32(STUDENT, TEACHER)
  gradient = distillation_gradient(temperature, power)(s, t, LABELS)
  plain = jax.grad(lambda s: losses.cross_entropy(s, LABELS).sum())(s)
  hot = reference.one_hot(LABELS, 5)
  w = rescaling.rescaling_factor(
    s,
    t,
    LABELS,
    weight=0.7,
    temperature=temperature,
    temperature_power=power,
  )
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  close(w, (gradient * hot).sum(-1) / (plain * hot).sum(-1))
  others = 1 - hot
  close(w, (gradient * others).sum(-1) / (plain * others).sum(-1))


def _exact_factor(s, t, y, weight, temperature, power):
  """The formula itself, subtraction from one included, with 120 digits."""
  with decimal.localcontext() as context:
    context.prec = 120
    number = lambda x: decimal.Decimal(float(x))

    def softmax(logits, temperature):
      odds = [(number(x) / number(temperature)).exp() for x in logits]
      return [x / sum(odds) for x in odds]

    gap = softmax(t, temperature)[y] - softmax(s, temperature)[y]
    scale = number(weight) * number(temperature) ** (power - 1)
    return float(1 - number(weight) + scale * gap / (1 - softmax(s, 1)[y]))


# The margin of the label, as the number of nines in q_y.
NINES = [0, 1, 2, 4, 7, 8, 10, 12, 16, 20, 26, 30]
OTHERS = np.array([0.3, -1.1, 0.9, -0.4])
TEACHERS = {
  'same': lambda s: s,
  'surer': lambda s: s + np.array([2.0, 0, 0.5, -0.5, 0.1]),
  'less_sure': lambda s: s - np.array([1.0, 0, 0.5, -0.5, 0.1]),
  'nearly_equal': lambda s: s + np.array([1e-3, 2e-4, -1e-4, -3e-4, 0]),
  'nearly_equal_below': lambda s: s - np.array([1e-3, 2e-4, -1e-4, -3e-4, 0]),
  'as_sure_with_other_relations': lambda s: s[[0, 3, 1, 4, 2]] + 0.01 * s,
  'very_sure': lambda s: np.array([60.0, 1, 2, 0, -1]),
  'unsure': lambda s: np.array([0.5, 1, 2, 0, -1]),
  'wrong': lambda s: np.array([-40.0, 1, 2, 0, -1]),
}


@pytest.mark.parametrize(
  'setting', [(1.0, 1.0, 0), (1.0, 4.0, 0), (0.9, 4.0, 2), (0.5, 0.5, 2)]
)
@pytest.mark.parametrize('teacher', TEACHERS.values(), ids=TEACHERS)
def test_the_factor_is_exact_near_confidence(teacher, setting):
  margin = np.log(10.0) * np.array(NINES) + np.log(np.exp(OTHERS).sum())
  s = np.stack([np.array([m, *OTHERS]) for m in margin]).astype(np.float32)
  t = np.stack([teacher(row) for row in s]).astype(np.float32)
  y = np.zeros(len(NINES), int)
  weight, temperature, power = setting
  actual = rescaling.rescaling_factor(
    s,
    t,
    y,
    weight=weight,
    temperature=temperature,
    temperature_power=power,
  )
  expected = [
    _exact_factor(*row, *setting) for row in zip(s, t, y, strict=True)
  ]
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize(
  ('student', 'teacher'), [(60.0, 61.0), (60.0, 20.0), (-60.0, 3.0)]
)
def test_the_gradient_of_the_factor_near_confidence(student, teacher):
  """With two classes and T = 1: w = 0.3 + 0.7 · (1 − (1−p_y) / (1−q_y))."""
  odds = np.exp(-teacher) / (1 + np.exp(-teacher))
  value, gradient = value_and_grad(TWO_CLASSES)(
    *float32(*one_row([student, 0.0], [teacher, 0.0])), np.array([0])
  )
  shift = 0.7 * odds * np.exp(student)  # d/ds_y of 1/(1−q_y) is exp(s_y)
  np.testing.assert_allclose(
    value, [1 - 0.7 * odds * (1 + np.exp(student))], rtol=1e-5
  )
  np.testing.assert_allclose(gradient, [[-shift, shift]], rtol=1e-5, atol=1e-6)


TWO_CLASSES = functools.partial(
  rescaling.rescaling_factor, weight=0.7, temperature=1.0
)


def test_gradient_where_student_and_teacher_agree():
  """The two branches of the gap meet there."""
  s = np.array([[0.4, -0.2, 1.1]])
  y = np.array([1])
  _, gradient = value_and_grad(TWO_CLASSES)(*float32(s, s), y)
  q = reference.softmax(s)[0]
  hot = reference.one_hot(1, 3)
  expected = -0.7 * q[1] * (hot - q) / (1 - q[1])
  np.testing.assert_allclose(gradient[0], expected, rtol=1e-5)


def _proposition(power):
  """Draws p̃_y = q̃_y + c + η with E[η] = 0; returns the factors and mean η."""
  gap, samples, temperature = 0.1, 20_000, 3.0
  s = np.array([2.0, 0.0, 1.0, -1.0])
  noise = np.random.default_rng(0).uniform(-0.25, 0.25, samples)
  p_y = reference.softmax(s, temperature)[0] + gap + noise
  others = (1 - p_y)[:, None] * np.array([0.5, 0.3, 0.2])
  t = temperature * np.log(np.concatenate([p_y[:, None], others], axis=1))
  factors = rescaling.rescaling_factor(
    *float32(np.tile(s, (samples, 1)), t),
    np.zeros(samples, int),
    **SETTING,
    temperature_power=power,
  )
  q_y = reference.softmax(s)[0]
  mean = rescaling.expected_rescaling_factor(q_y, gap, **SETTING)
  return np.asarray(factors, np.float64), float(mean), noise.mean() / (1 - q_y)


def test_the_proposition_is_the_mean_of_the_factor():
  """Within 3 standard errors of 20,000 draws; nearer, of the same noise."""
  factors, mean, noise = _proposition(power=0)
  error = factors.std() / np.sqrt(len(factors))
  assert error < 0.01 * mean
  assert abs(factors.mean() - mean) < 3 * error
  np.testing.assert_allclose(factors.mean(), mean + 0.7 / 3 * noise, rtol=1e-5)


def test_the_proposition_is_not_of_the_squared_temperature():
  """With n = 2 the mean is another: T² times as much comes from the teacher."""
  factors, mean, _ = _proposition(power=2)
  error = factors.std() / np.sqrt(len(factors))
  assert abs(factors.mean() - mean) > 30 * error
  assert abs(factors.mean() - (0.3 + 9 * (mean - 0.3))) < 3 * error


def test_expected_factor():
  q_y, gap = np.array([0.0, 0.5, 0.9]), np.array([-0.1, 0.2, 0.05])
  expected = rescaling.expected_rescaling_factor
  wanted = 0.3 + 0.7 / 3 * gap / (1 - q_y)
  np.testing.assert_allclose(expected(q_y, gap, **SETTING), wanted, rtol=1e-5)
  np.testing.assert_allclose(
    jax.jit(functools.partial(expected, **SETTING))(q_y, gap), wanted, rtol=1e-5
  )
  each = [expected(*pair, **SETTING) for pair in zip(q_y, gap, strict=True)]
  assert each[0].shape == ()
  np.testing.assert_allclose(each, wanted, rtol=1e-5)
  np.testing.assert_allclose(
    expected(q_y, 0.2, **SETTING), 0.3 + 0.7 / 3 * 0.2 / (1 - q_y), rtol=1e-5
  )
  assert expected(0, 0.0, weight=1, temperature=2) == 0.0
  slope = jax.grad(lambda q: expected(q, 0.2, **SETTING))(0.5)
  np.testing.assert_allclose(slope, 0.7 / 3 * 0.2 / 0.25, rtol=1e-5)
  assert expected(1.0, 0.1, **SETTING) == INF
  half = expected(jnp.array([0.3], jnp.bfloat16), 0.1, **SETTING)
  assert half.dtype == jnp.float32


# The factor of any loss.


def _distillation(power):
  def loss(s, y, t):
    rho = targets.full(t, temperature=3.0)
    return losses.distillation(s, rho, y, **SETTING, temperature_power=power)

  return loss


@pytest.mark.parametrize('power', [0, 2])
def test_factor_of_kd(power):
  s, t = float32(STUDENT, TEACHER)
  loss = _distillation(power)
  actual = factor_of(loss)(s, LABELS, t)
  expected = factor_reference(STUDENT, TEACHER, LABELS, 0.7, 3.0, power)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  np.testing.assert_allclose(
    actual,
    rescaling.rescaling_factor(
      s, t, LABELS, **SETTING, temperature_power=power
    ),
    rtol=1e-5,
  )


def test_factor_of_cross_entropy_is_one():
  (s,) = float32(STUDENT)
  ones = factor_of(losses.cross_entropy)(s, LABELS)
  np.testing.assert_allclose(ones, 1.0, rtol=1e-5)


def test_factor_of_dkd_is_that_of_its_target_term():
  """NCKD moves the other classes against each other alone."""
  s, t = float32(STUDENT, TEACHER)
  loss = lambda s, y, t: losses.dkd(
    s, t, y, target_weight=1.5, nontarget_weight=6.0, temperature=3.0
  )
  expected = factor_reference(STUDENT, TEACHER, LABELS, 1.0, 3.0, 2)
  np.testing.assert_allclose(
    factor_of(loss)(s, LABELS, t),
    1.5 * expected,
    rtol=1e-4,
  )


def test_factor_of_topk():
  """A teacher that only keeps two classes is less sure of some labels."""
  s, t = float32(STUDENT, TEACHER)

  def loss(s, y, t):
    rho = targets.topk(targets.full(t, temperature=3.0), k=2)
    return losses.distillation(s, rho, y, **SETTING)

  rho = reference.topk(reference.softmax(TEACHER, 3.0), 2)
  np.testing.assert_allclose(
    factor_of(loss)(s, LABELS, t),
    factor_reference(STUDENT, 3.0 * np.log(rho), LABELS, 0.7, 3.0, 2),
    rtol=1e-5,
  )


def test_factor_of_a_loss_under_jit_vmap_and_grad():
  s, t = float32(STUDENT, TEACHER)
  factor = functools.partial(rescaling.rescaling_factor_of, _distillation(2))
  eager = factor(s, LABELS, t)
  np.testing.assert_allclose(jax.jit(factor)(s, LABELS, t), eager, rtol=1e-5)
  pairs = (x.reshape(2, 2, *x.shape[1:]) for x in (s, jnp.asarray(LABELS), t))
  mapped = jax.jit(jax.vmap(factor))(*pairs)
  np.testing.assert_allclose(mapped.reshape(4), eager, rtol=1e-5)
  total = lambda factor: jax.jit(jax.grad(lambda s: factor(s).sum()))(s)
  np.testing.assert_allclose(
    total(lambda s: factor(s, LABELS, t)),
    total(lambda s: rescaling.rescaling_factor(s, t, LABELS, **SETTING)),
    rtol=1e-4,
    atol=1e-5,
  )


def test_factor_of_a_very_confident_student():
  """Its 1 − q_y is no normal float32 any more, but the factor is one."""
  s, t = np.array([[98.0, 1.0, 0.0]]), np.array([[140.0, 1.0, 0.0]])
  factor = factor_of(lambda s, y, t: losses.kd(s, t, temperature=4.0))
  actual = factor(*float32(s), np.array([0]), *float32(t))
  expected = [_exact_factor(s[0], t[0], 0, 1.0, 4.0, 2)]
  np.testing.assert_allclose(actual, expected, rtol=5e-5)


def test_factor_from_a_gradient_is_that_of_its_loss():
  """In a batch of two axes."""
  s, t = float32(STUDENT, TEACHER)
  g = gradients.kd_logit_gradient(s, t, LABELS, **SETTING)
  pairs = (x.reshape(2, 2, *x.shape[1:]) for x in (g, s, LABELS))
  actual = jax.jit(rescaling.rescaling_factor_from)(*pairs)
  assert actual.shape == (2, 2)
  expected = factor_reference(STUDENT, TEACHER, LABELS, 0.7, 3.0, 2)
  np.testing.assert_allclose(actual.reshape(4), expected, rtol=1e-5)


# Extremes.


@pytest.mark.parametrize('weight', [0.0, 0.7, 1.0])
def test_without_incorrect_classes_there_is_no_factor(weight):
  """Both gradients are zero; the other row does not notice."""
  s = jnp.array([[-INF, 2.0, -INF], [1.0, 2.0, 3.0]])
  t = jnp.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
  y = np.array([1, 0])
  factor = functools.partial(
    rescaling.rescaling_factor, weight=weight, temperature=2.0
  )
  value, gradient = value_and_grad(factor)(s, t, y)
  np.testing.assert_array_equal(jnp.isnan(value), [True, False])
  assert jnp.all(jnp.isfinite(gradient))


def test_without_incorrect_classes_there_is_no_factor_of_a_loss():
  s = jnp.array([[-INF, 2.0, -INF], [1.0, 2.0, 3.0]])
  value = factor_of(losses.cross_entropy)(s, np.array([1, 0]))
  np.testing.assert_allclose(value, [np.nan, 1.0], rtol=1e-5)


def test_a_factor_beyond_float32_is_infinite():
  s, t, y = jnp.array([[1e4, 0.0]]), jnp.zeros((1, 2)), np.array([0])
  factor = functools.partial(rescaling.rescaling_factor, temperature=2.0)
  np.testing.assert_array_equal(factor(s, t, y, weight=0.5), -INF)
  np.testing.assert_array_equal(factor(t, s, y, weight=0.5), 1.5)
  np.testing.assert_array_equal(factor(s, t, y, weight=0.0), 1.0)


def test_masked_classes_of_any_loss():
  s, t = jnp.array([[1.0, -INF, 3.0]]), jnp.array([[0.0, -INF, 1.0]])
  y = np.array([0])
  np.testing.assert_allclose(
    factor_of(_distillation(2))(s, y, t),
    rescaling.rescaling_factor(s, t, y, **SETTING),
    rtol=1e-5,
  )


def test_half_precision_of_any_loss():
  s, t = (x.astype(jnp.bfloat16) for x in float32(STUDENT, TEACHER))
  actual = factor_of(_distillation(2))(s, LABELS, t)
  assert actual.dtype == jnp.float32
  wide = [np.asarray(x, np.float64) for x in (s, t)]
  expected = factor_reference(*wide, LABELS, 0.7, 3.0, 2)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
