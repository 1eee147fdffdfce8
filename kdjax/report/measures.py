"""What the measures are called, and in which unit they are shown."""

from collections.abc import Mapping
from typing import NamedTuple

NETWORKS = ('teacher', 'student', 'baseline')

# Label and unit. '%' shows a fraction times a hundred; '' has no unit.
_ANSWERS = {
  'perplexity': ('perplexity', ''),
  'bits_per_character': ('bits per character', ''),
  'accuracy': ('accuracy', '%'),
  'confidence': ('mean confidence', '%'),
  'nll': ('negative log-likelihood', 'nats'),
  'brier': ('Brier score', ''),
  'ece': ('expected calibration error', '%'),
  'fitted_temperature': ('temperature that calibrates it', ''),
}
_FOLLOWING = {
  'agreement': ('same answer as the teacher', '%'),
  'topk_agreement': ("the teacher's 5 likeliest classes in common", '%'),
  'teacher_kl': ('divergence from the teacher, T = 1', 'nats'),
  'relation_correlation': ('class relations, correlation', ''),
  'student_beats_teacher_z': ("student over teacher, McNemar's z", ''),
  'baseline_beats_teacher_z': ("baseline over teacher, McNemar's z", ''),
  'student_ahead_of_teacher_z': ('student over teacher, z of the nats', ''),
  'baseline_ahead_of_teacher_z': ('baseline over teacher, z of the nats', ''),
}
_SAID = {
  'teacher_true_confidence': ('confidence in the true class, at T', '%'),
  'dark_mass': ('mass of all but the likeliest class, at T', '%'),
  'dark_mass_untempered': ('mass of all but the likeliest class, T = 1', '%'),
  'suggested_temperature': ('temperature at which it doubts by 30 %', ''),
  'divergence_from_uniform': ('divergence from uniform, at T', 'nats'),
  'incorrect_entropy': ('evenness of the wrong classes, at T', '%'),
  'incorrect_entropy_untempered': ('evenness of the wrong classes, T = 1', '%'),
  'relation_spread': ('wrong classes from uniform, T = 1, median', 'nats'),
  'relation_share': ('wrong classes: share the class explains', '%'),
  'relation_information': ('information in class relations', 'nats'),
  'relation_reliability': ('relations in two halves, correlation', ''),
  'mutual_information': ('wrong class about the true one', 'nats'),
  'kept_classes': ('likeliest classes that are no tail', 'classes'),
  'tail_mass': ('mass of the tail, at T', '%'),
  'tail_class_share': ('tail: share the class explains', '%'),
  'class_similarity_spread': ('spread of class similarity, logits', ''),
  'weight_similarity_spread': ('spread of class similarity, last layer', ''),
}
_REACHING = {
  'label_weight': ('weight of the labels, 1 − λ', ''),
  'effective_weight': ('effective weight λ·Tⁿ⁻²', ''),
  'teacher_gradient_share': ("teacher's share of the gradient", '%'),
  'share_label': ('gradient: label', '%'),
  'share_smoothing': ('gradient: smoothing (universe)', '%'),
  'share_class_relations': ('gradient: class relations (domain)', '%'),
  'share_instance': ('gradient: instance', '%'),
  'rescaling_p10': ('rescaling factor w, 10th percentile', ''),
  'rescaling_p50': ('rescaling factor w, median', ''),
  'rescaling_p90': ('rescaling factor w, 90th percentile', ''),
  'rescaling_negative': ('examples with w below 0', '%'),
  'rescaling_confidence_correlation': (
    'w and confidence, rank correlation',
    '',
  ),
  **{
    f'rescaling_frequency_{i}': (f'rescaling factor w, {fifth}, median', '')
    for i, fifth in enumerate(
      (
        'rarest fifth',
        'second fifth',
        'third fifth',
        'fourth fifth',
        'most frequent fifth',
      ),
      start=1,
    )
  },
}
_THRESHOLDS = {
  'temperature': ('temperature of the loss', ''),
  'most_near_one_hot': ('nearly one-hot below', '%'),
  'least_dark_mass': ('wanted mass, at least', '%'),
  'least_divergence': ('wanted divergence, at least', 'nats'),
  'least_relation_spread': ('wanted distance, at least', 'nats'),
  'least_relation_share': ('wanted share, at least', '%'),
  'least_effective_weight': ('wanted effective weight, at least', ''),
  'most_tail_mass': ('allowed mass of the tail, at most', '%'),
  'least_tail_share': ('wanted share of the tail, at least', '%'),
  'most_overconfidence': ('allowed overconfidence, at most', '%'),
  'least_agreement': ('wanted agreement, at least', '%'),
}
_OF_NETWORKS = {
  f'{network}_{name}': (f'{network}: {label}', unit)
  for network in NETWORKS
  for name, (label, unit) in _ANSWERS.items()
}
_KNOWN = _OF_NETWORKS | _FOLLOWING | _SAID | _REACHING | _THRESHOLDS
_SECTIONS = {
  'What the teacher says': _SAID,
  'What reaches the student': _REACHING,
  'How the student follows': _FOLLOWING,
}
# What to know first: of a text the perplexity, else the accuracy.
_HEADLINES = (
  'agreement',
  'dark_mass',
  'teacher_gradient_share',
)


