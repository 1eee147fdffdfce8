"""Gradients of distillation: each equation against another derivation."""

import decimal
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kdjax import analysis, losses, targets
from kdjax.analysis import gradients, rescaling

STUDENT = reference.wave((4, 5), 1.0, 0.0, 3.0)
TEACHER = reference.wave((4, 5), 0.7, 0.5, 3.0)
LABELS = np.array([0, 2, 4, 1])
CLASS_PROBS = reference.softmax(reference.wave((5, 5), 0.4, 0.8, 2.0))
SETTING = {'weight': 0.7, 'temperature': 3.0}
PARTS = {'class_probs': jnp.asarray(CLASS_PROBS), 'smoothing': 0.2, **SETTING}
INF = np.inf


class Case(NamedTuple):
  """An analysis of (s, t, y) and its float64 reference."""

  analysis: object
  value: object


def _gradient_reference(s, t, y, weight, temperature, power):
  p = reference.softmax(t, temperature)
  return reference.d_distillation(s, p, y, weight, temperature, power)


def _factor_reference(s, t, y, weight, temperature, power):
  at_label = lambda x: (x * reference.one_hot(y, s.shape[-1])).sum(-1)
  soft = [at_label(reference.softmax(x, temperature)) for x in (s, t)]
  return (1 - weight) + weight * temperature ** (power - 1) * (
    soft[1] - soft[0]
  ) / (1 - at_label(reference.softmax(s)))


def _share_reference(s, t, y, weight, temperature, power):
  norm = lambda x: np.linalg.norm(x, axis=-1)
  ours = norm((1 - weight) * reference.d_cross_entropy(s, y))
  kd = reference.d_kd(s, t, temperature) / temperature
  theirs = norm(weight * temperature ** (power - 1) * kd)
  return theirs / (ours + theirs)


def _parts_reference(s, t, y, rho, smoothing, weight, temperature, power):
  num_classes = s.shape[-1]
  hot = reference.one_hot(y, num_classes)
  q, soft = reference.softmax(s), reference.softmax(s, temperature)
  f = weight * temperature ** (power - 1)
  smooth = (1 - smoothing) * hot + smoothing * (1 - hot) / (num_classes - 1)
  return np.stack(
    [
      (1 - weight) * (q - hot) + f * (soft - hot),
      f * (hot - smooth),
      f * (smooth - rho[y]),
      f * (rho[y] - reference.softmax(t, temperature)),
    ],
    axis=-1,
  )


def _parts(s, t, y, **setting):
  return jnp.stack(gradients.gradient_parts(s, t, y, **setting), axis=-1)


def _case(analysis, value, power):
  return Case(
    functools.partial(analysis, **SETTING, temperature_power=power),
    lambda s, t, y: value(s, t, y, 0.7, 3.0, power),
  )


CASES = {
  'gradient_n0': _case(gradients.kd_logit_gradient, _gradient_reference, 0),
  'gradient_n2': _case(gradients.kd_logit_gradient, _gradient_reference, 2),
  'factor_n0': _case(rescaling.rescaling_factor, _factor_reference, 0),
  'factor_n2': _case(rescaling.rescaling_factor, _factor_reference, 2),
  'share_n0': _case(gradients.teacher_share, _share_reference, 0),
  'share_n2': _case(gradients.teacher_share, _share_reference, 2),
  'parts_n0': Case(
    functools.partial(_parts, **PARTS, temperature_power=0),
    lambda s, t, y: _parts_reference(s, t, y, CLASS_PROBS, 0.2, 0.7, 3.0, 0),
  ),
  'parts_n2': Case(
    functools.partial(_parts, **PARTS, temperature_power=2),
    lambda s, t, y: _parts_reference(s, t, y, CLASS_PROBS, 0.2, 0.7, 3.0, 2),
  ),
}
EACH_CASE = pytest.mark.parametrize('case', CASES.values(), ids=CASES)
# One power does: the other differs by a constant.
EACH_ANALYSIS = pytest.mark.parametrize(
  'case', [CASES[k] for k in CASES if k.endswith('n2')]
)


def _float32(*arrays):
  return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


def _row(*logits):
  return tuple(np.array([x], np.float64) for x in logits)


