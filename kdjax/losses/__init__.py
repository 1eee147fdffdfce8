"""Distillation losses: pure functions of arrays, in the papers' notation."""

from kdjax.losses.decoupled import dkd, nckd, tckd
from kdjax.losses.logits import (
  cross_entropy,
  dist,
  distillation,
  kd,
  standardise,
)

__all__ = [
  'cross_entropy',
  'dist',
  'distillation',
  'dkd',
  'kd',
  'nckd',
  'standardise',
  'tckd',
]
