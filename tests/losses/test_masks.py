"""Masks: means over real positions, and blanks that nothing passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kdjax import losses

VALUES = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
MASK = np.array([[True, False, True], [False, False, True]])
LOGITS = VALUES[..., None] * np.array([1.0, -1.0])
JUNK = [np.nan, np.inf, -np.inf, 1e38]


def _with_junk(values, junk):
  where = MASK.reshape(MASK.shape + (1,) * (values.ndim - 2))
  return jnp.asarray(np.where(where, values, junk), jnp.float32)


@pytest.mark.parametrize('junk', JUNK)
def test_mean_value_and_gradient(junk):
  values = _with_junk(VALUES, junk)
  value, gradient = jax.value_and_grad(losses.masked_mean)(values, MASK)
  np.testing.assert_allclose(value, 37 / 3, rtol=1e-6)
  np.testing.assert_allclose(gradient, MASK / 3, rtol=1e-6)


def test_mean_of_all_and_of_nothing():
  values = jnp.asarray(VALUES, jnp.float32)
  value = jax.value_and_grad(losses.masked_mean)
  np.testing.assert_allclose(value(values, MASK | True)[0], 63 / 6, rtol=1e-6)
  nothing, gradient = value(values / 0, MASK & False)
  np.testing.assert_array_equal(nothing, 0.0)
  np.testing.assert_array_equal(gradient, 0.0)
  empty = losses.masked_mean(jnp.zeros(0), jnp.zeros(0, bool))
  np.testing.assert_array_equal(empty, 0.0)


def test_mean_jit_and_vmap():
  values = _with_junk(VALUES, np.nan)
  eager = losses.masked_mean(values, MASK)
  np.testing.assert_allclose(
    jax.jit(losses.masked_mean)(values, MASK), eager, rtol=1e-6
  )
  rows = [losses.masked_mean(*x) for x in zip(values, MASK, strict=True)]
  mapped = jax.jit(jax.vmap(losses.masked_mean))(values, MASK)
  np.testing.assert_allclose(mapped, rows, rtol=1e-6)


def test_mean_of_half_precision_is_float32():
  values = jnp.full(3000, 1.0, jnp.bfloat16)
  mean = losses.masked_mean(values, jnp.ones(3000, bool))
  assert mean.dtype == jnp.float32
  np.testing.assert_array_equal(mean, 1.0)


def test_mean_over_devices_with_unequal_counts():
  mesh = jax.make_mesh((2,), ('data',), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec('data'))
  values, mask = jax.device_put((_with_junk(VALUES, np.nan), MASK), rows)
  mean = jax.jit(losses.masked_mean)(values, mask)
  np.testing.assert_allclose(mean, 37 / 3, rtol=1e-6)


@pytest.mark.parametrize('junk', JUNK)
def test_blank_reaches_neither_value_nor_gradient(junk):
  logits = _with_junk(LOGITS, junk)
  blanked, pullback = jax.vjp(lambda x: losses.blank(x, MASK), logits)
  np.testing.assert_array_equal(blanked, np.where(MASK[..., None], LOGITS, 0))
  (gradient,) = pullback(jnp.full(logits.shape, 5.0))
  np.testing.assert_array_equal(
    gradient, np.where(MASK[..., None], np.full((2, 3, 2), 5.0), 0)
  )


def test_blank_jit_vmap_and_dtype():
  logits = _with_junk(LOGITS, np.nan).astype(jnp.bfloat16)
  eager = losses.blank(logits, MASK)
  assert eager.dtype == jnp.bfloat16
  np.testing.assert_array_equal(jax.jit(losses.blank)(logits, MASK), eager)
  np.testing.assert_array_equal(jax.vmap(losses.blank)(logits, MASK), eager)


BAD = {
  'mean_shape': lambda: losses.masked_mean(jnp.zeros(3), jnp.ones(2, bool)),
  'mean_broadcast': lambda: losses.masked_mean(
    jnp.zeros((2, 3)), jnp.ones(3, bool)
  ),
  'mean_dtype': lambda: losses.masked_mean(jnp.zeros(3), jnp.ones(3)),
  'blank_shape': lambda: losses.blank(jnp.zeros((2, 3)), jnp.ones(3, bool)),
  'blank_dtype': lambda: losses.blank(jnp.zeros((2, 3)), jnp.ones(2, int)),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call()