@functools.cache
def _value_and_grad(analysis):
  """Compiled once per analysis and shape; the gradient is of a sum."""

  def total(s, t, y):
    value = analysis(s, t, y)
    # The parts of a row add up to zero: weigh them, to see their gradients.
    weights = 1.0 + jnp.arange(value.size, dtype=value.dtype)
    return jnp.sum(value * weights.reshape(value.shape)), value

  pair = jax.jit(jax.value_and_grad(total, has_aux=True))

  def call(s, t, y):
    (_, value), gradient = pair(s, t, y)
    return value, gradient

  return call


@functools.cache
def _distillation_gradient(temperature, power):
  """By differentiation of the loss that is trained on."""

  def loss(s, t, y):
    return losses.distillation(
      s,
      targets.full(t, temperature=temperature),
      y,
      weight=0.7,
      temperature=temperature,
      temperature_power=power,
    ).sum()

  return jax.jit(jax.grad(loss))


# The five checks.


@EACH_CASE
@pytest.mark.parametrize('batch', [(), (2, 2)])
def test_value(case, batch):
  size = int(np.prod(batch))
  s, t = (x[:size].reshape(*batch, 5) for x in (STUDENT, TEACHER))
  y = LABELS[:size].reshape(batch)
  actual = case.analysis(*_float32(s, t), y)
  expected = case.value(s, t, y)
  assert actual.shape == expected.shape
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@EACH_ANALYSIS
def test_gradient(case):
  """Against central differences of the float64 reference."""
  _, actual = _value_and_grad(case.analysis)(
    *_float32(STUDENT, TEACHER), LABELS
  )
  weights = 1.0 + np.arange(case.value(STUDENT, TEACHER, LABELS).size)
  total = lambda s: np.sum(case.value(s, TEACHER, LABELS).ravel() * weights)
  expected = np.empty_like(STUDENT)
  for index in np.ndindex(STUDENT.shape):
    step = np.zeros_like(STUDENT)
    step[index] = 1e-5
    expected[index] = (total(STUDENT + step) - total(STUDENT - step)) / 2e-5
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@EACH_ANALYSIS
def test_jit_and_vmap(case):
  args = (*_float32(STUDENT, TEACHER), jnp.asarray(LABELS))
  eager = case.analysis(*args)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  close(jax.jit(case.analysis)(*args), eager)
  close(jax.jit(jax.vmap(case.analysis))(*args), eager)


def _call(name, s, t, y, **changes):
  setting = PARTS if name == 'gradient_parts' else SETTING
  return getattr(analysis, name)(s, t, y, **{**setting, **changes})


EACH_NAME = pytest.mark.parametrize(
  'name',
  ['kd_logit_gradient', 'rescaling_factor', 'gradient_parts', 'teacher_share'],
)
BAD = {
  'classes': lambda name, s, t, y: _call(name, s, t[:, 1:], y),
  'batch': lambda name, s, t, y: _call(name, s, t[:1], y),
  'broadcast': lambda name, s, t, y: _call(name, s, t[0], y),
  'labels': lambda name, s, t, y: _call(name, s, t, y[1:]),
  'float_labels': lambda name, s, t, y: _call(name, s, t, y * 1.0),
  'integer_logits': lambda name, s, t, y: _call(name, s.astype(int), t, y),
  'text': lambda name, s, t, y: _call(name, s, t, y, weight='0.5'),
  'per_row': lambda name, s, t, y: _call(
    name, s, t, y, temperature=jnp.ones(4)
  ),
}


@EACH_NAME
@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(name, call):
  with pytest.raises(TypeError):
    call(name, *_float32(STUDENT, TEACHER), LABELS)


@EACH_NAME
@pytest.mark.parametrize(
  ('setting', 'wrong'),
  [
    ('weight', -0.1),
    ('weight', 1.1),
    ('weight', np.nan),
    ('temperature', 0),
    ('temperature', -1.0),
    ('temperature', INF),
    ('temperature_power', -1),
    ('temperature_power', np.nan),
  ],
)
def test_out_of_range(name, setting, wrong):
  with pytest.raises(ValueError, match=f'^{setting}={wrong} must'):
    _call(name, STUDENT, TEACHER, LABELS, **{setting: wrong})


