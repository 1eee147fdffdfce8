"""Which classes a teacher relates, and whether the true class explains it."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.analysis import dark_knowledge

# Up to so many classes each is held against each; of more, so many of the most
# frequent, or tables would be larger than the logits.
_MOST_CLASSES, _CHOSEN = 1000, 256
_FEWEST_FOR_TAIL = 6  # classes: of fewer no tail is left
# Classes: of three every symmetric table is one without relations.
_FEWEST_FOR_RELATIONS = 4


def choose_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns the classes that are held against each other.

  Args:
    labels: `[N]`, in 0..K-1.
    num_classes: K.

  Returns:
    `[C]`: all classes in their order, or of more than 1,000 the 256 that most
    examples are of, the most frequent first.

  >>> choose_classes(np.array([2, 0]), 3)
  array([0, 1, 2])
  >>> choose_classes(np.array([7, 1500, 1500]), 2000)
  array([1500,    7])
  """
  if num_classes <= _MOST_CLASSES:
    return np.arange(num_classes)
  counts = np.bincount(labels, minlength=num_classes)
  frequent = np.argsort(-counts, kind='stable')[:_CHOSEN]
  return frequent[counts[frequent] > 0]


def rows_of(
  labels: np.ndarray, classes: np.ndarray, num_classes: int
) -> np.ndarray:
  """Returns where the labels are among some classes.

  >>> rows_of(np.array([7, 1500]), np.array([1500]), 2000)
  array([1, 0], dtype=int32)
  """
  places = np.full(num_classes, len(classes), np.int32)
  places[classes] = np.arange(len(classes))
  return places[labels]


def relations(
  said: dict[str, np.ndarray],
  sums: dict[str, np.ndarray],
  classes: np.ndarray,
) -> dict[str, float]:
  """Measures how unlike the wrong classes are to the teacher, and why.

  Args:
    said: what `passes.teacher` says of each example.
    sums: its sums.
    classes: `[C]`, those with rows in the sums by class; what the class
      explains is measured among these.

  Returns:
    Measures by name.
  """
  num_classes, num_chosen = len(sums['counts']), len(classes)
  if num_classes < 3:
    return {}
  most = np.log(num_classes - 1)
  spread_out = most - said['incorrect_entropy_untempered']
  found = {
    'incorrect_entropy': float(said['incorrect_entropy'].mean() / most),
    'incorrect_entropy_untempered': 1
    - float(np.mean(spread_out, dtype=np.float64)) / float(most),
    'relation_spread': float(np.median(spread_out)),
  }
  if num_chosen < 3:
    return found
  table = jnp.asarray(sums['incorrect'].sum(0), jnp.float32)
  mutual, information = map(float, _information(table))
  found |= {'mutual_information': mutual, 'relation_information': information}
  counts = sums['counts'][classes]
  if num_chosen < _FEWEST_FOR_RELATIONS or not _is_repeated(counts):
    return found
  # An example of another class has no entropy among these.
  among = np.log(num_chosen - 1) - said['incorrect_entropy_among']
  total = float(np.nanmean(among, dtype=np.float64))
  reliability = _reliability(sums['incorrect'], sums['half_counts'])
  repeated = information * max(reliability, 0.0)
  return found | {
    'relation_reliability': reliability,
    'relation_share': repeated / total if total > 0 else 0.0,
  }


def _is_repeated(counts: np.ndarray) -> bool:
  """Whether most examples have others of their class to be held against."""
  return np.sum(counts[counts > 1]) > np.sum(counts) / 2


@jax.jit
def _information(table: jax.Array) -> tuple[jax.Array, jax.Array]:
  return (
    dark_knowledge.mutual_information(table),
    dark_knowledge.relation_information(table),
  )


def halves(labels: np.ndarray) -> np.ndarray:
  """Returns `[N]`, 0 or 1: every class is split in two, in turn.

  >>> halves(np.array([4, 2, 4, 4]))
  array([0, 0, 1, 0], dtype=int32)
  """
  order = np.argsort(labels, kind='stable')
  first = np.searchsorted(labels[order], labels[order])
  found = np.empty(len(labels), np.int32)
  found[order] = (np.arange(len(labels)) - first) % 2
  return found


def _reliability(halves: np.ndarray, counts: np.ndarray) -> float:
  """How well the relations in half of the examples predict the other half's.

  Pearson correlation over pairs of different classes that both halves have,
  without what a wrong class attracts on average.
  """
  seen = np.all(counts > 0, axis=0)
  if seen.sum() < 2:
    return 0.0
  off = ~np.eye(len(seen), dtype=bool)[seen]
  deviations = []
  for half, count in zip(halves, counts, strict=True):
    means = half[seen] / count[seen][:, None]
    average = np.sum(means, axis=0) / np.maximum(off.sum(0), 1)
    deviations.append((means - average)[off])
  a, b = deviations
  norm = np.sqrt(np.sum(a**2) * np.sum(b**2))
  return float(np.sum(a * b) / norm) if norm > 0 else 0.0


def tail(
  sums: dict[str, np.ndarray], classes: np.ndarray, kept: int
) -> dict[str, float]:
  """Measures how much of the teacher's tail the class explains.

  The share of the logits' variance beyond the k largest that lies between
  (class, column) cells, less what chance alone would put there.

  Args:
    sums: of `passes.teacher`.
    classes: `[C]`, those with rows in the sums by class.
    kept: k.

  Returns:
    Measures by name.
  """
  few = min(len(sums['counts']), len(classes)) < _FEWEST_FOR_TAIL
  if few or not _is_repeated(sums['counts'][classes]):
    return {}
  counts, total = sums['tail_counts'], sums['tail_square']
  explained = np.sum(sums['tail'] ** 2 / np.maximum(counts, 1))
  share = explained / total if total > 0 else 0.0
  by_chance = np.sum(counts > 0) / max(counts.sum(), 1)
  adjusted = (share - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0
  return {'kept_classes': float(kept), 'tail_class_share': float(adjusted)}
