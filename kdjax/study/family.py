"""The partial methods as one loss whose choices are numbers.

Each trains on `(1-λ)·CE + λ·Tⁿ·KL(ρ ‖ q̃)`, and each ρ is one distribution with
other switches: what of the teacher's answer is kept, how the rest is spread,
and how much of ρ_sim is mixed in. So one program trains students of every one
of them at once.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from kdjax import losses, methods, numerics, targets

# For each method, what its switches are where they are not 0.
_SWITCHES = {
  'ce': lambda c, num_classes: {'weight': 0.0, 'temperature': 1.0},
  # T = 1, ρ uniform, λ = ε.
  'ls': lambda c, num_classes: {'weight': c.smoothing, 'temperature': 1.0},
  'kd': lambda c, num_classes: {'kept': num_classes},
  'kd_pt': lambda c, num_classes: {'keeps_label': 1},
  'kd_sim': lambda c, num_classes: {'sim_share': 1.0},
  'kd_pt_sim': lambda c, num_classes: {'keeps_label': 1, 'sim_share': c.mix},
  'kd_pt_sim_conditional': lambda c, num_classes: {
    'keeps_label': 1,
    'spreads_as_sim': 1,
  },
  'kd_topk': lambda c, num_classes: {'kept': c.topk},
}
METHODS = frozenset(_SWITCHES)


def switches(config: ConfigDict, *, num_classes: int) -> dict[str, float]:
  """Returns a method and its hyper-parameters as numbers.

  Args:
    config: whose `method` is one of `METHODS`.
    num_classes: K.

  Returns:
    `weight` and `temperature`; `kept`, so many of the likeliest classes keep
    their probability; `keeps_label`, 1 if the label does, too;
    `spreads_as_sim`, 1 if the rest is spread as ρ_sim is and 0 if evenly; and
    `sim_share`, how much of ρ_sim is mixed in.

  >>> from kdjax.config import default
  >>> switches(default(), num_classes=100)['kept']
  100
  """
  return {
    'weight': config.weight,
    'temperature': config.temperature,
    'kept': 0,
    'keeps_label': 0,
    'spreads_as_sim': 0,
    'sim_share': 0.0,
  } | _SWITCHES[config.method](config, num_classes)


def loss(
  x: methods.Exchange, c: methods.Settings, *, relates: bool, most: int
) -> jax.Array:
  """The loss of any method of the family, up to a constant.

  `(1-λ)·CE + λ·Tⁿ·CE(ρ, q̃)`, `ρ = (1−η)·keep(p̃) + η·ρ_sim`. The entropy of ρ,
  which KL would take off, is no function of the student: leaving it out saves a
  logarithm and an exponential for every class.

  Args:
    x: what the networks say. Without a teacher ρ is uniform.
    c: what `switches` returns, `temperature_power` and the keys of kd_sim, as
      attributes.
    relates: whether any student needs ρ_sim.
    most: of a student that keeps not all classes, the most that any keeps.

  Returns:
    `[B]`, in nats; of a text `[B, T]`.
  """
  target = _target(x, c, relates, most)
  log_student = numerics.log_probs(x.student.logits, c.temperature)
  kept = target > 0
  apart = -jnp.sum(
    jnp.where(kept, target * jnp.where(kept, log_student, 0.0), 0.0), axis=-1
  )
  label_term = losses.cross_entropy(x.student.logits, x.labels)
  scale = c.weight * c.temperature**c.temperature_power
  return numerics.times(1 - c.weight, label_term) + numerics.times(scale, apart)


def _target(
  x: methods.Exchange, c: methods.Settings, relates: bool, most: int
) -> jax.Array:
  num_classes = x.student.logits.shape[-1]
  if x.teacher is None:
    return jnp.full_like(x.student.logits, 1 / num_classes)
  probs = targets.full(x.teacher.logits, temperature=c.temperature)
  kept = _places(x.teacher.logits, most) < c.kept
  kept |= numerics.is_label(x.labels, num_classes) & (c.keeps_label > 0)
  if not relates:
    return targets.keep(probs, kept)
  sim = targets.sim(
    x.class_weights,
    x.labels,
    power=c.similarity_power,
    temperature=c.similarity_temperature,
  )
  spread = jnp.where(c.spreads_as_sim > 0, sim, 1.0)
  partial = targets.keep(probs, kept, spread=spread)
  return (1 - c.sim_share) * partial + c.sim_share * sim


def _places(logits: jax.Array, most: int) -> jax.Array:
  """The place of each class up to the `most` likeliest; the others' is last.

  By the logits, whose order is that of all temperatures: one for all students.
  """
  last = jnp.full(logits.shape, logits.shape[-1] - 1)
  if not most:
    return last
  _, classes = jax.lax.top_k(logits, most)
  places = jnp.broadcast_to(jnp.arange(most), classes.shape)
  return jnp.put_along_axis(last, classes, places, axis=-1, inplace=False)
