"""Sparse teachers: references, gradients, transformations, extremes."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kdjax import losses, targets

INF = np.inf
STUDENT = reference.wave((4, 6), 1.0, 0.0, 3.0)
FULL = reference.softmax(reference.wave((4, 6), 0.7, 0.5, 3.0))
INDICES = np.argsort(-FULL, -1)[:, :3]
PROBS = np.take_along_axis(FULL, INDICES, -1)
TAIL = 1 - PROBS.sum(-1)
T, POWER = 2.5, 1.5


class Case(NamedTuple):
  """A loss, its float64 reference and its gradient in s, of (s, i, p, r)."""

  loss: object
  value: object
  gradient: object


def _is_kept(s, i):
  return reference.one_hot(i, s.shape[-1]).sum(-2) > 0


def _completed(s, i, p, r):
  """ρ of KD-topk: the rest is even."""
  out = np.repeat(r[..., None] / max(s.shape[-1] - i.shape[-1], 1), 6, -1)
  np.put_along_axis(out, i, p, -1)
  return out


def _uniform(s, *sparse):
  rho = _completed(s, *sparse)
  return T**POWER * reference.kl(rho, reference.log_softmax(s, T))


def _d_uniform(s, *sparse):
  return T ** (POWER - 1) * (reference.softmax(s, T) - _completed(s, *sparse))


def _log_others(s, i):
  """log q̃ of the others, and of all of them together."""
  others = np.where(_is_kept(s, i), -INF, reference.log_softmax(s, T))
  return others, np.logaddexp.reduce(others, -1, keepdims=True)


def _bucket(s, i, p, r):
  log_q = np.take_along_axis(reference.log_softmax(s, T), i, -1)
  log_q = np.append(log_q, _log_others(s, i)[1], -1)
  return T**POWER * reference.kl(np.append(p, r[..., None], -1), log_q)


def _d_bucket(s, i, p, r):
  others, rest = _log_others(s, i)
  rho = r[..., None] * np.exp(others - np.maximum(rest, -1e300))
  np.put_along_axis(rho, i, p, -1)
  return T ** (POWER - 1) * (reference.softmax(s, T) - rho)


def _renormalised(s, i, p, r):
  log_q = reference.log_softmax(np.take_along_axis(s, i, -1), T)
  return T**POWER * reference.kl(p / p.sum(-1, keepdims=True), log_q)


def _d_renormalised(s, i, p, r):
  out = np.zeros_like(s)
  q = reference.softmax(np.take_along_axis(s, i, -1), T)
  np.put_along_axis(out, i, q - p / p.sum(-1, keepdims=True), -1)
  return T ** (POWER - 1) * out


def _samples(s, i, w, r):
  log_q = np.take_along_axis(reference.log_softmax(s, T), i, -1)
  return -(T**POWER) * (w * np.where(w > 0, log_q, 0)).sum(-1)


def _d_samples(s, i, w, r):
  counts = (w[..., None] * reference.one_hot(i, s.shape[-1])).sum(-2)
  mass = w.sum(-1, keepdims=True)
  return T ** (POWER - 1) * (mass * reference.softmax(s, T) - counts)


CASES = {
  name: Case(
    functools.partial(loss, temperature=T, temperature_power=POWER),
    value,
    gradient,
  )
  for name, loss, value, gradient in (
    ('uniform', losses.kl_uniform_tail, _uniform, _d_uniform),
    ('bucket', losses.kl_bucket_tail, _bucket, _d_bucket),
    ('renormalised', losses.kl_renormalised, _renormalised, _d_renormalised),
    ('samples', losses.kl_samples, _samples, _d_samples),
  )
}
EACH_CASE = pytest.mark.parametrize('case', CASES.values(), ids=CASES)
SPARSE = INDICES, PROBS, TAIL


def _float32(*arrays):
  arrays = map(np.asarray, arrays)
  return tuple(
    jnp.asarray(a, jnp.float32 if a.dtype.kind == 'f' else jnp.int32)
    for a in arrays
  )


@functools.cache
def _value_and_grad(loss):
  return jax.jit(jax.value_and_grad(lambda s, *x: loss(s, *x).sum()))


@EACH_CASE
@pytest.mark.parametrize('batch', [(4,), (2, 2)])
def test_value(case, batch):
  args = [x.reshape(*batch, *x.shape[1:]) for x in (STUDENT, *SPARSE)]
  actual = case.loss(*_float32(*args))
  assert actual.shape == batch
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, case.value(*args), rtol=1e-5, atol=1e-6)


@EACH_CASE
def test_gradient(case):
  _, actual = _value_and_grad(case.loss)(*_float32(STUDENT, *SPARSE))
  expected = case.gradient(STUDENT, *SPARSE)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@EACH_CASE
def test_jit_and_vmap(case):
  args = _float32(STUDENT, *SPARSE)
  eager = case.loss(*args)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  close(jax.jit(case.loss)(*args), eager)
  close(jax.jit(jax.vmap(case.loss))(*args), eager)


@EACH_CASE
def test_in_float64(case):
  with jax.enable_x64(True):
    actual = jax.jit(case.loss)(STUDENT, *SPARSE)
    assert actual.dtype == jnp.float64
    expected = case.value(STUDENT, *SPARSE)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@EACH_CASE
def test_half_precision_is_scored_in_float32(case):
  s, i, p, r = _float32(STUDENT, *SPARSE)
  s = s.astype(jnp.bfloat16)
  actual = case.loss(s, i, p, r)
  assert actual.dtype == jnp.float32
  wide = np.asarray(s, np.float64)
  expected = case.value(wide, *SPARSE)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_traced_hyper_parameters():
  args = _float32(STUDENT, *SPARSE)
  for name in CASES:
    loss = CASES[name].loss.func
    traced = jax.jit(
      lambda t, n, loss=loss: loss(*args, temperature=t, temperature_power=n)
    )
    expected = CASES[name].value(STUDENT, *SPARSE)
    np.testing.assert_allclose(traced(T, POWER), expected, rtol=1e-5)


# The dense forms.


@pytest.mark.parametrize('k', [1, 3, 5, 6])
def test_a_uniform_tail_is_kd_topk(k):
  s, p = _float32(STUDENT, FULL)
  indices = jnp.asarray(np.argsort(-FULL, -1)[:, :k])
  tail = 1 - jnp.take_along_axis(p, indices, -1).sum(-1)
  tail = jnp.where(k < 6, tail, 0.0)

  def dense(s):
    return losses.distillation(
      s,
      targets.topk(p, k=k),
      jnp.zeros(4, jnp.int32),
      weight=1.0,
      temperature=T,
      temperature_power=POWER,
    )

  found = _value_and_grad(CASES['uniform'].loss)(
    s, indices, jnp.take_along_axis(p, indices, -1), tail
  )
  expected = jax.jit(jax.value_and_grad(lambda s: dense(s).sum()))(s)
  for actual, wanted in zip(found, expected, strict=True):
    np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', ['uniform', 'bucket', 'renormalised'])
def test_all_classes_are_kd(name):
  s, t = _float32(STUDENT, np.log(FULL))
  indices = jnp.broadcast_to(jnp.arange(6)[::-1], (4, 6))
  probs = jnp.take_along_axis(targets.full(t, temperature=1.0), indices, -1)
  found = CASES[name].loss.func(
    s, indices, probs, jnp.zeros(4), temperature=1.0
  )
  expected = losses.kd(s, t, temperature=1.0)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_each_class_once_by_its_probability_is_the_cross_entropy():
  """Samples with the teacher's probabilities as weights: KL and entropy."""
  s, t = _float32(STUDENT, np.log(FULL))
  indices = jnp.broadcast_to(jnp.arange(6), (4, 6))
  found = losses.kl_samples(
    s, indices, *_float32(FULL, np.zeros(4)), temperature=1.0
  )
  entropy = -(FULL * np.log(FULL)).sum(-1)
  expected = losses.kd(s, t, temperature=1.0) + entropy
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_repeated_draws_add_up():
  s = _float32(STUDENT)[0]
  loss = functools.partial(losses.kl_samples, tail=jnp.zeros(4), temperature=T)
  of = lambda i, w: loss(
    s, jnp.tile(jnp.array(i), (4, 1)), jnp.tile(jnp.array(w), (4, 1))
  )
  np.testing.assert_allclose(
    of([2, 5, 2], [0.25, 0.5, 0.25]), of([2, 5], [0.5, 0.5]), rtol=1e-6
  )


