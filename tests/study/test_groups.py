"""Which students one program trains, and the numbers that it gets."""

import numpy as np
import pytest

from kdjax.study import arms, family, groups
from kdjax.study.config import default, override, searchable

K = 5
FAMILY = ('ce', 'ls', 'kd', 'kd_pt', 'kd_sim', 'kd_topk')


def split(config, *names):
  trials = [t for name in names for t in arms.trials(config, arms.parse(name))]
  return groups.split(config, trials, num_classes=K)


def names(group):
  return list(dict.fromkeys(trial.arm.name for trial in group.trials))


@pytest.fixture
def two(config):
  """Two trials of each arm."""
  return override(config, {'study.num_trials': 2})


def test_the_family_is_one_group_with_all_its_settings(two):
  arms_of_it = (*sorted(family.METHODS), 'kd_topk topk=3', 'kd weight=0.5')
  group, *others = split(two, *arms_of_it)
  assert not others
  assert names(group) == list(arms_of_it)
  assert len(group.trials) == 2 * len(arms_of_it)
  assert group.kind.startswith('family')


def test_other_methods_are_groups_of_their_own(two):
  found = split(
    two, 'kd', 'dkd', 'ls', 'dist', 'kd_standardised', 'dkd mix=0.1'
  )
  assert [(group.kind.split(',')[0], names(group)) for group in found] == [
    ('family', ['kd', 'ls']),
    ('dkd', ['dkd', 'dkd mix=0.1']),
    ('dist', ['dist']),
    ('kd_standardised', ['kd_standardised']),
  ]


@pytest.mark.parametrize(
  'pair',
  [
    'student.widths=(9,)',
    'num_epochs=3',
    'batch_size=4',
    'dataset.num_labels=20',
    'dataset.mixup=0.2',
    'optimizer.momentum=0.5',
    'temperature_power=0',
    'ema_decay=0.9',
  ],
)
def test_what_is_no_number_of_a_loss_splits(pair, two):
  plain, other = split(two, 'ce', f'kd {pair}', 'kd')
  assert names(plain) == ['ce', 'kd']
  assert names(other) == [f'kd {pair}']
  key, text = pair.split('=')
  section, _, name = key.rpartition('.')
  found = other.config[section] if section else other.config
  assert str(found[name]) == text
  assert plain.config == two


def test_arms_that_fix_the_same_share_a_group(two):
  both = split(two, 'kd num_epochs=3', 'ce', 'ls num_epochs=3')
  assert [names(group) for group in both] == [
    ['kd num_epochs=3', 'ls num_epochs=3'],
    ['ce'],
  ]


def test_trials_keep_their_order_and_none_is_lost(two):
  found = split(two, 'dkd', 'kd', 'dist', 'ce', 'kd batch_size=4')
  whole = [t for group in found for t in group.trials]
  assert len(whole) == len({(t.arm.name, t.index) for t in whole}) == 10
  for group in found:
    at = [(names(group).index(t.arm.name), t.index) for t in group.trials]
    assert at == sorted(at)


def test_the_family_varies_its_switches(two):
  (group,) = split(two, *FAMILY, 'kd_topk topk=4', 'ls smoothing=0.25')
  own = [override(two, trial.overrides) for trial in group.trials]
  switches = [family.switches(c, num_classes=K) for c in own]
  for key in switches[0]:
    expected = np.float32([s[key] for s in switches])
    np.testing.assert_array_equal(group.varied[key], expected)
  rates = np.float32([c.learning_rate for c in own])
  np.testing.assert_array_equal(group.varied['learning_rate'], rates)
  decays = np.float32([c.optimizer.weight_decay for c in own])
  np.testing.assert_array_equal(group.varied['optimizer.weight_decay'], decays)
  # By hand: a fixed number is in its place, whatever the others do.
  at = {trial.arm.name: i for i, trial in enumerate(group.trials)}
  assert group.varied['kept'][at['kd_topk topk=4']] == 4
  assert group.varied['kept'][at['kd_topk']] == 2
  assert group.varied['kept'][at['kd']] == K
  assert group.varied['weight'][at['ls smoothing=0.25']] == 0.25
  assert group.varied['weight'][at['ce']] == 0
  for values in group.varied.values():
    assert values.shape == (16,)
    assert values.dtype == np.float32


