"""Where the arms of a study are compared, and whether the data allow it."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from kdjax import checks, data, methods
from kdjax.config import lookup, of_run
from kdjax.study import arms, scene
from kdjax.study import config as configuration
from kdjax.study.arms import Arm
from kdjax.train import experiment, sharding, task, teacher

# An arm is a method, seeds are the study's, and so is what it compares.
_OF_STUDY = ('method', 'seed', 'quick', 'study')


class Scenario(NamedTuple):
  """A place where the arms are compared.

  Attributes:
    name: values by dotted key that tell it from the others; all scenarios of a
      study have the same keys.
    sets: all that it sets, by dotted key.
    config: the study's, with these.
  """

  name: dict[str, Any]
  sets: dict[str, Any]
  config: ConfigDict


def of(config: ConfigDict) -> list[Scenario]:
  """Returns the scenarios of a study.

  Args:
    config: with `study.scenarios`.

  Returns:
    The scenarios, each with a value for every key that any of them sets. What
    names them are as few of the keys, from the first, as tell them apart.

  Raises:
    ValueError: there is none, one is there twice, or it sets what there is not
      or what it may not.
  """
  given = [_sets(config, pairs) for pairs in config.study.scenarios]
  keys = list(dict.fromkeys(key for sets in given for key in sets))
  configs = [configuration.override(config, sets) for sets in given]
  for own in configs:
    configuration.validate(own)
  sets = [{key: lookup(own, key) for key in keys} for own in configs]
  for count in range(len(keys) + 1):
    names = [dict(list(values.items())[:count]) for values in sets]
    if names and len({json.dumps(name) for name in names}) == len(names):
      return [
        Scenario(*each) for each in zip(names, sets, configs, strict=True)
      ]
  raise ValueError(
    f'config.study.scenarios={config.study.scenarios!r}: give at least one, '
    f'each once; ((),) is the configuration as it is'
  )


def check(place: Scenario, compared: Sequence[Arm]) -> data.Dataset:
  """Checks everything that needs the data to be checked.

  Args:
    place: a scenario.
    compared: the arms.

  Returns:
    Its data.

  Raises:
    ValueError: something does not fit.
  """
  _check_teachers(place.config)
  dataset = experiment.load(place.config)
  scene.check(dataset)
  _check_search(place.config, dataset)
  if dataset.text:
    _check_draws(place.config, compared)
  one = sharding.make_mesh(devices=jax.devices()[:1])
  for arm in compared:
    # The trials of an arm differ in numbers alone, whose ranges are checked.
    trial = arms.trials(place.config, arm)[0]
    own = of_run(configuration.override(place.config, trial.overrides))
    transfer = experiment.transfer_set(own, dataset)
    transfer = dataclasses.replace(dataset, train=transfer)
    experiment.check(own, dataset, transfer, one)
    if methods.needs_teacher(own):
      # Unlike a student, it is trained by all devices together.
      for mentor in teacher.configs(own):
        task.check(mentor, dataset, sharding.make_mesh(), prefix='teacher.')
  return dataset


def _sets(config: ConfigDict, pairs: Sequence[Any]) -> dict[str, Any]:
  """What a scenario sets, by dotted key."""
  given = f'config.study.scenarios has {pairs!r}'
  try:
    keys = [key for key, _ in pairs]
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{given}, not pairs of a key and its value, as in '
      f"(('topk', 5), ('mix', 0.5))"
    ) from error
  searched = configuration.searchable(config)
  for key in keys:
    if keys.count(key) > 1:
      raise ValueError(f'{given}: it sets {key} more than once')
    if str(key).split('.')[0] in _OF_STUDY:
      raise ValueError(f'{given}: all scenarios share {key}')
    if key in searched and lookup(config.study.search, key):
      raise ValueError(
        f'{given}, but {key} is searched: to set it, give '
        f'config.study.search.{key}=()'
      )
  return dict(pairs)


def _check_teachers(config: ConfigDict) -> None:
  """Students of a scenario share an ensemble, but each has its own T."""
  c = config.teacher
  if c.num_seeds + len(c.others) > 1 and c.average != 'logits':
    raise ValueError(
      f'config.teacher.average={c.average!r}: in a study several teachers are '
      f"averaged by 'logits'"
    )


def _check_draws(config: ConfigDict, compared: Sequence[Arm]) -> None:
  """Students share the teacher's answers, but each would draw of its own."""
  draws = [arm.name for arm in compared if arm.method == 'kd_sampled']
  if draws and config.teacher.precompute_logits:
    raise ValueError(
      f'arm {draws[0]!r}: in a study on a text kd_sampled draws anew in every '
      f'step, as a run does with config.teacher.precompute_logits=False: set it'
    )


def _check_search(config: ConfigDict, dataset: data.Dataset) -> None:
  """Raises `ValueError` for a range with an end that is not allowed."""
  for key in configuration.searchable(config):
    given = lookup(config.study.search, key)
    for end in given:
      try:
        configuration.validate(configuration.override(config, {key: end}))
        if key == 'topk':
          checks.check_between('config.topk', end, 1, dataset.num_classes)
      except ValueError as error:
        raise ValueError(
          f'config.study.search.{key}={given!r}: {error}'
        ) from error
