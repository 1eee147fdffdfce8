"""What the measures mean, and what to do about it."""

from collections.abc import Callable

from kdjax.analysis.finding import Finding, Metrics, Settings
from kdjax.analysis.signal import TEMPERATURES
from kdjax.analysis.temperatures import (
  is_erased,
  is_text,
  near_one_hot,
  too_high,
  too_low,
)
from kdjax.analysis.thresholds import (
  LEAST_EFFECTIVE_WEIGHT,
  LEAST_FIDELITY,
  LEAST_RELATION_SHARE,
  LEAST_RELATION_SPREAD,
  LEAST_TAIL_SHARE,
  MOST_DEVIATIONS,
  MOST_LEAD,
  MOST_OVERCONFIDENCE,
  MOST_TAIL_MASS,
)

_BETTER_TEACHER = (
  'Take a better teacher, or train the student without one; if neither can be, '
  'give the teacher a smaller weight.'
)

# What says nothing of a method, whose loss does not have the λ or the n that
# it judges, or never sees p̃.
_OF_WEIGHT = frozenset({'teacher_term_vanishes'})
_OF_TEMPERATURE = frozenset(
  {'teacher_near_one_hot', 'temperature_too_low', 'temperature_too_high'}
)
_SILENT = {
  'dkd': _OF_WEIGHT,
  'dist': _OF_WEIGHT,
  'kd_standardised': _OF_WEIGHT | _OF_TEMPERATURE,
  'kd_sim': _OF_TEMPERATURE | {'noisy_tail', 'no_class_structure'},
}

# What says nothing of a text: there the words before decide which wrong words
# are likely, so that the true one explains little in the best of teachers.
_OF_CLASSES = frozenset({'no_class_structure', 'noisy_tail'})


def apply(
  metrics: Metrics, settings: Settings, *, method: str = 'kd'
) -> tuple[Finding, ...]:
  """Returns what the measures say, most severe first.

  Args:
    metrics: of `signal` and `scores`; a rule without its measures is silent.
    settings: weight, temperature and temperature_power.
    method: of the loss; left out is a finding that has it for a remedy, or
      that says nothing of it.

  Returns:
    At least one finding: 'healthy' where no rule has anything to say.
  """
  silent = _SILENT.get(method, frozenset())
  if is_text(metrics):
    silent |= _OF_CLASSES
  found = [rule(metrics, settings) for rule in RULES]
  found = [
    f
    for f in found
    if f and f.code not in silent and f.settings.get('method') != method
  ]
  found.sort(key=lambda finding: finding.severity != 'error')
  return tuple(found) or (_healthy(metrics),)


def _examples(m: Metrics) -> str:
  return 'tokens' if is_text(m) else 'examples'


def _weaker(m: Metrics, s: Settings) -> Finding | None:
  if is_text(m):
    return _weaker_in_text(m)
  for name in ('baseline', 'student'):
    if f'{name}_accuracy' not in m:
      continue
    lead = m[f'{name}_accuracy'] - m['teacher_accuracy']
    z = m[f'{name}_beats_teacher_z']
    if lead > MOST_LEAD and z > MOST_DEVIATIONS:
      return Finding(
        'teacher_weaker_than_student',
        'error',
        {
          'teacher_accuracy': m['teacher_accuracy'],
          f'{name}_accuracy': m[f'{name}_accuracy'],
          f'{name}_beats_teacher_z': z,
        },
        f'The teacher is right in {m["teacher_accuracy"]:.1%} of the examples, '
        f'the {name} in {m[f"{name}_accuracy"]:.1%}: it is taught mistakes.',
        _BETTER_TEACHER,
        {'method': 'ce'},
      )
  return None


def _weaker_in_text(m: Metrics) -> Finding | None:
  for name in ('baseline', 'student'):
    if f'{name}_perplexity' not in m:
      continue
    teacher, other = m['teacher_perplexity'], m[f'{name}_perplexity']
    z = m[f'{name}_ahead_of_teacher_z']
    if teacher > (1 + MOST_LEAD) * other and z > MOST_DEVIATIONS:
      return Finding(
        'teacher_weaker_than_student',
        'error',
        {
          'teacher_perplexity': teacher,
          f'{name}_perplexity': other,
          f'{name}_ahead_of_teacher_z': z,
        },
        f'The teacher has a perplexity of {teacher:.4g}, the {name} one of '
        f'{other:.4g}: it is taught a worse model of the text.',
        _BETTER_TEACHER,
        {'method': 'ce'},
      )
  return None


def _vanishes(m: Metrics, s: Settings) -> Finding | None:
  effective = m['effective_weight']
  has_labels = s['weight'] < 1
  if effective >= LEAST_EFFECTIVE_WEIGHT or not has_labels:
    return None
  unsquared = s['temperature_power'] != 2 and s['temperature'] > 1
  return Finding(
    'teacher_term_vanishes',
    'error',
    {
      'effective_weight': effective,
      'least_effective_weight': LEAST_EFFECTIVE_WEIGHT,
      'label_weight': 1 - s['weight'],
      'teacher_gradient_share': m['teacher_gradient_share'],
    },
    f'The teacher pulls with an effective weight λ·Tⁿ⁻² of {effective:.2g}, '
    f'the labels with {1 - s["weight"]:.2g}.',
    'Multiply the term of the teacher by T²: without it its gradient shrinks '
    'by T² as the temperature rises.'
    if unsquared
    else 'Raise the weight of the teacher to 0.9.',
    {'temperature_power': 2} if unsquared else {'weight': 0.9},
  )


