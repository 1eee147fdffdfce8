"""Every key of the configuration, and what its values may be."""

import dataclasses
import math
import re

import pytest
from ml_collections import ConfigDict

from kdjax import config as configuration
from kdjax.data import synthetic

NAN, INF = math.nan, math.inf
SMALL, BELOW, ABOVE = 1e-30, -1e-9, 1 + 1e-9

POSITIVE = 'a number above 0', (SMALL, 1e30), (0.0, -1.0, INF, NAN)
COUNT = '1, 2, 3, …', (1, 10**6), (0, -1)
FROM_ZERO = '0 or more', (0.0, 1e30), (BELOW, INF, NAN)
WHOLE_FROM_ZERO = '0 or more', (0, 10**6), (-1,)
SEED = '0 to 2**31 - 1', (0, 2**31 - 1), (-1, 2**31, 10**30)
FRACTION = 'a number in [0, 1]', (0.0, 1.0), (BELOW, ABOVE, NAN)
BELOW_ONE = 'a number in [0, 1)', (0.0, 1 - 1e-9), (BELOW, 1.0, NAN)
INSIDE = 'a number in (0, 1)', (SMALL, 1 - 1e-9), (0.0, 1.0, NAN)

# Key: what the message says is allowed, edges inside, values just outside.
BOUNDS = {
  'seed': SEED,
  'num_epochs': COUNT,
  'batch_size': COUNT,
  'accumulate_steps': COUNT,
  'compute_dtype': (
    "one of 'float32', 'bfloat16'",
    ('float32', 'bfloat16'),
    ('float16', ''),
  ),
  'num_samples': COUNT,
  'loss_block_tokens': WHOLE_FROM_ZERO,
  'dataset.text.batching': (
    "one of 'contiguous', 'padded', 'packed'",
    ('contiguous', 'padded', 'packed'),
    ('shuffled', ''),
  ),
  'dataset.text.sequence_length': COUNT,
  'dataset.text.vocabulary_size': WHOLE_FROM_ZERO,
  'weight': FRACTION,
  'temperature': POSITIVE,
  'temperature_power': ('one of 0, 2', (0, 2), (1, -1, 3)),
  'smoothing': FRACTION,
  'topk': COUNT,
  'similarity_power': POSITIVE,
  'similarity_temperature': POSITIVE,
  'mix': FRACTION,
  'target_weight': FROM_ZERO,
  'nontarget_weight': FROM_ZERO,
  'inter_weight': FROM_ZERO,
  'intra_weight': FROM_ZERO,
  'loss_warmup_epochs': WHOLE_FROM_ZERO,
  'learning_rate': POSITIVE,
  'optimizer.name': ("one of 'sgd', 'adamw'", ('sgd', 'adamw'), ('adam', '')),
  'optimizer.momentum': FRACTION,
  'optimizer.weight_decay': FROM_ZERO,
  'optimizer.clip_norm': FROM_ZERO,
  'schedule.name': (
    "one of 'constant', 'step', 'cosine'",
    ('constant', 'step', 'cosine'),
    ('linear',),
  ),
  'schedule.warmup_steps': WHOLE_FROM_ZERO,
  'schedule.decay_epochs': (
    'numbers above 0',
    ((), (1,), (0.5, 240)),
    ((0,), (150, -1), ('a',)),
  ),
  'schedule.decay_factor': POSITIVE,
  'ema_decay': BELOW_ONE,
  'dataset.dev_fraction': INSIDE,
  'dataset.num_labels': WHOLE_FROM_ZERO,
  'dataset.augment': (
    "one of 'none', 'crop', 'crop_flip', 'resized_crop_flip'",
    ('none', 'crop', 'crop_flip', 'resized_crop_flip'),
    ('flip',),
  ),
  'dataset.image_size': WHOLE_FROM_ZERO,
  'dataset.mixup': FROM_ZERO,
  'dataset.num_threads': WHOLE_FROM_ZERO,
  'dataset.num_workers': WHOLE_FROM_ZERO,
  'student.dropout': BELOW_ONE,
  'teacher.dropout': BELOW_ONE,
  'teacher.method': ("one of 'ce', 'ls'", ('ce', 'ls'), ('kd',)),
  'teacher.smoothing': FRACTION,
  'teacher.num_epochs': COUNT,
  'teacher.batch_size': COUNT,
  'teacher.learning_rate': POSITIVE,
  'teacher.seed': SEED,
  'teacher.num_seeds': COUNT,
  'teacher.precompute_megabytes': WHOLE_FROM_ZERO,
  'teacher.average': (
    "one of 'logits', 'probs', 'losses'",
    ('logits', 'probs', 'losses'),
    ('weights', ''),
  ),
  'teacher.shares': (
    '() or 1 numbers from 0, not all 0: one for each teacher',
    ((), (1.0,), (0.5,)),
    ((0.5, 0.5), (0.0,), (-1.0,)),
  ),
  'teacher.features_from': ('0 to 0: which teacher', (0,), (1, -1)),
  'eval_every_epochs': COUNT,
  'eval_batch_size': COUNT,
  'log_every_steps': COUNT,
  'keep_checkpoints': COUNT,
  'nonfinite': ("one of 'stop', 'skip'", ('stop', 'skip'), ('go',)),
  'model_devices': COUNT,
  'split_networks': (
    "some of 'student', 'teacher'",
    ((), ('teacher',), ('student', 'teacher')),
    (('baseline',),),
  ),
  'watchdog_seconds': WHOLE_FROM_ZERO,
  'heartbeat_seconds': COUNT,
}
OF_TERMS = {
  'weight': FROM_ZERO,
  'warmup_epochs': WHOLE_FROM_ZERO,
  'pairs': (
    "pairs of names, (('stage2', 'stage3'),)",
    ((), (('stage1', 'stage2'),), (('a', 'b'), ('c', 'd'))),
    (('stage1', 'stage2'), (('stage1',),), ((1, 2),)),
  ),
  'projector': (
    "one of 'identity', 'conv', 'linear', 'mlp'",
    ('identity', 'conv', 'linear', 'mlp'),
    ('', 'cnn'),
  ),
  'temperature': POSITIVE,
  'momentum': BELOW_ONE,
  'dim': COUNT,
  'num_negatives': COUNT,
  'num_heads': COUNT,
}
BOUNDS |= {
  f'terms.{name}.{key}': OF_TERMS[key]
  for name, block in configuration.default().terms.items()
  for key in block
}
# Names of rows of a table, folders, switches, and what only the data know:
# they are checked where they are used.
CHECKED_ELSEWHERE = {
  'method',
  'also',
  'analysis',
  'optimizer.nesterov',
  'dataset.name',
  'dataset.data_dir',
  'dataset.exclude_classes',
  'student.name',
  'student.widths',
  'teacher.checkpoint',
  'teacher.name',
  'teacher.widths',
  'teacher.tied',
  'student.tied',
  'dataset.text.tokens',
  'teacher.cache_dir',
  'teacher.others',
  'teacher.precompute_logits',
  'baseline',
}


