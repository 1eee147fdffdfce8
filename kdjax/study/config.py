"""Every key of a study once, beside those of a run."""

from ml_collections import ConfigDict

from kdjax import checks
from kdjax import config as configuration


def default() -> ConfigDict:
  """Returns `kdjax.config.default()` and the keys of a study.

  A study file is a delta on it. Every arm gets `num_trials` settings, drawn
  from the ranges of `search`; the best on dev is trained with fresh seeds.

  >>> default().study.num_seeds
  5
  """
  config = configuration.default()
  config.eval_every_epochs = 5
  with config.unlocked():
    config.quick = False  # takes `study.when_quick`: a try of under a minute
    config.study = ConfigDict(
      {
        # What is compared: a method's name, and keys of the configuration that
        # it holds fixed, such as 'kd_topk topk=10'.
        'arms': (
          'ce',
          'ls',
          'kd',
          'kd_pt',
          'kd_sim',
          'kd_pt_sim',
          'kd_pt_sim_conditional',
          'kd_topk',
        ),
        # Where it is compared: for each, pairs of a key and its value. Data or
        # teachers usually differ between them.
        'scenarios': ((),),
        # Ranges (low, high), drawn from logarithmically but for those of
        # weight, smoothing and mix; () is not searched. An arm searches those
        # that its method reads, beside the first two.
        'search': {
          'learning_rate': (0.01, 0.3),
          'optimizer': {'weight_decay': ()},
          'weight': (0.1, 1.0),
          'temperature': (1.0, 8.0),
          'smoothing': (0.02, 0.5),
          'topk': (),
          'similarity_power': (),
          'similarity_temperature': (),
          'mix': (),
          'target_weight': (),
          'nontarget_weight': (1.0, 16.0),
          'inter_weight': (0.5, 8.0),
          'intra_weight': (0.5, 8.0),
          # A tenth to ten times the published weight.
          'terms': {
            name: {'weight': (block.weight / 10, block.weight * 10)}
            for name, block in config.terms.items()
          },
        },
        'num_trials': 16,  # settings that each arm tries
        'num_search_seeds': 1,  # students a setting, averaged to select
        'num_seeds': 5,  # fresh ones that train the selected setting
        # Students side by side: 'vmap' (all at once), 'scan' (one after the
        # other in one program), or 'auto': vmap, where there are convolutions
        # or a text whichever is measured to be faster.
        'over_members': 'auto',
        'max_settings': 0,  # trained at once; 0: as many as memory holds
        'memory_fraction': 0.6,  # of a device's, that students may take
        # Pairs of a key and its value that `quick` sets.
        'when_quick': (),
      }
    )
  return config


def validate(config: ConfigDict) -> None:
  """Raises `ValueError` for the first value outside what its key allows.

  Args:
    config: a configuration with the keys of `default()`.
  """
  configuration.validate(config)
  if config.nonfinite != 'stop':
    raise ValueError(
      f'config.nonfinite={config.nonfinite!r}: in a study a student stops at '
      f"an update that is not finite, allowed is 'stop'"
    )
  if config.loss_block_tokens:
    raise ValueError(
      f'config.loss_block_tokens={config.loss_block_tokens}: a study computes '
      f'the loss of a text at once, allowed is 0'
    )
  c = config.study
  for key in ('num_trials', 'num_search_seeds', 'num_seeds'):
    _require(key, c[key], c[key] >= 1, '1, 2, 3, …')
  _require('max_settings', c.max_settings, c.max_settings >= 0, '0 or more')
  fraction = c.memory_fraction
  _require('memory_fraction', fraction, 0 < fraction <= 1, 'in (0, 1]')
  modes = ('auto', 'vmap', 'scan')
  _require('over_members', c.over_members, c.over_members in modes, str(modes))
  for key in searchable(config):
    given = configuration.lookup(c.search, key)
    is_range = len(given) == 2 and 0 < given[0] <= given[1] < float('inf')
    _require(
      f'search.{key}',
      given,
      not given or is_range,
      'a range (low, high) with 0 < low ≤ high, or ()',
    )


def searchable(config: ConfigDict) -> list[str]:
  """Returns the dotted keys that may be searched."""
  return configuration.keys(config.study.search, prefix='')


def quick(config: ConfigDict) -> ConfigDict:
  """Returns the configuration with what `quick` sets, where it is on.

  Args:
    config: with `quick` and `study.when_quick`.

  Returns:
    A copy.

  Raises:
    ValueError: there is no such key.
  """
  pairs = config.study.when_quick if config.quick else ()
  return override(config, dict(pairs))


def override(config: ConfigDict, values: dict[str, object]) -> ConfigDict:
  """Returns a copy with other values.

  Args:
    config: a configuration.
    values: by dotted key; a list may stand for a tuple, and a whole number for
      a real one.

  Returns:
    The copy.

  Raises:
    ValueError: there is no such key, or its values are of another type.
  """
  found = config.copy_and_resolve_references()
  known = configuration.keys(config, prefix='')
  for key, value in values.items():
    checks.check_known('key', key, known)
    *parents, name = key.split('.')
    inner = found
    for parent in parents:
      inner = inner[parent]
    if value is None:  # which the config would take for any type
      raise ValueError(f'config.{key}=None: it needs a value')
    try:
      inner[name] = value
    except (TypeError, ValueError) as error:
      raise ValueError(f'config.{key}={value!r}: {error}') from error
  return found


def _require(key: str, value: object, holds: bool, allowed: str) -> None:
  if not holds:
    raise ValueError(f'config.study.{key}={value!r}: allowed is {allowed}')