def test_another_method_varies_what_its_arms_set(two):
  (group,) = split(two, 'dkd', 'dkd target_weight=2 temperature=3')
  searched = {
    'learning_rate',
    'optimizer.weight_decay',
    'temperature',
    'nontarget_weight',
  }
  assert group.varied.keys() == searched | {'target_weight'}
  assert list(group.varied['target_weight']) == [1, 1, 2, 2]
  assert list(group.varied['temperature'][2:]) == [3, 3]
  for key in searched - {'temperature'}:
    wanted = [trial.settings[key] for trial in group.trials]
    np.testing.assert_array_equal(group.varied[key], np.float32(wanted))


def test_a_rate_that_is_not_searched_is_an_array_all_the_same(config):
  config.study.search.learning_rate = ()
  (group,) = split(config, 'ce')
  assert set(group.varied['learning_rate']) == {np.float32(0.05)}


def test_the_similarity_is_varied_where_it_is_searched(two):
  (group,) = split(two, 'kd_sim')
  assert 'similarity_power' not in group.varied
  two.study.search.similarity_power = (0.1, 0.9)
  (group,) = split(two, 'kd_sim', 'ce')
  wanted = [t.settings['similarity_power'] for t in group.trials[:2]]
  found = list(group.varied['similarity_power'])
  assert found == list(np.float32([*wanted, 0.3, 0.3]))


def test_values_that_are_varied_or_switched_are_not_read(two):
  (group,) = split(two, 'kd', 'ls')
  assert group.unread >= group.varied.keys() & groups.ARRAYS
  assert group.unread >= {'method', 'weight', 'smoothing', 'topk', 'mix'}
  assert not group.unread & {'temperature_power', 'similarity_power'}
  (group,) = split(two, 'dkd')
  assert not group.unread & {'method', 'loss_warmup_epochs', 'target_weight'}


@pytest.mark.parametrize(
  ('arm', 'needs_teacher', 'relates', 'most'),
  [
    ('ls', False, False, 0),
    ('kd', True, False, 0),
    ('kd_sim', True, True, 0),
    ('kd_pt_sim mix=0.0', True, False, 0),
    ('kd_pt_sim mix=0.5', True, True, 0),
    ('kd_pt_sim_conditional', True, True, 0),
    ('kd_topk topk=3', True, False, 3),
    ('kd_topk topk=5', True, False, 0),  # which is all of them
  ],
)
def test_a_group_has_no_more_than_one_of_it_needs(
  arm, needs_teacher, relates, most, two
):
  (group,) = split(two, 'ce', arm)
  assert group.needs_teacher == needs_teacher
  assert group.kind == f'family, relates={relates}, most={most}'


def test_an_answer_of_few_classes_has_as_many_for_all_of_a_group(two):
  """In the family k is a number; elsewhere it is a shape."""
  arms_of_it = ('kd_topk topk=2', 'kd_topk topk=3', 'kd_topk_bucket topk=3')
  family, bucket, other = split(two, *arms_of_it, 'kd_topk_bucket')
  assert family.varied['kept'].tolist() == [2, 2, 3, 3]
  assert family.kind.endswith('most=3')
  assert [x.config.topk for x in (bucket, other)] == [3, two.topk]
  assert not any('topk' in x.varied for x in (bucket, other))
  assert not any('topk' in x.unread for x in (bucket, other))


@pytest.mark.parametrize(
  ('arm', 'kind', 'looks_inside'),
  [
    ("ce also=('kd',)", 'ce', False),  # its T is not the family's
    ("kd also=('pkt',)", 'family, relates=False, most=0', True),
    ('crd', 'crd', True),
  ],
)
def test_terms_beside_a_method(arm, kind, looks_inside, two):
  (group,) = split(two, arm)
  assert group.needs_teacher
  assert (group.kind, group.looks_inside) == (kind, looks_inside)


def test_numbers_are_those_that_can_be_searched():
  """What is searched and no array would split into as many groups as trials."""
  assert set(searchable(default())) == groups.ARRAYS
