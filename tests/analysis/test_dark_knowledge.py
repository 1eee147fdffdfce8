"""Dark knowledge: references, information of tables, sure teachers."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kdjax.analysis import dark_knowledge

LOGITS = reference.wave((6, 4), 0.7, 0.5, 3.0)
PROBS = reference.softmax(LOGITS)
LABELS = np.array([0, 2, 3, 1, 2, 2])
INF = np.inf


# References, in float64.


def _incorrect(t, y, temperature):
  """Class by class: the label left out, the others renormalised."""
  r = np.zeros(t.shape)
  for index in np.ndindex(t.shape[:-1]):
    others = [i for i in range(t.shape[-1]) if i != y[index]]
    r[index][others] = reference.softmax(t[index][others], temperature)
  return r


def _entropy(r):
  return -np.sum(r * np.log(np.where(r > 0, r, 1.0)), axis=-1)


def _mutual_information(table):
  """H(Y) + H(J) − H(Y, J)."""
  p = table / table.sum()
  return _entropy(p.sum(1)) + _entropy(p.sum(0)) - _entropy(p.ravel())


def _quasi_independent(table, steps=2000):
  """Proportional fitting of the table itself, from 1 off the diagonal."""
  p = table / table.sum()
  q = 1.0 - np.eye(len(p))
  for _ in range(steps):
    for axis in (0, 1):
      now = q.sum(axis, keepdims=True)
      q = q * p.sum(axis, keepdims=True) / np.where(now > 0, now, 1.0)
  return q


def _relation_information(table):
  p, q = table / table.sum(), _quasi_independent(table)
  with np.errstate(divide='ignore'):
    return reference.kl(p.ravel(), np.log(q).ravel())


R = _incorrect(LOGITS, LABELS, 2.0)


class Case(NamedTuple):
  """A function of some of the arrays above, and its reference."""

  function: object
  value: object
  args: tuple


PER_EXAMPLE = {
  'incorrect_probs': Case(
    functools.partial(dark_knowledge.incorrect_probs, temperature=2.0),
    lambda t, y: _incorrect(t, y, 2.0),
    (LOGITS, LABELS),
  ),
  'incorrect_entropy': Case(
    functools.partial(dark_knowledge.incorrect_entropy, temperature=2.0),
    lambda t, y: _entropy(_incorrect(t, y, 2.0)),
    (LOGITS, LABELS),
  ),
  'topk_mass': Case(
    dark_knowledge.topk_mass,
    lambda p: np.cumsum(-np.sort(-p, axis=-1), axis=-1),
    (PROBS,),
  ),
}
EACH_EXAMPLE = pytest.mark.parametrize(
  'case', PER_EXAMPLE.values(), ids=PER_EXAMPLE
)


def _random_table(seed, num_classes, concentration=1.0):
  rng = np.random.default_rng(seed)
  table = rng.gamma(concentration, size=(num_classes, num_classes))
  return table * (1 - np.eye(num_classes))


def _without(table, *absent):
  table = table.copy()
  table[list(absent)] = 0
  return table


TABLES = {
  'three': _random_table(0, 3),
  'eight': _random_table(1, 8),
  'sparse': _random_table(2, 12, 0.05),
  'imbalanced': _random_table(3, 6) * [[50.0], [1], [1], [1], [0.1], [0.01]],
  'absent': _without(_random_table(4, 6), 0, 3),
  'absent_and_never_wrong': _without(_without(_random_table(5, 6), 2).T, 2).T,
  'two_classes': np.array([[0.0, 3.0], [1.0, 0.0]]),
  'one_row': _without(_random_table(6, 4), 1, 2, 3),
}
EACH_TABLE = pytest.mark.parametrize('table', TABLES.values(), ids=TABLES)
BOTH = pytest.mark.parametrize(
  ('function', 'value'),
  [
    (dark_knowledge.mutual_information, _mutual_information),
    (dark_knowledge.relation_information, _relation_information),
  ],
  ids=['mutual', 'relation'],
)


def _device(x):
  x = np.asarray(x)
  return jnp.asarray(x, jnp.float32 if x.dtype.kind == 'f' else jnp.int32)


@functools.cache
def _jit(function):
  return jax.jit(function)


# Per example.


@EACH_EXAMPLE
@pytest.mark.parametrize('batch', [(6,), (2, 3)])
def test_value(case, batch):
  args = [x.reshape(batch + x.shape[1:]) for x in case.args]
  actual = case.function(*map(_device, args))
  assert actual.dtype == jnp.float32
  expected = case.value(*args)
  assert actual.shape == expected.shape
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


@EACH_EXAMPLE
def test_jit_and_vmap(case):
  args = [_device(x) for x in case.args]
  eager = case.function(*args)
  np.testing.assert_allclose(jax.jit(case.function)(*args), eager, rtol=1e-5)
  mapped = jax.jit(jax.vmap(case.function))(*args)
  np.testing.assert_allclose(mapped, eager, rtol=1e-5)


def test_gradient_of_the_entropy():
  """dH/dt_i = −r_i (log r_i + H) / T, and 0 at the label."""
  t, y = LOGITS[:1], LABELS[:1]
  r = _incorrect(t, y, 2.0)
  expected = -r * (np.log(np.where(r > 0, r, 1.0)) + _entropy(r)[:, None]) / 2
  entropy = lambda t: PER_EXAMPLE['incorrect_entropy'].function(t, y).sum()
  actual = jax.jit(jax.grad(entropy))(_device(t))
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_incorrect_of_a_teacher_that_is_sure():
  """1 − p_y would be 0 in float32; the label's logit does not matter."""
  t = _device(LOGITS)
  sure = t + 1e6 * jax.nn.one_hot(LABELS, 4)
  incorrect = PER_EXAMPLE['incorrect_probs'].function
  np.testing.assert_array_equal(incorrect(sure, LABELS), incorrect(t, LABELS))


