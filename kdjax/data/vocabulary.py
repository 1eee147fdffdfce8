"""Which tokens are classes, and in which order."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from kdjax.data.tokens import UNKNOWN

# No class: a token that the training text does not have.
OUTSIDE = -1


class Vocabulary(NamedTuple):
  """The classes of a language model.

  Attributes:
    names: token of each class, [K].
    classes: class of each type of token, [U]; −1 for one outside.
  """

  names: tuple[str, ...]
  classes: Int[np.ndarray, ' U']


def vocabulary(
  types: Sequence[str],
  counts: Int[np.ndarray, ' U'],
  *,
  end: int = OUTSIDE,
  size: int = 0,
  min_count: int = 1,
) -> Vocabulary:
  """The tokens of a training text, most frequent first, ties by themselves.

  The rest is `<unk>`, if the training text has it or the vocabulary is limited
  by `size` or `min_count`; else the rest is outside.

  Args:
    types: the different tokens.
    counts: how often the training text has each.
    end: type of the token that ends a line, which is always a class; −1 if
      there is none.
    size: the most classes, from 3, `<unk>` and the end of a line included; 0
      for no limit.
    min_count: how often a token must be there to be a class.

  Returns:
    The classes.

  >>> vocabulary(['a', 'b', 'c', 'd'], np.array([1, 2, 2, 0]))
  Vocabulary(names=('b', 'c', 'a'), classes=array([ 2,  0,  1, -1]))
  >>> vocabulary(['a', 'b', 'c', 'd'], np.array([1, 4, 2, 0]), size=3)
  Vocabulary(names=('b', 'c', '<unk>'), classes=array([2, 0, 1, 2]))
  """
  frequent = [
    i
    for i in np.flatnonzero(counts >= max(min_count, 1)).tolist()
    if i != end and types[i] != UNKNOWN
  ]
  frequent.sort(key=lambda i: (-counts[i], types[i]))
  has_unknown = any(
    types[i] == UNKNOWN for i in np.flatnonzero(counts).tolist()
  )
  has_unknown |= bool(size) or min_count > 1
  reserved = int(end != OUTSIDE) + int(has_unknown)
  kept = frequent[: size - reserved] if size else frequent
  kept = [*kept, *([end] if end != OUTSIDE else [])]
  totals = [int(counts[i]) for i in kept]
  names = [types[i] for i in kept]
  if has_unknown:
    names.append(UNKNOWN)
    totals.append(int(counts.sum()) - sum(totals))
  order = sorted(range(len(names)), key=lambda k: (-totals[k], names[k]))
  rank = {k: place for place, k in enumerate(order)}
  rest = rank[len(kept)] if has_unknown else OUTSIDE
  classes = np.full(len(types), rest)
  classes[kept] = [rank[k] for k in range(len(kept))]
  return Vocabulary(tuple(names[k] for k in order), classes)
