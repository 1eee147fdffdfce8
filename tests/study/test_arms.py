"""What a study compares: fair numbers of trials, drawn alike."""

import itertools

import numpy as np
import pytest

from kdjax import config as configuration
from kdjax import methods
from kdjax.study import arms
from kdjax.study.config import default, override


def searching(**ranges):
  """A configuration that searches these keys and no others."""
  config = default()
  for key in config.study.search:
    if key not in ('optimizer', 'terms'):
      config.study.search[key] = ranges.pop(key, ())
  for block in config.study.search.terms.values():
    block.weight = ()
  config.study.search.optimizer.weight_decay = ranges.pop('weight_decay', ())
  assert not ranges
  return config


def settings(config, name):
  return [trial.settings for trial in arms.trials(config, arms.parse(name))]


@pytest.mark.parametrize(
  ('name', 'fixed'),
  [
    ('kd', {}),
    ('  kd  topk=10 ', {'topk': 10}),
    ('kd weight=0.5 temperature=2', {'weight': 0.5, 'temperature': 2}),
    (
      'kd optimizer.nesterov=True schedule.name=constant student.widths=(8,)',
      {
        'optimizer.nesterov': True,
        'schedule.name': 'constant',
        'student.widths': (8,),
      },
    ),
    ('kd learning_rate=1e-3', {'learning_rate': 1e-3}),
  ],
)
def test_an_arm_is_a_method_and_what_it_holds_fixed(name, fixed):
  assert arms.parse(name) == arms.Arm(name, 'kd', fixed)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('kd_tpok', "unknown method 'kd_tpok'; did you mean 'kd_topk'"),
    ('', "unknown method ''; known are ce, ls, kd"),
    ('topk=3', "unknown method 'topk=3'"),
    ('kd topk', "arm 'kd topk': 'topk' is not key=value, as in kd_topk"),
    ('kd topk=', "'topk=' is not key=value"),
    ('kd =3', "'=3' is not key=value"),
    ('kd student.widths=(8, 8)', r"'8\)' is not key=value"),
  ],
)
def test_what_is_no_arm_is_refused(name, message):
  with pytest.raises(ValueError, match=message):
    arms.parse(name)


def test_the_arms_of_a_study_are_those_it_names():
  config = override(default(), {'study.arms': ('ce', 'kd topk=3')})
  assert arms.of(config) == [arms.parse('ce'), arms.parse('kd topk=3')]


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ((), 'at least one arm'),
    (('kd', 'ce', 'kd'), r"'kd', 'ce', 'kd'\).*each once"),
    (('kd tokp=3',), "unknown key 'tokp'; did you mean 'topk'"),
    (('kd optimizer=adamw',), "unknown key 'optimizer'"),
    (('kd topk=two',), "config.topk='two': "),
    (('kd weight=2',), r'config\.weight=2\.0: allowed is'),
    (('kd method=ce',), "arm 'kd method=ce': all arms share method"),
    (('kd seed=3',), 'all arms share seed'),
    (('kd quick=True',), 'all arms share quick'),
    (('kd study.num_trials=9',), 'all arms share study.num_trials'),
    (('kd teacher.seed=1',), r'share teacher\.seed.*study\.scenarios'),
    (('kd dataset.name=digits',), r'all arms share dataset\.name'),
    (('kd dataset.options.seed=1',), r'share dataset\.options\.seed'),
  ],
)
def test_a_mistake_in_the_arms_is_named(given, message):
  config = default()
  config.study.arms = given
  with pytest.raises(ValueError, match=message):
    arms.of(config)


@pytest.mark.parametrize(
  'pair',
  [
    'dataset.num_labels=40',
    'dataset.exclude_classes=(3,)',
    'dataset.augment=none',
    'dataset.mixup=0.3',
  ],
)
def test_an_arm_sets_what_its_student_sees(pair):
  config = override(default(), {'study.arms': (f'kd {pair}',)})
  assert len(arms.of(config)) == 1


NAMES = (*methods.METHODS, 'kd_topk topk=3', 'kd weight=0.5', 'ce topk=2')


@pytest.mark.parametrize('count', [1, 7, 16])
def test_every_arm_gets_the_same_number_of_trials(count):
  config = override(default(), {'study.num_trials': count})
  for name in NAMES:
    found = arms.trials(config, arms.parse(name))
    assert [trial.index for trial in found] == list(range(count))
    assert {trial.arm.name for trial in found} == {name}


