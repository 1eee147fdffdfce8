"""Teacher distributions: references, transformations, precision, extremes."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kdjax import targets

LOGITS = reference.wave((4, 5), 0.7, 0.5, 3.0)
PROBS = reference.softmax(LOGITS)
LABELS = np.array([0, 2, 4, 1])
WEIGHTS = reference.wave((5, 3), 0.9, 0.2)
SIM = reference.sim(WEIGHTS, LABELS, 0.3, 0.3)


class Case(NamedTuple):
  """A target of some of the arrays above, and its float64 reference."""

  target: object
  value: object
  args: tuple


CASES = {
  'label_smoothing': Case(
    functools.partial(targets.label_smoothing, num_classes=5, smoothing=0.2),
    lambda y: 0.8 * reference.one_hot(y, 5) + 0.04,
    (LABELS,),
  ),
  'full': Case(
    functools.partial(targets.full, temperature=4.0),
    lambda t: reference.softmax(t, 4.0),
    (LOGITS,),
  ),
  'pt': Case(targets.pt, reference.pt, (PROBS, LABELS)),
  'sim': Case(
    lambda y: targets.sim(
      jnp.asarray(WEIGHTS, jnp.float32), y, power=0.5, temperature=0.2
    ),
    lambda y: reference.sim(WEIGHTS, y, 0.5, 0.2),
    (LABELS,),
  ),
  'pt_sim_mixture': Case(
    functools.partial(targets.pt_sim_mixture, mix=0.3),
    lambda p, rho, y: 0.7 * reference.pt(p, y) + 0.3 * rho,
    (PROBS, SIM, LABELS),
  ),
  'pt_sim_conditional': Case(
    targets.pt_sim_conditional,
    reference.pt_sim_conditional,
    (PROBS, SIM, LABELS),
  ),
  'topk': Case(
    functools.partial(targets.topk, k=2),
    lambda p: reference.topk(p, 2),
    (PROBS,),
  ),
}
EACH_CASE = pytest.mark.parametrize('case', CASES.values(), ids=CASES)
LABELLED = {k: case for k, case in CASES.items() if case.args[-1] is LABELS}


def _float32(x):
  x = np.asarray(x)
  return jnp.asarray(x, jnp.float32 if x.dtype.kind == 'f' else jnp.int32)


# The checks that every target passes.


@EACH_CASE
@pytest.mark.parametrize('batch', [(4,), (2, 2)])
def test_value(case, batch):
  size = int(np.prod(batch))
  args = [x[:size].reshape(batch + x.shape[1:]) for x in case.args]
  actual = case.target(*map(_float32, args))
  assert actual.shape == (*batch, 5)
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, case.value(*args), rtol=1e-5)


@EACH_CASE
def test_sums_to_one(case):
  actual = case.target(*map(_float32, case.args))
  np.testing.assert_allclose(actual.sum(-1), 1.0, rtol=1e-6)
  assert jnp.all(actual >= 0)


@EACH_CASE
def test_jit_and_vmap(case):
  args = [_float32(x) for x in case.args]
  eager = case.target(*args)
  np.testing.assert_allclose(jax.jit(case.target)(*args), eager, rtol=1e-5)
  mapped = jax.jit(jax.vmap(case.target))(*args)
  np.testing.assert_allclose(mapped, eager, rtol=1e-5)


def test_gradient_of_full():
  """∂p̃_i/∂t_j = p̃_i (1[i=j] − p̃_j) / T."""
  p = reference.softmax(LOGITS[0], 4.0)
  actual = jax.jit(jax.jacobian(CASES['full'].target))(_float32(LOGITS[0]))
  expected = (np.diag(p) - p[:, None] * p[None]) / 4.0
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('name', ['pt', 'pt_sim_conditional', 'topk'])
def test_gradient_in_the_teacher(name):
  """Each keeps the total mass, so that mass has gradient one everywhere."""
  args = [_float32(x) for x in CASES[name].args]
  mass = lambda p: CASES[name].target(p, *args[1:]).sum()
  np.testing.assert_allclose(jax.jit(jax.grad(mass))(args[0]), 1.0, rtol=1e-5)


BAD = {
  'labels': lambda p, y: targets.pt(p, y[1:]),
  'float_labels': lambda p, y: targets.pt(p, y * 1.0),
  'full': lambda p, y: targets.full(y, temperature=1.0),
  'sim': lambda p, y: targets.sim(p[0], y),
  'mixture': lambda p, y: targets.pt_sim_mixture(p, p[:, 1:], y),
  'conditional': lambda p, y: targets.pt_sim_conditional(p, p[1:], y),
  'fractional_k': lambda p, y: targets.topk(p, k=2.0),
  'many_k': lambda p, y: targets.topk(p, k=jnp.array([1, 2])),
  'positional': lambda p, y: targets.topk(p, 2),
  'num_classes': lambda p, y: targets.label_smoothing(
    y, num_classes=5.0, smoothing=0.1
  ),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call(_float32(PROBS), _float32(LABELS))


OUT_OF_RANGE = {
  'smoothing=1.5': lambda p, y: targets.label_smoothing(
    y, num_classes=5, smoothing=1.5
  ),
  'num_classes=0': lambda p, y: targets.label_smoothing(
    y, num_classes=0, smoothing=0.1
  ),
  'temperature=0': lambda p, y: targets.full(p, temperature=0),
  'power=-1.0': lambda p, y: targets.sim(p, y, power=-1.0),
  'temperature=-2.0': lambda p, y: targets.sim(p, y, temperature=-2.0),
  'mix=-0.1': lambda p, y: targets.pt_sim_mixture(p, p, y, mix=-0.1),
  'k=0 must lie in 1..5': lambda p, y: targets.topk(p, k=0),
  'k=6 must lie in 1..5': lambda p, y: targets.topk(p, k=6),
}


@pytest.mark.parametrize(
  ('match', 'call'), OUT_OF_RANGE.items(), ids=OUT_OF_RANGE
)
def test_out_of_range(match, call):
  with pytest.raises(ValueError, match=match):
    call(_float32(PROBS), _float32(LABELS))


# Properties.


def test_top_of_all_classes_is_full():
  p = targets.full(_float32(LOGITS), temperature=4.0)
  np.testing.assert_array_equal(targets.topk(p, k=5), p)


@pytest.mark.parametrize(
  ('k', 'expected'),
  [
    (1, [0.125, 0.5, 0.125, 0.125, 0.125]),
    (2, [0.0625, 0.5, 0.3125, 0.0625, 0.0625]),
    (3, [0.125, 0.5, 0.3125, 0.03125, 0.03125]),
    (4, [0.125, 0.5, 0.3125, 0.0, 0.0625]),
    (5, [0.125, 0.5, 0.3125, 0.0, 0.0625]),
  ],
)
def test_topk_keeps_k_and_spreads_the_rest(k, expected):
  p = jnp.array([0.125, 0.5, 0.3125, 0.0, 0.0625])
  np.testing.assert_array_equal(targets.topk(p, k=k), expected)


@pytest.mark.parametrize(
  ('k', 'expected'),
  [
    (1, [0.25, 0.1875, 0.1875, 0.1875, 0.1875]),
    (2, [0.25, 0.5 / 3, 0.25, 0.5 / 3, 0.5 / 3]),
    (4, [0.25, 0.125, 0.25, 0.125, 0.25]),
  ],
)
def test_ties_go_to_the_lower_class(k, expected):
  p = jnp.array([0.25, 0.125, 0.25, 0.125, 0.25])
  np.testing.assert_allclose(targets.topk(p, k=k), expected, rtol=1e-6)


def test_ties_of_zeros_and_of_all():
  p = jnp.array([[0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
  np.testing.assert_allclose(targets.topk(p, k=2), p, rtol=1e-6)


def test_traced_k():
  """One program for students of every k."""
  p = _float32(PROBS)
  by_k = jax.jit(jax.vmap(lambda k: targets.topk(p, k=k)))(jnp.arange(1, 6))
  for k in range(1, 6):
    np.testing.assert_array_equal(by_k[k - 1], targets.topk(p, k=k))


def test_traced_hyper_parameters():
  p, rho, y = map(_float32, (PROBS, SIM, LABELS))
  grid = jnp.array([0.25, 0.5])
  for target in (
    lambda x: targets.label_smoothing(y, num_classes=5, smoothing=x),
    lambda x: targets.full(p, temperature=x),
    lambda x: targets.sim(_float32(WEIGHTS), y, power=x, temperature=2 * x),
    lambda x: targets.pt_sim_mixture(p, rho, y, mix=x),
  ):
    each = jnp.stack([target(0.25), target(0.5)])
    np.testing.assert_allclose(jax.jit(jax.vmap(target))(grid), each, rtol=1e-5)


def test_pt_and_conditional_keep_the_true_class():
  p, rho, y = map(_float32, (PROBS, SIM, LABELS))
  rows = jnp.arange(4)
  for actual in (targets.pt(p, y), targets.pt_sim_conditional(p, rho, y)):
    np.testing.assert_array_equal(actual[rows, y], p[rows, y])


def test_conditional_keeps_the_relations():
  p, rho, y = map(_float32, (PROBS, SIM, LABELS))
  ratio = targets.pt_sim_conditional(p, rho, y) / rho
  for row, label in zip(ratio, LABELS, strict=True):
    others = np.delete(row, label)
    np.testing.assert_allclose(others, others[0], rtol=1e-5)


def test_mixture_ends_are_its_parts():
  p, rho, y = map(_float32, (PROBS, SIM, LABELS))
  mixture = functools.partial(targets.pt_sim_mixture, p, rho, y)
  np.testing.assert_array_equal(mixture(mix=0), targets.pt(p, y))
  np.testing.assert_array_equal(mixture(mix=1), rho)


def _largest_array(function, *args):
  """The most numbers in any array that a function makes."""
  traced = jax.make_jaxpr(function)(*args)
  made = [v.aval.size for e in traced.jaxpr.eqns for v in e.outvars]
  return max(made)


def test_sim_of_many_classes_makes_rows_of_labels_only():
  w, y = jnp.ones((1000, 4)), jnp.zeros((2, 3), jnp.int32)
  assert _largest_array(targets.sim, w, y) <= 2 * 3 * 1000
  expected = reference.sim(WEIGHTS, LABELS.reshape(2, 2), 0.3, 0.3)
  actual = targets.sim(_float32(WEIGHTS), _float32(LABELS.reshape(2, 2)))
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize('k', [1, 64, 299, 300])
def test_topk_of_many_classes(k):
  """A number is found faster than by ranks, which a traced k needs."""
  p = reference.softmax(np.round(reference.wave((2, 2, 300), 0.7, 0.5, 3.0), 1))
  assert len(np.unique(p[0, 0])) < 100  # ties
  expected = reference.topk(p, k)
  by_number = jax.jit(lambda p: targets.topk(p, k=k))(_float32(p))
  traced = jax.jit(lambda p, k: targets.topk(p, k=k))(_float32(p), k)
  np.testing.assert_allclose(by_number, expected, rtol=1e-5, atol=1e-9)
  np.testing.assert_array_equal(by_number, traced)


def test_sim_depends_on_the_label_only():
  rows = targets.sim(_float32(WEIGHTS), jnp.array([3, 1, 3]))
  np.testing.assert_array_equal(rows[0], rows[2])
  np.testing.assert_array_equal(rows.argmax(-1), [3, 1, 3])


def test_sim_does_not_see_the_length_of_a_row():
  w, y = _float32(WEIGHTS), _float32(LABELS)
  scale = jnp.array([[1e-8], [1.0], [1e8], [3.0], [0.5]])
  np.testing.assert_allclose(
    targets.sim(w * scale, y), targets.sim(w, y), rtol=1e-4
  )


def test_smoothing_ends():
  smooth = functools.partial(targets.label_smoothing, LABELS, num_classes=5)
  np.testing.assert_array_equal(
    smooth(smoothing=0), reference.one_hot(LABELS, 5)
  )
  np.testing.assert_allclose(smooth(smoothing=1.0), 0.2)


# Precision: 1 − p would be 0 in float32 for a teacher as sure as this one.


@pytest.mark.parametrize(
  ('target', 'value'),
  [
    (targets.pt, reference.pt),
    (
      lambda p, y: targets.topk(p, k=1),
      lambda p, y: reference.pt(p, y),
    ),
    (
      lambda p, y: targets.pt_sim_conditional(p, jnp.full((1, 4), 0.25), y),
      lambda p, y: reference.pt(p, y),
    ),
  ],
  ids=['pt', 'topk', 'conditional'],
)
def test_small_rest(target, value):
  logits = np.array([[30.0, 1.0, -4.0, 2.0]])
  p = targets.full(_float32(logits), temperature=1.0)
  expected = value(reference.softmax(logits), [0])
  np.testing.assert_allclose(target(p, jnp.array([0])), expected, rtol=1e-5)


# Extremes.


@pytest.mark.parametrize(
  ('logits', 'expected'),
  [
    ([0.0, -np.inf, 0.0], [0.5, 0.0, 0.5]),
    ([-np.inf, 7.0, -np.inf], [0.0, 1.0, 0.0]),
    ([1e4, -1e4, 0.0], [1.0, 0.0, 0.0]),
    ([1e4, 1e4, 1e4, 1e4], [0.25] * 4),
    ([3.0], [1.0]),
  ],
)
def test_full_at_extremes(logits, expected):
  actual = targets.full(jnp.array(logits), temperature=2.0)
  np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize('probs', [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
def test_one_hot_teacher(probs):
  p, y = jnp.array([probs]), jnp.array([1])
  half = [[(1 - probs[1]) / 2, probs[1], (1 - probs[1]) / 2]]
  np.testing.assert_array_equal(targets.pt(p, y), half)
  np.testing.assert_array_equal(targets.topk(p, k=1), p)
  one_hot = jnp.array([[0.0, 1.0, 0.0]])  # ρ_sim without mass off the label
  np.testing.assert_array_equal(targets.pt_sim_conditional(p, one_hot, y), half)


@pytest.mark.parametrize(
  'target',
  [
    lambda p: targets.topk(p, k=5),
    lambda p: targets.pt_sim_conditional(
      p, jax.nn.one_hot(LABELS, 5), jnp.asarray(LABELS)
    ),
  ],
  ids=['topk', 'conditional'],
)
def test_nothing_divides_by_zero(target):
  mass = jax.jit(jax.grad(lambda p: target(p).sum()))
  np.testing.assert_allclose(mass(_float32(PROBS)), 1.0, rtol=1e-5)


def test_one_class():
  p, y = jnp.ones((2, 1)), jnp.zeros(2, jnp.int32)
  for actual in (
    targets.label_smoothing(y, num_classes=1, smoothing=0.3),
    targets.pt(p, y),
    targets.sim(jnp.ones((1, 3)), y),
    targets.pt_sim_mixture(p, p, y),
    targets.pt_sim_conditional(p, p, y),
    targets.topk(p, k=1),
  ):
    np.testing.assert_allclose(actual, p, rtol=1e-6)


def test_sim_of_unrelated_opposite_and_zero_rows():
  w = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]])
  sim = functools.partial(targets.sim, temperature=0.5)
  e = np.exp(2.0)
  np.testing.assert_allclose(
    sim(w, jnp.array([0, 3])),
    [np.array([e, 1, 1, 1]) / (e + 3), np.full(4, 0.25)],
    rtol=1e-6,
  )
  true_class = lambda w: sim(w, jnp.array([0, 3]))[0, 0]
  gradient = jax.jit(jax.grad(true_class))(w)
  assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize('case', LABELLED.values(), ids=LABELLED)
@pytest.mark.parametrize('label', [-1, 5, 300])
def test_a_label_that_is_no_class_gives_nan(case, label):
  args = [_float32(x[:1]) for x in case.args[:-1]]
  assert jnp.all(jnp.isnan(case.target(*args, jnp.array([label]))))


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_becomes_float32(dtype):
  p = targets.full(_float32(LOGITS).astype(dtype), temperature=1.0)
  assert p.dtype == jnp.float32
  assert targets.topk(p.astype(dtype), k=2).dtype == jnp.float32
