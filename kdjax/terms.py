"""Terms: a literal table of what can be added to a method's loss.

A term compares features of both networks, or their logits once more. Its block
in the configuration, `config.terms.NAME`, has its weight and warm-up, and the
pairs of features that it compares; without any it takes the published ones.
`kdjax.plans` puts terms to work. Adding a term is a function in `kdjax.losses`,
a row here, and its block.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdjax import losses
from kdjax.exchange import Exchange, Settings
from kdjax.models import adapters

# Names of a student's feature and a teacher's.
Names = tuple[str, str]
# A term's block of the configuration.
Block = Any


class Pair(NamedTuple):
  """Features that are compared.

  Attributes:
    student: `[B, ...]`.
    teacher: `[B, ...]`.
    aid: what is trained for them beside the student, or None.
  """

  student: jax.Array
  teacher: jax.Array
  aid: nnx.Module | None


class DataSet(NamedTuple):
  """What a term that remembers examples has to know of them.

  Attributes:
    labels: `[N]`, of the training set.
    num_classes: K.
  """

  labels: np.ndarray
  num_classes: int


class Term(NamedTuple):
  """A row of the table.

  Attributes:
    value: maps an exchange, the configuration, the term's own block of it, and
      pairs, to a scalar, or to `[B]` where it takes no pairs.
    pairs: maps the names of both networks' stages to the published pairs; None
      for a term on logits.
    rank: of the features: 4 for maps, 2 for embeddings, which maps are averaged
      to; 0 for any.
    aid: builds what is trained for a pair from the term's block, both widths,
      the data set and a stream of keys; or None.
  """

  value: Callable[[Exchange, Settings, Block, list[Pair]], jax.Array]
  pairs: Callable[[list[str], list[str]], Sequence[Names]] | None = None
  rank: int = 0
  aid: Callable[[Block, int, int, DataSet, nnx.Rngs], nnx.Module] | None = None


def _every_stage(student: list[str], teacher: list[str]) -> Sequence[Names]:
  if len(student) != len(teacher):
    raise ValueError(
      f'the student has the stages {", ".join(student)}, the teacher '
      f'{", ".join(teacher)}'
    )
  return tuple(zip(student, teacher, strict=True))


def _second_stage(student: list[str], teacher: list[str]) -> Sequence[Names]:
  if min(len(student), len(teacher)) < 2:
    raise ValueError(
      f'a second stage is needed: the student has {", ".join(student)}, the '
      f'teacher {", ".join(teacher)}'
    )
  return ((student[1], teacher[1]),)


def _last_stage(student: list[str], teacher: list[str]) -> Sequence[Names]:
  return ((student[-1], teacher[-1]),)


def _pooled(student: list[str], teacher: list[str]) -> Sequence[Names]:
  return (('pooled', 'pooled'),)


def _dist(x: Exchange, c: Settings, own: Block, pairs: list[Pair]) -> jax.Array:
  """One number for all examples, or for all tokens of all examples."""
  value = losses.dist(
    x.student.logits,
    x.teacher.logits,
    inter_weight=c.inter_weight,
    intra_weight=c.intra_weight,
    temperature=c.temperature,
    mask=x.mask,
  )
  return jnp.broadcast_to(value, x.labels.shape)


def _each(loss: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable:
  """The sum of a loss over pairs; an aid projects the student's feature."""

  def value(
    x: Exchange, c: Settings, own: Block, pairs: list[Pair]
  ) -> jax.Array:
    return sum(
      loss(p.aid(p.student) if p.aid else p.student, p.teacher) for p in pairs
    )

  return value


def _vid(x: Exchange, c: Settings, own: Block, pairs: list[Pair]) -> jax.Array:
  total = 0.0
  for pair in pairs:
    mean, variance = pair.aid(pair.student)
    total += losses.vid(mean, pair.teacher, variance=variance)
  return total


def _cc(x: Exchange, c: Settings, own: Block, pairs: list[Pair]) -> jax.Array:
  return sum(losses.cc(*p.aid(p.student, p.teacher)) for p in pairs)


def _irg(x: Exchange, c: Settings, own: Block, pairs: list[Pair]) -> jax.Array:
  return losses.irg([p.student for p in pairs], [p.teacher for p in pairs])


def _attention_relation(
  x: Exchange, c: Settings, own: Block, pairs: list[Pair]
) -> jax.Array:
  return sum(
    losses.attention_relation(
      p.student,
      p.teacher,
      temperature=own.temperature,
      num_heads=own.num_heads,
    )
    for p in pairs
  )


