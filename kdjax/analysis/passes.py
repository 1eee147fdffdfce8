"""Passes over examples: of each some values, and over all some sums."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import numerics, targets
from kdjax.analysis import dark_knowledge, gradients, rescaling
from kdjax.analysis.parts import parts_about


@jax.jit
def dark_mass(logits: jax.Array, temperature: jax.Array) -> jax.Array:
  """Returns how much the teacher leaves to all classes but the likeliest.

  `1 − max p̃`, `[...]`.
  """
  return 1 - jnp.max(targets.full(logits, temperature=temperature), axis=-1)


def teacher(
  logits: np.ndarray,
  labels: np.ndarray,
  half: np.ndarray,
  row: np.ndarray,
  *,
  classes: np.ndarray,
  temperature: float,
  kept: int,
) -> tuple[dict, dict]:
  """Measures what the teacher says of some examples.

  Args:
    logits: `[B, K]`, the teacher's.
    labels: `[B]`.
    half: `[B]`, 0 or 1: in which half of its class an example is.
    row: `[B]`, where the label is among `classes`; C if it is not.
    classes: `[C]`, those that have rows in the sums by class.
    temperature: T.
    kept: k, how many of the likeliest classes are no tail.

  Returns:
    Values of each example, and sums over them.
  """
  # NumPy sorts some fifty times faster than XLA does on a CPU.
  largest = np.sort(logits, axis=-1)[:, ::-1]
  return _teacher(
    logits,
    largest,
    labels,
    half,
    row,
    classes,
    temperature=temperature,
    kept=kept,
  )


@functools.partial(jax.jit, static_argnames='kept')
def _teacher(
  logits: jax.Array,
  largest: jax.Array,
  labels: jax.Array,
  half: jax.Array,
  row: jax.Array,
  classes: jax.Array,
  *,
  temperature: float,
  kept: int,
) -> tuple[dict, dict]:
  """The same, given the logits in falling order, too."""
  num_classes = logits.shape[-1]
  logits = numerics.as_float(logits)
  probs = targets.full(logits, temperature=temperature)
  among = jnp.take(logits, classes, axis=-1)
  incorrect = dark_knowledge.incorrect_probs(among, row, temperature=1.0)
  doubt = functools.partial(dark_knowledge.incorrect_entropy, logits, labels)
  in_tail = logits < largest[:, kept - 1 : kept]
  tail = _centred(logits, in_tail)
  log_classes = jnp.log(float(num_classes))
  log_probs = numerics.log_probs(logits, temperature)
  at_label = numerics.is_label(labels, num_classes)
  rows = {
    'confidence': numerics.label_entry(probs, at_label),
    'dark_mass': dark_mass(logits, temperature),
    'dark_mass_untempered': dark_mass(logits, 1.0),
    'divergence_from_uniform': log_classes + jnp.sum(probs * log_probs, -1),
    'incorrect_entropy': doubt(temperature=temperature),
    'incorrect_entropy_untempered': doubt(temperature=1.0),
    'incorrect_entropy_among': dark_knowledge.incorrect_entropy(
      among, row, temperature=1.0
    ),
    'tail_mass': jnp.sum(jnp.where(in_tail, probs, 0.0), axis=-1),
  }
  by_class = functools.partial(_by_class, row=row, num_rows=len(classes))
  in_half = [(half == h).astype(logits.dtype)[:, None] for h in (0, 1)]
  has_row = (row < len(classes))[:, None]
  sums = {
    'counts': jnp.sum(at_label, axis=0),
    'probs': by_class(probs),
    'logits': by_class(_centred(logits, jnp.ones_like(in_tail))),
    'incorrect': jnp.stack(
      [by_class(jnp.where(some > 0, incorrect, 0)) for some in in_half]
    ),
    'half_counts': jnp.stack([by_class(some)[:, 0] for some in in_half]),
    'tail': by_class(tail),
    'tail_counts': by_class(in_tail.astype(logits.dtype)),
    'tail_square': jnp.sum(jnp.where(has_row, tail, 0.0) ** 2),
    'topk': _topk(largest, temperature),
    'topk_untempered': _topk(largest, 1.0),
  }
  return rows, sums


def _topk(largest: jax.Array, temperature: float) -> jax.Array:
  """Mass of the k largest, summed over examples, for every k."""
  return jnp.cumsum(
    jnp.sum(targets.full(largest, temperature=temperature), axis=0)
  )


@functools.partial(jax.jit, static_argnames='temperature_power')
def gradient(
  logits: jax.Array,
  labels: jax.Array,
  student: jax.Array,
  row: jax.Array,
  *,
  class_probs: jax.Array,
  smoothing: float,
  weight: float,
  temperature: float,
  temperature_power: float,
) -> tuple[dict, dict]:
  """Measures what pulls a student.

  Args:
    logits: `[B, K]`, the teacher's.
    labels: `[B]`.
    student: `[B, K]`, the student's logits.
    row: `[B]`, as in `teacher`.
    class_probs: `[C, K]`, the teacher's mean p̃ of each class with a row; of
      the others the gradient is not split.
    smoothing: the mean of 1 − p̃_y.
    weight: λ.
    temperature: T.
    temperature_power: n.

  Returns:
    Values of each example, and sums over them.
  """
  settings = {
    'weight': weight,
    'temperature': temperature,
    'temperature_power': temperature_power,
  }
  num_rows = len(class_probs)
  parts = parts_about(
    student,
    logits,
    labels,
    mean_probs=jnp.take(class_probs, row, axis=0, mode='clip'),
    smoothing=smoothing,
    scale=gradients.teacher_scale(**settings),
    weight=weight,
    temperature=temperature,
  )
  rows = {
    'factor': rescaling.rescaling_factor(student, logits, labels, **settings),
    'share': gradients.teacher_share(student, logits, labels, **settings),
  }
  norms = {
    name: jnp.sum(
      jnp.where(row < num_rows, jnp.linalg.norm(part, axis=-1), 0.0)
    )
    for name, part in parts._asdict().items()
  }
  student = _centred(student, jnp.ones_like(student, bool))
  return rows, norms | {'logits': _by_class(student, row, num_rows)}


def _by_class(values: jax.Array, row: jax.Array, num_rows: int) -> jax.Array:
  """`[C, K]`, sums over the examples of each class that has a row."""
  return jax.ops.segment_sum(values, row, num_segments=num_rows)


def _centred(values: jax.Array, among: jax.Array) -> jax.Array:
  """Deviations from the mean of the row among some entries, 0 elsewhere."""
  count = jnp.maximum(jnp.sum(among, axis=-1, keepdims=True), 1)
  mean = jnp.sum(jnp.where(among, values, 0.0), -1, keepdims=True) / count
  return jnp.where(among, values - mean, 0.0)