# Extremes. Of three classes each teacher knows two.

EXTREMES = {
  'no_tail': ([1, 2, 3], [0, 1], [0.25, 0.75], 0.0),
  'one_hot': ([1, 2, 3], [1, 0], [1.0, 0.0], 0.0),
  'all_in_tail': ([1, 2, 3], [0, 1], [0.0, 0.0], 1.0),
  'nothing': ([1, 2, 3], [0, 0], [0.0, 0.0], 0.0),
  'student_masks_what_has_no_mass': ([1, -INF, 3], [0, 1], [1.0, 0.0], 0.0),
  'student_masks_the_rest': ([1, 2, -INF], [0, 1], [0.5, 0.5], 0.0),
  'student_one_hot': ([0, -INF, -INF], [0, 1], [1.0, 0.0], 0.0),
  'student_masks_all_kept': ([-INF, -INF, 0], [0, 1], [0.0, 0.0], 0.0),
  'large': ([1e4, -1e4, 0], [0, 2], [0.5, 0.25], 0.25),
  'equal': ([7, 7, 7], [0, 1], [0.5, 0.25], 0.25),
}
EACH_EXTREME = pytest.mark.parametrize(
  'extreme', EXTREMES.values(), ids=EXTREMES
)


@EACH_CASE
@EACH_EXTREME
def test_extremes(case, extreme):
  args = [np.array([x]) for x in extreme]
  args[0] = args[0].astype(float)
  value, gradient = _value_and_grad(case.loss)(*_float32(*args))
  assert jnp.isfinite(value)
  assert np.all(np.isfinite(gradient))
  np.testing.assert_array_equal(np.asarray(gradient)[np.isneginf(args[0])], 0)


