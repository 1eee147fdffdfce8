"""The recurrence of an LSTM and its own gradient, against the plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.recurrence import recur

T, B, H = 6, 3, 5


def assert_close(actual, desired, **tolerances):
  jax.tree.map(
    lambda a, d: np.testing.assert_allclose(a, d, **tolerances), actual, desired
  )


def by_hand(projected, kernel, hidden, cell, keep):
  """The recurrence, written out without a loop of JAX's."""
  hiddens = []
  for t in range(len(projected)):
    if keep is not None:
      kept = keep[t][:, None].astype(cell.dtype)
      hidden, cell = hidden * kept, cell * kept
    i, f, g, o = jnp.split(projected[t] + hidden @ kernel, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
    hiddens.append(hidden)
  return jnp.stack(hiddens), cell


def recurrence(dtype):
  """Arguments of `recur`, and cotangents of what it returns."""
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  arguments = normal(T, B, 4 * H), normal(H, 4 * H), normal(B, H), normal(B, H)
  keep = jnp.asarray(rng.random((T, B)) > 0.3)
  return arguments, keep, (normal(T, B, H), normal(B, H))


@pytest.mark.parametrize('forgets', [False, True])
def test_the_gradient_is_that_of_the_loop_written_out(forgets):
  """In float64, of every argument, from the hidden units and from the cell."""
  with jax.enable_x64(True):
    arguments, keep, slopes = recurrence(jnp.float64)
    keep = keep if forgets else None

    def run(function):
      outputs, pull = jax.vjp(lambda *a: function(*a, keep), *arguments)
      return outputs, pull(slopes)

    found, wanted = jax.jit(lambda: (run(recur), run(by_hand)))()
    assert found[1][1].dtype == jnp.float64
    assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
  with jax.enable_x64(True):
    arguments, keep, slopes = recurrence(jnp.float64)
    rng = np.random.default_rng(1)
    way = [jnp.asarray(rng.normal(size=x.shape)) for x in arguments]

    @jax.jit
    def total(step):
      moved = [x + step * d for x, d in zip(arguments, way, strict=True)]
      hiddens, cell = recur(*moved, keep)
      return jnp.sum(hiddens * slopes[0]) + jnp.sum(cell * slopes[1])

    difference = (total(1e-5) - total(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(total)(0.0), difference, rtol=1e-7)


def loops(jaxpr):
  """All scans of a program, of nested functions, too."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'scan':
      yield equation
    for value in equation.params.values():
      if hasattr(value, 'jaxpr'):
        yield from loops(value.jaxpr)


def test_no_loop_adds_to_the_gradient_of_the_kernel():
  arguments, keep, slopes = recurrence(jnp.float32)

  def gradient(*arguments):
    return jax.vjp(lambda *a: recur(*a, keep), *arguments)[1](slopes)

  forward, backward = loops(jax.make_jaxpr(gradient)(*arguments).jaxpr)
  for scan in (forward, backward):
    first, number = scan.params['num_consts'], scan.params['num_carry']
    carried = scan.invars[first : first + number]
    assert [x.aval.shape for x in carried] == [(B, H), (B, H)]
