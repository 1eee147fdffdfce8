"""What a study compares, and the settings that each arm of it tries."""

import ast
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from scipy.stats import qmc

from kdjax import config as configuration
from kdjax import methods
from kdjax.study.config import override, searchable, validate
from kdjax.terms import TERMS

# Searched by every arm, before what its method reads.
_EVERY = ('learning_rate', 'optimizer.weight_decay')
# All arms of a scenario share data and teacher; seeds are the study's.
_SHARED = ('method', 'seed', 'teacher', 'study', 'quick')
# Of the data, an arm may set what its student sees of them.
_STUDENTS_DATA = (
  'dataset.num_labels',
  'dataset.exclude_classes',
  'dataset.augment',
  'dataset.mixup',
)
# Drawn evenly; the others evenly by their logarithm.
_LINEAR = ('weight', 'smoothing', 'mix')


class Arm(NamedTuple):
  """One of the things compared.

  Attributes:
    name: as the study names it.
    method: a row of `kdjax.methods.METHODS`.
    fixed: what else it sets, by dotted key.
  """

  name: str
  method: str
  fixed: dict[str, Any]


class Trial(NamedTuple):
  """An arm with one setting of what is searched.

  Attributes:
    arm: which.
    index: of the setting.
    settings: what is searched, by dotted key.
  """

  arm: Arm
  index: int
  settings: dict[str, Any]

  @property
  def overrides(self) -> dict[str, Any]:
    """What it sets, by dotted key."""
    return {'method': self.arm.method, **self.arm.fixed, **self.settings}


def parse(name: str) -> Arm:
  """Reads an arm from its name.

  Args:
    name: a method, and keys with their values, separated by blanks.

  Returns:
    The arm.

  Raises:
    ValueError: there is no such method, or something is not `key=value`.

  >>> parse('kd_topk topk=10')
  Arm(name='kd_topk topk=10', method='kd_topk', fixed={'topk': 10})
  """
  method, *pairs = name.split() or ['']
  methods.get(method)
  fixed = {}
  for pair in pairs:
    key, equals, text = pair.partition('=')
    if not (key and equals and text):
      raise ValueError(
        f'arm {name!r}: {pair!r} is not key=value, as in kd_topk topk=10'
      )
    fixed[key] = _value(text)
  return Arm(name, method, fixed)


def of(config: ConfigDict) -> list[Arm]:
  """Returns the arms of a study.

  Args:
    config: a study's configuration.

  Returns:
    The arms.

  Raises:
    ValueError: an arm is given twice, or sets what there is not.
  """
  arms = [parse(name) for name in config.study.arms]
  names = [arm.name for arm in arms]
  if not arms or len(set(names)) < len(names):
    raise ValueError(
      f'config.study.arms={tuple(names)}: give at least one arm, each once'
    )
  for arm in arms:
    validate(override(config, arm.fixed))
    _check_own(arm)
    methods.terms_of(_own(config, arm))
  return arms


def needs_teacher(config: ConfigDict, arm: Arm) -> bool:
  """Returns whether an arm's loss looks at the teacher."""
  return methods.needs_teacher(_own(config, arm))


def _own(config: ConfigDict, arm: Arm) -> ConfigDict:
  return override(config, {'method': arm.method, **arm.fixed})


def _check_own(arm: Arm) -> None:
  """Raises `ValueError` where an arm sets what all arms share."""
  for key in arm.fixed:
    part, *_ = key.split('.')
    if part in _SHARED or (part == 'dataset' and key not in _STUDENTS_DATA):
      raise ValueError(
        f'arm {arm.name!r}: all arms share {key}; set it for the whole study '
        f'or in config.study.scenarios'
      )


def trials(config: ConfigDict, arm: Arm) -> list[Trial]:
  """Returns the settings that an arm tries.

  Points of a scrambled Halton sequence, the same for all arms in the keys that
  they share: the first `num_trials` of them, however many keys there are.

  Args:
    config: a study's configuration, and its scenario's.
    arm: which.

  Returns:
    The trials.
  """
  weights = (
    f'terms.{name}.weight' for name in methods.terms_of(_own(config, arm))
  )
  reads = methods.get(arm.method).reads
  own = {*_EVERY, *reads, *weights} - set(arm.fixed)
  keys = _searched(config)
  points = qmc.Halton(max(len(keys), 1), rng=config.seed)
  return [
    Trial(
      arm,
      index,
      {
        key: _scaled(config, key, float(row[place]))
        for place, key in enumerate(keys)
        if key in own
      },
    )
    for index, row in enumerate(points.random(config.study.num_trials))
  ]


def _searched(config: ConfigDict) -> list[str]:
  """Keys with a range; the place of each in a point is the same for all."""
  reads = [key for row in methods.METHODS.values() for key in row.reads]
  reads += [f'terms.{name}.weight' for name in TERMS]
  known = searchable(config)
  return [
    key
    for key in dict.fromkeys((*_EVERY, *reads))
    if key in known and configuration.lookup(config.study.search, key)
  ]


def _scaled(config: ConfigDict, key: str, point: float) -> float | int:
  """The value at `point` in [0, 1] of a key's range."""
  low, high = configuration.lookup(config.study.search, key)
  if key in _LINEAR:
    value = low + (high - low) * point
  else:
    value = low * (high / low) ** point
  if isinstance(configuration.lookup(config, key), int):
    return round(value)
  return float(f'{value:.4g}')


def _value(text: str) -> Any:  # noqa: ANN401
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
