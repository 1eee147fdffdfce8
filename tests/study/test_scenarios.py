"""Where arms are compared: how scenarios are read, and what names them."""

import pytest

from kdjax.study import config as configuration
from kdjax.study import scenarios


def of(*given, **study):
  config = configuration.default()
  config.study.scenarios = given
  config.study.search.update(study)
  return scenarios.of(config)


def test_as_it_is():
  (place,) = of(())
  assert (place.name, place.sets) == ({}, {})
  assert place.config == configuration.default()


def test_one_scenario_needs_no_name():
  (place,) = of((('topk', 5),))
  assert (place.name, place.sets) == ({}, {'topk': 5})
  assert place.config.topk == 5


def test_the_first_keys_that_tell_them_apart_name_them():
  places = of(
    (('dataset.num_labels', 100), ('num_epochs', 400)),
    (('dataset.num_labels', 0), ('num_epochs', 15)),
  )
  assert [place.name for place in places] == [
    {'dataset.num_labels': 100},
    {'dataset.num_labels': 0},
  ]
  assert [place.config.num_epochs for place in places] == [400, 15]
  assert places[1].sets == {'dataset.num_labels': 0, 'num_epochs': 15}


def test_each_has_a_value_for_the_keys_of_all():
  places = of((), (('teacher.widths', (32,)),), (('teacher.smoothing', 0.6),))
  default = {'teacher.widths': (), 'teacher.smoothing': 0.1}
  assert [place.name for place in places] == [
    default,
    default | {'teacher.widths': (32,)},
    default | {'teacher.smoothing': 0.6},
  ]
  assert all(place.sets == place.name for place in places)


def test_values_take_the_type_of_their_key():
  (place,) = of(
    [['temperature', 2], ['student.widths', [8, 4]]], temperature=()
  )
  assert place.sets == {'temperature': 2.0, 'student.widths': (8, 4)}
  assert isinstance(place.sets['temperature'], float)


def test_of_a_grid_both_keys_are_the_name():
  values = [(a, b) for a in (0.0, 0.9) for b in (1, 2)]
  keys = 'dataset.options.correlation', 'dataset.options.nonlinearity'
  places = of(*(tuple(zip(keys, pair, strict=True)) for pair in values))
  assert [tuple(place.name.values()) for place in places] == values


@pytest.mark.parametrize(
  ('given', 'named'),
  [
    ((), 'give at least one'),
    (((), ()), 'each once'),
    (((('topk', 5),), (('topk', 5),)), 'each once'),
    (((), (('topk', 10),)), 'each once'),  # which is the default
    (((('tpk', 5),),), "unknown key 'tpk'; did you mean 'topk'"),
    (((('topk', 0),),), r'config\.topk=0: allowed is 1, 2'),
    (((('topk', 'ten'),),), r"config\.topk='ten'"),
    (((('topk', 5), ('topk', 6)),), 'sets topk more than once'),
    (((('method', 'ce'),),), 'all scenarios share method'),
    (((('seed', 3),),), 'all scenarios share seed'),
    (((('quick', True),),), 'all scenarios share quick'),
    (((('study.num_seeds', 9),),), r'all scenarios share study\.num_seeds'),
    (((('weight', 0.5),),), r'give config\.study\.search\.weight=\(\)'),
    # A comma or a pair of parentheses is missing.
    ((('topk', 5),), r"has \('topk', 5\), not pairs of a key and its value"),
    ((('topk', 5), ('mix', 0.5)), 'not pairs of a key and its value'),
    ((3,), 'has 3, not pairs of a key and its value'),
    (('topk',), "has 'topk', not pairs of a key and its value"),
  ],
)
def test_what_is_no_scenario_is_refused(given, named):
  with pytest.raises(ValueError, match=named):
    of(*given)


def test_what_is_not_searched_a_scenario_may_set():
  places = of((('weight', 0.2),), (('weight', 0.9),), weight=())
  assert [place.config.weight for place in places] == [0.2, 0.9]


def test_several_teachers_are_averaged_at_no_temperature():
  (place,) = of((('teacher.num_seeds', 2),))
  with pytest.raises(ValueError, match='in a study several teachers'):
    scenarios.check(place, [])
