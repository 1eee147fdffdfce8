"""Keys of a study: their values, and how they are replaced."""

import importlib.util
from pathlib import Path

import pytest

from kdjax import config as configuration
from kdjax.study import config as study

FAMILY = (
  'ce',
  'ls',
  'kd',
  'kd_pt',
  'kd_sim',
  'kd_pt_sim',
  'kd_pt_sim_conditional',
  'kd_topk',
)


def changed(values):
  return study.override(study.default(), values)


def test_a_study_has_all_keys_of_a_run():
  run, of_study = configuration.default(), study.default()
  ours = of_study.to_dict()
  assert set(ours) - set(run) == {'quick', 'study'}
  different = {k for k, v in run.to_dict().items() if ours[k] != v}
  assert different == {'eval_every_epochs'}
  assert of_study.study.arms == FAMILY
  study.validate(of_study)
  assert study.quick(of_study) == of_study
  with pytest.raises(AttributeError):
    of_study.study.num_seed = 3


def test_what_is_searchable_is_a_number_of_a_run():
  keys = study.searchable(study.default())
  assert {'learning_rate', 'optimizer.weight_decay', 'topk'} <= set(keys)
  for key in keys:
    value = configuration.lookup(configuration.default(), key)
    assert type(value) in (int, float)


@pytest.mark.parametrize(
  ('key', 'value', 'allowed'),
  [
    ('study.num_trials', 0, '1, 2, 3'),
    ('study.num_search_seeds', 0, '1, 2, 3'),
    ('study.num_seeds', -1, '1, 2, 3'),
    ('study.max_settings', -1, '0 or more'),
    ('study.memory_fraction', 0.0, r'in \(0, 1\]'),
    ('study.memory_fraction', 1.5, r'in \(0, 1\]'),
    ('study.over_members', 'map', 'auto.*vmap.*scan'),
    ('study.search.weight', (0.5,), r'a range \(low, high\)'),
    ('study.search.weight', (0.5, 0.1), '0 < low ≤ high'),
    ('study.search.weight', (0.0, 0.1), '0 < low ≤ high'),
    ('study.search.topk', (1, float('inf')), '0 < low ≤ high'),
    ('study.search.learning_rate', (float('nan'), 1.0), '0 < low ≤ high'),
    ('study.search.optimizer.weight_decay', (1, 2, 3), r'or \(\)'),
  ],
)
def test_a_value_that_is_not_allowed_is_named(key, value, allowed):
  with pytest.raises(ValueError, match=rf'config\.{key}=.*{allowed}'):
    study.validate(changed({key: value}))


def test_keys_of_a_run_are_checked_too():
  with pytest.raises(ValueError, match=r'config\.temperature=-1\.0'):
    study.validate(changed({'temperature': -1.0}))


@pytest.mark.parametrize(
  'values',
  [
    {'study.max_settings': 3, 'study.memory_fraction': 1.0},
    {'study.search.topk': (5, 5), 'study.search.weight': ()},
    {'study.num_trials': 1, 'study.over_members': 'scan'},
  ],
)
def test_edges_are_allowed(values):
  study.validate(changed(values))


def test_override_replaces_in_a_copy():
  config = study.default()
  values = {'topk': 3, 'optimizer.nesterov': True, 'study.num_seeds': 2}
  found = study.override(config, values)
  assert (found.topk, found.optimizer.nesterov) == (3, True)
  assert found.study.num_seeds == 2
  assert config == study.default()
  assert study.override(config, {}) == config


@pytest.mark.parametrize(
  ('key', 'value', 'stored'),
  [
    ('learning_rate', 1, 1.0),
    ('student.widths', [16, 8], (16, 8)),
    ('study.arms', ['ce', 'kd'], ('ce', 'kd')),
    ('study.search.weight', [], ()),
    ('schedule.decay_epochs', (), ()),
  ],
)
def test_what_a_command_line_gives_takes_the_type_of_the_key(
  key, value, stored
):
  found = configuration.lookup(changed({key: value}), key)
  assert found == stored
  assert type(found) is type(stored)


@pytest.mark.parametrize(
  ('key', 'hint'),
  [
    ('temprature', "did you mean 'temperature'"),
    ('study.num_trial', "did you mean 'study.num_trials'"),
    ('optimizer.weight_deca', "did you mean 'optimizer.weight_decay'"),
    ('optimizer', "unknown key 'optimizer'"),  # a section, not a key
    ('topk.k', "unknown key 'topk.k'"),
    ('', 'unknown key'),
  ],
)
def test_a_mistyped_key_is_refused_with_the_right_one(key, hint):
  with pytest.raises(ValueError, match=hint):
    changed({key: 1})


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('num_epochs', 1.5),
    ('num_epochs', 'many'),
    ('learning_rate', 'high'),
    ('schedule.name', 3),
    ('student.widths', 16),
    ('method', None),
  ],
)
def test_a_value_of_another_type_is_refused_with_its_key(key, value):
  with pytest.raises(ValueError, match=rf'config\.{key}={value!r}: '):
    changed({key: value})


def test_quick_sets_what_the_study_says():
  pairs = [['num_epochs', 2], ('study.scenarios', [[['topk', 3]]])]
  config = changed({'study.when_quick': pairs})
  assert study.quick(config).num_epochs == 240
  config.quick = True
  found = study.quick(config)
  assert found.num_epochs == 2
  assert [dict(pairs) for pairs in found.study.scenarios] == [{'topk': 3}]
  assert config.num_epochs == 240


def test_quick_refuses_a_mistyped_key():
  config = changed({'study.when_quick': (('num_epoch', 2),), 'quick': True})
  with pytest.raises(ValueError, match="did you mean 'num_epochs'"):
    study.quick(config)


STUDIES = sorted((Path(__file__).parents[2] / 'experiments').glob('study_*.py'))


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_the_studies_that_come_with_it_are_valid(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  study.validate(config)
  config.quick = True
  assert study.quick(config) != config
  study.validate(study.quick(config))


def test_a_study_does_not_skip_updates():
  skipping = study.override(study.default(), {'nonfinite': 'skip'})
  with pytest.raises(ValueError, match=r"nonfinite='skip': in a study"):
    study.validate(skipping)
