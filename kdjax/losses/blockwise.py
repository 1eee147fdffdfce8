"""Losses of tokens over a large vocabulary, from hidden states, by blocks.

`[N, K]` logits of a text are what fills a memory: 8,192 tokens of 50,257
classes are 1.6 GB, for each network, and again for each gradient. Here they
exist for a block of tokens at a time.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kdjax import numerics
from kdjax.checks import Array, check_positive, typed

Tree = Any
Loss = Callable[[jax.Array, jax.Array | None, Tree, Tree], tuple]


class Head(NamedTuple):
  """The last layer of a network and what it reads: `h Wᵀ + b` are the logits.

  Attributes:
    hidden: `[N, D]`, h, of the tokens.
    kernel: `[K, D]`, W, a row per class; a tied embedding may stand here.
    bias: `[K]`, b.
  """

  hidden: Array
  kernel: Array
  bias: Array


@typed
def blockwise(
  loss: Loss,
  student: Head,
  rows: Tree,
  *,
  teacher: Head | None = None,
  shared: Tree = None,
  weights: Float[Array, 'N'],
  block_size: int = 256,
) -> tuple[Float[jax.Array, ''], Tree]:
  """A weighted sum of a loss per token, exact, without `[N, K]` logits.

  `Σ_i w_i · ℓ_i`. It goes through the tokens by blocks and takes the gradient
  of each on the way, while its logits are there: four products of matrices in
  all, two of the student's gradient, as without blocks, and memory for
  `block_size · K + K · D` numbers. Without differentiation it takes values
  alone. As gradients are written out, there is no `jax.jvp`.

  Args:
    loss: maps logits of the student, `[B, K]`, of the teacher, `[B, K]` or
      None, the rows of a block, and `shared`, to losses, `[B]`, and what else
      to return of each token, a tree of `[B, ...]`. JAX raises an error where
      something that it closes over is differentiated.
    student: of N tokens. Half precision is computed in float32.
    rows: a tree of numeric `[N, ...]`, such as labels.
    teacher: of the same tokens, or None. Its D may be another.
    shared: a tree of what all blocks see.
    weights: `[N]`, w; for a mean, 1/n where a token is real, and 0 elsewhere. A
      token of weight 0 is blanked: whatever it holds changes nothing.
    block_size: tokens whose logits exist at a time, at most; on all devices
      together, where they share the tokens.

  Returns:
    The sum, a scalar, differentiable in `student`; all else counts as
    constant, and so does the second result: the tree of `[N, ...]`, without
    meaning where the weight is 0.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `block_size` is not positive, or the rows or losses are not of
      as many tokens.

  >>> student = Head(jnp.eye(3), jnp.zeros((4, 3)), jnp.zeros(4))
  >>> def loss(logits, _, rows, shared):
  ...   return jax.nn.logsumexp(logits, -1), rows
  >>> value, same = blockwise(
  ...   loss, student, jnp.arange(3), weights=jnp.ones(3), block_size=2
  ... )
  >>> round(float(value), 4), same.tolist()  # 3 · log 4
  (4.1589, [0, 1, 2])
  """
  check_positive('block_size', block_size)
  _check(*student, weights)
  if teacher is not None:
    _check(*teacher, weights)
    teacher = Head(*map(numerics.as_float, teacher))
  num_tokens = len(weights)
  for row in jax.tree.leaves(rows):
    if jnp.shape(row)[:1] != (num_tokens,):
      raise ValueError(
        f'rows of {num_tokens} tokens are [{num_tokens}, ...], but one is '
        f'{[*jnp.shape(row)]}'
      )
  student = Head(*map(numerics.as_float, student))
  return _weighted_sum(
    loss,
    max(1, -(-num_tokens // block_size)),
    student,
    teacher,
    jax.tree.map(jnp.asarray, rows),
    shared,
    jnp.asarray(weights, student.hidden.dtype),
  )


@typed
def _check(
  hidden: Float[Array, 'N D'],
  kernel: Float[Array, 'K D'],
  bias: Float[Array, 'K'],
  weights: Float[Array, 'N'],
) -> None:
  """Raises `TypeError` unless the sizes of a head fit."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _weighted_sum(
  loss: Loss,
  num_blocks: int,
  student: Head,
  teacher: Head | None,
  rows: Tree,
  shared: Tree,
  weights: jax.Array,
) -> tuple:
  def block(_: None, tokens: tuple) -> tuple:
    return None, _of_block(loss, student, teacher, shared, tokens)

  tokens = _cut(num_blocks, student, teacher, rows, weights)
  _, (values, aux) = jax.lax.scan(block, None, tokens)
  return values.sum(), _join(aux, len(weights))


