"""What a teacher says to a student, measured over a data set."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from kdjax.analysis import geometry, passes, structure
from kdjax.analysis.frequency import ByFrequency, by_frequency
from kdjax.analysis.parts import GradientParts
from kdjax.analysis.pieces import fold, spread
from kdjax.analysis.samples import rank_correlation

# The doubt that a suggested temperature gives the teacher: on Fashion-MNIST
# students do best where it lies between a sixth and two thirds.
_GOOD_DARK_MASS = 0.3
# Among these a temperature is suggested; none outside is in use.
TEMPERATURES = (0.25, 20.0)
_SAMPLE = 2000  # rows that are enough to find a temperature


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
    relations: `[C, C]`, row y: the mean over class y of the teacher's
      probabilities of the wrong classes among C at T = 1; 0 on the diagonal.
    class_counts: `[K]`, examples of each class.
    gradient_shares: by part, its share of the mean norms; they sum to one. Of
      the examples of C classes.
    similarity: `[C, C]` of 'teacher' and 'student': cosines of class means of
      the centred logits.
    classes: `[C]`, those that are held against each other: the most frequent,
      first, of more than 1,000; None for all in their order, C = K.
    by_frequency: of a text, the rescaling factor by how frequent tokens are.
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
  classes: np.ndarray | None = None
  by_frequency: ByFrequency | None = None


def measure_signal(
  teacher_logits: np.ndarray,
  labels: np.ndarray,
  *,
  student_logits: np.ndarray | None = None,
  class_weights: np.ndarray | None = None,
  token_counts: np.ndarray | None = None,
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
    token_counts: `[K]`, of a text, how often each token is in the training
      text; else None.
    weight: λ in [0, 1].
    temperature: T > 0.
    temperature_power: n, 0 or 2.
    progress: told how many rows are done, twice N in all.

  Returns:
    The measures.
  """
  num_examples, num_classes = teacher_logits.shape
  kept = min(max(3, num_classes // 10), num_classes - 1)
  classes = structure.choose_classes(labels, num_classes)
  rows = structure.rows_of(labels, classes, num_classes)
  said, sums = fold(
    functools.partial(
      passes.teacher, classes=classes, temperature=temperature, kept=kept
    ),
    (teacher_logits, labels, structure.halves(labels), rows),
    progress,
  )
  counts = sums['counts'][classes]
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
    (teacher_logits, labels, student_logits, rows),
    progress,
  )
  shares = _shares(pulled)
  similarity = {'teacher': _similarity(sums['logits'])}
  if has_student:
    similarity['student'] = _similarity(pulled['logits'])
  if class_weights is not None:
    class_weights = np.asarray(class_weights)[classes]
  factor = pulls['factor']
  groups = None
  if token_counts is not None:
    groups = by_frequency(factor, np.asarray(token_counts)[labels])
  return Signal(
    num_examples=num_examples,
    num_classes=num_classes,
    metrics={
      **_means(said),
      'suggested_temperature': suggest_temperature(teacher_logits),
      **structure.relations(said, sums, classes),
      **structure.tail(sums, classes, kept),
      'effective_weight': weight * temperature ** (temperature_power - 2),
      **_pull(pulls, said['confidence']),
      **{f'share_{name}': share for name, share in shares.items()},
      **_geometry(similarity, class_weights),
      **_medians(groups),
    },
    teacher_confidence=said['confidence'],
    rescaling_factor=factor,
    has_student=has_student,
    topk_mass=sums['topk'] / num_examples,
    topk_mass_untempered=sums['topk_untempered'] / num_examples,
    relations=_class_means(sums['incorrect'].sum(0), counts),
    class_counts=sums['counts'],
    gradient_shares=shares,
    similarity=similarity,
    classes=None if len(classes) == num_classes else classes,
    by_frequency=groups,
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


def _medians(groups: ByFrequency | None) -> dict[str, float]:
  """Under the names of a training's metrics."""
  if groups is None:
    return {}
  return {
    f'rescaling_frequency_{i}': float(median)
    for i, median in enumerate(groups.median, start=1)
  }


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
