"""What the measures say of the temperature."""

from kdjax.analysis.finding import Finding, Metrics, Settings
from kdjax.analysis.signal import TEMPERATURES
from kdjax.analysis.thresholds import (
  LEAST_DARK_MASS,
  LEAST_DIVERGENCE,
  LEAST_RELATION_SPREAD,
  NEAR_ONE_HOT,
)

# A temperature lower by less than a fifth is not worth a run.
_LOWER = 0.8


def is_text(m: Metrics) -> bool:
  """Returns whether the examples are tokens of a text."""
  return 'teacher_perplexity' in m


def is_erased(m: Metrics) -> bool:
  """Returns whether wrong classes are alike to the teacher."""
  return m.get('relation_spread', 1.0) < LEAST_RELATION_SPREAD


def near_one_hot(m: Metrics, s: Settings) -> Finding | None:
  """Says whether the teacher tells little more than the label."""
  untempered, mass = m['dark_mass_untempered'], m['dark_mass']
  if untempered >= NEAR_ONE_HOT or mass >= LEAST_DARK_MASS:
    return None
  better = _better_temperature(m, s)
  return Finding(
    'teacher_near_one_hot',
    'warning',
    {
      'dark_mass_untempered': untempered,
      'most_near_one_hot': NEAR_ONE_HOT,
      'dark_mass': mass,
      'least_dark_mass': LEAST_DARK_MASS,
    },
    f'The teacher leaves {untempered:.2g} of its probability to all but the '
    f'likeliest class, and {mass:.2g} at T = {s["temperature"]:g}: it tells '
    f'little more than the label.',
    'Stop the training of the teacher earlier, or regularise it, so that it '
    'keeps its doubts.'
    if not better
    else f'Raise the temperature to {better["temperature"]:g}. A teacher that '
    f'was stopped earlier, or regularised, keeps its doubts.',
    better,
  )


def too_low(m: Metrics, s: Settings) -> Finding | None:
  """Says whether at T it tells little more than its answer."""
  better = _better_temperature(m, s)
  # Heated, wrong classes that are alike stay alike.
  if m['dark_mass'] >= LEAST_DARK_MASS or not better or is_erased(m):
    return None
  return Finding(
    'temperature_too_low',
    'warning',
    {
      'temperature': s['temperature'],
      'dark_mass': m['dark_mass'],
      'least_dark_mass': LEAST_DARK_MASS,
      'suggested_temperature': m['suggested_temperature'],
    },
    f'At T = {s["temperature"]:g} the teacher leaves {m["dark_mass"]:.2g} of '
    f'its probability to all classes but the likeliest.',
    f'Raise the temperature to {better["temperature"]:g}.',
    better,
  )


def _better_temperature(m: Metrics, s: Settings) -> dict[str, object]:
  """The suggested temperature, if it is higher and not at its bound."""
  suggested = _suggested(m)
  is_higher = s['temperature'] < suggested < TEMPERATURES[1]
  return {'temperature': suggested} if is_higher else {}


def _suggested(m: Metrics) -> float:
  """The next token is uncertain by itself: no teacher's doubt is too much."""
  suggested = m['suggested_temperature']
  return max(suggested, 1.0) if is_text(m) else suggested


def too_high(m: Metrics, s: Settings) -> Finding | None:
  """Says whether at T it tells little at all."""
  divergence, suggested = m['divergence_from_uniform'], _suggested(m)
  if divergence >= LEAST_DIVERGENCE or suggested > _LOWER * s['temperature']:
    return None
  return Finding(
    'temperature_too_high',
    'warning',
    {
      'temperature': s['temperature'],
      'divergence_from_uniform': divergence,
      'least_divergence': LEAST_DIVERGENCE,
      'suggested_temperature': m['suggested_temperature'],
    },
    f'At T = {s["temperature"]:g} the teacher is {divergence:.2g} nats from '
    f'the uniform distribution. With T² a student has to match every logit, '
    f'the meaningless ones too; without, it is hardly taught anything.',
    f'Lower the temperature to {suggested:g}.',
    {'temperature': suggested},
  )
