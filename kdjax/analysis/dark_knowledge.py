"""Dark knowledge: what the teacher says of the classes that are wrong.

With `p̃ = softmax(t/T)` and the label `y`, the teacher's incorrect
probabilities are `r_i = p̃_i / Σ_{j≠y} p̃_j` for `i ≠ y`, and `r_y = 0`: which
wrong class it finds likeliest, however sure it is of the true one. Averaged
over the examples of a class they make a row of the class confusion; weighed by
how frequent each class is, the joint table of the true class Y and a wrong
class J. A label outside 0..K-1 gives NaN.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from kdjax import numerics
from kdjax.analysis.geometry import class_means
from kdjax.checks import Array, Scalar, check_positive, typed

# Proportional fitting ends where the marginals are met up to so many
# rounding errors, or after so many steps.
_ROUNDINGS = 16
_STEPS = 10_000


@typed
def incorrect_probs(
  teacher_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  temperature: Scalar,
) -> Float[jax.Array, '*batch K']:
  """The teacher's probabilities given that the class is wrong.

  `r_i = p̃_i / Σ_{j≠y} p̃_j` for `i ≠ y` and `r_y = 0`: a softmax without the
  label's logit, so it is exact for a teacher that is sure of the label.

  Args:
    teacher_logits: `[..., K]`, reals or `-inf`; K ≥ 2.
    labels: `[...]`, in 0..K-1.
    temperature: T > 0.

  Returns:
    `[..., K]`, probabilities; all 0 where the teacher masks every wrong class.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `temperature` is not positive, or there is one class only.

  Reference: Hinton, Vinyals, Dean, arXiv:1503.02531, section 1; as in the
    non-target part of Zhao et al., arXiv:2203.08679, section 3.1.

  >>> t = jnp.array([[900.0, 0.0, 0.0, -jnp.inf]])
  >>> print(incorrect_probs(t, jnp.array([0]), temperature=1.0))
  [[0.  0.5 0.5 0. ]]
  """
  log_r = _log_incorrect(teacher_logits, labels, temperature)
  return numerics.nan_unless_class(
    jnp.exp(log_r), labels, teacher_logits.shape[-1]
  )


@typed
def incorrect_entropy(
  teacher_logits: Float[Array, '*batch K'],
  labels: Integer[Array, '*batch'],
  *,
  temperature: Scalar,
) -> Float[jax.Array, '*batch']:
  """How evenly the teacher spreads its doubt over the wrong classes.

  `H(r) = −Σ_{i≠y} r_i log r_i`, r from `incorrect_probs`: 0 where it doubts
  one class only, `log(K−1)` where all wrong classes are alike to it.

  Args:
    teacher_logits: `[..., K]`, reals or `-inf`; K ≥ 2.
    labels: `[...]`, in 0..K-1.
    temperature: T > 0.

  Returns:
    `[...]`, in nats; 0 where the teacher masks every wrong class.

  Raises:
    TypeError: shapes or dtypes do not fit.
    ValueError: `temperature` is not positive, or there is one class only.

  Reference: Shannon 1948, section 6, of `incorrect_probs`.

  >>> t, y = jnp.array([[9.0, 0.0, 0.0], [9.0, 0.0, -99.0]]), jnp.array([0, 0])
  >>> [round(float(h), 4) for h in incorrect_entropy(t, y, temperature=1.0)]
  [0.6931, 0.0]
  """
  log_r = _log_incorrect(teacher_logits, labels, temperature)
  r = jnp.exp(log_r)
  live = r > 0
  entropy = jnp.sum(r * -jnp.where(live, log_r, 0.0), axis=-1)
  return numerics.nan_unless_class(entropy, labels, teacher_logits.shape[-1])


@typed
def topk_mass(probs: Float[Array, '*batch K']) -> Float[jax.Array, '*batch K']:
  """How much probability the k largest entries hold, for every k.

  `m_k = Σ_{i≤k} p_(i)` with `p_(1) ≥ p_(2) ≥ …`: what a top-k teacher keeps.

  Args:
    probs: `[..., K]`, non-negative; p̃, or r of `incorrect_probs`.

  Returns:
    `[..., K]`, entry k−1 is `m_k`, a fraction; never less than the entry
    before, and the last is the sum of the row.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Tang et al., arXiv:2002.03532, KD-topk.

  >>> print(topk_mass(jnp.array([[0.25, 0.0, 0.625, 0.125]])))
  [[0.625 0.875 1.    1.   ]]
  """
  largest_first = jnp.sort(numerics.as_float(probs), axis=-1, descending=True)
  mass = jnp.cumsum(largest_first, axis=-1)
  # Added in another order, more terms can round to less.
  return jax.lax.cummax(mass, axis=mass.ndim - 1)


@typed
def class_confusion(
  incorrect: Float[Array, 'N K'], labels: Integer[Array, ' N']
) -> Float[jax.Array, 'K K']:
  """What the teacher takes each class for when it is not the true one.

  `r̄_{y,j} = mean of r_j over the examples of class y`.

  Args:
    incorrect: `[N, K]`, r, from `incorrect_probs`.
    labels: `[N]`, in 0..K-1.

  Returns:
    `[K, K]`, probabilities: a row per true class, 0 on the diagonal. The row
    of a class without examples is 0; all is NaN if a label is no class.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Tang et al., arXiv:2002.03532, class relationships; the average
    is this project's.

  >>> r = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]])
  >>> print(class_confusion(r, jnp.array([0, 0, 1])))
  [[0.   0.75 0.25]
   [0.5  0.   0.5 ]
   [0.   0.   0.  ]]
  """
  return class_means(incorrect, labels, num_classes=incorrect.shape[-1])


@typed
def joint_table(
  incorrect: Float[Array, 'N K'], labels: Integer[Array, ' N']
) -> Float[jax.Array, 'K K']:
  """The joint distribution of the true class and a wrong one.

  `P(y, j) = π_y · r̄_{y,j}`: draw an example, then a wrong class J from the
  teacher's incorrect probabilities.

  Args:
    incorrect: `[N, K]`, r, from `incorrect_probs`.
    labels: `[N]`, in 0..K-1.

  Returns:
    `[K, K]`, probabilities that sum to one, a row per true class, 0 on the
    diagonal; row y sums to `π_y`, how frequent the class is. All is NaN if a
    label is no class.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: this project's.

  >>> r = jnp.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
  >>> print(joint_table(r, jnp.array([0, 1])))
  [[0.   0.5  0.  ]
   [0.25 0.   0.25]
   [0.   0.   0.  ]]
  """
  count = jnp.bincount(jnp.asarray(labels), length=incorrect.shape[-1])
  frequency = count / labels.shape[0]
  return frequency[:, None] * class_confusion(incorrect, labels)


@typed
def mutual_information(
  table: Float[Array, 'K K'],
) -> Float[jax.Array, '']:
  """How much a wrong class says about the true one.

  `I(Y;J) = Σ P(y,j) log( P(y,j) / (P(y) P(j)) )`, P the table over its sum,
  `0 · log 0 = 0`. The diagonal of `joint_table` is empty, since J is never Y.
  That alone is information: a teacher that finds all wrong classes alike has
  `log(K/(K−1))` nats for balanced classes. See `relation_information`.

  Args:
    table: `[K, K]`, non-negative, of any sum.

  Returns:
    A scalar ≥ 0, in nats; 0 for an empty table.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Shannon 1948; Cover and Thomas, Elements of Information Theory,
    section 2.3.

  >>> print(round(float(mutual_information(jnp.eye(4))), 4))  # log 4
  1.3863
  >>> print(float(mutual_information(jnp.ones((4, 4)))))
  0.0
  """
  joint = _normalised(numerics.as_float(table))
  log_y = numerics.log(jnp.sum(joint, axis=1, keepdims=True))
  log_j = numerics.log(jnp.sum(joint, axis=0, keepdims=True))
  live = joint > 0
  gap = jnp.where(live, numerics.log(joint) - (log_y + log_j), 0.0)
  return jnp.maximum(jnp.sum(joint * gap), 0.0)


@typed
def relation_information(
  table: Float[Array, 'K K'],
) -> Float[jax.Array, '']:
  """How much the teacher relates classes, beyond what no relation explains.

  `R = KL(P ‖ Q*) = I(P) − I(Q*)`, P the table over its sum and Q* the table
  with the marginals of P in which a wrong class is drawn regardless of the
  true one: `Q*(y,j) = a_y · b_j` off the diagonal and 0 on it
  (quasi-independence), found by iterative proportional fitting. It is 0 where
  all wrong classes are alike, and where some classes attract doubt from every
  other class equally; it is at most `log(K−1)` for balanced classes.

  The fitting runs until the marginals are met to rounding, 10,000 steps at
  most; only where one class is nearly always the true or the wrong one can
  these end it, with an error up to 3e-5. It has no reverse-mode gradient.

  Args:
    table: `[K, K]`, non-negative, of any sum; its diagonal is left out.

  Returns:
    A scalar ≥ 0, in nats, to about 1e-6 in float32; 0 for an empty table.

  Raises:
    TypeError: shapes or dtypes do not fit.

  Reference: Goodman 1968, The analysis of cross-classified data
    (quasi-independence); Deming and Stephan 1940 (proportional fitting). The
    use for teachers is this project's.

  >>> uniform = 1 - jnp.eye(4)  # no wrong class is preferred
  >>> print(round(float(relation_information(uniform)), 4))
  0.0
  >>> chain = jnp.roll(jnp.eye(4), 1, axis=1)  # each class has one neighbour
  >>> print(round(float(relation_information(chain)), 4))  # log 3
  1.0986
  """
  off = ~jnp.eye(table.shape[0], dtype=bool)
  joint = _normalised(jnp.where(off, numerics.as_float(table), 0.0))
  a, b = _quasi_independent(joint, off.astype(joint.dtype))
  log_fit = numerics.log(a)[:, None] + numerics.log(b)[None]
  live = joint > 0
  gap = jnp.where(live, numerics.log(joint) - log_fit, 0.0)
  return jnp.maximum(jnp.sum(joint * gap), 0.0)


def _log_incorrect(
  teacher_logits: Array, labels: Array, temperature: Scalar
) -> jax.Array:
  """`log r`, `-inf` at the label."""
  check_positive('temperature', temperature)
  num_classes = teacher_logits.shape[-1]
  if num_classes < 2:
    raise ValueError(
      f'teacher_logits of shape {teacher_logits.shape} must have at least 2'
      ' classes, for one to be wrong'
    )
  at_label = numerics.is_label(labels, num_classes)
  others = jnp.where(at_label, -jnp.inf, numerics.as_float(teacher_logits))
  left = jnp.any(~jnp.isneginf(others), axis=-1, keepdims=True)
  log_r = numerics.log_probs(jnp.where(left, others, 0.0), temperature)
  return jnp.where(left, log_r, -jnp.inf)


def _normalised(table: jax.Array) -> jax.Array:
  total = jnp.sum(table)
  return table / jnp.where(total == 0, 1.0, total)


def _quasi_independent(
  joint: jax.Array, off: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The factors of `a_y · b_j · off` whose marginals are those of `joint`."""
  rows, columns = jnp.sum(joint, axis=1), jnp.sum(joint, axis=0)
  tolerance = _ROUNDINGS * jnp.finfo(joint.dtype).eps
  dot = lambda x, y: jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)

  def step(state: tuple) -> tuple:
    _, b, reach, count = state
    a = _ratio(rows, reach)
    b = _ratio(columns, dot(a, off))
    reach = dot(off, b)
    return a, b, reach, count + 1

  def unmet(state: tuple) -> jax.Array:
    a, _, reach, count = state
    error = jnp.sum(jnp.abs(a * reach - rows))
    return (error > tolerance) & (count < _STEPS)

  start = (jnp.zeros_like(rows), columns, dot(off, columns), 0)
  a, b, _, _ = jax.lax.while_loop(unmet, step, start)
  return a, b


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
  """`x / y`, 0 where x is."""
  zero = x == 0
  return jnp.where(zero, 0.0, x) / jnp.where(zero, 1.0, y)