@pytest.mark.parametrize('name', ['uniform', 'bucket', 'samples'])
@pytest.mark.parametrize('extreme', ['no_tail', 'one_hot', 'large', 'equal'])
def test_extreme_values(name, extreme):
  s, i, p, r = (np.array([x]) for x in EXTREMES[extreme])
  s = np.append(s, np.full((1, 3), -INF), -1).astype(float)
  if name == 'uniform':
    r = 0 * r  # there is no even share with masked classes
  case = CASES[name]
  value, gradient = _value_and_grad(case.loss)(*_float32(s, i, p, r))
  np.testing.assert_allclose(value, case.value(s, i, p, r)[0], rtol=2e-5)
  if name != 'uniform':
    np.testing.assert_allclose(gradient, case.gradient(s, i, p, r), atol=1e-6)


@pytest.mark.parametrize(
  ('name', 'student', 'probs', 'tail'),
  [
    ('uniform', [0, -INF, 1, 2], [0.5, 0.5], 0.0),
    ('uniform', [0, 1, 2, -INF], [0.5, 0.25], 0.25),
    ('uniform', [0, -INF, 1, -INF], [0.5, 0.25], 0.25),
    ('bucket', [0, -INF, 1, 2], [0.5, 0.5], 0.0),
    ('bucket', [0, 1, -INF, -INF], [0.5, 0.25], 0.25),
    ('renormalised', [0, -INF, 1, 2], [0.5, 0.5], 0.0),
    ('renormalised', [-INF, -INF, 1, 2], [0.5, 0.5], 0.0),
    ('samples', [0, -INF, 1, 2], [0.5, 0.5], 0.0),
  ],
)
def test_mass_on_masked_classes_is_infinitely_far(name, student, probs, tail):
  args = _float32([[*map(float, student)]], [[0, 1]], [probs], [tail])
  value, gradient = _value_and_grad(CASES[name].loss)(*args)
  np.testing.assert_array_equal(value, INF)
  assert jnp.all(jnp.isfinite(gradient))


