"""Passes over examples: of each some values, and over all some sums."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import numerics, targets
from kdjax.analysis import dark_knowledge, gradients, rescaling
from kdjax.analysis.parts import gradient_parts


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
  *,
  temperature: float,
  kept: int,
) -> tuple[dict, dict]:
  """Measures what the teacher says of some examples.

  Args:
    logits: `[B, K]`, the teacher's.
    labels: `[B]`.
    half: `[B]`, 0 or 1: in which half of its class an example is.
    temperature: T.
    kept: k, how many of the likeliest classes are no tail.

  Returns:
    Values of each example, and sums over them.
  """
  # NumPy sorts some fifty times faster than XLA does on a CPU.
  largest = np.sort(logits, axis=-1)[:, ::-1]
  return _teacher(
    logits, largest, labels, half, temperature=temperature, kept=kept
  )


@functools.partial(jax.jit, static_argnames='kept')
def _teacher(
  logits: jax.Array,
  largest: jax.Array,
  labels: jax.Array,
  half: jax.Array,
  *,
  temperature: float,
  kept: int,
) -> tuple[dict, dict]:
  """The same, given the logits in falling order, too."""
  num_classes = logits.shape[-1]
  logits = numerics.as_float(logits)
  probs = targets.full(logits, temperature=temperature)
  incorrect = dark_knowledge.incorrect_probs(logits, labels, temperature=1.0)
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
    'tail_mass': jnp.sum(jnp.where(in_tail, probs, 0.0), axis=-1),
  }
  by_class = functools.partial(_by_class, labels=labels)
  sums = {
    'counts': jnp.sum(at_label, axis=0),
    'probs': by_class(probs),
    'logits': by_class(_centred(logits, jnp.ones_like(in_tail))),
    'incorrect': jnp.stack(
      [by_class(jnp.where(half[:, None] == h, incorrect, 0)) for h in (0, 1)]
    ),
    'half_counts': jnp.stack(
      [jnp.sum(at_label & (half[:, None] == h), axis=0) for h in (0, 1)]
    ),
    'tail': by_class(tail),
    'tail_counts': by_class(in_tail.astype(logits.dtype)),
    'tail_square': jnp.sum(tail**2),
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
    class_probs: `[K, K]`, the teacher's mean p̃ of each class.
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
  parts = gradient_parts(
    student,
    logits,
    labels,
    class_probs=class_probs,
    smoothing=smoothing,
    **settings,
  )
  rows = {
    'factor': rescaling.rescaling_factor(student, logits, labels, **settings),
    'share': gradients.teacher_share(student, logits, labels, **settings),
  }
  norms = {
    name: jnp.sum(jnp.linalg.norm(part, axis=-1))
    for name, part in parts._asdict().items()
  }
  student = _centred(student, jnp.ones_like(student, bool))
  return rows, norms | {'logits': _by_class(student, labels)}


def _by_class(values: jax.Array, labels: jax.Array) -> jax.Array:
  """`[K, K]`, sums over the examples of each class."""
  return jax.ops.segment_sum(values, labels, num_segments=values.shape[-1])


def _centred(values: jax.Array, among: jax.Array) -> jax.Array:
  """Deviations from the mean of the row among some entries, 0 elsewhere."""
  count = jnp.maximum(jnp.sum(among, axis=-1, keepdims=True), 1)
  mean = jnp.sum(jnp.where(among, values, 0.0), -1, keepdims=True) / count
  return jnp.where(among, values - mean, 0.0)
