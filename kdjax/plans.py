"""Terms at work: what a loss compares, with what help, and what it is worth."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdjax import terms
from kdjax.exchange import Exchange, Settings


class Planned(NamedTuple):
  """A term and the features that it compares.

  Attributes:
    name: a row of `TERMS`.
    pairs: names of features; empty for a term on logits.
  """

  name: str
  pairs: tuple[terms.Names, ...]


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
    row, own = terms.TERMS[name], getattr(c.terms, name)
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
  data: terms.DataSet,
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
    row, own = terms.TERMS[name], getattr(c.terms, name)
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


def _check_rank(row: terms.Term, *shapes: tuple[int, ...]) -> None:
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
  row, own = terms.TERMS[term.name], getattr(c.terms, term.name)
  pairs = []
  for i, (s, t) in enumerate(term.pairs):
    student, teacher = x.student.features[s], x.teacher.features[t]
    if row.rank == 2:
      student, teacher = _pool(student), _pool(teacher)
    aid = aids[term.name][f'pair{i + 1}'] if row.aid else None
    pairs.append(terms.Pair(student, teacher, aid))
  weight = own.weight
  if own.warmup_epochs:
    weight = weight * jnp.minimum(x.epoch / own.warmup_epochs, 1.0)
  return weight * row.value(x, c, own, pairs)


def _pool(feature: jax.Array) -> jax.Array:
  """Maps averaged over space, in float32; embeddings as they are."""
  return jnp.mean(
    feature, axis=tuple(range(1, feature.ndim - 1)), dtype=jnp.float32
  )
