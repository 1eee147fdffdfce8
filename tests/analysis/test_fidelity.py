"""Fidelity: references, both forms of CKA, what each does not see, extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kdjax.analysis import fidelity

STUDENT = reference.wave((12, 5), 1.0, 0.0, 3.0)
TEACHER = reference.wave((12, 5), 0.7, 0.5, 3.0)
INF = np.inf


def _layer(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape) + 1.0


# Wider than there are examples, narrower, and maps.
WIDE, NARROW, MAPS = _layer(0, 9, 20), _layer(1, 9, 4), _layer(2, 9, 2, 3, 4)
FIRST = {'stem': MAPS, 'pool': NARROW, 'logits': _layer(3, 9, 3)}
SECOND = {'stem': WIDE, 'logits': NARROW @ _layer(4, 4, 3)}


# References, in float64.


def _topk_agreement(s, t, k):
  shares = []
  for a, b in zip(s.reshape(-1, 5), t.reshape(-1, 5), strict=True):
    tops = [sorted(range(5), key=lambda i, x=x: (-x[i], i))[:k] for x in (a, b)]
    shares.append(len(set(tops[0]) & set(tops[1])) / k)
  return np.mean(shares)


def _cka(x, y):
  """By the definition: HSIC of centred Gram matrices."""
  n = len(x)
  centre = np.eye(n) - 1 / n
  k, m = (
    centre @ (z @ z.T) @ centre for z in (x.reshape(n, -1), y.reshape(n, -1))
  )
  return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))


ON_LOGITS = {
  'agreement': (fidelity.agreement, lambda s, t: _topk_agreement(s, t, 1)),
  'topk_agreement': (
    functools.partial(fidelity.topk_agreement, k=3),
    lambda s, t: _topk_agreement(s, t, 3),
  ),
  'teacher_kl': (
    functools.partial(fidelity.teacher_kl, temperature=4.0),
    lambda s, t: reference.kd(s, t, 4.0).mean() / 16,
  ),
}
EACH = pytest.mark.parametrize(
  ('function', 'value'), ON_LOGITS.values(), ids=ON_LOGITS
)
PAIRS = {
  'wide': (WIDE, WIDE @ _layer(5, 20, 15)),
  'narrow': (NARROW, NARROW**2),
  'mixed': (WIDE, NARROW),
  'maps': (MAPS, NARROW),
  'two_examples': (WIDE[:2], NARROW[:2]),
}
EACH_PAIR = pytest.mark.parametrize(('x', 'y'), PAIRS.values(), ids=PAIRS)


def _float32(*arrays):
  return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


_jit_cka = jax.jit(fidelity.linear_cka)


# On logits.


@EACH
@pytest.mark.parametrize('batch', [(12,), (3, 4)])
def test_value(function, value, batch):
  s, t = STUDENT.reshape(*batch, 5), TEACHER.reshape(*batch, 5)
  actual = function(*_float32(s, t))
  assert actual.shape == ()
  assert actual.dtype == jnp.float32
  assert 0 < value(s, t) < 1
  np.testing.assert_allclose(actual, value(s, t), rtol=1e-5)


@EACH
def test_jit_and_vmap(function, value):
  s, t = _float32(STUDENT, TEACHER)
  np.testing.assert_allclose(jax.jit(function)(s, t), function(s, t), rtol=1e-6)
  batches = s.reshape(3, 4, 5), t.reshape(3, 4, 5)
  each = [function(*pair) for pair in zip(*batches, strict=True)]
  mapped = jax.jit(jax.vmap(function))(*batches)
  np.testing.assert_allclose(mapped, each, rtol=1e-5)


@pytest.mark.parametrize('k', [1, 2, 4, 5])
def test_topk_agreement(k):
  s, t = _float32(STUDENT, TEACHER)
  actual = fidelity.topk_agreement(s, t, k=k)
  np.testing.assert_allclose(actual, _topk_agreement(STUDENT, TEACHER, k))


def test_ties_go_to_the_lower_class():
  s = jnp.array([[1.0, 1.0, 1.0], [-INF, -INF, -INF]])
  t = jnp.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
  assert fidelity.agreement(s, t) == 0.5
  assert fidelity.topk_agreement(s, t, k=1) == 0.5
  assert fidelity.topk_agreement(s, t, k=2) == 0.75


def test_agreement_does_not_see_scale_and_order():
  s, _ = _float32(STUDENT, TEACHER)
  assert fidelity.agreement(s, 7 * s - 3) == 1
  assert fidelity.topk_agreement(s, 7 * s - 3, k=2) == 1
  swapped = jnp.array([[2.0, 1.0, 0.0]]), jnp.array([[1.0, 2.0, 0.0]])
  assert fidelity.agreement(*swapped) == 0
  assert fidelity.topk_agreement(*swapped, k=2) == 1


def test_gradient_of_the_divergence():
  """(q̃ − p̃) / T, over the number of examples."""
  s, t = _float32(STUDENT, TEACHER)
  divergence = lambda s: fidelity.teacher_kl(s, t, temperature=4.0)
  np.testing.assert_allclose(
    jax.jit(jax.grad(divergence))(s),
    reference.d_kd(STUDENT, TEACHER, 4.0) / 16 / 12,
    rtol=1e-4,
    atol=1e-7,
  )


def test_divergence_of_masked_and_equal_answers():
  free, masked = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, -INF]])
  assert fidelity.teacher_kl(masked, masked) == 0
  np.testing.assert_allclose(fidelity.teacher_kl(free, masked), np.log(2))
  assert fidelity.teacher_kl(masked, free) == INF


@EACH
def test_an_undefined_logit_gives_nan(function, value):
  s, t = _float32(STUDENT, TEACHER)
  wrong = s.at[3, 1].set(jnp.nan)
  assert jnp.isnan(function(wrong, t))
  assert jnp.isnan(function(t, wrong))


# CKA.


@EACH_PAIR
def test_cka(x, y):
  actual = fidelity.linear_cka(*_float32(x, y))
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, _cka(x, y), rtol=1e-5)
  np.testing.assert_allclose(_jit_cka(*_float32(x, y)), actual, rtol=1e-5)


@EACH_PAIR
def test_cka_is_symmetric_and_one_of_equals(x, y):
  x, y = _float32(x, y)
  np.testing.assert_allclose(_jit_cka(x, y), _jit_cka(y, x), rtol=1e-5)
  np.testing.assert_allclose(_jit_cka(x, x), 1.0, rtol=1e-6)
  assert _jit_cka(x, x) <= 1


def test_cka_vmap():
  x, y = _float32(WIDE, NARROW)
  xs, ys = jnp.stack([x, x**2]), jnp.stack([y, 1 / y])
  each = [_jit_cka(*pair) for pair in zip(xs, ys, strict=True)]
  mapped = jax.jit(jax.vmap(fidelity.linear_cka))(xs, ys)
  np.testing.assert_allclose(mapped, each, rtol=1e-5)


@pytest.mark.parametrize('x', [WIDE, NARROW], ids=['wide', 'narrow'])
def test_cka_does_not_see_rotation_scale_and_shift(x):
  rotation = np.linalg.qr(_layer(6, x.shape[1], x.shape[1]))[0]
  other = _layer(7, 9, 6)
  moved = 300 * x @ rotation + 5
  np.testing.assert_allclose(
    _jit_cka(*_float32(moved, other)), _cka(x, other), rtol=1e-4
  )
  for scale in (1e-12, 1e12):  # whose fourth power float32 cannot hold
    actual = _jit_cka(*_float32(scale * x, other))
    np.testing.assert_allclose(actual, _cka(x, other), rtol=1e-5)


def test_cka_of_unrelated_directions():
  x = jnp.array([[1.0], [-1.0], [0.0], [0.0]])
  y = jnp.array([[0.0], [0.0], [1.0], [-1.0]])
  assert _jit_cka(x, y) == 0


@pytest.mark.parametrize('width', [3, 20])
def test_cka_of_constant_features_is_zero(width):
  constant = jnp.full((9, width), 0.1)
  (y,) = _float32(NARROW)
  value, gradient = jax.jit(jax.value_and_grad(fidelity.linear_cka))(
    constant, y
  )
  assert value == 0
  assert jnp.all(jnp.isfinite(gradient))
  assert _jit_cka(constant, constant) == 0


@pytest.mark.parametrize(
  ('x', 'y'), [(WIDE, NARROW), (NARROW, NARROW**2)], ids=['gram', 'feature']
)
def test_gradient_of_cka(x, y):
  step = 1e-6 * _layer(8, *x.shape)
  expected = (_cka(x + step, y) - _cka(x - step, y)) / 2
  gradient = jax.jit(jax.grad(fidelity.linear_cka))(*_float32(x, y))
  np.testing.assert_allclose(np.sum(gradient * step), expected, rtol=1e-3)


def test_cka_of_an_undefined_feature_is_nan():
  x, y = _float32(WIDE, NARROW)
  assert jnp.isnan(_jit_cka(x.at[2, 1].set(jnp.nan), y))


# The table of layers.


def test_cka_matrix():
  first = {name: jnp.asarray(x, jnp.float32) for name, x in FIRST.items()}
  second = {name: jnp.asarray(x, jnp.float32) for name, x in SECOND.items()}
  expected = [[_cka(x, y) for y in SECOND.values()] for x in FIRST.values()]
  actual = fidelity.cka_matrix(first, second)
  assert actual.shape == (3, 2)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  reverse = dict(reversed(first.items()))
  np.testing.assert_allclose(
    fidelity.cka_matrix(reverse, second), actual[::-1], rtol=1e-5
  )


def test_cka_matrix_takes_each_product_once():
  """Of 3 wide layers against 2: a Gram matrix each, whatever the pairs."""
  x = jnp.ones((4, 9))
  program = fidelity._cka_table.lower([x, x, x], [x, x]).compile()
  assert program.as_text().count(' dot(') == 5


@pytest.mark.parametrize(
  ('a', 'b', 'message'),
  [
    ({}, {'fc': NARROW}, 'features_a is empty'),
    ({'fc': NARROW}, {}, 'features_b is empty'),
    (
      {'fc': NARROW},
      {'fc': NARROW, 'stem': WIDE[:5]},
      r"features_b\['stem'\] has shape \(5, 20\) and features_a\['fc'\]",
    ),
    ({'fc': NARROW[:1]}, {'fc': NARROW[:1]}, r"features_a\['fc'\] of shape"),
    ({'fc': np.ones(())}, {'fc': np.ones(())}, r"features_a\['fc'\] of shape"),
  ],
)
def test_wrong_layers(a, b, message):
  with pytest.raises(ValueError, match=message):
    fidelity.cka_matrix(a, b)


def test_a_layer_that_is_no_array():
  with pytest.raises(TypeError):
    fidelity.cka_matrix({'fc': NARROW, 'stem': None}, {'fc': NARROW})


# Mistakes.


BAD = {
  'classes': lambda s, t: fidelity.agreement(s, t[:, 1:]),
  'batch': lambda s, t: fidelity.agreement(s, t[0]),
  'integers': lambda s, t: fidelity.agreement(s, t.astype(jnp.int32)),
  'divergence': lambda s, t: fidelity.teacher_kl(s[1:], t),
  'positional': lambda s, t: fidelity.teacher_kl(s, t, 2.0),
  'topk': lambda s, t: fidelity.topk_agreement(s, t[None], k=1),
  'fractional_k': lambda s, t: fidelity.topk_agreement(s, t, k=2.0),
  'cka_scalar': lambda s, t: fidelity.linear_cka(s[0, 0], t[0, 0]),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call(*_float32(STUDENT, TEACHER))


def test_other_examples_are_an_error_that_names_the_argument():
  x, y = _float32(WIDE, NARROW)
  with pytest.raises(TypeError, match="parameter 'y'"):
    fidelity.linear_cka(x, y[1:])


OUT_OF_RANGE = {
  'k=0 must lie in 1..5': lambda s, t: fidelity.topk_agreement(s, t, k=0),
  'k=6 must lie in 1..5': lambda s, t: fidelity.topk_agreement(s, t, k=6),
  'temperature=0': lambda s, t: fidelity.teacher_kl(s, t, temperature=0),
  'x of shape': lambda s, t: fidelity.linear_cka(s[:1], t[:1]),
}


@pytest.mark.parametrize(
  ('match', 'call'), OUT_OF_RANGE.items(), ids=OUT_OF_RANGE
)
def test_out_of_range(match, call):
  with pytest.raises(ValueError, match=match):
    call(*_float32(STUDENT, TEACHER))


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_becomes_float32(dtype):
  s, t = (x.astype(dtype) for x in _float32(STUDENT, TEACHER))
  for function, _ in ON_LOGITS.values():
    assert function(s, t).dtype == jnp.float32
  assert fidelity.linear_cka(s, t).dtype == jnp.float32
  assert fidelity.cka_matrix({'fc': s}, {'fc': t}).dtype == jnp.float32
