"""Losses in one pass: those of all logits, over the real tokens."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import fused, losses, targets, targets_sparse
from kdjax.losses import Head

TOKENS, CLASSES = 11, 9
LABELS = np.arange(TOKENS) * 4 % CLASSES
MASK = np.arange(TOKENS) % 4 != 2
SETTING = {'weight': 0.7, 'temperature': 3.0, 'temperature_power': 1.5}


class Case(NamedTuple):
  """A fused loss of (student, teacher, labels), and the plain one of logits."""

  fused: object
  plain: object


def _topk(s, t, y):
  probs = targets.full(t, temperature=3.0)
  return losses.distillation(s, targets.topk(probs, k=3), y, **SETTING)


CASES = {
  'cross_entropy': Case(
    lambda s, t, y, **kw: fused.cross_entropy(s, y, **kw),
    lambda s, t, y: losses.cross_entropy(s, y),
  ),
  'distillation': Case(
    functools.partial(fused.distillation, **SETTING),
    lambda s, t, y: losses.distillation(
      s, targets.full(t, temperature=3.0), y, **SETTING
    ),
  ),
  'topk': Case(functools.partial(fused.topk, k=3, **SETTING), _topk),
  'dkd': Case(
    functools.partial(fused.dkd, label_weight=0.5, target_weight=2.0),
    lambda s, t, y: (
      0.5 * losses.cross_entropy(s, y) + losses.dkd(s, t, y, target_weight=2.0)
    ),
  ),
}
EACH_CASE = pytest.mark.parametrize('case', CASES.values(), ids=CASES)


def _head(seed, width):
  rng = np.random.default_rng(seed)
  shapes = (TOKENS, width), (CLASSES, width), (CLASSES,)
  return Head(*(rng.standard_normal(s) for s in shapes))


def _logits(head):
  return head.hidden @ head.kernel.T + head.bias[None]


def _check(case, dtype, tolerance):
  cast = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
  student, teacher = cast((_head(0, 3), _head(1, 5)))
  junk = np.where(MASK, 0.0, np.nan)[:, None]
  holes = [
    h._replace(hidden=h.hidden + jnp.asarray(junk, dtype))
    for h in (student, teacher)
  ]
  found = jax.jit(
    jax.value_and_grad(
      lambda s, t, y: case.fused(s, t, y, mask=jnp.asarray(MASK), block_size=4)
    )
  )(*holes, np.where(MASK, LABELS, -1))
  expected = jax.jit(
    jax.value_and_grad(
      lambda s, t: case.plain(_logits(s), _logits(t), LABELS)[MASK].mean()
    )
  )(student, teacher)
  for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    assert a.dtype == dtype
    scale = np.abs(b).max()
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


@EACH_CASE
def test_equals_plain(case):
  _check(case, jnp.float32, 3e-6)


@EACH_CASE
def test_equals_plain_in_float64(case):
  with jax.enable_x64(True):
    _check(case, jnp.float64, 1e-13)


@EACH_CASE
def test_without_a_mask_all_are_real(case):
  args = _head(0, 3), _head(1, 5), LABELS
  student, teacher, _ = args = jax.tree.map(jnp.asarray, args)
  found = case.fused(*args)
  expected = case.plain(_logits(student), _logits(teacher), LABELS).mean()
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  nothing = case.fused(*args, mask=jnp.zeros(TOKENS, bool))
  np.testing.assert_array_equal(nothing, 0.0)


def test_vmap_over_a_traced_weight():
  args = jax.tree.map(jnp.asarray, (_head(0, 3), _head(1, 5), LABELS))

  def gradient(weight):
    total = lambda s: fused.topk(
      s, *args[1:], k=3, weight=weight, temperature=2.0, block_size=4
    )
    return jax.value_and_grad(total)(args[0])

  mapped = jax.jit(jax.vmap(gradient))(jnp.array([0.0, 0.5]))
  for index, weight in enumerate([0.0, 0.5]):
    for a, b in zip(
      *map(jax.tree.leaves, (mapped, gradient(weight))), strict=True
    ):
      np.testing.assert_allclose(a[index], b, rtol=1e-5, atol=1e-6)


def test_a_stored_sparse_teacher():
  """Its rows go through the blocks; no teacher's head is needed."""
  student, teacher, labels = jax.tree.map(
    jnp.asarray, (_head(0, 3), _head(1, 5), LABELS)
  )
  sparse = targets_sparse.sparse_topk(_logits(teacher), k=3, temperature=2.0)

  def stored(student):
    loss = lambda s, _, rows, t: (
      losses.kl_uniform_tail(s, *rows, temperature=t),
      None,
    )
    weights = jnp.full(TOKENS, 1 / TOKENS)
    return losses.blockwise(
      loss, student, sparse, shared=2.0, weights=weights, block_size=4
    )[0]

  def computed(student):
    return fused.topk(
      student, teacher, labels, k=3, weight=1.0, temperature=2.0
    )

  found, expected = (jax.grad(f)(student) for f in (stored, computed))
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


OUT_OF_RANGE = {
  'weight=1.5': lambda s, t, y: fused.topk(
    s, t, y, k=2, weight=1.5, temperature=1.0
  ),
  'k=10 must lie in 1..9': lambda s, t, y: fused.topk(
    s, t, y, k=10, weight=0.5, temperature=1.0
  ),
  'temperature=0': lambda s, t, y: fused.distillation(
    s, t, y, weight=0.5, temperature=0
  ),
  'label_weight=-1': lambda s, t, y: fused.dkd(s, t, y, label_weight=-1),
  'block_size=0': lambda s, t, y: fused.cross_entropy(s, y, block_size=0),
}


@pytest.mark.parametrize(
  ('match', 'call'), OUT_OF_RANGE.items(), ids=OUT_OF_RANGE
)
def test_out_of_range(match, call):
  args = jax.tree.map(jnp.asarray, (_head(0, 3), _head(1, 5), LABELS))
  with pytest.raises(ValueError, match=match):
    call(*args)


def test_wrong_shape_or_type():
  student, teacher, labels = jax.tree.map(
    jnp.asarray, (_head(0, 3), _head(1, 5), LABELS)
  )
  with pytest.raises(TypeError):
    fused.cross_entropy(student, labels * 1.0)
  with pytest.raises(TypeError):
    fused.cross_entropy(student, labels[1:])
  with pytest.raises(TypeError):
    fused.cross_entropy(tuple(student), labels)
  with pytest.raises(TypeError):
    fused.cross_entropy(student, labels, mask=MASK[1:])
  with pytest.raises(TypeError):
    fused.cross_entropy(student, labels, mask=MASK * 1.0)
  fewer = Head(teacher.hidden[1:], teacher.kernel, teacher.bias)
  with pytest.raises(TypeError):
    fused.dkd(student, fewer, labels)
