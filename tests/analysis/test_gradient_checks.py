"""What holds for every analysis of gradients and of rescaling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_cases import (
  CASES,
  INF,
  LABELS,
  PARTS,
  SETTING,
  STUDENT,
  TEACHER,
  factor_of,
  float32,
  one_row,
  value_and_grad,
)

from kdjax import analysis, losses
from kdjax.analysis import gradients, rescaling

EACH_CASE = pytest.mark.parametrize('case', CASES.values(), ids=CASES)
# One power does: the other differs by a constant.
EACH_ANALYSIS = pytest.mark.parametrize(
  'case', [CASES[k] for k in CASES if k.endswith('n2')]
)


# The five checks.


@EACH_CASE
@pytest.mark.parametrize('batch', [(), (2, 2)])
def test_value(case, batch):
  size = int(np.prod(batch))
  s, t = (x[:size].reshape(*batch, 5) for x in (STUDENT, TEACHER))
  y = LABELS[:size].reshape(batch)
  actual = case.analysis(*float32(s, t), y)
  expected = case.value(s, t, y)
  assert actual.shape == expected.shape
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@EACH_ANALYSIS
def test_gradient(case):
  """Against central differences of the float64 reference."""
  _, actual = value_and_grad(case.analysis)(*float32(STUDENT, TEACHER), LABELS)
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
  args = (*float32(STUDENT, TEACHER), jnp.asarray(LABELS))
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
    call(name, *float32(STUDENT, TEACHER), LABELS)


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
  'mean_of_other_labels': lambda s, t, y: analysis.class_mean_probs(s, y[1:]),
  'mean_of_one_row': lambda s, t, y: analysis.class_mean_probs(s[0], y[0]),
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
    call(*float32(STUDENT, TEACHER), LABELS)


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
  s, t = one_row(student, teacher)
  more = [(0, 0), (0, 5 - len(student))]  # masked classes: one program, K = 5
  s, t = (np.pad(x, more, constant_values=-INF) for x in (s, t))
  y = np.array([label])
  value, gradient = value_and_grad(case.analysis)(*float32(s, t), y)
  assert jnp.all(jnp.isfinite(gradient))
  np.testing.assert_allclose(value, case.value(s, t, y), rtol=1e-5, atol=1e-6)


@EACH_ANALYSIS
@pytest.mark.parametrize('label', [-1, 5, 300])
def test_a_label_that_is_no_class_gives_nan(case, label):
  labels = np.array([0, 2, 4, label])
  value = case.analysis(*float32(STUDENT, TEACHER), labels)
  assert jnp.all(jnp.isfinite(value[:3]))
  assert jnp.all(jnp.isnan(value[3]))


def test_a_label_that_is_no_class_of_any_loss():
  s, t = float32(STUDENT, TEACHER)
  labels = np.array([0, -1, 5, 1])
  value = factor_of(_kd)(s, labels, t)
  np.testing.assert_array_equal(jnp.isnan(value), [False, True, True, False])
  value = gradients.teacher_share_from(t, s, labels, label_weight=0.5)
  np.testing.assert_array_equal(jnp.isnan(value), [False, True, True, False])


@EACH_ANALYSIS
@pytest.mark.parametrize('which', [0, 1], ids=['student', 'teacher'])
def test_nan_comes_through(case, which):
  logits = list(float32(STUDENT, TEACHER))
  logits[which] = logits[which].at[0, 1].set(jnp.nan)
  value = case.analysis(*logits, LABELS).reshape(4, -1)
  np.testing.assert_array_equal(
    jnp.any(jnp.isnan(value), -1), [True, False, False, False]
  )


@EACH_ANALYSIS
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_is_analysed_in_float32(case, dtype):
  s, t = (x.astype(dtype) for x in float32(STUDENT, TEACHER))
  actual = case.analysis(s, t, LABELS)
  assert actual.dtype == jnp.float32
  wide = [np.asarray(x, np.float64) for x in (s, t)]
  expected = case.value(*wide, LABELS)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@EACH_NAME
def test_traced_hyper_parameters(name):
  s, t = float32(STUDENT, TEACHER)
  grid = jnp.array([[0.2, 1.0], [0.9, 4.0]])
  call = lambda pair: _call(
    name, s, t, LABELS, weight=pair[0], temperature=pair[1]
  )
  mapped = jax.tree.leaves(jax.jit(jax.vmap(call))(grid))
  for i, (weight, temperature) in enumerate([(0.2, 1), (0.9, 4)]):
    expected = _call(name, s, t, LABELS, weight=weight, temperature=temperature)
    for actual, wanted in zip(mapped, jax.tree.leaves(expected), strict=True):
      np.testing.assert_allclose(actual[i], wanted, rtol=1e-5, atol=1e-6)
