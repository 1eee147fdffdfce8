"""Why distillation from a teacher does, or does not, help."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kdjax.analysis import inputs, rules
from kdjax.analysis.rules import Finding
from kdjax.analysis.scores import Scores, measure_scores
from kdjax.analysis.signal import Signal, measure_signal
from kdjax.checks import check_fraction, check_positive


class Answers(NamedTuple):
  """What the networks say of N examples; arrays may be memory-mapped.

  Attributes:
    teacher_logits: `[N, K]`, finite.
    labels: `[N]`, in 0..K-1.
    student_logits: `[N, K]`, finite, or None.
    baseline_logits: `[N, K]` of the student trained without a teacher, or
      None.
  """

  teacher_logits: np.ndarray
  labels: np.ndarray
  student_logits: np.ndarray | None = None
  baseline_logits: np.ndarray | None = None

  @property
  def networks(self) -> dict[str, np.ndarray]:
    """The logits that there are, by network."""
    logits = {
      'teacher': self.teacher_logits,
      'student': self.student_logits,
      'baseline': self.baseline_logits,
    }
    return {name: x for name, x in logits.items() if x is not None}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
  """What was found, and what it was found in.

  Attributes:
    findings: most severe first; a single 'healthy' where nothing is wrong.
    signal: what the teacher says to the student.
    scores: how good the answers are.
    settings: weight, temperature and temperature_power of the loss.
  """

  findings: tuple[Finding, ...]
  signal: Signal
  scores: Scores
  settings: dict[str, float]

  @property
  def is_text(self) -> bool:
    """Whether the examples are tokens of a text."""
    return self.signal.by_frequency is not None

  @property
  def metrics(self) -> dict[str, float]:
    """Every scalar that was measured, by name."""
    return self.signal.metrics | self.scores.metrics

  @property
  def codes(self) -> tuple[str, ...]:
    """The codes of the findings."""
    return tuple(finding.code for finding in self.findings)


def diagnose(
  teacher_logits: np.ndarray,
  labels: np.ndarray,
  *,
  student_logits: np.ndarray | None = None,
  class_weights: np.ndarray | None = None,
  weight: float = 0.9,
  temperature: float = 4.0,
  temperature_power: float = 2,
  baseline_logits: np.ndarray | None = None,
  progress: Callable[[float], None] = lambda done: None,
) -> Diagnosis:
  """Says what a teacher transfers, and why that does or does not help.

  The thresholds are in `kdjax.analysis.thresholds`. One set of examples serves
  one purpose better: in its training examples a student meets what the teacher
  says; accuracy and calibration want others. `diagnose_on` takes both.

  Args:
    teacher_logits: `[N, K]`, finite, K ≥ 2; may be memory-mapped. Of a text
      `[N, T, K]`, as all other logits.
    labels: `[N]`, of at least two classes in 0..K-1. Of a text `[N, T]`, −1
      where there is nothing to predict.
    student_logits: `[N, K]`, finite, or None.
    class_weights: `[K, D]`, rows of the teacher's last layer, or None.
    weight: λ in [0, 1], of the loss to be judged.
    temperature: T > 0.
    temperature_power: n, 2 (Hinton et al.) or 0 (Tang et al.).
    baseline_logits: `[N, K]` of the student trained without a teacher, or
      None.
    progress: told which fraction of the work is done, as it goes.

  Returns:
    Findings and measures.

  Raises:
    TypeError: an array is of the wrong type.
    ValueError: shapes do not fit, a value is not finite, a label is no class,
      all labels are the same, or probabilities are given as logits; the
      message names the array and the row.

  Reference: Tang et al., arXiv:2002.03532; the rules are this project's.

  >>> relations = np.cos(np.arange(10)[:, None] * np.arange(10)) * 2
  >>> labels = np.arange(200) % 10
  >>> logits = relations[labels] + 6 * np.eye(10)[labels]
  >>> diagnose(logits, labels).codes
  ('healthy',)
  >>> diagnose(8 * logits, labels).codes
  ('teacher_near_one_hot', 'temperature_too_low')
  """
  given = {
    'teacher_logits': teacher_logits,
    'student_logits': student_logits,
    'baseline_logits': baseline_logits,
  }
  given = {k: np.asanyarray(x) for k, x in given.items() if x is not None}
  logits, flat, token_counts = inputs.in_rows(given, np.asanyarray(labels))
  answers = Answers(labels=flat, **logits)
  return diagnose_on(
    answers,
    answers,
    class_weights=class_weights,
    token_counts=token_counts,
    weight=weight,
    temperature=temperature,
    temperature_power=temperature_power,
    progress=progress,
  )


def diagnose_on(
  taught: Answers,
  held_out: Answers,
  *,
  class_weights: np.ndarray | None = None,
  token_counts: np.ndarray | None = None,
  token_length: float | None = None,
  weight: float,
  temperature: float,
  temperature_power: float = 2,
  method: str = 'kd',
  progress: Callable[[float], None] = lambda done: None,
) -> Diagnosis:
  """Does the same with the examples of each kind that suit a question best.

  Args:
    taught: examples that the student is trained on, or alike: what the teacher
      says, and what it does to the gradient.
    held_out: examples that neither was trained on: accuracy, calibration and
      fidelity.
    class_weights: as in `diagnose`.
    token_counts: `[K]`, of a text, how often each token is in the training
      text; None of what is no text.
    token_length: the mean of its characters, or None if that is unknown.
    weight: λ.
    temperature: T.
    temperature_power: n.
    method: of the loss; what it remedies, or what says nothing of it, is not
      found.
    progress: told which fraction of the work is done.

  Returns:
    Findings and measures.

  Raises:
    TypeError: as `diagnose`.
    ValueError: as `diagnose`.
  """
  settings = {
    'weight': weight,
    'temperature': temperature,
    'temperature_power': temperature_power,
  }
  check_fraction('weight', weight)
  check_positive('temperature', temperature)
  if temperature_power not in (0, 2):
    raise ValueError(f'temperature_power={temperature_power} must be 0 or 2')
  for answers in {id(a): a for a in (taught, held_out)}.values():
    inputs.check(
      {f'{name}_logits': x for name, x in answers.networks.items()},
      answers.labels,
    )
  if class_weights is not None:
    class_weights = np.asarray(class_weights)
    num_classes = taught.teacher_logits.shape[1]
    inputs.check_weights(class_weights, num_classes, name='class_weights')
  tick = _tick(taught, held_out, progress)
  signal = measure_signal(
    taught.teacher_logits,
    taught.labels,
    student_logits=taught.student_logits,
    class_weights=class_weights,
    token_counts=token_counts,
    progress=tick,
    **settings,
  )
  scores = measure_scores(
    held_out.networks,
    held_out.labels,
    token_counts=token_counts,
    token_length=token_length,
    progress=tick,
  )
  return Diagnosis(
    rules.apply(signal.metrics | scores.metrics, settings, method=method),
    signal,
    scores,
    settings,
  )


def _tick(
  taught: Answers, held_out: Answers, progress: Callable[[float], None]
) -> Callable[[int], None]:
  """Turns rows that are done into the fraction of all the work."""
  passes = len(held_out.networks) + ('student' in held_out.networks)
  total = 2 * len(taught.labels) + passes * len(held_out.labels)
  done = 0

  def tick(num_rows: int) -> None:
    nonlocal done
    done += num_rows
    progress(done / total)

  return tick
