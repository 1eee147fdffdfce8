"""Which students can be trained by one program: those of equal shapes."""

import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from kdjax import config as configuration
from kdjax import methods
from kdjax.study import family
from kdjax.study.arms import Trial
from kdjax.study.config import override
from kdjax.terms import TERMS

# Numbers that one program takes as arrays; whatever else differs, splits.
ARRAYS = frozenset(
  {
    'learning_rate',
    'optimizer.weight_decay',
    'weight',
    'temperature',
    'smoothing',
    'topk',
    'similarity_power',
    'similarity_temperature',
    'mix',
    'target_weight',
    'nontarget_weight',
    'inter_weight',
    'intra_weight',
    *(f'terms.{name}.weight' for name in TERMS),
  }
)
# Those that `family.switches` has read already.
_READ = ('weight', 'temperature', 'smoothing', 'topk', 'mix')
# Of ARRAYS, what outside the family says how large an answer is.
_SIZES = frozenset({'topk'})


class Group(NamedTuple):
  """Students that differ in numbers alone.

  Attributes:
    config: what they share.
    kind: names their loss.
    loss: reads the varied numbers as settings.
    needs_teacher: whether any of them does.
    looks_inside: whether their loss compares features.
    trials: `H` of them.
    varied: `[H]` each, by dotted key.
    unread: keys of `config` whose values do not matter.
  """

  config: ConfigDict
  kind: str
  loss: methods.Loss
  needs_teacher: bool
  looks_inside: bool
  trials: tuple[Trial, ...]
  varied: dict[str, np.ndarray]
  unread: frozenset[str]


def split(
  config: ConfigDict, trials: Sequence[Trial], *, num_classes: int
) -> list[Group]:
  """Returns the trials in as few groups as can be.

  Args:
    config: of the scenario.
    trials: what to train.
    num_classes: K.

  Returns:
    Groups; the trials of each are in their first order.
  """
  arrays = {'learning_rate'} | {
    key for trial in trials for key in trial.overrides if key in ARRAYS
  }
  found: dict[str, list[Trial]] = {}
  for trial in trials:
    shared = _shared(config, trial, arrays)
    key = json.dumps([_kind(config, trial), json.loads(shared.to_json())])
    found.setdefault(key, []).append(trial)
  return [
    _group(config, tuple(members), arrays, num_classes)
    for members in found.values()
  ]


def _kind(config: ConfigDict, trial: Trial) -> str:
  """The family, unless its switches would hide what a term reads."""
  method = trial.arm.method
  own = override(config, trial.overrides)
  reads = any(TERMS[name].pairs is None for name in methods.terms_of(own))
  return 'family' if method in family.METHODS and not reads else method


def _shared(config: ConfigDict, trial: Trial, arrays: set[str]) -> ConfigDict:
  """The trial's configuration without what is varied."""
  in_family = _kind(config, trial) == 'family'
  varied = arrays if in_family else arrays - _SIZES
  kept = {k: v for k, v in trial.overrides.items() if k not in varied}
  if in_family:
    kept['method'] = 'kd'  # which has no terms of its own
  return override(config, kept)


def _group(
  config: ConfigDict,
  trials: tuple[Trial, ...],
  arrays: set[str],
  num_classes: int,
) -> Group:
  own = [override(config, trial.overrides) for trial in trials]
  rows = [methods.get(c.method) for c in own]
  kind, loss = _kind(config, trials[0]), rows[0].loss
  arrays = arrays if kind == 'family' else arrays - _SIZES
  unread = frozenset(arrays)
  values: list[dict[str, Any]] = [{} for _ in trials]
  if kind == 'family':
    values = [family.switches(c, num_classes=num_classes) for c in own]
    relates = any(v['sim_share'] or v['spreads_as_sim'] for v in values)
    most = max((x for v in values if (x := v['kept']) < num_classes), default=0)
    loss = functools.partial(family.loss, relates=relates, most=most)
    kind = f'family, relates={relates}, most={most}'
    arrays = arrays - set(_READ)
    unread |= {*_READ, 'method'}
  for value, c in zip(values, own, strict=True):
    value |= {key: configuration.lookup(c, key) for key in arrays}
  return Group(
    config=_shared(config, trials[0], arrays),
    kind=kind,
    loss=loss,
    needs_teacher=any(methods.needs_teacher(c) for c in own),
    looks_inside=any(
      TERMS[name].pairs for c in own for name in methods.terms_of(c)
    ),
    trials=trials,
    varied={
      key: np.asarray([value[key] for value in values], np.float32)
      for key in values[0]
    },
    unread=unread,
  )
