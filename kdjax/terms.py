"""Terms: a literal table of what can be added to a method's loss.

A term compares features of both networks, or their logits once more. Its block
in the configuration, `config.terms.NAME`, has its weight and warm-up, and the
pairs of features that it compares; without any it takes the published ones.
Adding a term is a function in `kdjax.losses`, a row here, and its block.
"""

import re
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
    partition = _partition(
      bank.partition[...], (student, teacher), banks, candidates, own
    )
    total += losses.crd(
      student,
      teacher,
      *banks,
      candidates,
      temperature=own.temperature,
      log_partition=tuple(jnp.log(partition)),
    )
    bank.partition[...] = partition
    for memory, rows in ((bank.student, student), (bank.teacher, teacher)):
      memory[...] = losses.moved_bank(
        memory[...],
        jax.lax.stop_gradient(rows),
        x.positions,
        momentum=own.momentum,
      )
  return total


def _partition(
  known: jax.Array,
  embeddings: tuple[jax.Array, jax.Array],
  banks: tuple[jax.Array, jax.Array],
  candidates: jax.Array,
  own: Block,
) -> jax.Array:
  """CRD's Z of both sides, constants that the first batch sets."""

  def estimated() -> jax.Array:
    # Each is scored against the other's memory.
    return jnp.exp(
      jnp.stack(
        [
          losses.crd_log_partition(
            rows, bank, candidates, temperature=own.temperature
          )
          for rows, bank in zip(embeddings, banks[::-1], strict=True)
        ]
      )
    )

  return jax.lax.stop_gradient(
    jax.lax.cond(known[0] > 0, lambda: known, estimated)
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
  'dist': Term(
    lambda x, c, own, pairs: jnp.broadcast_to(
      losses.dist(
        x.student.logits,
        x.teacher.logits,
        inter_weight=c.inter_weight,
        intra_weight=c.intra_weight,
        temperature=c.temperature,
      ),
      x.labels.shape,
    )
  ),
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


class Planned(NamedTuple):
  """A term and the features that it compares.

  Attributes:
    name: a row of `TERMS`.
    pairs: names of features; empty for a term on logits.
  """

  name: str
  pairs: tuple[Names, ...]


Plan = tuple[Planned, ...]


def plan(
  names: Sequence[str],
  c: Settings,
  student: Sequence[str],
  teacher: Sequence[str],
) -> Plan:
  """Returns the terms of a loss with their pairs.

  Args:
    names: rows of `TERMS`.
    c: the configuration.
    student: names of the student's features.
    teacher: names of the teacher's.

  Returns:
    The plan.

  Raises:
    ValueError: the published pairs do not fit these networks.
  """
  found = []
  for name in names:
    row, own = TERMS[name], getattr(c.terms, name)
    pairs = ()
    if row.pairs is not None:
      pairs = tuple(tuple(pair) for pair in own.pairs)
    if row.pairs is not None and not pairs:
      try:
        pairs = tuple(row.pairs(_stages(student), _stages(teacher)))
      except ValueError as error:
        raise ValueError(
          f'{name}: {error}; give config.terms.{name}.pairs='
          f"((student's, teacher's), …)"
        ) from error
    found.append(Planned(name, pairs))
  return tuple(found)


def _stages(names: Sequence[str]) -> list[str]:
  """Of a network's features those between stem and pooling, in their order."""
  return sorted(
    set(names) - {'stem', 'pooled', 'members'},
    key=lambda name: [int(n) for n in re.findall(r'\d+', name)],
  )


def features(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """Returns the names of the student's and of the teacher's that it needs."""
  pairs = [pair for term in plan for pair in term.pairs]
  return tuple(
    tuple(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1)
  )


def build_aids(
  plan: Plan,
  c: Settings,
  student: dict[str, jax.ShapeDtypeStruct],
  teacher: dict[str, jax.ShapeDtypeStruct],
  data: DataSet,
  *,
  rngs: nnx.Rngs,
) -> nnx.Module:
  """Returns what is trained beside the student, with fresh parameters.

  Args:
    plan: the terms.
    c: the configuration.
    student: shapes of the student's features, `[B, ...]`.
    teacher: shapes of the teacher's.
    data: the training set.
    rngs: where the parameters come from.

  Returns:
    A module with a module for each pair of each term that needs one.

  Raises:
    ValueError: features that a term cannot compare; names both shapes.
  """
  aids = {}
  for name, pairs in plan:
    row, own = TERMS[name], getattr(c.terms, name)
    built = {}
    for i, (s, t) in enumerate(pairs):
      shapes = student[s].shape, teacher[t].shape
      try:
        _check_rank(row, *shapes)
        if row.aid:
          widths = shapes[0][-1], shapes[1][-1]
          built[f'pair{i + 1}'] = row.aid(own, *widths, data, rngs)
      except ValueError as error:
        raise ValueError(
          f'{name} cannot compare {s!r} of the student, {shapes[0]}, with '
          f'{t!r} of the teacher, {shapes[1]}: {error}'
        ) from error
    if built:
      aids[name] = nnx.Dict(built)
  return nnx.Dict(aids)


def _check_rank(row: Term, *shapes: tuple[int, ...]) -> None:
  if row.rank == 4 and {len(shape) for shape in shapes} != {4}:
    raise ValueError('it needs maps, [B, H, W, C]')


def value(
  term: Planned, x: Exchange, c: Settings, aids: nnx.Module
) -> jax.Array:
  """Returns a term, weighted: `min(epoch / warm-up, 1) · weight · value`.

  Args:
    term: which, and of what.
    x: what the networks say.
    c: the configuration.
    aids: what `build_aids` returns; batch statistics and memory in it move.

  Returns:
    A scalar, or `[B]` for a term on logits.
  """
  row, own = TERMS[term.name], getattr(c.terms, term.name)
  pairs = []
  for i, (s, t) in enumerate(term.pairs):
    student, teacher = x.student.features[s], x.teacher.features[t]
    if row.rank == 2:
      student, teacher = _pool(student), _pool(teacher)
    aid = aids[term.name][f'pair{i + 1}'] if row.aid else None
    pairs.append(Pair(student, teacher, aid))
  weight = own.weight
  if own.warmup_epochs:
    weight = weight * jnp.minimum(x.epoch / own.warmup_epochs, 1.0)
  return weight * row.value(x, c, own, pairs)


def _pool(feature: jax.Array) -> jax.Array:
  """Maps averaged over space, in float32; embeddings as they are."""
  return jnp.mean(
    feature, axis=tuple(range(1, feature.ndim - 1)), dtype=jnp.float32
  )
