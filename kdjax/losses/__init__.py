"""Distillation losses: pure functions of arrays, in the papers' notation."""

from kdjax.losses.contrastive import (
  by_class,
  crd,
  crd_log_partition,
  draw_candidates,
  moved_bank,
)
from kdjax.losses.decoupled import dkd, nckd, tckd
from kdjax.losses.features import (
  at,
  average_pool,
  cosine,
  hint,
  l2,
  nst,
  vid,
)
from kdjax.losses.logits import (
  cross_entropy,
  dist,
  distillation,
  kd,
  standardise,
)
from kdjax.losses.relations import (
  attention_relation,
  cc,
  irg,
  pkt,
  rkd_angle,
  rkd_distance,
  sp,
)

__all__ = [
  'at',
  'attention_relation',
  'average_pool',
  'by_class',
  'cc',
  'cosine',
  'crd',
  'crd_log_partition',
  'cross_entropy',
  'dist',
  'distillation',
  'dkd',
  'draw_candidates',
  'hint',
  'irg',
  'kd',
  'l2',
  'moved_bank',
  'nckd',
  'nst',
  'pkt',
  'rkd_angle',
  'rkd_distance',
  'sp',
  'standardise',
  'tckd',
  'vid',
]