def _erased(m: Metrics, s: Settings) -> Finding | None:
  if not is_erased(m):
    return None
  return Finding(
    'teacher_class_relations_erased',
    'warning',
    {
      'relation_spread': m['relation_spread'],
      'least_relation_spread': LEAST_RELATION_SPREAD,
      'incorrect_entropy_untempered': m['incorrect_entropy_untempered'],
    },
    f'The wrong classes are nearly alike to the teacher: in the median example '
    f'they are {m["relation_spread"]:.2g} nats from uniform at T = 1. Label '
    f'smoothing does that, and so do a training that has hardly begun and '
    f'logits that were never scaled up.',
    'Train the teacher without label smoothing. If that cannot be, T = 1 keeps '
    'the most of what it knows.',
    {'teacher.method': 'ce'},
  )


def _no_structure(m: Metrics, s: Settings) -> Finding | None:
  if 'relation_share' not in m or is_erased(m):
    return None
  share = m['relation_share']
  if share >= LEAST_RELATION_SHARE:
    return None
  names = (
    'relation_share',
    'relation_reliability',
    'relation_information',
    'weight_similarity_spread',
  )
  return Finding(
    'no_class_structure',
    'warning',
    {name: m[name] for name in names if name in m}
    | {'least_relation_share': LEAST_RELATION_SHARE},
    f'Which wrong classes the teacher finds likely hardly depends on the true '
    f'one: the class explains {share:.1%} of it.',
    'Teach only how sure the teacher is, by kd_pt; label smoothing is worth a '
    'comparison.',
    {'method': 'kd_pt'},
  )


def _noisy_tail(m: Metrics, s: Settings) -> Finding | None:
  if 'tail_class_share' not in m or is_erased(m):
    return None
  mass, share, kept = m['tail_mass'], m['tail_class_share'], m['kept_classes']
  if mass <= MOST_TAIL_MASS or share >= LEAST_TAIL_SHARE:
    return None
  return Finding(
    'noisy_tail',
    'warning',
    {
      'tail_mass': mass,
      'most_tail_mass': MOST_TAIL_MASS,
      'tail_class_share': share,
      'least_tail_share': LEAST_TAIL_SHARE,
      'kept_classes': kept,
    },
    f'Beyond its {kept:.0f} likeliest classes the teacher spends {mass:.0%} of '
    f'its probability, and the class explains {share:.0%} of how.',
    f'Keep the {kept:.0f} likeliest classes, by kd_topk, or lower the '
    f'temperature.',
    {'method': 'kd_topk', 'topk': int(kept)},
  )


def _miscalibrated(m: Metrics, s: Settings) -> Finding | None:
  excess = m['teacher_confidence'] - m['teacher_accuracy']
  if excess <= MOST_OVERCONFIDENCE:
    return None
  fitted = round(m['teacher_fitted_temperature'], 1)
  is_hotter = s['temperature'] < fitted < TEMPERATURES[1]
  return Finding(
    'teacher_miscalibrated',
    'warning',
    {
      'teacher_confidence': m['teacher_confidence'],
      'teacher_accuracy': m['teacher_accuracy'],
      'most_overconfidence': MOST_OVERCONFIDENCE,
      'teacher_ece': m['teacher_ece'],
      'teacher_fitted_temperature': m['teacher_fitted_temperature'],
    },
    f'The teacher is sure of {m["teacher_confidence"]:.0%} and right in '
    f'{m["teacher_accuracy"]:.0%} of the {_examples(m)}: it insists on its '
    f'mistakes.',
    f'Raise the temperature to {fitted:g} at least, at which it is calibrated.'
    if is_hotter
    else 'Take a better teacher, or give this one a smaller weight; a higher '
    'temperature would not make it right more often.',
    {'temperature': fitted} if is_hotter else {},
  )


def _low_fidelity(m: Metrics, s: Settings) -> Finding | None:
  if 'agreement' not in m:
    return None
  least = LEAST_FIDELITY * m['teacher_accuracy']
  if m['agreement'] >= least:
    return None
  return Finding(
    'low_fidelity',
    'warning',
    {
      'agreement': m['agreement'],
      'least_agreement': least,
      'teacher_kl': m['teacher_kl'],
    },
    f'The student agrees with the teacher in {m["agreement"]:.0%} of the '
    f'{_examples(m)}, though that is right in {m["teacher_accuracy"]:.0%}.',
    'Check that both see the same inputs and classes; then train longer, on '
    'more examples (no labels are needed for the term of the teacher), or a '
    'larger student.',
  )


def _healthy(m: Metrics) -> Finding:
  names = ['dark_mass', 'relation_share', 'teacher_gradient_share']
  if is_text(m):
    names.remove('relation_share')
  return Finding(
    'healthy',
    'info',
    {name: m[name] for name in names if name in m},
    'The teacher has doubts, and they reach the student.'
    if is_text(m)
    else 'The teacher has doubts, they follow its classes, and they reach the '
    'student.',
    'None needed. Whether distillation helps is for a comparison with '
    'cross-entropy to say, over several seeds.',
  )


# Causes before what follows from them.
RULES: tuple[Callable[[Metrics, Settings], Finding | None], ...] = (
  _weaker,
  _vanishes,
  _erased,
  _no_structure,
  near_one_hot,
  too_low,
  too_high,
  _noisy_tail,
  _miscalibrated,
  _low_fidelity,
)