def test_entropy_between_none_and_log_of_the_wrong_classes():
  t = jnp.array([[5.0, 1.0, 1.0, 1.0], [5.0, 900.0, 0.0, -900.0]])
  y = jnp.array([0, 0])
  entropy = dark_knowledge.incorrect_entropy(t, y, temperature=1.0)
  np.testing.assert_allclose(entropy, [np.log(3), 0.0], rtol=1e-6)


@pytest.mark.parametrize(
  ('logits', 'probs', 'entropy'),
  [
    ([-INF, 0.0, 0.0, -INF], [0.0, 0.5, 0.5, 0.0], np.log(2)),
    ([0.0, -INF, 3.0, -INF], [0.0, 0.0, 1.0, 0.0], 0.0),
    ([7.0, -INF, -INF, -INF], [0.0] * 4, 0.0),
    ([-INF] * 4, [0.0] * 4, 0.0),
    ([2.0, 1.0], [0.0, 1.0], 0.0),
    ([0.0, -1e4, 1e4, 1e4], [0.0, 0.0, 0.5, 0.5], np.log(2)),
  ],
)
def test_incorrect_at_extremes(logits, probs, entropy):
  t, y = jnp.array(logits), jnp.array(0)
  actual = dark_knowledge.incorrect_probs(t, y, temperature=2.0)
  np.testing.assert_array_equal(actual, probs)
  function = functools.partial(
    dark_knowledge.incorrect_entropy, labels=y, temperature=2.0
  )
  value, gradient = jax.jit(jax.value_and_grad(function))(t)
  np.testing.assert_allclose(value, entropy, rtol=1e-6)
  assert jnp.all(jnp.isfinite(gradient))


def test_topk_mass_never_falls_and_ends_at_one():
  p = np.random.default_rng(0).dirichlet(np.full(1000, 0.1), 50)
  mass = _jit(dark_knowledge.topk_mass)(_device(p))
  assert jnp.all(jnp.diff(mass, axis=-1) >= 0)
  np.testing.assert_allclose(mass[:, -1], 1.0, rtol=1e-6)
  one_hot = dark_knowledge.topk_mass(jnp.array([0.0, 0.0, 1.0]))
  np.testing.assert_array_equal(one_hot, 1.0)


# Per class.


def test_class_confusion():
  expected = [R[y == LABELS].mean(0) for y in range(4)]
  actual = dark_knowledge.class_confusion(_device(R), LABELS)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  np.testing.assert_array_equal(jnp.diag(actual), 0.0)
  np.testing.assert_allclose(
    _jit(dark_knowledge.class_confusion)(_device(R), LABELS), actual, rtol=1e-6
  )