def changed(key, value):
  config = configuration.default()
  config.update_from_flattened_dict({key: value})
  return config


def cases(index):
  return [
    pytest.param(key, value, id=f'{key}={value!r}')
    for key, row in BOUNDS.items()
    for value in row[index]
  ]


def test_the_default_is_valid():
  configuration.validate(configuration.default())


def test_the_default_is_locked_at_every_level():
  config = configuration.default()
  with pytest.raises(AttributeError, match='"temperature" instead of'):
    config.temprature = 2.0
  with pytest.raises(AttributeError, match='"momentum" instead of'):
    config.optimizer.momentun = 0.5


def test_a_value_of_another_type_is_refused():
  with pytest.raises(TypeError, match='num_epochs'):
    configuration.default().num_epochs = 'many'


def test_every_default_is_a_fresh_one():
  first = configuration.default()
  first.dataset.name = 'digits'
  assert configuration.default().dataset.name == 'cifar100'


@pytest.mark.parametrize(('key', 'value'), cases(1))
def test_an_edge_is_allowed(key, value):
  configuration.validate(changed(key, value))


@pytest.mark.parametrize(('key', 'value'), cases(2))
def test_outside_is_refused_with_key_value_and_what_is_allowed(key, value):
  message = f'config.{key}={value!r}: allowed is {BOUNDS[key][0]}'
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    configuration.validate(changed(key, value))


def test_every_key_has_bounds_or_is_checked_elsewhere():
  keys = [
    key
    for key in configuration.keys(configuration.default(), prefix='')
    if not key.startswith('dataset.options.')
  ]
  assert not BOUNDS.keys() & CHECKED_ELSEWHERE
  assert sorted(keys) == sorted(BOUNDS.keys() | CHECKED_ELSEWHERE)


def test_the_options_are_those_of_synthetic_classes():
  options = configuration.default().dataset.options.to_dict()
  assert options == dataclasses.asdict(synthetic.Options())


def test_keys_are_dotted_leaves():
  config = ConfigDict({'a': 1, 'b': {'c': (), 'd': {'e': ''}}, 'f': {}})
  assert configuration.keys(config) == [
    'config.a',
    'config.b.c',
    'config.b.d.e',
  ]
  assert configuration.keys(config, prefix='') == ['a', 'b.c', 'b.d.e']


def test_every_key_can_be_looked_up():
  config = configuration.default()
  keys = configuration.keys(config, prefix='')
  assert len(keys) == len(set(keys))
  flat = {key: configuration.lookup(config, key) for key in keys}
  assert flat['dataset.options.num_classes'] == 50
  assert not any(isinstance(value, ConfigDict) for value in flat.values())


@pytest.mark.parametrize(
  'key',
  [
    'seed',
    'num_epochs',
    'batch_size',
    'method',
    'temperature',
    'weight',
    'topk',
    'learning_rate',
    'dataset.name',
    'dataset.data_dir',
    'teacher.checkpoint',
    'teacher.num_epochs',
  ],
)
def test_the_fixed_names_are_there(key):
  assert f'config.{key}' in configuration.keys(configuration.default())


def test_the_default_is_the_published_recipe():
  config = configuration.default()
  assert (config.teacher.name, config.student.name) == ('resnet56', 'resnet20')
  assert (config.method, config.temperature, config.weight) == ('kd', 4.0, 0.9)
  for run in (config, config.teacher):
    assert (run.num_epochs, run.batch_size) == (240, 64)
    assert run.learning_rate == 0.05
  assert config.optimizer.to_dict() | {'name': 'sgd'} == {
    'name': 'sgd',
    'momentum': 0.9,
    'nesterov': False,
    'weight_decay': 5e-4,
    'clip_norm': 0.0,
  }
  assert config.schedule.name == 'step'
  assert config.schedule.decay_epochs == (150, 180, 210)
  assert config.schedule.decay_factor == 0.1
  assert config.dataset.augment == 'crop_flip'
