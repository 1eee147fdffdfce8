"""Distillation losses: pure functions of arrays, in the papers' notation."""

from kdjax.losses.blockwise import Head, blockwise
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
from kdjax.losses.masks import blank, masked_mean
from kdjax.losses.relations import (
  attention_relation,
  cc,
  irg,
  pkt,
  rkd_angle,
  rkd_distance,
  sp,
)
from kdjax.losses.sparse import (
  kl_bucket_tail,
  kl_renormalised,
  kl_samples,
  kl_uniform_tail,
)

__all__ = [
  'Head',
  'at',
  'attention_relation',
  'average_pool',
  'blank',
  'blockwise',
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
  'kl_bucket_tail',
  'kl_renormalised',
  'kl_samples',
  'kl_uniform_tail',
  'l2',
  'masked_mean',
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