OTHER_BAD = {
  'class_probs': lambda s, t, y: _call(
    'gradient_parts', s, t, y, class_probs=s
  ),
  'positional': lambda s, t, y: rescaling.rescaling_factor(s, t, y, 0.5, 1.0),
  'mean_of_other_labels': lambda s, t, y: gradients.class_mean_probs(s, y[1:]),
  'mean_of_one_row': lambda s, t, y: gradients.class_mean_probs(s[0], y[0]),
  'unequal': lambda s, t, y: rescaling.expected_rescaling_factor(
    s[:, 0], t[1:, 0], **SETTING
  ),
  'loss': lambda s, t, y: rescaling.rescaling_factor_of('kd', s, y, t),
  'no_scalar': lambda s, t, y: rescaling.rescaling_factor_of(
    lambda s, y, t: s - t, s, y, t
  ),
  'others': lambda s, t, y: rescaling.rescaling_factor_of(_kd, s, y, t[1:]),
  'gradient': lambda s, t, y: rescaling.rescaling_factor_from(s[1:], s, y),
  'share': lambda s, t, y: gradients.teacher_share_from(
    s, s, y[1:], label_weight=1.0
  ),
  'one_row': lambda s, t, y: rescaling.rescaling_factor_of(_kd, s[0], y[0]),
}


def _kd(s, y, t):
  return losses.kd(s, t, temperature=2.0)


@pytest.mark.parametrize('call', OTHER_BAD.values(), ids=OTHER_BAD)
def test_wrong_shape_or_type_elsewhere(call):
  with pytest.raises(TypeError):
    call(*_float32(STUDENT, TEACHER), LABELS)


def test_out_of_range_elsewhere():
  with pytest.raises(ValueError, match=r'smoothing=1\.5'):
    _call('gradient_parts', STUDENT, TEACHER, LABELS, smoothing=1.5)
  expected = functools.partial(rescaling.expected_rescaling_factor, 0.5, 0.1)
  with pytest.raises(ValueError, match='weight=2'):
    expected(weight=2, temperature=1.0)
  with pytest.raises(ValueError, match='temperature=0'):
    expected(weight=0.5, temperature=0)
  with pytest.raises(ValueError, match=r'student_confidence=1\.5'):
    rescaling.expected_rescaling_factor(1.5, 0.1, **SETTING)
  with pytest.raises(ValueError, match='label_weight=-1'):
    gradients.teacher_share_from(STUDENT, STUDENT, LABELS, label_weight=-1)


@pytest.mark.parametrize(
  'call',
  [
    lambda s, y: _call('rescaling_factor', s, s, y),
    lambda s, y: _call('gradient_parts', s, s, y, class_probs=jnp.ones((1, 1))),
    lambda s, y: rescaling.rescaling_factor_of(_kd, s, y, s),
    lambda s, y: rescaling.rescaling_factor_from(s, s, y),
  ],
  ids=['factor', 'parts', 'factor_of', 'factor_from'],
)
def test_one_class_has_no_incorrect_one(call):
  with pytest.raises(ValueError, match=r'student_logits .* at least 2 classes'):
    call(jnp.zeros((2, 1)), np.zeros(2, int))


# Section 1: the gradient of the distillation loss.


