"""The layers of the ResNets, and that convolutions for CPUs are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kdjax.models import cpu_conv, layers


def _lax(inputs, kernel, stride):
  pad = (kernel.shape[0] - 1) // 2
  return jax.lax.conv_general_dilated(
    inputs,
    kernel,
    (stride, stride),
    ((pad, pad), (pad, pad)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _with_gradients(convolve, inputs, kernel, stride):
  """A convolution, and its gradients for a cotangent unlike any other."""

  @jax.jit
  def run(inputs, kernel):
    outputs, pull = jax.vjp(lambda x, k: convolve(x, k, stride), inputs, kernel)
    steps = jnp.arange(outputs.size, dtype=jnp.float32)
    cotangent = jnp.sin(steps).reshape(outputs.shape).astype(outputs.dtype)
    return outputs, *pull(cotangent)

  return run(inputs, kernel)


def _draw(shape, size, channels, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(3, *shape, channels[0]))
  kernel = rng.normal(size=(size, size, *channels))
  return jnp.asarray(inputs, dtype), jnp.asarray(kernel, dtype)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize(
  ('shape', 'size', 'channels'),
  [
    ((8, 6), 3, (3, 16)),  # two neighbours at once
    ((7, 8), 3, (40, 5)),  # at once in the outputs, not in their gradient
    ((7, 5), 3, (4, 6)),
    ((4, 8), 3, (33, 34)),
    ((6, 8), 1, (5, 4)),
    ((7, 5), 1, (5, 4)),
    ((9, 12), 7, (3, 4)),
    ((9, 11), 7, (3, 4)),
    ((1, 2), 3, (2, 3)),
  ],
)
def test_the_same_convolution_and_gradients(shape, size, channels, stride):
  arguments = (*_draw(shape, size, channels), stride)
  actual = _with_gradients(cpu_conv.convolve, *arguments)
  desired = _with_gradients(_lax, *arguments)
  for a, d in zip(actual, desired, strict=True):
    assert a.shape == d.shape
    np.testing.assert_allclose(a, d, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize('stride', [1, 2])
def test_the_same_in_bfloat16(stride):
  inputs, kernel = _draw((8, 6), 3, (4, 6), jnp.bfloat16)
  actual = _with_gradients(cpu_conv.convolve, inputs, kernel, stride)
  exact = _with_gradients(
    _lax, inputs.astype(jnp.float32), kernel.astype(jnp.float32), stride
  )
  for a, d in zip(actual, exact, strict=True):
    assert a.dtype == jnp.bfloat16
    scale = np.abs(d).max()
    np.testing.assert_allclose(np.float32(a), d, rtol=0, atol=0.02 * scale)


def _convolutions(jaxpr):
  """The layouts of all convolutions, of nested functions, too."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'conv_general_dilated':
      yield tuple(equation.params['dimension_numbers'])
    for value in equation.params.values():
      if hasattr(value, 'jaxpr'):
        yield from _convolutions(value.jaxpr)


@pytest.mark.parametrize('stride', [1, 2])
def test_gradients_are_plain_convolutions(stride):
  """Others are slow in the body of a loop on a CPU."""
  arguments = _draw((8, 6), 3, (3, 16))
  last = (0, 3, 1, 2)
  layouts = {}
  for convolve in (cpu_conv.convolve, _lax):
    jaxpr = jax.make_jaxpr(
      lambda x, k, f=convolve: _with_gradients(f, x, k, stride)
    )(*arguments)
    layouts[convolve] = list(_convolutions(jaxpr.jaxpr))
  assert layouts[cpu_conv.convolve] == [(last, (3, 2, 0, 1), last)] * 3
  assert len(set(layouts[_lax])) > 1


def test_other_platforms_have_the_convolution_of_lax(monkeypatch):
  conv = layers.Conv(3, 4, size=3, stride=2, rngs=nnx.Rngs(0))
  inputs, _ = _draw((8, 6), 3, (3, 4))
  run = lambda x: conv(x)
  on_cpu, here = jax.make_jaxpr(run)(inputs), conv(inputs)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  elsewhere = jax.make_jaxpr(lambda x: conv(x))(inputs)
  assert 'custom_vjp_call' in str(on_cpu)
  assert [e.primitive.name for e in elsewhere.eqns] == ['conv_general_dilated']
  np.testing.assert_allclose(conv(inputs), here, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_relu(dtype):
  inputs = jnp.array([-jnp.inf, -2, -0.0, 0, 0.5, jnp.inf, jnp.nan], dtype)
  outputs, pull = jax.vjp(layers.relu, inputs)
  assert outputs.dtype == dtype
  np.testing.assert_array_equal(
    np.float32(outputs), np.float32(nnx.relu(inputs))
  )
  slopes = pull(jnp.ones_like(outputs))[0]
  np.testing.assert_array_equal(slopes[:6], [0, 0, 0, 0, 1, 1])


def test_batch_statistics_are_computed_in_float32():
  """In bfloat16, 1024 ± 4 has next to no variance: its spacing there is 8."""
  norm = layers.Norm(2, rngs=nnx.Rngs(0))
  noise = np.random.default_rng(0).choice([-8.0, 8.0], (8, 16, 16, 2))
  inputs = jnp.asarray(1024 + noise, jnp.bfloat16)
  outputs = norm(inputs, train=True)
  assert outputs.dtype == jnp.bfloat16
  exact = np.asarray(inputs, np.float64)
  mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
  np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var, rtol=1e-2)
  np.testing.assert_allclose(
    np.asarray(outputs, np.float64), (exact - mean) / np.sqrt(var), rtol=0.03
  )


def test_a_bias_is_added_to_each_channel():
  conv = layers.Conv(2, 3, size=3, stride=1, bias=True, rngs=nnx.Rngs(0))
  np.testing.assert_array_equal(conv.bias[...], np.zeros(3))
  inputs, _ = _draw((4, 4), 3, (2, 3))
  without = conv(inputs)
  conv.bias[...] = jnp.array([1.0, 2.0, 3.0])
  np.testing.assert_allclose(
    conv(inputs), without + jnp.array([[[[1.0, 2.0, 3.0]]]]), rtol=1e-5
  )


@pytest.mark.parametrize('shape', [(4, 6), (5, 7), (3, 4)])
def test_max_pool(shape):
  """Values and gradients of `nnx`'s, which are slow on a CPU."""
  inputs, _ = _draw(shape, 3, (4, 4))
  weights = np.random.default_rng(1).normal(
    size=(3, shape[0] // 2, shape[1] // 2, 4)
  )
  theirs = lambda x: nnx.max_pool(x, (2, 2), (2, 2))
  gradient = lambda pool: jax.grad(lambda x: (pool(x) * weights).sum())(inputs)
  np.testing.assert_array_equal(layers.halve_by_max(inputs), theirs(inputs))
  np.testing.assert_array_equal(gradient(layers.halve_by_max), gradient(theirs))


@pytest.mark.parametrize('shape', [(4, 6), (5, 7), (1, 1)])
def test_mean_pool(shape):
  inputs, _ = _draw(shape, 3, (4, 4))
  desired = nnx.avg_pool(inputs, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
  np.testing.assert_allclose(
    layers.halve_by_mean(inputs), desired, rtol=1e-5, atol=1e-6
  )


def test_shuffle_sends_each_group_to_every_group():
  inputs = jnp.arange(24).reshape(1, 1, 2, 12)
  shuffled = layers.shuffle(inputs, num_groups=3)
  expected = [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
  np.testing.assert_array_equal(shuffled[0, 0, 0], expected)
  np.testing.assert_array_equal(shuffled[0, 0, 1], np.add(expected, 12))