def _crd(x: Exchange, c: Settings, own: Block, pairs: list[Pair]) -> jax.Array:
  """Scores first, then moves both banks."""
  total = 0.0
  for number, pair in enumerate(pairs):
    bank = pair.aid.bank
    student, teacher = pair.aid(pair.student, pair.teacher)
    candidates = losses.draw_candidates(
      jax.random.fold_in(x.key, number),
      x.positions,
      x.labels,
      order=bank.order[...],
      starts=bank.starts[...],
      num_negatives=own.num_negatives,
    )
    size = len(bank.order)  # below are rows that fill up the last block
    banks = bank.student[...][:size], bank.teacher[...][:size]
    log_partition = _log_partition(
      bank, (student, teacher), banks, candidates, own
    )
    total += losses.crd(
      student,
      teacher,
      *banks,
      candidates,
      temperature=own.temperature,
      log_partition=tuple(log_partition),
    )
    bank.log_partition[...] = log_partition
    bank.has_partition[...] = jnp.ones((), jnp.int32)
    for memory, rows in ((bank.student, student), (bank.teacher, teacher)):
      memory[...] = losses.moved_bank(
        memory[...],
        jax.lax.stop_gradient(rows),
        x.positions,
        momentum=own.momentum,
      )
  return total


def _log_partition(
  bank: adapters.Bank,
  embeddings: tuple[jax.Array, jax.Array],
  banks: tuple[jax.Array, jax.Array],
  candidates: jax.Array,
  own: Block,
) -> jax.Array:
  """CRD's log Z of both sides, constants that the first batch sets."""

  def estimated() -> jax.Array:
    # Each is scored against the other's memory.
    return jnp.stack(
      [
        losses.crd_log_partition(
          rows, memory, candidates, temperature=own.temperature
        )
        for rows, memory in zip(embeddings, banks[::-1], strict=True)
      ]
    )

  known = bank.log_partition[...]
  return jax.lax.stop_gradient(
    jax.lax.cond(bank.has_partition[...] > 0, lambda: known, estimated)
  )


def _projector(
  own: Block, num_inputs: int, num_outputs: int, data: DataSet, rngs: nnx.Rngs
) -> nnx.Module:
  return adapters.PROJECTORS[own.projector](num_inputs, num_outputs, rngs=rngs)


def _gaussian(
  own: Block, num_inputs: int, num_outputs: int, data: DataSet, rngs: nnx.Rngs
) -> nnx.Module:
  return adapters.Gaussian(num_inputs, num_outputs, rngs=rngs)


def _embedding(
  own: Block, num_inputs: int, num_outputs: int, data: DataSet, rngs: nnx.Rngs
) -> nnx.Module:
  return adapters.Embedding(num_inputs, num_outputs, dim=own.dim, rngs=rngs)


def _contrast(
  own: Block, num_inputs: int, num_outputs: int, data: DataSet, rngs: nnx.Rngs
) -> nnx.Module:
  order, starts = losses.by_class(data.labels, data.num_classes)
  return adapters.Contrast(
    num_inputs,
    num_outputs,
    dim=own.dim,
    order=order,
    starts=starts,
    rngs=rngs,
  )


TERMS = {
  # Responses, beside a method of another family.
  'kd': Term(
    lambda x, c, own, pairs: losses.kd(
      x.student.logits, x.teacher.logits, temperature=c.temperature
    )
  ),
  'dkd': Term(
    lambda x, c, own, pairs: losses.dkd(
      x.student.logits,
      x.teacher.logits,
      x.labels,
      target_weight=c.target_weight,
      nontarget_weight=c.nontarget_weight,
      temperature=c.temperature,
    )
  ),
  'dist': Term(_dist),
  # Features.
  'hint': Term(_each(losses.hint), _second_stage, rank=4, aid=_projector),
  'at': Term(_each(losses.at), _every_stage, rank=4),
  'nst': Term(_each(losses.nst), _every_stage, rank=4),
  'vid': Term(_vid, _every_stage, rank=4, aid=_gaussian),
  'cosine': Term(_each(losses.cosine), _pooled, rank=2, aid=_projector),
  'l2': Term(_each(losses.l2), _pooled, rank=2, aid=_projector),
  # Relations.
  'rkd_distance': Term(_each(losses.rkd_distance), _pooled, rank=2),
  'rkd_angle': Term(_each(losses.rkd_angle), _pooled, rank=2),
  'sp': Term(_each(losses.sp), _last_stage),
  'pkt': Term(_each(losses.pkt), _pooled, rank=2),
  'cc': Term(_cc, _pooled, rank=2, aid=_embedding),
  'crd': Term(_crd, _pooled, rank=2, aid=_contrast),
  'irg': Term(_irg, _every_stage, rank=2),
  'attention_relation': Term(_attention_relation, _pooled, rank=2),
}
