"""What a user's mistake looks like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Float

from kdjax import checks


@checks.typed
def _scale(
  x: Float[checks.Array, 'B K'], y: Float[checks.Array, ' K'], *, by: float
) -> Float[jax.Array, 'B K']:
  """Scales."""
  return by * x * y[None]


def test_typed_keeps_what_fits():
  assert _scale(jnp.ones((2, 3)), np.ones(3, np.float32), by=2.0).shape == (
    2,
    3,
  )
  assert _scale.__name__ == '_scale'
  assert _scale.__doc__ == 'Scales.'


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit], ids=['eager', 'jit'])
def test_typed_names_the_wrong_argument(wrap):
  scale = wrap(lambda x, y: _scale(x, y, by=2.0))
  with pytest.raises(TypeError, match="parameter 'y'"):
    scale(jnp.ones((2, 3)), jnp.ones(4))


@pytest.mark.parametrize('value', [0, 0.0, -1, np.inf, np.nan])
def test_positive_rejects(value):
  with pytest.raises(ValueError, match=r'name=.* must be positive and finite'):
    checks.check_positive('name', value)


@pytest.mark.parametrize('value', [-1e-9, 1.001, 2, np.nan])
def test_fraction_rejects(value):
  with pytest.raises(ValueError, match=r'name=.* must lie in \[0, 1\]'):
    checks.check_fraction('name', value)


@pytest.mark.parametrize('value', [0, 4, -1])
def test_between_rejects(value):
  with pytest.raises(ValueError, match=rf'name={value} must lie in 1\.\.3'):
    checks.check_between('name', value, 1, 3)


def test_ends_are_allowed():
  checks.check_positive('name', 1e-30)
  for value in (0, 1, 0.0, 1.0):
    checks.check_fraction('name', value)
  for value in (1, 3):
    checks.check_between('name', value, 1, 3)


def test_a_traced_value_passes():
  @jax.jit
  def checked(value):
    checks.check_positive('name', value)
    checks.check_fraction('name', value)
    checks.check_between('name', value, 1, 3)
    return value

  assert checked(-5.0) == -5.0
