"""Convolutions of groups: the forms for CPUs are those of the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kdjax.models import cpu_products, layers


def _with_gradients(conv, inputs):
  """A layer's outputs and gradients, for a cotangent unlike any other."""
  graphdef, params = nnx.split(conv)

  def run(params, inputs):
    return nnx.merge(graphdef, params)(inputs)

  @jax.jit
  def all_three(params, inputs):
    outputs, pull = jax.vjp(run, params, inputs)
    steps = jnp.arange(outputs.size, dtype=jnp.float32)
    cotangent = jnp.sin(steps).reshape(outputs.shape).astype(outputs.dtype)
    of_params, of_inputs = pull(cotangent)
    return outputs, of_params['kernel'][...], of_inputs

  return all_three(params, inputs)


def _inputs(shape, channels, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=(3, *shape, channels)), dtype)


CASES = [
  # shape, inputs, outputs, size, stride, groups
  ((6, 8), 5, 5, 3, 1, 5),
  ((6, 8), 5, 5, 3, 2, 5),
  ((7, 5), 4, 4, 3, 2, 4),
  ((1, 2), 4, 4, 3, 2, 4),
  ((9, 7), 2, 2, 5, 2, 2),
  ((6, 8), 6, 9, 1, 1, 3),
  ((7, 5), 6, 6, 1, 1, 6),
  ((6, 5), 40, 7, 1, 1, 1),
  ((6, 5), 7, 40, 1, 1, 1),
]


@pytest.mark.parametrize(
  ('shape', 'num_inputs', 'num_outputs', 'size', 'stride', 'num_groups'), CASES
)
def test_the_same_values_and_gradients(
  shape, num_inputs, num_outputs, size, stride, num_groups, monkeypatch
):
  conv = layers.Conv(
    num_inputs,
    num_outputs,
    size=size,
    stride=stride,
    num_groups=num_groups,
    rngs=nnx.Rngs(0),
  )
  inputs = _inputs(shape, num_inputs)
  actual = _with_gradients(conv, inputs)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  desired = _with_gradients(conv, inputs)
  for a, d in zip(actual, desired, strict=True):
    assert a.shape == d.shape
    np.testing.assert_allclose(a, d, rtol=1e-5, atol=2e-5)


def _primitives(jaxpr):
  """The names of all primitives, of nested functions, too."""
  for equation in jaxpr.eqns:
    yield equation.primitive.name
    for value in equation.params.values():
      if hasattr(value, 'jaxpr'):
        yield from _primitives(value.jaxpr)


@pytest.mark.parametrize('case', [CASES[1], CASES[5], CASES[7]])
def test_neither_form_nor_gradient_is_a_convolution(case, monkeypatch):
  shape, num_inputs, num_outputs, size, stride, num_groups = case
  conv = layers.Conv(
    num_inputs,
    num_outputs,
    size=size,
    stride=stride,
    num_groups=num_groups,
    rngs=nnx.Rngs(0),
  )
  found = {}
  for backend in ('cpu', 'gpu'):
    monkeypatch.setattr(jax, 'default_backend', lambda name=backend: name)
    jaxpr = jax.make_jaxpr(lambda x: _with_gradients(conv, x))(
      _inputs(shape, num_inputs)
    )
    found[backend] = 'conv_general_dilated' in _primitives(jaxpr.jaxpr)
  assert found == {'cpu': False, 'gpu': True}


@pytest.mark.parametrize('num_groups', [3, 6])
def test_the_same_in_bfloat16(num_groups):
  size = 3 if num_groups == 6 else 1
  conv = layers.Conv(
    6, 6, size=size, stride=1, num_groups=num_groups, rngs=nnx.Rngs(0)
  )
  inputs = _inputs((6, 8), 6, jnp.bfloat16)
  outputs, _, of_inputs = _with_gradients(conv, inputs)
  exact, _, of_exact = _with_gradients(conv, inputs.astype(jnp.float32))
  for a, d in [(outputs, exact), (of_inputs, of_exact)]:
    assert a.dtype == jnp.bfloat16
    scale = np.abs(d).max()
    np.testing.assert_allclose(np.float32(a), d, rtol=0, atol=0.02 * scale)


def test_groups_do_not_mix():
  """The gradient of the second group's outputs reaches its inputs alone."""
  kernel = jnp.ones((1, 1, 2, 6))
  outputs = lambda x: cpu_products.pointwise(x, kernel, 2)[..., 3:].sum()
  gradient = jax.grad(outputs)(jnp.ones((1, 1, 1, 4)))
  np.testing.assert_array_equal(gradient.ravel(), [0, 0, 3, 3])


def test_depthwise_starts_from_the_fan_of_one_channel():
  conv = layers.Conv(
    400, 400, size=3, stride=1, num_groups=400, rngs=nnx.Rngs(0)
  )
  kernel = conv.kernel[...]
  assert kernel.shape == (3, 3, 1, 400)
  np.testing.assert_allclose(jnp.var(kernel), 2 / (9 * 400), rtol=0.1)


@pytest.mark.parametrize(
  'options',
  [
    {'size': 3, 'stride': 1, 'num_groups': 2},
    {'size': 1, 'stride': 2, 'num_groups': 2},
  ],
)
def test_other_groups_are_refused(options):
  with pytest.raises(ValueError, match='num_groups=2 with 4 inputs, 4 outputs'):
    layers.Conv(4, 4, rngs=nnx.Rngs(0), **options)
