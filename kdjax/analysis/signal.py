"""What a teacher says to a student, measured over a data set."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.analysis import dark_knowledge, geometry, passes
from kdjax.analysis.parts import GradientParts
from kdjax.analysis.pieces import fold, spread
from kdjax.analysis.samples import rank_correlation

# The doubt that a suggested temperature gives the teacher: on Fashion-MNIST
# students do best where it lies between a sixth and two thirds.
_GOOD_DARK_MASS = 0.3
# Among these a temperature is suggested; none outside is in use.
TEMPERATURES = (0.25, 20.0)
_SAMPLE = 2000  # rows that are enough to find a temperature
_FEWEST_FOR_TAIL = 6  # classes: of fewer no tail is left
# Classes: of three every symmetric table is one without relations.
_FEWEST_FOR_RELATIONS = 4


class Signal(NamedTuple):
  """What a teacher says to a student, over N examples of K classes.

  Attributes:
    num_examples: N.
    num_classes: K.
    metrics: scalars by name; what cannot be measured is left out.
    teacher_confidence: `[N]`, p̃_y.
    rescaling_factor: `[N]`, w; without a student, of one that is uniform.
    has_student: whether there is one.
    topk_mass: `[K]`, mean mass of the k largest entries of p̃, k = 1..K.
    topk_mass_untempered: `[K]`, the same at T = 1.
    relations: `[K, K]`, row y: the mean over class y of the teacher's
      probabilities of the wrong classes at T = 1; 0 on the diagonal.
    class_counts: `[K]`, examples of each class.
    gradient_shares: by part, its share of the mean norms; they sum to one.
    similarity: `[K, K]` of 'teacher' and 'student': cosines of class means of
      the centred logits.
  """

  num_examples: int
  num_classes: int
  metrics: dict[str, float]
  teacher_confidence: np.ndarray
  rescaling_factor: np.ndarray
  has_student: bool
  topk_mass: np.ndarray
  topk_mass_untempered: np.ndarray
  relations: np.ndarray
  class_counts: np.ndarray
  gradient_shares: dict[str, float]
  similarity: dict[str, np.ndarray]


def measure_signal(
  teacher_logits: np.ndarray,
  labels: np.ndarray,
  *,
  student_logits: np.ndarray | None = None,
  class_weights: np.ndarray | None = None,
  weight: float,
  temperature: float,
  temperature_power: float = 2,
  progress: Callable[[int], None] = lambda num_rows: None,
) -> Signal:
  """Measures what a teacher says, and what it does to the gradient.

  Args:
    teacher_logits: `[N, K]`, finite; may be memory-mapped.
    labels: `[N]`, in 0..K-1.
    student_logits: `[N, K]`, finite, or None: a student that is uniform, as
      before its training.
    class_weights: `[K, D]`, rows of the teacher's last layer, or None.
    weight: λ in [0, 1].
    temperature: T > 0.
    temperature_power: n, 0 or 2.
    progress: told how many rows are done, twice N in all.

  Returns:
    The measures.
  """
  num_examples, num_classes = teacher_logits.shape
  kept = min(max(3, num_classes // 10), num_classes - 1)
  said, sums = fold(
    functools.partial(passes.teacher, temperature=temperature, kept=kept),
    (teacher_logits, labels, _halves(labels)),
    progress,
  )
  counts = sums['counts']
  has_student = student_logits is not None
  if not has_student:
    student_logits = np.broadcast_to(np.float32(0), teacher_logits.shape)
  pulls, pulled = fold(
    functools.partial(
      passes.gradient,
      class_probs=_class_means(sums['probs'], counts),
      smoothing=float(np.clip(1 - said['confidence'].mean(), 0, 1)),
      weight=weight,
      temperature=temperature,
      temperature_power=temperature_power,
    ),
    (teacher_logits, labels, student_logits),
    progress,
  )
  shares = _shares(pulled)
  similarity = {'teacher': _similarity(sums['logits'])}
  if has_student:
    similarity['student'] = _similarity(pulled['logits'])
  return Signal(
    num_examples=num_examples,
    num_classes=num_classes,
    metrics={
      **_means(said),
      'suggested_temperature': suggest_temperature(teacher_logits),
      **_relations(said, sums),
      **_tail(sums, kept),
      'effective_weight': weight * temperature ** (temperature_power - 2),
      **_pull(pulls, said['confidence']),
      **{f'share_{name}': share for name, share in shares.items()},
      **_geometry(similarity, class_weights),
    },
    teacher_confidence=said['confidence'],
    rescaling_factor=pulls['factor'],
    has_student=has_student,
    topk_mass=sums['topk'] / num_examples,
    topk_mass_untempered=sums['topk_untempered'] / num_examples,
    relations=_class_means(sums['incorrect'].sum(0), counts),
    class_counts=counts,
    gradient_shares=shares,
    similarity=similarity,
  )


def suggest_temperature(teacher_logits: np.ndarray) -> float:
  """Returns the temperature at which the teacher doubts as it should.

  Args:
    teacher_logits: `[N, K]`, finite.

  Returns:
    T with `mean(1 − max p̃) = 0.3`, to two digits; within `TEMPERATURES`.

  >>> logits = np.array([[12.0, 2.0, 0.0], [0.0, 12.0, 4.0]])
  >>> suggest_temperature(logits)
  6.7
  """
  sample = jnp.asarray(teacher_logits[spread(len(teacher_logits), _SAMPLE)])
  low, high = np.log(TEMPERATURES)
  for _ in range(20):
    middle = (low + high) / 2
    mass = float(passes.dark_mass(sample, np.exp(middle)).mean())
    low, high = (middle, high) if mass < _GOOD_DARK_MASS else (low, middle)
  return float(f'{np.exp(high):.2g}')


def _class_means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
  return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)


def _means(rows: dict[str, np.ndarray]) -> dict[str, float]:
  """Means over the examples; rounding makes none negative."""
  means = {
    name: max(float(np.mean(rows[name], dtype=np.float64)), 0.0)
    for name in (
      'dark_mass',
      'dark_mass_untempered',
      'divergence_from_uniform',
      'tail_mass',
    )
  }
  confidence = np.mean(rows['confidence'], dtype=np.float64)
  return {'teacher_true_confidence': float(confidence), **means}


def _relations(
  said: dict[str, np.ndarray], sums: dict[str, np.ndarray]
) -> dict[str, float]:
  """How unlike the wrong classes are to the teacher, and why."""
  num_classes = len(sums['counts'])
  if num_classes < 3:
    return {}
  most = np.log(num_classes - 1)
  spread_out = most - said['incorrect_entropy_untempered']
  table = jnp.asarray(sums['incorrect'].sum(0), jnp.float32)
  mutual, information = map(float, _information(table))
  total = float(np.mean(spread_out, dtype=np.float64))
  found = {
    'incorrect_entropy': float(said['incorrect_entropy'].mean() / most),
    'incorrect_entropy_untempered': 1 - total / float(most),
    'relation_spread': float(np.median(spread_out)),
    'mutual_information': mutual,
    'relation_information': information,
  }
  if num_classes < _FEWEST_FOR_RELATIONS or not _is_repeated(sums['counts']):
    return found
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


def _halves(labels: np.ndarray) -> np.ndarray:
  """`[N]`, 0 or 1: every class is split in two, in turn."""
  order = np.argsort(labels, kind='stable')
  first = np.searchsorted(labels[order], labels[order])
  halves = np.empty(len(labels), np.int32)
  halves[order] = (np.arange(len(labels)) - first) % 2
  return halves


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


def _tail(sums: dict[str, np.ndarray], kept: int) -> dict[str, float]:
  """How much of the teacher's tail the class explains.

  The share of the logits' variance beyond the k largest that lies between
  (class, column) cells, less what chance alone would put there.
  """
  num_classes = len(sums['counts'])
  if num_classes < _FEWEST_FOR_TAIL or not _is_repeated(sums['counts']):
    return {}
  counts, total = sums['tail_counts'], sums['tail_square']
  explained = np.sum(sums['tail'] ** 2 / np.maximum(counts, 1))
  share = explained / total if total > 0 else 0.0
  by_chance = np.sum(counts > 0) / max(counts.sum(), 1)
  adjusted = (share - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0
  return {'kept_classes': float(kept), 'tail_class_share': float(adjusted)}


def _shares(norms: dict[str, np.ndarray]) -> dict[str, float]:
  values = {name: float(norms[name]) for name in GradientParts._fields}
  total = sum(values.values())
  return {name: v / total if total else 0.0 for name, v in values.items()}


def _pull(
  pulls: dict[str, np.ndarray], confidence: np.ndarray
) -> dict[str, float]:
  """The distribution of the rescaling factor, and the teacher's share."""
  factor = pulls['factor']
  # A sure student's factor may be infinite: nothing is interpolated.
  low, median, high = np.quantile(factor, (0.1, 0.5, 0.9), method='nearest')
  found = {
    'rescaling_p10': float(low),
    'rescaling_p50': float(median),
    'rescaling_p90': float(high),
    'rescaling_negative': float(np.mean(factor < 0)),
    'teacher_gradient_share': float(np.mean(pulls['share'], dtype=np.float64)),
  }
  correlation = rank_correlation(factor, confidence)
  if np.isfinite(correlation):
    found['rescaling_confidence_correlation'] = correlation
  return found


def _similarity(class_sums: np.ndarray) -> np.ndarray:
  return np.asarray(geometry.class_similarity(class_sums.astype(np.float32)))


def _geometry(
  similarity: dict[str, np.ndarray], class_weights: np.ndarray | None
) -> dict[str, float]:
  teacher = similarity['teacher']
  found = {'class_similarity_spread': geometry.similarity_spread(teacher)}
  if 'student' in similarity:
    found['relation_correlation'] = geometry.relation_correlation(
      similarity['student'], teacher
    )
  if class_weights is not None:
    found['weight_similarity_spread'] = geometry.similarity_spread(
      geometry.class_similarity(jnp.asarray(class_weights))
    )
  return {name: float(value) for name, value in found.items()}
