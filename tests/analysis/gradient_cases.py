"""Inputs, references and cases for gradients and rescaling."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import reference

from kdjax import analysis, losses, targets
from kdjax.analysis import gradients, rescaling

STUDENT = reference.wave((4, 5), 1.0, 0.0, 3.0)
TEACHER = reference.wave((4, 5), 0.7, 0.5, 3.0)
LABELS = np.array([0, 2, 4, 1])
CLASS_PROBS = reference.softmax(reference.wave((5, 5), 0.4, 0.8, 2.0))
SETTING = {'weight': 0.7, 'temperature': 3.0}
PARTS = {'class_probs': jnp.asarray(CLASS_PROBS), 'smoothing': 0.2, **SETTING}
INF = np.inf


def gradient_reference(s, t, y, weight, temperature, power):
  p = reference.softmax(t, temperature)
  return reference.d_distillation(s, p, y, weight, temperature, power)


def factor_reference(s, t, y, weight, temperature, power):
  at_label = lambda x: (x * reference.one_hot(y, s.shape[-1])).sum(-1)
  soft = [at_label(reference.softmax(x, temperature)) for x in (s, t)]
  return (1 - weight) + weight * temperature ** (power - 1) * (
    soft[1] - soft[0]
  ) / (1 - at_label(reference.softmax(s)))


def share_reference(s, t, y, weight, temperature, power):
  norm = lambda x: np.linalg.norm(x, axis=-1)
  ours = norm((1 - weight) * reference.d_cross_entropy(s, y))
  kd = reference.d_kd(s, t, temperature) / temperature
  theirs = norm(weight * temperature ** (power - 1) * kd)
  return theirs / (ours + theirs)


def parts_reference(s, t, y, rho, smoothing, weight, temperature, power):
  num_classes = s.shape[-1]
  hot = reference.one_hot(y, num_classes)
  q, soft = reference.softmax(s), reference.softmax(s, temperature)
  f = weight * temperature ** (power - 1)
  smooth = (1 - smoothing) * hot + smoothing * (1 - hot) / (num_classes - 1)
  return np.stack(
    [
      (1 - weight) * (q - hot) + f * (soft - hot),
      f * (hot - smooth),
      f * (smooth - rho[y]),
      f * (rho[y] - reference.softmax(t, temperature)),
    ],
    axis=-1,
  )


class Case(NamedTuple):
  """An analysis of (s, t, y) and its float64 reference."""

  analysis: object
  value: object


def _parts(s, t, y, **setting):
  return jnp.stack(analysis.gradient_parts(s, t, y, **setting), axis=-1)


def _case(analysis, value, power):
  return Case(
    functools.partial(analysis, **SETTING, temperature_power=power),
    lambda s, t, y: value(s, t, y, 0.7, 3.0, power),
  )


CASES = {
  'gradient_n0': _case(gradients.kd_logit_gradient, gradient_reference, 0),
  'gradient_n2': _case(gradients.kd_logit_gradient, gradient_reference, 2),
  'factor_n0': _case(rescaling.rescaling_factor, factor_reference, 0),
  'factor_n2': _case(rescaling.rescaling_factor, factor_reference, 2),
  'share_n0': _case(gradients.teacher_share, share_reference, 0),
  'share_n2': _case(gradients.teacher_share, share_reference, 2),
  'parts_n0': Case(
    functools.partial(_parts, **PARTS, temperature_power=0),
    lambda s, t, y: parts_reference(s, t, y, CLASS_PROBS, 0.2, 0.7, 3.0, 0),
  ),
  'parts_n2': Case(
    functools.partial(_parts, **PARTS, temperature_power=2),
    lambda s, t, y: parts_reference(s, t, y, CLASS_PROBS, 0.2, 0.7, 3.0, 2),
  ),
}


def float32(*arrays):
  return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


def one_row(*logits):
  return tuple(np.array([x], np.float64) for x in logits)


@functools.cache
def value_and_grad(analysis):
  """Compiled once per analysis and shape; the gradient is of a sum."""

  def total(s, t, y):
    value = analysis(s, t, y)
    # The parts of a row add up to zero: weigh them, to see their gradients.
    weights = 1.0 + jnp.arange(value.size, dtype=value.dtype)
    return jnp.sum(value * weights.reshape(value.shape)), value

  pair = jax.jit(jax.value_and_grad(total, has_aux=True))

  def call(s, t, y):
    (_, value), gradient = pair(s, t, y)
    return value, gradient

  return call


@functools.cache
def distillation_gradient(temperature, power):
  """By differentiation of the loss that is trained on."""

  def loss(s, t, y):
    return losses.distillation(
      s,
      targets.full(t, temperature=temperature),
      y,
      weight=0.7,
      temperature=temperature,
      temperature_power=power,
    ).sum()

  return jax.jit(jax.grad(loss))


def factor_of(loss):
  return jax.jit(functools.partial(rescaling.rescaling_factor_of, loss))
