"""What an LSTM layer repeats token by token, with a gradient of its own.

Plain differentiation of the loop would add to the kernel's whole gradient,
`[H, 4H]`, at every token. Here the loop backwards finds the gradients of the
gates alone, and one product over all tokens, after it, that of the kernel.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

_Gates = Float[jax.Array, 'T B 4H']
_Hiddens = Float[jax.Array, 'T B H']
_State = Float[jax.Array, 'B H']
_Kernel = Float[jax.Array, 'H 4H']
_Keep = Bool[jax.Array, 'T B'] | None


@jax.custom_vjp
def recur(
  projected: _Gates, kernel: _Kernel, hidden: _State, cell: _State, keep: _Keep
) -> tuple[_Hiddens, _State]:
  """Runs a layer over its tokens.

  `i, f, g, o = projected_t + h_{t-1} kernel`, in PyTorch's order;
  `c_t = σ(f) c_{t-1} + σ(i) tanh(g)`; `h_t = σ(o) tanh(c_t)`. Where a token is
  not to keep what came before it, `h_{t-1}` and `c_{t-1}` are 0.

  Args:
    projected: what the layer reads, times the input kernel, plus the bias.
    kernel: of the previous hidden units.
    hidden: `h` before the first token, of the type of the hidden units.
    cell: `c` before the first token; the gates are computed in its type.
    keep: whether a token sees what came before it; None: all do.

  Returns:
    `h` at every token, and `c` after the last.

  >>> zeros = jnp.zeros((2, 3))
  >>> projected, kernel = jnp.ones((5, 2, 12)), jnp.ones((3, 12))
  >>> hiddens, cell = recur(projected, kernel, zeros, zeros, None)
  >>> hiddens.shape, cell.shape
  ((5, 2, 3), (2, 3))
  """

  def step(state: tuple, now: tuple) -> tuple:
    _, hidden, cell = _advance(*state, *now, kernel)
    return (hidden, cell), hidden

  (_, cell), hiddens = jax.lax.scan(step, (hidden, cell), (projected, keep))
  return hiddens, cell


def _advance(
  hidden: _State,
  cell: _State,
  projected: Float[jax.Array, 'B 4H'],
  keep: Bool[jax.Array, ' B'] | None,
  kernel: _Kernel,
) -> tuple[Float[jax.Array, 'B 4H'], _State, _State]:
  """Returns the open gates and the state after one token."""
  hidden, cell = _kept(hidden, keep), _kept(cell, keep)
  gates = (projected + hidden @ kernel).astype(cell.dtype)
  i, f, g, o = jnp.split(gates, 4, axis=-1)
  i, f, o = (jax.nn.sigmoid(gate) for gate in (i, f, o))
  g = jnp.tanh(g)
  cell = f * cell + i * g
  hidden = (o * jnp.tanh(cell)).astype(hidden.dtype)
  return jnp.concatenate([i, f, g, o], axis=-1), hidden, cell


def _kept(state: _State, keep: Bool[jax.Array, ' B'] | None) -> _State:
  if keep is None:
    return state
  return jnp.where(keep[..., None], state, jnp.zeros((), state.dtype))


def _forward(
  projected: _Gates, kernel: _Kernel, hidden: _State, cell: _State, keep: _Keep
) -> tuple:
  """Returns what `recur` does, and what its gradient reads."""

  def step(state: tuple, now: tuple) -> tuple:
    gates, hidden, cell = _advance(*state, *now, kernel)
    return (hidden, cell), (gates, hidden, cell)

  (_, last), (gates, hiddens, cells) = jax.lax.scan(
    step, (hidden, cell), (projected, keep)
  )
  return (hiddens, last), (
    gates,
    cells,
    _kept(_before(hidden, hiddens), keep),
    _kept(_before(cell, cells), keep),
    kernel,
    keep,
  )


def _before(first: _State, states: _Hiddens) -> _Hiddens:
  """The state that each token starts from."""
  return jnp.concatenate([first[None], states[:-1]])


def _backward(saved: tuple, slopes: tuple[_Hiddens, _State]) -> tuple:
  gates, cells, old_hiddens, old_cells, kernel, keep = saved
  of_hiddens, of_cell = slopes
  transposed = kernel.T

  def step(state: tuple, now: tuple) -> tuple:
    of_hidden, of_cell = state
    direct, gates, cell, old_cell, keep = now
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    tanh = jnp.tanh(cell)
    of_hidden = (of_hidden + direct).astype(cell.dtype)
    of_cell = of_cell + of_hidden * o * (1 - tanh**2)
    of_gates = jnp.concatenate(
      [
        of_cell * g * i * (1 - i),
        of_cell * old_cell * f * (1 - f),
        of_cell * i * (1 - g**2),
        of_hidden * tanh * o * (1 - o),
      ],
      axis=-1,
    ).astype(kernel.dtype)
    state = of_gates @ transposed, of_cell * f
    return tuple(_kept(s, keep) for s in state), of_gates

  start = jnp.zeros_like(of_hiddens[0]), of_cell
  (of_hidden, of_cell), of_projected = jax.lax.scan(
    step,
    start,
    (of_hiddens, gates, cells, old_cells, keep),
    reverse=True,
  )
  of_kernel = jnp.einsum('tbh,tbg->hg', old_hiddens, of_projected)
  return of_projected, of_kernel, of_hidden, of_cell, None


recur.defvjp(_forward, _backward)
