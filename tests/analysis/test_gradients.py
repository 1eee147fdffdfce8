"""Gradients of distillation: each equation against another derivation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from gradient_cases import (
  CASES,
  CLASS_PROBS,
  LABELS,
  SETTING,
  STUDENT,
  TEACHER,
  distillation_gradient,
  float32,
  gradient_reference,
  one_row,
  share_reference,
  value_and_grad,
)

from kdjax import analysis, losses, targets
from kdjax.analysis import gradients, rescaling

# The gradient of the distillation loss.


@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_equation_of_the_gradient(temperature, power):
  s, t = float32(STUDENT, TEACHER)
  actual = gradients.kd_logit_gradient(
    s,
    t,
    LABELS,
    weight=0.7,
    temperature=temperature,
    temperature_power=power,
  )
  automatic = distillation_gradient(temperature, power)(s, t, LABELS)
  np.testing.assert_allclose(actual, automatic, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
    actual,
    gradient_reference(STUDENT, TEACHER, LABELS, 0.7, temperature, power),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize('power', [0, 2])
def test_label_smoothing_is_the_uniform_teacher(power):
  """T = 1 and λ = ε; then n does not matter."""
  (s,) = float32(STUDENT)
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
      *float32(s, -s), np.zeros(90, int), weight=1.0, temperature=1.0
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
    *float32(s, t), jnp.array([label]), weight=0.7, temperature=1.0
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_integer_temperature():
  """Integers have no negative powers, and n − 1 is one."""
  s, t = float32(STUDENT, TEACHER)
  for temperature in (3, np.array(3), jnp.array(3)):
    actual = gradients.kd_logit_gradient(
      s, t, LABELS, weight=0.7, temperature=temperature, temperature_power=0
    )
    expected = CASES['gradient_n0'].value(STUDENT, TEACHER, LABELS)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


# The parts.


@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('smoothing', [0.0, 0.3, 1])
@pytest.mark.parametrize('class_probs', [CLASS_PROBS, np.eye(5)])
def test_parts_add_up_to_the_gradient(class_probs, smoothing, power):
  s, t = float32(STUDENT, TEACHER)
  parts = analysis.gradient_parts(
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
    s, t = float32(STUDENT, temperature * np.log(teacher_probs))
  probs = targets.full(t, temperature=temperature)
  p_y = np.take_along_axis(np.asarray(probs), LABELS[:, None], 1)
  return analysis.gradient_parts(
    s,
    t,
    LABELS,
    class_probs=analysis.class_mean_probs(probs, LABELS),
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
  parts = analysis.gradient_parts(
    *float32(STUDENT, TEACHER),
    labels_twice,
    class_probs=analysis.class_mean_probs(*float32(probs), labels_twice),
    smoothing=0.5,
    **SETTING,
  )
  _assert_parts(parts, analysis.GradientParts._fields)
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
  actual = analysis.class_mean_probs(*float32(probs), labels)
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, expected, rtol=1e-6)
  for narrow in (np.uint8, np.int64):
    same = jax.jit(analysis.class_mean_probs)(probs, labels.astype(narrow))
    np.testing.assert_allclose(same, expected, rtol=1e-6)
  pairs = probs.reshape(2, 20, 5), labels.reshape(2, 20)
  for half, *given in zip(
    jax.vmap(analysis.class_mean_probs)(*pairs), *pairs, strict=True
  ):
    alone = analysis.class_mean_probs(*given)
    np.testing.assert_allclose(half, alone, rtol=1e-6)


def test_the_mean_of_many_examples_does_not_drift():
  """A plain sum of these in float32 is wrong in the fourth digit."""
  probs = np.full((50_000, 2), [0.1, 0.9], np.float32)
  labels = np.zeros(len(probs), np.int32)
  actual = analysis.class_mean_probs(probs, labels)
  np.testing.assert_allclose(actual, [[0.1, 0.9], [0.5, 0.5]], rtol=3e-7)


@pytest.mark.parametrize('label', [-1, 5, 300])
def test_a_wrong_label_spoils_every_mean(label):
  """It belongs to some row, and nobody knows to which."""
  probs = reference.softmax(TEACHER)
  labels = np.array([0, 2, label, 1])
  assert jnp.all(jnp.isnan(analysis.class_mean_probs(probs, labels)))


def test_means_of_nothing_are_uniform():
  actual = analysis.class_mean_probs(jnp.zeros((0, 4)), np.zeros(0, int))
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
  value, gradient = value_and_grad(share)(s, s, LABELS)
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
  value, gradient = value_and_grad(share)(
    *float32(*one_row([margin, 0.0], [t, 0.0])), np.array([0])
  )
  np.testing.assert_allclose(value, [theirs / (ours + theirs)], rtol=1e-5)
  assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('weight', [0.3, 1.0])
def test_share_from_a_gradient_is_that_of_its_loss(weight, power):
  s, t = float32(STUDENT, TEACHER)
  setting = {'weight': weight, 'temperature': 3.0, 'temperature_power': power}
  g = gradients.kd_logit_gradient(s, t, LABELS, **setting)
  share = functools.partial(
    gradients.teacher_share_from, label_weight=1 - weight
  )
  expected = share_reference(STUDENT, TEACHER, LABELS, weight, 3.0, power)
  np.testing.assert_allclose(share(g, s, LABELS), expected, rtol=1e-5)
  mapped = jax.jit(jax.vmap(share))(g, s, jnp.asarray(LABELS))
  np.testing.assert_allclose(mapped, expected, rtol=1e-5)


def test_share_from_the_gradient_of_cross_entropy():
  """The teacher has none, but in rounding; without a gradient it is 0."""
  (s,) = float32(STUDENT)
  g = jax.grad(lambda s: losses.cross_entropy(s, LABELS).sum())(s)
  share = functools.partial(gradients.teacher_share_from, label_weight=1.0)
  np.testing.assert_allclose(share(g, s, LABELS), 0.0, atol=1e-6)
  certain = jnp.array([[200.0, 0.0]])
  np.testing.assert_array_equal(share(0 * certain, certain, np.array([0])), 0.0)


@pytest.mark.parametrize('margin', [1.0, 20.0, 40.0, 70.0])
def test_share_from_small_gradients(margin):
  s, t = float32(*one_row([margin, 0.0], [margin - 1, 0.0]))
  setting = {'weight': 0.7, 'temperature': 1.0}
  y = np.array([0])
  g = gradients.kd_logit_gradient(s, t, y, **setting)
  np.testing.assert_allclose(
    gradients.teacher_share_from(g, s, y, label_weight=0.3),
    gradients.teacher_share(s, t, y, **setting),
    rtol=1e-5,
  )
