"""What the values of a configuration may be."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

_POSITIVE = (
  'temperature',
  'similarity_power',
  'similarity_temperature',
  'learning_rate',
  'teacher.learning_rate',
  'schedule.decay_factor',
)
_COUNTS = (
  'num_epochs',
  'batch_size',
  'accumulate_steps',
  'topk',
  'num_samples',
  'dataset.text.sequence_length',
  'teacher.num_epochs',
  'teacher.batch_size',
  'teacher.num_seeds',
  'eval_every_epochs',
  'eval_batch_size',
  'heartbeat_seconds',
  'log_every_steps',
  'keep_checkpoints',
  'model_devices',
)
_NOT_NEGATIVE = (
  'dataset.num_labels',
  'dataset.image_size',
  'dataset.mixup',
  'dataset.text.vocabulary_size',
  'loss_block_tokens',
  'dataset.num_threads',
  'dataset.num_workers',
  'watchdog_seconds',
  'teacher.precompute_megabytes',
  'target_weight',
  'nontarget_weight',
  'inter_weight',
  'intra_weight',
  'loss_warmup_epochs',
  'optimizer.weight_decay',
  'optimizer.clip_norm',
  'schedule.warmup_steps',
)
_FRACTIONS = (
  'weight',
  'smoothing',
  'teacher.smoothing',
  'mix',
  'optimizer.momentum',
)
_CHOICES = {
  'temperature_power': (0, 2),
  'optimizer.name': ('sgd', 'adamw'),
  'schedule.name': ('constant', 'step', 'cosine'),
  'compute_dtype': ('float32', 'bfloat16'),
  'dataset.text.batching': ('contiguous', 'padded', 'packed'),
  'dataset.augment': ('none', 'crop', 'crop_flip', 'resized_crop_flip'),
  'nonfinite': ('stop', 'skip'),
  'teacher.method': ('ce', 'ls'),
  'teacher.average': ('logits', 'probs', 'losses'),
}


def validate(config: ConfigDict) -> None:
  """Raises `ValueError` for the first value outside what its key allows.

  Names of data sets, models and methods are checked where their tables are.

  Args:
    config: a configuration with the keys of `kdjax.config.default()`.
  """
  for key in _POSITIVE:
    _require(config, key, lambda v: 0 < v < float('inf'), 'a number above 0')
  for key in _COUNTS:
    _require(config, key, lambda v: v >= 1 and v == int(v), '1, 2, 3, …')
  for key in _NOT_NEGATIVE:
    _require(config, key, lambda v: 0 <= v < float('inf'), '0 or more')
  for key in _FRACTIONS:
    _require(config, key, lambda v: 0 <= v <= 1, 'a number in [0, 1]')
  for key in ('seed', 'teacher.seed'):
    _require(config, key, lambda v: 0 <= v < 2**31, '0 to 2**31 - 1')
  for key in ('dataset.dev_fraction',):
    _require(config, key, lambda v: 0 < v < 1, 'a number in (0, 1)')
  for key in ('ema_decay', 'student.dropout', 'teacher.dropout'):
    _require(config, key, lambda v: 0 <= v < 1, 'a number in [0, 1)')
  _require(
    config,
    'schedule.decay_epochs',
    lambda v: all(isinstance(e, (int, float)) and e > 0 for e in v),
    'numbers above 0',
  )
  _validate_terms(config)
  _validate_teachers(config)
  _require(
    config,
    'also',
    lambda v: not (v and config.loss_block_tokens),
    '() with config.loss_block_tokens, whose blocks hold one loss',
  )
  _require(
    config,
    'split_networks',
    lambda v: set(v) <= {'student', 'teacher'},
    "some of 'student', 'teacher'",
  )
  for key, allowed in _CHOICES.items():
    _require(
      config,
      key,
      lambda v, allowed=allowed: v in allowed,
      'one of ' + ', '.join(map(repr, allowed)),
    )


def _validate_terms(config: ConfigDict) -> None:
  """Every block has some of the same keys."""
  checks = {
    'weight': (lambda v: 0 <= v < float('inf'), '0 or more'),
    'warmup_epochs': (lambda v: 0 <= v < float('inf'), '0 or more'),
    'pairs': (_are_pairs, "pairs of names, (('stage2', 'stage3'),)"),
    'projector': (
      lambda v: v in ('identity', 'conv', 'linear', 'mlp'),
      "one of 'identity', 'conv', 'linear', 'mlp'",
    ),
    'temperature': (lambda v: 0 < v < float('inf'), 'a number above 0'),
    'momentum': (lambda v: 0 <= v < 1, 'a number in [0, 1)'),
    **{
      key: (lambda v: v >= 1, '1, 2, 3, …')
      for key in ('dim', 'num_negatives', 'num_heads')
    },
  }
  for name, block in config.terms.items():
    for key in block:
      _require(config, f'terms.{name}.{key}', *checks[key])


def _are_pairs(value: Any) -> bool:  # noqa: ANN401
  return all(
    isinstance(pair, (tuple, list))
    and len(pair) == 2
    and all(isinstance(name, str) for name in pair)
    for pair in value
  )


def _validate_teachers(config: ConfigDict) -> None:
  c = config.teacher
  num_teachers = c.num_seeds + len(c.others)
  if c.checkpoint and c.num_seeds > 1:
    raise ValueError(
      f'config.teacher.num_seeds={c.num_seeds} trains teachers, and '
      f'config.teacher.checkpoint gives one: name further ones in '
      f'config.teacher.others'
    )
  _require(
    config,
    'teacher.shares',
    lambda v: (
      not v
      or (
        len(v) == num_teachers
        and all(isinstance(share, (int, float)) and share >= 0 for share in v)
        and 0 < sum(v) < float('inf')
      )
    ),
    f'() or {num_teachers} numbers from 0, not all 0: one for each teacher',
  )
  _require(
    config,
    'teacher.features_from',
    lambda v: 0 <= v < num_teachers,
    f'0 to {num_teachers - 1}: which teacher',
  )


def lookup(config: ConfigDict, key: str) -> object:
  """Returns the value at a dotted key.

  >>> lookup(ConfigDict({'optimizer': {'name': 'sgd'}}), 'optimizer.name')
  'sgd'
  """
  for part in key.split('.'):
    config = config[part]
  return config


def _require(
  config: ConfigDict, key: str, holds: Callable[[Any], bool], allowed: str
) -> None:
  value = lookup(config, key)
  if not holds(value):
    raise ValueError(f'config.{key}={value!r}: allowed is {allowed}')