def _forward(
  loss: Loss,
  num_blocks: int,
  student: Head,
  teacher: Head | None,
  rows: Tree,
  shared: Tree,
  weights: jax.Array,
) -> tuple:
  """The sum, and its gradient, which needs the same logits."""

  def block(sums: tuple, tokens: tuple) -> tuple:
    hidden, *rest = tokens
    of_block = lambda s: _of_block(loss, s, teacher, shared, (s.hidden, *rest))
    found, slope = jax.value_and_grad(of_block, has_aux=True)(
      student._replace(hidden=hidden)
    )
    sums = jax.tree.map(jnp.add, sums, (slope.kernel, slope.bias))
    return sums, (found, slope.hidden)

  tokens = _cut(num_blocks, student, teacher, rows, weights)
  start = jnp.zeros_like(student.kernel), jnp.zeros_like(student.bias)
  sums, ((values, aux), hidden) = jax.lax.scan(block, start, tokens)
  aux, hidden = _join((aux, hidden), len(weights))
  return (values.sum(), aux), Head(hidden, *sums)


def _backward(
  loss: Loss, num_blocks: int, gradient: Head, cotangents: tuple
) -> tuple:
  scale, _ = cotangents
  return jax.tree.map(lambda g: scale * g, gradient), None, None, None, None


_weighted_sum.defvjp(_forward, _backward)


def _of_block(
  loss: Loss,
  student: Head,
  teacher: Head | None,
  shared: Tree,
  tokens: tuple,
) -> tuple:
  """The sum over a block, and what else the loss returns."""
  hidden, mentor, rows, weights = tokens
  real = weights != 0
  student = student._replace(hidden=_blank(hidden, real))
  if teacher is not None:
    teacher = _logits(teacher._replace(hidden=_blank(mentor, real)))
  rows = jax.tree.map(lambda x: _blank(x, real), rows)
  losses, aux = loss(_logits(student), teacher, rows, shared)
  if losses.shape != weights.shape:
    raise ValueError(
      f'the loss of {len(weights)} tokens is {[*losses.shape]}, not '
      f'{[*weights.shape]}'
    )
  return jnp.sum(numerics.times(weights, losses)), aux


def _logits(head: Head) -> jax.Array:
  return head.hidden @ head.kernel.T + head.bias[None]


def _blank(x: jax.Array, real: jax.Array) -> jax.Array:
  real = real.reshape(-1, *[1] * (x.ndim - 1))
  return jnp.where(real, x, jnp.zeros_like(x))


def _cut(
  num_blocks: int,
  student: Head,
  teacher: Head | None,
  rows: Tree,
  weights: jax.Array,
) -> tuple:
  """Tokens by blocks, `[N/B, B, ...]`, filled up with some of weight 0.

  A block has every (N/B)-th token, so that devices which hold a stretch of the
  tokens each have a share of every block.
  """
  size = -(-len(weights) // num_blocks)

  def cut(x: jax.Array) -> jax.Array:
    missing = size * num_blocks - len(x)
    x = jnp.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)])
    return x.reshape(size, num_blocks, *x.shape[1:]).swapaxes(0, 1)

  mentor = None if teacher is None else teacher.hidden
  return jax.tree.map(cut, (student.hidden, mentor, rows, weights))


def _join(blocks: Tree, num_tokens: int) -> Tree:
  """The inverse of `_cut`."""

  def join(x: jax.Array) -> jax.Array:
    x = x.swapaxes(0, 1)
    return x.reshape(-1, *x.shape[2:])[:num_tokens]

  return jax.tree.map(join, blocks)