def test_an_arm_searches_what_its_method_reads():
  config = searching(
    learning_rate=(0.1, 0.2),
    weight_decay=(1e-4, 1e-2),
    weight=(0.1, 1.0),
    temperature=(1.0, 8.0),
    smoothing=(0.1, 0.2),
    topk=(1, 5),
    mix=(0.1, 0.9),
  )
  both = {'learning_rate', 'optimizer.weight_decay'}
  kd = both | {'weight', 'temperature'}
  for name, keys in {
    'ce': both,
    'ls': both | {'smoothing'},
    'kd': kd,
    'kd_topk': kd | {'topk'},
    'kd_pt_sim': kd | {'mix'},
    'dkd': both | {'temperature'},
    'kd_topk topk=3': kd,
    'kd weight=0.5 learning_rate=0.1': kd - {'weight', 'learning_rate'},
    'ce topk=3': both,
  }.items():
    assert [set(found) for found in settings(config, name)] == [keys] * 16


def test_a_study_that_searches_nothing_repeats_what_is_fixed():
  assert settings(searching(), 'kd') == [{}] * 16


def test_arms_try_the_same_points_in_the_keys_that_they_share():
  config = override(default(), {'study.search.topk': (2, 50)})
  everyone = {name: settings(config, name) for name in NAMES}
  for a, b in itertools.combinations(everyone.values(), 2):
    for one, other in zip(a, b, strict=True):
      shared = one.keys() & other.keys()
      assert 'learning_rate' in shared
      assert {k: one[k] for k in shared} == {k: other[k] for k in shared}


def test_the_first_trials_do_not_depend_on_their_number():
  few = override(default(), {'study.num_trials': 4})
  assert settings(few, 'kd') == settings(default(), 'kd')[:4]


def test_the_seed_draws_the_points():
  assert settings(default(), 'kd') == settings(default(), 'kd')
  other = override(default(), {'seed': 1})
  a, b = settings(default(), 'kd'), settings(other, 'kd')
  assert all(x[k] != y[k] for x, y in zip(a, b, strict=True) for k in x)


def test_trials_differ_in_every_key():
  for key in ('learning_rate', 'weight', 'temperature'):
    values = {found[key] for found in settings(default(), 'kd')}
    assert len(values) == 16


def cells(values, low, high, *, scale):
  """In which of as many equal parts of the range each value lies."""
  low, high, values = map(scale, (low, high, np.asarray(values)))
  return np.floor((values - low) / (high - low) * len(values)).astype(int)


@pytest.mark.parametrize(
  ('name', 'key', 'scale'),
  [
    ('kd', 'weight', np.asarray),
    ('ls', 'smoothing', np.asarray),
    ('kd_pt_sim', 'mix', np.asarray),
    ('kd', 'temperature', np.log),
    ('kd', 'learning_rate', np.log),
    ('dkd', 'target_weight', np.log),
    ('ce', 'weight_decay', np.log),
  ],
)
def test_a_range_is_covered_evenly_or_evenly_in_the_logarithm(name, key, scale):
  """A sequence of the base 2 has one of 16 points in each sixteenth."""
  config = searching(**{key: (0.01, 0.9)})
  values = [next(iter(found.values())) for found in settings(config, name)]
  assert 0.01 <= min(values) <= max(values) <= 0.9
  found = cells(values, 0.01, 0.9, scale=scale)
  assert sorted(found) == list(range(16))


def test_values_have_the_type_of_their_key():
  config = searching(topk=(2, 50), temperature=(1, 8), weight=(1, 1))
  for found in settings(config, 'kd_topk'):
    assert {k: type(v) for k, v in found.items()} == {
      'topk': int,
      'temperature': float,
      'weight': float,
    }
    assert found['weight'] == 1.0
  found = {x['topk'] for x in settings(config, 'kd_topk')}
  assert found <= set(range(2, 51))
  assert min(found) <= 3
  assert max(found) >= 40


def test_a_range_of_whole_numbers_reaches_its_ends():
  config = searching(topk=(1, 2))
  assert {x['topk'] for x in settings(config, 'kd_topk')} == {1, 2}


def test_what_a_trial_overrides_is_method_fixed_and_searched():
  arm = arms.parse('kd_topk topk=3')
  trial = arms.Trial(arm, 0, {'weight': 0.25})
  assert trial.overrides == {'method': 'kd_topk', 'topk': 3, 'weight': 0.25}
  own = override(default(), trial.overrides)
  configuration.validate(own)
  assert (own.method, own.topk, own.weight) == ('kd_topk', 3, 0.25)