@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_equation_of_the_gradient(temperature, power):
  s, t = _float32(STUDENT, TEACHER)
  actual = gradients.kd_logit_gradient(
    s,
    t,
    LABELS,
    weight=0.7,
    temperature=temperature,
    temperature_power=power,
  )
  automatic = _distillation_gradient(temperature, power)(s, t, LABELS)
  np.testing.assert_allclose(actual, automatic, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
    actual,
    _gradient_reference(STUDENT, TEACHER, LABELS, 0.7, temperature, power),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize('power', [0, 2])
def test_label_smoothing_is_the_uniform_teacher(power):
  """T = 1 and λ = ε; then n does not matter."""
  (s,) = _float32(STUDENT)
  setting = {'weight': 0.3, 'temperature': 1.0, 'temperature_power': power}
  uniform = jnp.zeros_like(s)
  smooth = targets.label_smoothing(LABELS, num_classes=5, smoothing=0.3)
  np.testing.assert_allclose(
    gradients.kd_logit_gradient(s, uniform, LABELS, **setting),
    reference.softmax(STUDENT) - smooth,
    rtol=1e-5,
    atol=1e-6,
  )
  q_y = np.take_along_axis(reference.softmax(STUDENT), LABELS[:, None], 1)[:, 0]
  np.testing.assert_allclose(
    rescaling.rescaling_factor(s, uniform, LABELS, **setting),
    1 - 0.3 * (4 / 5) / (1 - q_y),
    rtol=1e-5,
  )


def test_two_classes_that_disagree():
  """q_i + p_i rounds to one or more for both: neither is the sure one."""
  margin = np.linspace(0.1, 9.0, 90)
  s = np.stack([margin, np.zeros(90)], axis=1)
  gap = np.tanh(margin / 2)
  np.testing.assert_allclose(
    gradients.kd_logit_gradient(
      *_float32(s, -s), np.zeros(90, int), weight=1.0, temperature=1.0
    ),
    np.stack([gap, -gap], axis=1),
    rtol=1e-5,
  )


@pytest.mark.parametrize('label', [0, 1])
def test_small_gradients_add_up_to_zero(label):
  """Of two confident models: 1 − q would be 0 in float32."""
  s, t = np.array([[30.0, 0.0]]), np.array([[28.0, 0.0]])
  small = np.exp(-30) / (1 + np.exp(-30)), np.exp(-28) / (1 + np.exp(-28))
  ours, theirs = 0.3 * small[0], 0.7 * (small[0] - small[1])
  expected = [[-ours - theirs, ours + theirs]]
  if label:  # only the teacher's term is small then, and rounding hides it
    expected = [[0.3, -0.3]]
  actual = gradients.kd_logit_gradient(
    *_float32(s, t), jnp.array([label]), weight=0.7, temperature=1.0
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


# Section 2: gradient rescaling.


@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_both_ratios_of_gradients_are_the_rescaling_factor(temperature, power):
  s, t = _float32(STUDENT, TEACHER)
  gradient = _distillation_gradient(temperature, power)(s, t, LABELS)
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
  value, gradient = _value_and_grad(TWO_CLASSES)(
    *_float32(*_row([student, 0.0], [teacher, 0.0])), np.array([0])
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
  _, gradient = _value_and_grad(TWO_CLASSES)(*_float32(s, s), y)
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
    *_float32(np.tile(s, (samples, 1)), t),
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


def _factor_of(loss):
  return jax.jit(functools.partial(rescaling.rescaling_factor_of, loss))


def _distillation(power):
  def loss(s, y, t):
    rho = targets.full(t, temperature=3.0)
    return losses.distillation(s, rho, y, **SETTING, temperature_power=power)

  return loss


@pytest.mark.parametrize('power', [0, 2])
def test_factor_of_kd(power):
  s, t = _float32(STUDENT, TEACHER)
  loss = _distillation(power)
  actual = _factor_of(loss)(s, LABELS, t)
  expected = _factor_reference(STUDENT, TEACHER, LABELS, 0.7, 3.0, power)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  np.testing.assert_allclose(
    actual,
    rescaling.rescaling_factor(
      s, t, LABELS, **SETTING, temperature_power=power
    ),
    rtol=1e-5,
  )


def test_factor_of_cross_entropy_is_one():
  (s,) = _float32(STUDENT)
  ones = _factor_of(losses.cross_entropy)(s, LABELS)
  np.testing.assert_allclose(ones, 1.0, rtol=1e-5)


def test_factor_of_dkd_is_that_of_its_target_term():
  """NCKD moves the other classes against each other alone."""
  s, t = _float32(STUDENT, TEACHER)
  loss = lambda s, y, t: losses.dkd(
    s, t, y, target_weight=1.5, nontarget_weight=6.0, temperature=3.0
  )
  expected = _factor_reference(STUDENT, TEACHER, LABELS, 1.0, 3.0, 2)
  np.testing.assert_allclose(
    _factor_of(loss)(s, LABELS, t),
    1.5 * expected,
    rtol=1e-4,
  )


def test_factor_of_topk():
  """A teacher that only keeps two classes is less sure of some labels."""
  s, t = _float32(STUDENT, TEACHER)

  def loss(s, y, t):
    rho = targets.topk(targets.full(t, temperature=3.0), k=2)
    return losses.distillation(s, rho, y, **SETTING)

  rho = reference.topk(reference.softmax(TEACHER, 3.0), 2)
  np.testing.assert_allclose(
    _factor_of(loss)(s, LABELS, t),
    _factor_reference(STUDENT, 3.0 * np.log(rho), LABELS, 0.7, 3.0, 2),
    rtol=1e-5,
  )


def test_factor_of_a_loss_under_jit_vmap_and_grad():
  s, t = _float32(STUDENT, TEACHER)
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
  factor = _factor_of(lambda s, y, t: losses.kd(s, t, temperature=4.0))
  actual = factor(*_float32(s), np.array([0]), *_float32(t))
  expected = [_exact_factor(s[0], t[0], 0, 1.0, 4.0, 2)]
  np.testing.assert_allclose(actual, expected, rtol=5e-5)


def test_factor_from_a_gradient_is_that_of_its_loss():
  """In a batch of two axes."""
  s, t = _float32(STUDENT, TEACHER)
  g = gradients.kd_logit_gradient(s, t, LABELS, **SETTING)
  pairs = (x.reshape(2, 2, *x.shape[1:]) for x in (g, s, LABELS))
  actual = jax.jit(rescaling.rescaling_factor_from)(*pairs)
  assert actual.shape == (2, 2)
  expected = _factor_reference(STUDENT, TEACHER, LABELS, 0.7, 3.0, 2)
  np.testing.assert_allclose(actual.reshape(4), expected, rtol=1e-5)


# The parts.


@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('smoothing', [0.0, 0.3, 1])
@pytest.mark.parametrize('class_probs', [CLASS_PROBS, np.eye(5)])
def test_parts_add_up_to_the_gradient(class_probs, smoothing, power):
  s, t = _float32(STUDENT, TEACHER)
  parts = gradients.gradient_parts(
    s,
    t,
    LABELS,
    class_probs=class_probs,
    smoothing=smoothing,
    **SETTING,
    temperature_power=power,
  )
  whole = gradients.kd_logit_gradient(
    s, t, LABELS, **SETTING, temperature_power=power
  )
  np.testing.assert_allclose(sum(parts), whole, rtol=1e-5, atol=1e-6)


def _parts_of(teacher_probs):
  """The parts for a teacher as given, with its own means."""
  temperature = SETTING['temperature']
  with np.errstate(divide='ignore'):
    s, t = _float32(STUDENT, temperature * np.log(teacher_probs))
  probs = targets.full(t, temperature=temperature)
  p_y = np.take_along_axis(np.asarray(probs), LABELS[:, None], 1)
  return gradients.gradient_parts(
    s,
    t,
    LABELS,
    class_probs=gradients.class_mean_probs(probs, LABELS),
    smoothing=float(np.clip(np.mean(1 - p_y), 0, 1)),
    **SETTING,
  )


def _assert_parts(parts, present):
  for name, part in parts._asdict().items():
    if name in present:
      assert jnp.all(jnp.abs(part).max(-1) > 0.01), name
    else:
      np.testing.assert_allclose(part, 0.0, atol=1e-6, err_msg=name)


def test_a_one_hot_teacher_is_the_label():
  parts = _parts_of(reference.one_hot(LABELS, 5))
  _assert_parts(parts, ['label'])
  for part in parts[1:]:
    np.testing.assert_array_equal(part, 0.0)


def test_a_label_smoothed_teacher_knows_the_universe():
  hot = reference.one_hot(LABELS, 5)
  _assert_parts(
    _parts_of(0.7 * hot + 0.3 * (1 - hot) / 4), ['label', 'smoothing']
  )


def test_a_teacher_that_sees_the_label_alone_knows_the_domain():
  _assert_parts(
    _parts_of(CLASS_PROBS[LABELS]), ['label', 'smoothing', 'class_relations']
  )


def test_a_teacher_that_sees_the_example_has_every_part():
  labels_twice = np.array([1, 1, 2, 2])
  probs = reference.softmax(TEACHER, 3.0)
  parts = gradients.gradient_parts(
    *_float32(STUDENT, TEACHER),
    labels_twice,
    class_probs=gradients.class_mean_probs(*_float32(probs), labels_twice),
    smoothing=0.5,
    **SETTING,
  )
  _assert_parts(parts, gradients.GradientParts._fields)
  # What is special to the examples of a class is nothing on their average.
  for pair in (slice(0, 2), slice(2, 4)):
    np.testing.assert_allclose(parts.instance[pair].sum(0), 0.0, atol=1e-6)


# Class means.


def test_class_means():
  probs = reference.softmax(reference.wave((40, 5), 1.3, 0.2, 2.0))
  labels = np.array([0, 1, 1, 4] * 10)
  expected = np.stack(
    [
      probs[labels == k].mean(0) if np.any(labels == k) else np.full(5, 0.2)
      for k in range(5)
    ]
  )
  actual = gradients.class_mean_probs(*_float32(probs), labels)
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, expected, rtol=1e-6)
  for narrow in (np.uint8, np.int64):
    same = jax.jit(gradients.class_mean_probs)(probs, labels.astype(narrow))
    np.testing.assert_allclose(same, expected, rtol=1e-6)
  pairs = probs.reshape(2, 20, 5), labels.reshape(2, 20)
  for half, *given in zip(
    jax.vmap(gradients.class_mean_probs)(*pairs), *pairs, strict=True
  ):
    alone = gradients.class_mean_probs(*given)
    np.testing.assert_allclose(half, alone, rtol=1e-6)


def test_the_mean_of_many_examples_does_not_drift():
  """A plain sum of these in float32 is wrong in the fourth digit."""
  probs = np.full((50_000, 2), [0.1, 0.9], np.float32)
  labels = np.zeros(len(probs), np.int32)
  actual = gradients.class_mean_probs(probs, labels)
  np.testing.assert_allclose(actual, [[0.1, 0.9], [0.5, 0.5]], rtol=3e-7)


@pytest.mark.parametrize('label', [-1, 5, 300])
def test_a_wrong_label_spoils_every_mean(label):
  """It belongs to some row, and nobody knows to which."""
  probs = reference.softmax(TEACHER)
  labels = np.array([0, 2, label, 1])
  assert jnp.all(jnp.isnan(gradients.class_mean_probs(probs, labels)))


def test_means_of_nothing_are_uniform():
  actual = gradients.class_mean_probs(jnp.zeros((0, 4)), np.zeros(0, int))
  np.testing.assert_array_equal(actual, np.full((4, 4), 0.25))


# The teacher's share.


@pytest.mark.parametrize(('weight', 'share'), [(0.0, 0.0), (1.0, 1.0)])
def test_share_ends(weight, share):
  actual = gradients.teacher_share(
    STUDENT, TEACHER, LABELS, weight=weight, temperature=3.0
  )
  np.testing.assert_array_equal(actual, share)


@pytest.mark.parametrize('weight', [0.7, 1.0])
def test_share_of_a_teacher_that_agrees_is_zero(weight):
  """At λ = 1 it is 0/0, and its gradient must be finite, too."""
  share = functools.partial(
    gradients.teacher_share, weight=weight, temperature=3.0
  )
  s = jnp.asarray(STUDENT, jnp.float32)
  value, gradient = _value_and_grad(share)(s, s, LABELS)
  np.testing.assert_array_equal(value, 0.0)
  np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize('margin', [1.0, 20.0, 40.0, 70.0])
def test_share_of_small_gradients(margin):
  """exp(-70)² is 0 in float32."""
  t = margin - 1
  s_rest, t_rest = np.exp(-np.logaddexp(0.0, [margin, t]))
  ours, theirs = 0.3 * s_rest, 0.7 * abs(s_rest - t_rest)
  share = functools.partial(
    gradients.teacher_share, weight=0.7, temperature=1.0
  )
  value, gradient = _value_and_grad(share)(
    *_float32(*_row([margin, 0.0], [t, 0.0])), np.array([0])
  )
  np.testing.assert_allclose(value, [theirs / (ours + theirs)], rtol=1e-5)
  assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('weight', [0.3, 1.0])
def test_share_from_a_gradient_is_that_of_its_loss(weight, power):
  s, t = _float32(STUDENT, TEACHER)
  setting = {'weight': weight, 'temperature': 3.0, 'temperature_power': power}
  g = gradients.kd_logit_gradient(s, t, LABELS, **setting)
  share = functools.partial(
    gradients.teacher_share_from, label_weight=1 - weight
  )
  expected = _share_reference(STUDENT, TEACHER, LABELS, weight, 3.0, power)
  np.testing.assert_allclose(share(g, s, LABELS), expected, rtol=1e-5)
  mapped = jax.jit(jax.vmap(share))(g, s, jnp.asarray(LABELS))
  np.testing.assert_allclose(mapped, expected, rtol=1e-5)


def test_share_from_the_gradient_of_cross_entropy():
  """The teacher has none, but in rounding; without a gradient it is 0."""
  (s,) = _float32(STUDENT)
  g = jax.grad(lambda s: losses.cross_entropy(s, LABELS).sum())(s)
  share = functools.partial(gradients.teacher_share_from, label_weight=1.0)
  np.testing.assert_allclose(share(g, s, LABELS), 0.0, atol=1e-6)
  certain = jnp.array([[200.0, 0.0]])
  np.testing.assert_array_equal(share(0 * certain, certain, np.array([0])), 0.0)


@pytest.mark.parametrize('margin', [1.0, 20.0, 40.0, 70.0])
def test_share_from_small_gradients(margin):
  s, t = _float32(*_row([margin, 0.0], [margin - 1, 0.0]))
  setting = {'weight': 0.7, 'temperature': 1.0}
  y = np.array([0])
  g = gradients.kd_logit_gradient(s, t, y, **setting)
  np.testing.assert_allclose(
    gradients.teacher_share_from(g, s, y, label_weight=0.3),
    gradients.teacher_share(s, t, y, **setting),
    rtol=1e-5,
  )


# Extremes.


# Student, teacher, label.
EXTREMES = {
  'teacher_masks': ([1, 2, 3], [0, -INF, 1], 0),
  'both_mask': ([1, -INF, 3], [0, -INF, 1], 0),
  'both_mask_differently': ([1, -INF, 3, 0], [0, 2, -INF, 1], 3),
  'student_masks': ([1, -INF, 3], [0, 2, 1], 0),
  'teacher_one_hot': ([1, 2, 3], [0, -INF, -INF], 0),
  'teacher_one_hot_elsewhere': ([1, 2, 3], [-INF, 0, -INF], 0),
  'teacher_masks_label': ([1, 2, 3], [-INF, 1, 0], 0),
  'student_masks_label': ([-INF, 2, 3], [2, 1, 0], 0),
  'both_mask_label': ([-INF, 2, 3], [-INF, 1, 0], 0),
  'student_masks_label_teacher_the_rest': ([-INF, 2, 3], [0, -INF, -INF], 0),
  'zeros': ([0, 0, 0], [0, 0, 0], 0),
  'equal': ([3, 1, 2], [3, 1, 2], 0),
  'teacher_far': ([1, 2, 3], [1e4, 0, 0], 0),
  'teacher_far_elsewhere': ([1, 2, 3], [0, 1e4, 0], 0),
  'student_far_elsewhere': ([0, 1e4, 0], [1, 2, 3], 0),
  'far_offsets': ([1e4, 1e4, 1e4], [-1e4, -1e4, -1e4], 1),
}


@EACH_CASE
@pytest.mark.parametrize(
  ('student', 'teacher', 'label'), EXTREMES.values(), ids=EXTREMES
)
def test_extremes(case, student, teacher, label):
  s, t = _row(student, teacher)
  more = [(0, 0), (0, 5 - len(student))]  # masked classes: one program, K = 5
  s, t = (np.pad(x, more, constant_values=-INF) for x in (s, t))
  y = np.array([label])
  value, gradient = _value_and_grad(case.analysis)(*_float32(s, t), y)
  assert jnp.all(jnp.isfinite(gradient))
  np.testing.assert_allclose(value, case.value(s, t, y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('weight', [0.0, 0.7, 1.0])
def test_without_incorrect_classes_there_is_no_factor(weight):
  """Both gradients are zero; the other row does not notice."""
  s = jnp.array([[-INF, 2.0, -INF], [1.0, 2.0, 3.0]])
  t = jnp.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
  y = np.array([1, 0])
  factor = functools.partial(
    rescaling.rescaling_factor, weight=weight, temperature=2.0
  )
  value, gradient = _value_and_grad(factor)(s, t, y)
  np.testing.assert_array_equal(jnp.isnan(value), [True, False])
  assert jnp.all(jnp.isfinite(gradient))


def test_without_incorrect_classes_there_is_no_factor_of_a_loss():
  s = jnp.array([[-INF, 2.0, -INF], [1.0, 2.0, 3.0]])
  value = _factor_of(losses.cross_entropy)(s, np.array([1, 0]))
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
    _factor_of(_distillation(2))(s, y, t),
    rescaling.rescaling_factor(s, t, y, **SETTING),
    rtol=1e-5,
  )


@EACH_ANALYSIS
@pytest.mark.parametrize('label', [-1, 5, 300])
def test_a_label_that_is_no_class_gives_nan(case, label):
  labels = np.array([0, 2, 4, label])
  value = case.analysis(*_float32(STUDENT, TEACHER), labels)
  assert jnp.all(jnp.isfinite(value[:3]))
  assert jnp.all(jnp.isnan(value[3]))


def test_a_label_that_is_no_class_of_any_loss():
  s, t = _float32(STUDENT, TEACHER)
  labels = np.array([0, -1, 5, 1])
  value = _factor_of(_kd)(s, labels, t)
  np.testing.assert_array_equal(jnp.isnan(value), [False, True, True, False])
  value = gradients.teacher_share_from(t, s, labels, label_weight=0.5)
  np.testing.assert_array_equal(jnp.isnan(value), [False, True, True, False])


@EACH_ANALYSIS
@pytest.mark.parametrize('which', [0, 1], ids=['student', 'teacher'])
def test_nan_comes_through(case, which):
  logits = list(_float32(STUDENT, TEACHER))
  logits[which] = logits[which].at[0, 1].set(jnp.nan)
  value = case.analysis(*logits, LABELS).reshape(4, -1)
  np.testing.assert_array_equal(
    jnp.any(jnp.isnan(value), -1), [True, False, False, False]
  )


@EACH_ANALYSIS
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_is_analysed_in_float32(case, dtype):
  s, t = (x.astype(dtype) for x in _float32(STUDENT, TEACHER))
  actual = case.analysis(s, t, LABELS)
  assert actual.dtype == jnp.float32
  wide = [np.asarray(x, np.float64) for x in (s, t)]
  expected = case.value(*wide, LABELS)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_half_precision_of_any_loss():
  s, t = (x.astype(jnp.bfloat16) for x in _float32(STUDENT, TEACHER))
  actual = _factor_of(_distillation(2))(s, LABELS, t)
  assert actual.dtype == jnp.float32
  wide = [np.asarray(x, np.float64) for x in (s, t)]
  expected = _factor_reference(*wide, LABELS, 0.7, 3.0, 2)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


@EACH_NAME
def test_traced_hyper_parameters(name):
  s, t = _float32(STUDENT, TEACHER)
  grid = jnp.array([[0.2, 1.0], [0.9, 4.0]])
  call = lambda pair: _call(
    name, s, t, LABELS, weight=pair[0], temperature=pair[1]
  )
  mapped = jax.tree.leaves(jax.jit(jax.vmap(call))(grid))
  for i, (weight, temperature) in enumerate([(0.2, 1), (0.9, 4)]):
    expected = _call(name, s, t, LABELS, weight=weight, temperature=temperature)
    for actual, wanted in zip(mapped, jax.tree.leaves(expected), strict=True):
      np.testing.assert_allclose(actual[i], wanted, rtol=1e-5, atol=1e-6)


def test_integer_temperature():
  """Integers have no negative powers, and n − 1 is one."""
  s, t = _float32(STUDENT, TEACHER)
  for temperature in (3, np.array(3), jnp.array(3)):
    actual = gradients.kd_logit_gradient(
      s, t, LABELS, weight=0.7, temperature=temperature, temperature_power=0
    )
    expected = CASES['gradient_n0'].value(STUDENT, TEACHER, LABELS)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