def test_a_student_of_the_rest_alone():
  args = _float32([[-INF, -INF, 0.0, 1.0]], [[0, 1]], [[0.0, 0.0]], [1.0])
  value, gradient = _value_and_grad(CASES['bucket'].loss)(*args)
  np.testing.assert_array_equal(value, 0.0)
  np.testing.assert_allclose(gradient, 0.0, atol=1e-7)


@pytest.mark.parametrize('name', ['uniform', 'bucket'])
def test_a_small_rest(name):
  """1 − Σ q̃ would be 0 in float32."""
  s = np.array([[60.0, 50.0, -4.0, 2.0, 0.0, 1.0]])
  i, p, r = np.array([[0, 1]]), np.array([[0.5, 0.5 - 1e-9]]), np.array([1e-9])
  case = CASES[name]
  value, gradient = _value_and_grad(case.loss)(*_float32(s, i, p, r))
  np.testing.assert_allclose(value, case.value(s, i, p, r)[0], rtol=1e-5)
  np.testing.assert_allclose(gradient, case.gradient(s, i, p, r), atol=1e-6)
  p, r = 0 * p, np.ones(1)  # what the student gives the rest
  value, _ = _value_and_grad(case.loss)(*_float32(s, i, p, r))
  np.testing.assert_allclose(value, case.value(s, i, p, r)[0], rtol=1e-5)


def test_renormalised_keeps_small_differences_below_a_large_logit():
  s = np.array([[1e4, 0.0, 0.001, 0.002, 0, 0]])
  i, p = np.array([[1, 2, 3]]), np.array([[0.3, 0.3, 0.3]])
  sparse = i, p, np.array([0.1])
  case = CASES['renormalised']
  _, gradient = _value_and_grad(case.loss)(*_float32(s, *sparse))
  np.testing.assert_allclose(gradient, case.gradient(s, *sparse), atol=2e-7)


@EACH_CASE
@pytest.mark.parametrize('index', [-1, 6, 300])
def test_an_index_that_is_no_class_gives_nan(case, index):
  s, i, p, r = _float32(STUDENT, *SPARSE)
  loss = case.loss(s, i.at[1, 2].set(index), p, r)
  np.testing.assert_array_equal(jnp.isnan(loss), [False, True, False, False])


@EACH_CASE
def test_nan_comes_through(case):
  s, i, p, r = _float32(STUDENT, *SPARSE)
  loss = case.loss(s.at[0, i[0, 1]].set(jnp.nan), i, p, r)
  np.testing.assert_array_equal(jnp.isnan(loss), [True, False, False, False])


# Mistakes.

BAD = {
  'batch': lambda loss, s, i, p, r: loss(s, i[:1], p, r, temperature=1.0),
  'k': lambda loss, s, i, p, r: loss(s, i, p[:, 1:], r, temperature=1.0),
  'tail': lambda loss, s, i, p, r: loss(s, i, p, r[:, None], temperature=1.0),
  'float': lambda loss, s, i, p, r: loss(s, i * 1.0, p, r, temperature=1.0),
  'positional': lambda loss, s, i, p, r: loss(s, i, p, r, 1.0),
}


@EACH_CASE
@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(case, call):
  with pytest.raises(TypeError):
    call(case.loss.func, *_float32(STUDENT, *SPARSE))


@EACH_CASE
def test_out_of_range(case):
  loss, args = case.loss.func, _float32(STUDENT, *SPARSE)
  with pytest.raises(ValueError, match='temperature=0 must be positive'):
    loss(*args, temperature=0)
  with pytest.raises(ValueError, match='temperature_power=-1 must not be'):
    loss(*args, temperature=1.0, temperature_power=-1)


@pytest.mark.parametrize('name', ['uniform', 'bucket', 'renormalised'])
def test_more_classes_than_there_are(name):
  with pytest.raises(ValueError, match=r'k=7 must lie in 1\.\.6'):
    CASES[name].loss(
      jnp.zeros((1, 6)),
      jnp.zeros((1, 7), jnp.int32),
      jnp.zeros((1, 7)),
      jnp.zeros(1),
    )
