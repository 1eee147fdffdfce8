"""How good the answers of teacher and student are, measured over a data set."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses, numerics, targets
from kdjax.analysis import calibration, fidelity
from kdjax.analysis.calibration import Reliability
from kdjax.analysis.frequency import ByFrequency, by_frequency
from kdjax.analysis.pieces import fold, spread

_SAMPLE = 2500  # rows that are enough to fit a temperature
_TOP = 5
_MOST_NATS = 700.0  # of a mean, whose exponential is still a float

_fit_temperature = jax.jit(calibration.fit_temperature)
_reliability_of = jax.jit(calibration.reliability_of)


class Scores(NamedTuple):
  """How good the answers are, over N examples of K classes.

  Attributes:
    num_examples: N.
    num_classes: K.
    metrics: scalars by name; what cannot be measured is left out.
    reliability: bins of confidence, of 'teacher' and 'student'.
    class_accuracy: `[K]` of 'teacher', 'student' and 'baseline'; NaN for a
      class without examples.
    by_frequency: of a text, nats of a token by how frequent it is, by network.
  """

  num_examples: int
  num_classes: int
  metrics: dict[str, float]
  reliability: dict[str, Reliability]
  class_accuracy: dict[str, np.ndarray]
  by_frequency: dict[str, ByFrequency] | None = None


def measure_scores(
  logits: dict[str, np.ndarray],
  labels: np.ndarray,
  *,
  token_counts: np.ndarray | None = None,
  token_length: float | None = None,
  progress: Callable[[int], None] = lambda num_rows: None,
) -> Scores:
  """Measures accuracy, calibration, and how the student follows the teacher.

  Args:
    logits: `[N, K]` of 'teacher', and of 'student' and 'baseline' where there
      are; may be memory-mapped.
    labels: `[N]`, in 0..K-1.
    token_counts: `[K]`, of a text, how often each token is in the training
      text; else None.
    token_length: the mean of its characters, or None if that is unknown.
    progress: told how many rows are done, N for each network.

  Returns:
    The measures.
  """
  num_examples, num_classes = logits['teacher'].shape
  metrics, reliability, class_accuracy, correct = {}, {}, {}, {}
  nats = {}
  for name, array in logits.items():
    rows, _ = fold(_answers, (array, labels), progress)
    bins = _reliability_of(rows['confidence'], rows['correct'])
    correct[name], reliability[name] = rows['correct'], bins
    nats[name] = rows['nll']
    class_accuracy[name] = _by_class(rows['correct'], labels, num_classes)
    sample = spread(num_examples, _SAMPLE)
    metrics |= {
      f'{name}_accuracy': float(rows['correct'].mean()),
      f'{name}_confidence': _mean(rows['confidence']),
      f'{name}_nll': _mean(rows['nll']),
      f'{name}_brier': _mean(rows['brier']),
      f'{name}_ece': float(calibration.calibration_error(bins)),
      f'{name}_fitted_temperature': float(
        _fit_temperature(np.asarray(array[sample]), labels[sample])
      ),
    }
  for name in logits.keys() - {'teacher'}:
    metrics |= _against(correct[name], correct['teacher'], name)
  groups = None
  if token_counts is not None:
    metrics |= _of_text(nats, token_length)
    counts = np.asarray(token_counts)[labels]
    groups = {name: by_frequency(x, counts) for name, x in nats.items()}
  if 'student' in logits:
    top = min(_TOP, num_classes)
    pair = (logits['student'], logits['teacher'])
    _, sums = fold(functools.partial(_fidelity, top=top), pair, progress)
    metrics |= {k: float(v) / num_examples for k, v in sums.items()}
  return Scores(
    num_examples, num_classes, metrics, reliability, class_accuracy, groups
  )


@jax.jit
def _answers(logits: jax.Array, labels: jax.Array) -> tuple[dict, dict]:
  logits = numerics.as_float(logits)
  probs = targets.full(logits, temperature=1.0)
  return {
    'correct': jnp.argmax(logits, axis=-1) == labels,
    'confidence': jnp.max(probs, axis=-1),
    'nll': losses.cross_entropy(logits, labels),
    'brier': calibration.brier(probs, labels),
  }, {}


@functools.partial(jax.jit, static_argnames='top')
def _fidelity(
  student: jax.Array, teacher: jax.Array, *, top: int
) -> tuple[dict, dict]:
  """Sums over a piece: the functions of `fidelity` are means."""
  sums = {
    'agreement': fidelity.agreement(student, teacher),
    'teacher_kl': fidelity.teacher_kl(student, teacher),
  }
  if top < student.shape[-1]:
    sums['topk_agreement'] = fidelity.topk_agreement(student, teacher, k=top)
  return {}, {name: len(student) * mean for name, mean in sums.items()}


def _mean(values: np.ndarray) -> float:
  return float(np.mean(values, dtype=np.float64))


def _by_class(
  correct: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
  counts = np.bincount(labels, minlength=num_classes)
  right = np.bincount(labels, weights=correct, minlength=num_classes)
  return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


def _against(
  correct: np.ndarray, teacher: np.ndarray, name: str
) -> dict[str, float]:
  """McNemar's statistic: by how many deviations a network beats the teacher.

  `z = (b − c) / √(b + c)` over the b examples that only it has right and the
  c that only the teacher has.
  """
  gains, losses_ = np.sum(correct & ~teacher), np.sum(teacher & ~correct)
  z = (gains - losses_) / np.sqrt(max(gains + losses_, 1))
  return {f'{name}_beats_teacher_z': float(z)}


def _of_text(
  nats: dict[str, np.ndarray], token_length: float | None
) -> dict[str, float]:
  """Perplexity, bits per character, and who is ahead of the teacher.

  `z = mean(d) / (std(d) / √N)`, d how many nats less a token costs.
  """
  found = {}
  for name, values in nats.items():
    mean = _mean(values)
    found[f'{name}_perplexity'] = math.exp(min(mean, _MOST_NATS))
    if token_length is not None:
      found[f'{name}_bits_per_character'] = mean / math.log(2) / token_length
    if name == 'teacher':
      continue
    ahead = nats['teacher'].astype(np.float64) - values
    spread_out = float(np.std(ahead))
    z = _mean(ahead) / spread_out * math.sqrt(len(ahead)) if spread_out else 0.0
    found[f'{name}_ahead_of_teacher_z'] = z
  return found