class Table(NamedTuple):
  """A table: a title, names of columns, and rows of text."""

  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]


def label(name: str) -> str:
  """What a measure is called.

  >>> label('teacher_ece'), label('of_a_new_kind')
  ('teacher: expected calibration error', 'of a new kind')
  """
  return _KNOWN.get(name, (name.replace('_', ' '), ''))[0]


def quantity(name: str, value: float) -> str:
  """A measure with its unit.

  >>> quantity('dark_mass', 0.125), quantity('rescaling_p90', 12345.6)
  ('12.5 %', '12,346')
  """
  unit = _unit(name)
  return f'{_number(value, unit)} {unit}'.strip()


def headlines(metrics: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
  """Label and quantity of what to know first.

  Args:
    metrics: scalars by name.

  Returns:
    A pair per measure that is there.
  """
  merit = 'perplexity' if 'teacher_perplexity' in metrics else 'accuracy'
  names = (*(f'{network}_{merit}' for network in NETWORKS), *_HEADLINES)
  return tuple(
    (label(name), quantity(name, metrics[name]))
    for name in names
    if name in metrics
  )


def tables(metrics: Mapping[str, float]) -> tuple[Table, ...]:
  """Everything that was measured, in tables.

  Args:
    metrics: scalars by name; one without a label is shown under its name.

  Returns:
    Tables with a row at least.
  """
  sections = [_answers(metrics)]
  for title, known in _SECTIONS.items():
    sections.append(
      _listing(title, [n for n in known if n in metrics], metrics)
    )
  shown = _OF_NETWORKS | _FOLLOWING | _SAID | _REACHING
  others = sorted(name for name in metrics if name not in shown)
  sections.append(_listing('Other measures', others, metrics))
  return tuple(table for table in sections if table.rows)


def _answers(metrics: Mapping[str, float]) -> Table:
  """A column per network."""
  networks = [
    n for n in NETWORKS if any(f'{n}_{m}' in metrics for m in _ANSWERS)
  ]
  rows = []
  for measure, (text, unit) in _ANSWERS.items():
    values = [metrics.get(f'{network}_{measure}') for network in networks]
    if any(value is not None for value in values):
      name = f'{text} ({unit})' if unit else text
      rows.append((name, *(_number(v, unit) for v in values)))
  return Table('How good the answers are', ('measure', *networks), tuple(rows))


def _listing(
  title: str, names: list[str], metrics: Mapping[str, float]
) -> Table:
  rows = tuple(
    (label(name), _number(metrics[name], _unit(name)), _unit(name))
    for name in names
  )
  return Table(title, ('measure', 'value', 'unit'), rows)


def _unit(name: str) -> str:
  return _KNOWN.get(name, ('', ''))[1]


def _number(value: float | None, unit: str) -> str:
  if value is None:
    return '–'
  if unit == '%':
    return f'{100 * value:.1f}'
  return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'