def test_joint_table():
  expected = np.zeros((4, 4))
  for row, label in zip(R, LABELS, strict=True):
    expected[label] += row / len(LABELS)
  actual = dark_knowledge.joint_table(_device(R), LABELS)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  np.testing.assert_allclose(actual.sum(), 1.0, rtol=1e-6)
  np.testing.assert_allclose(
    _jit(dark_knowledge.joint_table)(_device(R), LABELS), actual, rtol=1e-6
  )


def test_a_class_without_examples_has_an_empty_row():
  y = np.where(LABELS == 2, 1, LABELS)
  r = _device(_incorrect(LOGITS, y, 1.0))
  for function in (dark_knowledge.class_confusion, dark_knowledge.joint_table):
    actual = function(r, y)
    np.testing.assert_array_equal(actual[2], 0.0)
    assert jnp.all(actual[jnp.array([0, 1, 3])].sum(-1) > 0.1)


# Information.


@BOTH
@EACH_TABLE
def test_information(function, value, table):
  actual = _jit(function)(_device(table))
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, value(table), rtol=1e-5, atol=1e-6)


@BOTH
def test_information_eager_jit_vmap_and_scale(function, value):
  tables = jnp.stack([_device(_random_table(seed, 5)) for seed in range(3)])
  each = [function(table) for table in tables]
  mapped = jax.jit(jax.vmap(function))(tables)
  np.testing.assert_allclose(mapped, each, rtol=1e-5)
  np.testing.assert_allclose(
    _jit(function)(1e6 * tables[0]), each[0], rtol=1e-5
  )


def test_gradient_of_mutual_information():
  """dI/dP_yj = log(P_yj / (P_y P_j)) − I for a table that sums to one."""
  p = TABLES['eight'] + 0.1
  p = p / p.sum()
  expected = np.log(p / np.outer(p.sum(1), p.sum(0))) - _mutual_information(p)
  gradient = jax.jit(jax.grad(dark_knowledge.mutual_information))
  actual = gradient(_device(p))
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
  assert jnp.all(jnp.isfinite(gradient(_device(TABLES['eight']))))


@EACH_TABLE
def test_relation_information_is_a_difference(table):
  """KL(P ‖ Q*) = I(P) − I(Q*)."""
  mutual = _jit(dark_knowledge.mutual_information)
  fit = _quasi_independent(table)
  np.testing.assert_allclose(
    _jit(dark_knowledge.relation_information)(_device(table)),
    mutual(_device(table)) - mutual(_device(fit)),
    atol=2e-6,
  )


@pytest.mark.parametrize('num_classes', [2, 3, 10])
def test_an_even_teacher_relates_nothing(num_classes):
  table = jnp.ones((num_classes, num_classes)) - jnp.eye(num_classes)
  np.testing.assert_allclose(
    _jit(dark_knowledge.mutual_information)(table),
    np.log(num_classes / (num_classes - 1)),
    rtol=1e-5,
  )
  relation = _jit(dark_knowledge.relation_information)(table)
  np.testing.assert_allclose(relation, 0.0, atol=1e-6)


@pytest.mark.parametrize('frequencies', [np.ones(5), np.arange(1.0, 6)])
def test_a_preference_that_ignores_the_class_relates_nothing(frequencies):
  preference = np.array([5.0, 1.0, 0.3, 2.0, 0.01])
  rows = preference * (1 - np.eye(5))
  rows *= (frequencies / rows.sum(1))[:, None]
  assert _mutual_information(rows) > 0.1
  relation = _jit(dark_knowledge.relation_information)(_device(rows))
  np.testing.assert_allclose(relation, 0.0, atol=1e-6)


def test_information_of_neighbours():
  """Each class with one wrong class: all that balanced classes can have."""
  table = jnp.roll(jnp.eye(6), 1, axis=1)
  np.testing.assert_allclose(
    _jit(dark_knowledge.mutual_information)(table), np.log(6), rtol=1e-6
  )
  np.testing.assert_allclose(
    _jit(dark_knowledge.relation_information)(table), np.log(5), rtol=1e-6
  )


