"""Calibration: references, bins at their edges, temperatures, extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from scipy import optimize

from kdjax.analysis import calibration

LOGITS = reference.wave((40, 5), 0.7, 0.5, 3.0)
PROBS = reference.softmax(LOGITS)
# Right of most, but not of all.
LABELS = np.where(np.arange(40) % 3, LOGITS.argmax(-1), np.arange(40) % 5)


# References, in float64.


def _reliability(p, y, num_bins):
  bins = np.zeros((num_bins, 3))
  for row, label in zip(p, y, strict=True):
    for m in range(num_bins):
      if m / num_bins < row.max() <= (m + 1) / num_bins:
        bins[m] += [row.max(), row.argmax() == label, 1]
  confidence, right, count = bins.T
  return confidence / np.maximum(count, 1), right / np.maximum(count, 1), count


def _ece(p, y, num_bins):
  confidence, accuracy, count = _reliability(p, y, num_bins)
  return np.sum(count / len(p) * np.abs(accuracy - confidence))


PER_EXAMPLE = {
  'brier': (
    calibration.brier,
    lambda p, y: ((p - reference.one_hot(y, 5)) ** 2).sum(-1),
  ),
  'negative_log_likelihood': (
    calibration.negative_log_likelihood,
    lambda p, y: -np.log((p * reference.one_hot(y, 5)).sum(-1)),
  ),
}
EACH_EXAMPLE = pytest.mark.parametrize(
  ('function', 'value'), PER_EXAMPLE.values(), ids=PER_EXAMPLE
)


def _device(x):
  x = np.asarray(x)
  return jnp.asarray(x, jnp.float32 if x.dtype.kind == 'f' else jnp.int32)


P, Y = _device(PROBS), _device(LABELS)


# Per example.


@EACH_EXAMPLE
@pytest.mark.parametrize('batch', [(40,), (8, 5)])
def test_value(function, value, batch):
  p, y = PROBS.reshape(*batch, 5), LABELS.reshape(batch)
  actual = function(_device(p), _device(y))
  assert actual.shape == batch
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, value(p, y), rtol=1e-5)


@EACH_EXAMPLE
def test_jit_and_vmap(function, value):
  eager = function(P, Y)
  np.testing.assert_allclose(jax.jit(function)(P, Y), eager, rtol=1e-6)
  np.testing.assert_allclose(
    jax.jit(jax.vmap(function))(P, Y), eager, rtol=1e-6
  )


def test_gradients():
  """2 (p − 1[i=y]), and −1[i=y] / p_y."""
  hot = reference.one_hot(LABELS, 5)
  for function, expected in (
    (calibration.brier, 2 * (PROBS - hot)),
    (calibration.negative_log_likelihood, -hot / PROBS),
  ):
    total = lambda p, function=function: function(p, Y).sum()
    actual = jax.jit(jax.grad(total))(P)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ('label', 'brier', 'nll'), [(0, 0.0, 0.0), (2, 2.0, np.inf)]
)
def test_one_hot_answer(label, brier, nll):
  p, y = jnp.array([1.0, 0.0, 0.0]), jnp.array(label)
  assert calibration.brier(p, y) == brier
  loss, gradient = jax.value_and_grad(calibration.negative_log_likelihood)(p, y)
  assert loss == nll
  assert jnp.all(jnp.isfinite(gradient))


# Bins.


@pytest.mark.parametrize('num_bins', [1, 4, 15])
def test_reliability_and_error(num_bins):
  actual = calibration.reliability(P, Y, num_bins=num_bins)
  expected = _reliability(PROBS, LABELS, num_bins)
  for name, x, y in zip(actual._fields, actual, expected, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, err_msg=name)
  assert actual.count.dtype == jnp.int32
  np.testing.assert_allclose(
    calibration.expected_calibration_error(P, Y, num_bins=num_bins),
    _ece(PROBS, LABELS, num_bins),
    rtol=1e-5,
  )


def test_bins_jit_and_vmap():
  halves = P.reshape(2, 20, 5), Y.reshape(2, 20)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
  for function in (
    calibration.reliability,
    calibration.expected_calibration_error,
  ):
    jax.tree.map(close, jax.jit(function)(P, Y), function(P, Y))
    each = [function(p, y) for p, y in zip(*halves, strict=True)]
    each = jax.tree.map(lambda *x: jnp.stack(x), *each)
    jax.tree.map(close, jax.jit(jax.vmap(function))(*halves), each)


@pytest.mark.parametrize('kind', [bool, np.float32])
def test_known_answers_give_the_same_bins_and_error(kind):
  confidence = PROBS.max(-1).astype(np.float32)
  right = (PROBS.argmax(-1) == LABELS).astype(kind)
  actual = calibration.reliability_of(confidence, right, num_bins=4)
  expected = _reliability(PROBS, LABELS, 4)
  for name, x, y in zip(actual._fields, actual, expected, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(
    calibration.calibration_error(actual), _ece(PROBS, LABELS, 4), rtol=1e-5
  )


def test_an_edge_belongs_to_the_bin_below():
  p = jnp.array([[0.5, 0.5], [0.625, 0.375], [0.75, 0.25], [1.0, 0.0]])
  bins = calibration.reliability(p, jnp.zeros(4, jnp.int32), num_bins=4)
  np.testing.assert_array_equal(bins.count, [0, 1, 2, 1])
  fifth = jnp.full((1, 5), 0.2)  # 0.2 · 15 is 3
  bins = calibration.reliability(fifth, jnp.array([0]), num_bins=15)
  assert bins.count[2] == 1


def test_an_empty_bin_is_zero():
  bins = calibration.reliability(jnp.eye(2), jnp.array([0, 1]), num_bins=3)
  for x in bins:
    np.testing.assert_array_equal(x[:2], 0)
  np.testing.assert_array_equal([x[2] for x in bins], [1, 1, 2])


@pytest.mark.parametrize(('label', 'error'), [(0, 0.0), (1, 1.0)])
def test_error_of_the_sure(label, error):
  p = jnp.array([[1.0, 0.0], [1.0, 0.0]])
  y = jnp.full(2, label)
  assert calibration.expected_calibration_error(p, y) == error


def test_error_of_the_calibrated_is_zero():
  p = jnp.array([[0.75, 0.25]] * 4 + [[0.5, 0.5]] * 2)
  y = jnp.array([0, 0, 1, 0, 0, 1])
  assert calibration.expected_calibration_error(p, y) == 0


# Temperature.


def _best_temperature(z, y, low, high):
  nll = lambda log_t: reference.cross_entropy(z / np.exp(log_t), y).mean()
  bounds = np.log([low, high])
  return np.exp(
    optimize.minimize_scalar(
      nll, bounds=bounds, method='bounded', options={'xatol': 1e-10}
    ).x
  )


_fit = jax.jit(calibration.fit_temperature)


@pytest.mark.parametrize('scale', [0.1, 1.0, 10.0])
def test_fit_temperature(scale):
  z = scale * LOGITS
  expected = _best_temperature(z, LABELS, 0.05, 50.0)
  assert 0.06 < expected < 40
  np.testing.assert_allclose(_fit(_device(z), Y), expected, rtol=1e-4)


def test_fit_temperature_eager_jit_and_vmap():
  logits = _device(LOGITS)
  fit = functools.partial(calibration.fit_temperature, low=0.5, high=8.0)
  pair = jnp.stack([logits, 2 * logits])
  each = [fit(z, Y) for z in pair]
  np.testing.assert_allclose(jax.jit(fit)(logits, Y), each[0], rtol=1e-6)
  mapped = jax.jit(jax.vmap(fit, in_axes=(0, None)))(pair, Y)
  np.testing.assert_allclose(mapped, each, rtol=1e-6)
  np.testing.assert_allclose(each[1], 2 * each[0], rtol=1e-4)


def test_fit_temperature_of_drawn_labels_is_the_true_one():
  z = reference.wave((4000, 5), 0.7, 0.5, 3.0)
  draw = np.random.default_rng(0).random((4000, 1))
  y = (reference.softmax(z).cumsum(-1) < draw).sum(-1)
  np.testing.assert_allclose(_fit(_device(3 * z), _device(y)), 3.0, rtol=0.05)


def test_fit_temperature_at_the_ends():
  z = jnp.eye(3) * 2
  right, wrong = jnp.arange(3), (jnp.arange(3) + 1) % 3
  np.testing.assert_allclose(_fit(z, right), 0.05, rtol=1e-5)
  np.testing.assert_allclose(_fit(1e6 * z, right), 0.05, rtol=1e-5)
  np.testing.assert_allclose(_fit(z, wrong), 50.0, rtol=1e-5)
  np.testing.assert_allclose(_fit(jnp.ones((3, 3)), right), 0.05, rtol=1e-5)
  inside = calibration.fit_temperature(z, wrong, low=1.0, high=3.0)
  np.testing.assert_allclose(inside, 3.0, rtol=1e-5)


def test_fit_temperature_leaves_masked_classes_out():
  masked = np.concatenate([LOGITS, np.full((40, 2), -np.inf)], axis=-1)
  expected = _best_temperature(LOGITS, LABELS, 0.05, 50.0)
  np.testing.assert_allclose(_fit(_device(masked), Y), expected, rtol=1e-4)
  assert jnp.isnan(_fit(_device(masked), Y.at[3].set(5)))


def test_traced_range():
  logits = _device(LOGITS)
  fit = lambda high: calibration.fit_temperature(logits, Y, high=high)
  np.testing.assert_allclose(
    jax.jit(jax.vmap(fit))(jnp.array([0.25, 50.0])),
    [fit(0.25), fit(50.0)],
    rtol=1e-5,
  )


# Mistakes.


BAD = {
  'brier': lambda p, y: calibration.brier(p, y[1:]),
  'nll': lambda p, y: calibration.negative_log_likelihood(p, y * 1.0),
  'reliability': lambda p, y: calibration.reliability(p[None], y[None]),
  'ece': lambda p, y: calibration.expected_calibration_error(y, y),
  'fractional_bins': lambda p, y: calibration.reliability(p, y, num_bins=2.0),
  'known': lambda p, y: calibration.reliability_of(p, p),
  'known_labels': lambda p, y: calibration.reliability_of(p[:, 0], y),
  'no_bins': lambda p, y: calibration.calibration_error(p),
  'positional': lambda p, y: calibration.expected_calibration_error(p, y, 15),
  'fit': lambda p, y: calibration.fit_temperature(p, y[:, None]),
  'low': lambda p, y: calibration.fit_temperature(p, y, low='1'),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call(P, Y)


OUT_OF_RANGE = {
  'num_bins=0': lambda: calibration.reliability(P, Y, num_bins=0),
  'num_bins=-1': lambda: calibration.reliability_of(
    P[:, 0], Y < 0, num_bins=-1
  ),
  'num_bins=-3': lambda: calibration.expected_calibration_error(
    P, Y, num_bins=-3
  ),
  'low=0': lambda: calibration.fit_temperature(P, Y, low=0),
  'high=inf': lambda: calibration.fit_temperature(P, Y, high=np.inf),
  'low=2.0 must be below high=2': lambda: calibration.fit_temperature(
    P, Y, low=2.0, high=2
  ),
}


@pytest.mark.parametrize(
  ('match', 'call'), OUT_OF_RANGE.items(), ids=OUT_OF_RANGE
)
def test_out_of_range(match, call):
  with pytest.raises(ValueError, match=match):
    call()


@pytest.mark.parametrize('label', [-1, 5, 300])
def test_a_label_that_is_no_class_gives_nan(label):
  y = Y.at[7].set(label)
  for function in (calibration.brier, calibration.negative_log_likelihood):
    np.testing.assert_array_equal(jnp.isnan(function(P, y)), np.arange(40) == 7)
  for function in (
    calibration.expected_calibration_error,
    calibration.fit_temperature,
  ):
    assert jnp.isnan(function(P, y))
  accuracy = calibration.reliability(P, y).accuracy
  assert jnp.isnan(accuracy).sum() == 1


def test_an_undefined_answer_gives_nan():
  p = P.at[3, 1].set(jnp.nan)
  assert jnp.isnan(calibration.expected_calibration_error(p, Y))
  assert jnp.isnan(_fit(p, Y))


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_becomes_float32(dtype):
  p = P.astype(dtype)
  for function in (
    calibration.brier,
    calibration.negative_log_likelihood,
    calibration.expected_calibration_error,
    calibration.fit_temperature,
  ):
    assert function(p, Y).dtype == jnp.float32