def test_relation_information_leaves_the_diagonal_out():
  table = _device(TABLES['eight'])
  function = _jit(dark_knowledge.relation_information)
  np.testing.assert_array_equal(
    function(table + 7 * jnp.eye(8)), function(table)
  )


def test_one_class_in_every_pair_ends():
  """No finite factors exist: their limit is met as far as promised."""
  table = jnp.zeros((4, 4)).at[0, 1:].set(1.0).at[1:, 0].set(1.0)
  relation = _jit(dark_knowledge.relation_information)(table)
  assert 0 <= relation <= 3e-5


@BOTH
def test_information_of_empty_single_and_undefined_tables(function, value):
  function = _jit(function)
  assert function(jnp.zeros((3, 3))) == 0
  assert function(jnp.ones((1, 1))) == 0
  assert jnp.isnan(function(jnp.ones((3, 3)).at[0, 1].set(jnp.nan)))


@BOTH
def test_information_is_never_negative(function, value):
  rng = np.random.default_rng(0)
  rows, columns = rng.random((2, 20, 7))
  independent = rows[:, :, None] * columns[:, None]
  off = independent * (1 - np.eye(7))
  for tables in (independent, off):
    values = jax.jit(jax.vmap(function))(_device(tables))
    assert jnp.all(values >= 0)


# Mistakes.


BAD = {
  'labels': lambda t, y: dark_knowledge.incorrect_probs(
    t, y[1:], temperature=1.0
  ),
  'float_labels': lambda t, y: dark_knowledge.incorrect_entropy(
    t, y * 1.0, temperature=1.0
  ),
  'positional': lambda t, y: dark_knowledge.incorrect_probs(t, y, 1.0),
  'integers': lambda t, y: dark_knowledge.topk_mass(y),
  'confusion': lambda t, y: dark_knowledge.class_confusion(t, y[1:]),
  'joint': lambda t, y: dark_knowledge.joint_table(t[None], y),
  'mutual': lambda t, y: dark_knowledge.mutual_information(t),
  'relation': lambda t, y: dark_knowledge.relation_information(t),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call(_device(LOGITS), _device(LABELS))


@pytest.mark.parametrize('temperature', [0.0, -1, INF, np.nan])
def test_wrong_temperature(temperature):
  t, y = _device(LOGITS), _device(LABELS)
  wrong = pytest.raises(ValueError, match='temperature=')
  with wrong:
    dark_knowledge.incorrect_probs(t, y, temperature=temperature)
  with wrong:
    dark_knowledge.incorrect_entropy(t, y, temperature=temperature)


def test_one_class_has_no_wrong_one():
  t, y = jnp.zeros((2, 1)), jnp.zeros(2, jnp.int32)
  wrong = pytest.raises(ValueError, match='at least 2 classes')
  with wrong:
    dark_knowledge.incorrect_probs(t, y, temperature=1.0)
  with wrong:
    dark_knowledge.incorrect_entropy(t, y, temperature=1.0)


@pytest.mark.parametrize('label', [-1, 4, 300])
def test_a_label_that_is_no_class_gives_nan(label):
  t, r = _device(LOGITS[:2]), _device(R[:2])
  y = jnp.array([1, label])
  for function in (
    dark_knowledge.incorrect_probs,
    dark_knowledge.incorrect_entropy,
  ):
    first, second = function(t, y, temperature=1.0)
    assert jnp.all(jnp.isfinite(first))
    assert jnp.all(jnp.isnan(second))
  for function in (dark_knowledge.class_confusion, dark_knowledge.joint_table):
    assert jnp.all(jnp.isnan(function(r, y)))


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_becomes_float32(dtype):
  t, y = _device(LOGITS).astype(dtype), _device(LABELS)
  r = dark_knowledge.incorrect_probs(t, y, temperature=1.0)
  for x in (
    r,
    dark_knowledge.incorrect_entropy(t, y, temperature=1.0),
    dark_knowledge.topk_mass(r.astype(dtype)),
    dark_knowledge.joint_table(r.astype(dtype), y),
    dark_knowledge.relation_information(jnp.ones((3, 3), dtype)),
  ):
    assert x.dtype == jnp.float32
