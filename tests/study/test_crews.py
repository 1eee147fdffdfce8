"""Which program trains a group, and how many students at once."""

import dataclasses
import types

import numpy as np
import pytest
from students import SEEDS, assert_same, changed
from text_students import make_text_config, make_text_world

from kdjax import data
from kdjax.study import arms, groups, memory, scene
from kdjax.study.config import override
from kdjax.study.crews import Crews
from kdjax.study.members import Stream


def group_of(where, trials):
  (group,) = groups.split(where.config, trials, num_classes=5)
  return group


@pytest.fixture
def whole(trainer, where, family_trials):
  """The crew of all methods of the family."""
  return trainer.crews.make(where, group_of(where, family_trials), SEEDS)


@pytest.fixture
def uncompiled(mesh, monkeypatch):
  """Crews of programs that nobody compiles, nor shows any data."""

  def stream(config, dataset, seeds, mesh):
    size = config.dataset.num_labels or len(dataset.train.labels)
    return Stream(None, np.zeros((len(seeds), size)))

  monkeypatch.setattr(scene, 'stream', stream)
  monkeypatch.setattr(Crews, '_fitting', lambda self, crew: 2)
  return Crews(mesh)


def program(crews, where, *names, seeds=SEEDS):
  trials = [
    trial
    for name in names or ['kd', 'ls']
    for trial in arms.trials(where.config, arms.parse(name))
  ]
  return crews.make(where, group_of(where, trials), seeds).program


@pytest.mark.parametrize(
  'values',
  [
    {'seed': 5, 'quick': True},
    {'dataset.name': 'digits', 'dataset.options.correlation': 0.9},
    {'teacher.seed': 1, 'teacher.method': 'ls'},
    {'study.num_trials': 3, 'study.search.temperature': (1.0, 2.0)},
    {'learning_rate': 0.3, 'weight': 0.2, 'temperature': 2.0, 'method': 'ce'},
    {'dataset.exclude_classes': (0,)},
  ],
)
def test_a_program_serves_other_scenarios(values, uncompiled, where):
  first = program(uncompiled, where)
  assert program(uncompiled, changed(where, values), seeds=(7, 8)) is first


@pytest.mark.parametrize(
  'values',
  [
    {'student.widths': (8,)},
    {'num_epochs': 7},
    {'batch_size': 4},
    {'temperature_power': 0},
    {'optimizer.momentum': 0.5},
    {'schedule.warmup_steps': 3},
    {'dataset.mixup': 0.2},
    {'dataset.num_labels': 32},
    {'study.over_members': 'scan'},
  ],
)
def test_what_changes_the_steps_needs_another_program(
  values, uncompiled, where
):
  first = program(uncompiled, where)
  assert program(uncompiled, changed(where, values)) is not first
  assert program(uncompiled, where) is first


def test_other_losses_and_other_data_need_other_programs(uncompiled, where):
  scaled = dataclasses.replace(where.dataset, std=(2.0,))
  found = [
    program(uncompiled, where),
    program(uncompiled, where, 'kd_sim'),
    program(uncompiled, where, 'ls'),
    program(uncompiled, where, 'dkd'),
    program(uncompiled, where, 'dist'),
    program(uncompiled, where._replace(dataset=scaled)),
  ]
  assert len({id(p) for p in found}) == len(found)
  assert program(uncompiled, where, 'kd_pt', 'kd') is found[0]


def test_a_memory_is_of_the_classes_that_its_students_see(uncompiled, where):
  found = [
    program(uncompiled, changed(where, values), 'crd')
    for values in (
      {'dataset.exclude_classes': (0,), 'dataset.num_labels': 18},
      {'dataset.exclude_classes': (2,), 'dataset.num_labels': 18},
    )
  ]
  assert found[0] is not found[1]


def test_a_second_scenario_compiles_nothing(
  trainer, vectors, mesh, family_trials, where, whole
):
  """And its students learn from its own data and its own teacher."""
  crews = trainer.crews
  before = len(crews._programs), len(crews._compiled)
  assert len(crews._compiled) >= 1
  train = vectors.dataset.train
  flipped = data.Split(train.inputs[::-1].copy(), train.labels[::-1].copy())
  teacher = vectors.teacher._replace(
    params={
      **vectors.teacher.params,
      'head': {k: v / 2 for k, v in vectors.teacher.params['head'].items()},
    }
  )
  other = vectors._replace(
    dataset=dataclasses.replace(vectors.dataset, train=flipped),
    teacher=teacher,
  )
  place = other.scene(override(where.config, {'weight': 0.2}), mesh)
  students = trainer.students(place, family_trials, SEEDS)
  assert (len(crews._programs), len(crews._compiled)) == before
  (trial,) = (t for t in family_trials if t.arm.name == 'kd_pt')
  alone = other.alone(place.config, trial, 0)
  assert_same(students['kd_pt', trial.index, 0].state, alone)


@pytest.mark.parametrize('mode', ['vmap', 'scan', 'auto'])
def test_students_without_convolutions_go_side_by_side(
  mode, uncompiled, where, monkeypatch
):
  monkeypatch.delattr(Crews, '_measure')
  found = program(uncompiled, changed(where, {'study.over_members': mode}))
  assert not found.has_convolutions
  in_turn = changed(where, {'study.over_members': 'scan'})
  assert (found is program(uncompiled, in_turn)) == (mode == 'scan')


@pytest.mark.parametrize('faster', ['vmap', 'scan'])
def test_students_with_convolutions_go_the_faster_way(
  faster, uncompiled, images, mesh, convolutional, monkeypatch
):
  where = images.scene(convolutional, mesh)
  one = {
    mode: program(uncompiled, changed(where, {'study.over_members': mode}))
    for mode in ('vmap', 'scan')
  }
  tried = []

  def measure(self, crew):
    tried.append((len(crew.seeds), len(crew.stream.rows), crew.size))
    return 0.5 if crew.program is one[faster] else 1.0

  monkeypatch.setattr(Crews, '_measure', measure)
  assert program(uncompiled, where) is one[faster]
  assert one['vmap'].has_convolutions
  assert tried == [(1, 1, 8), (1, 1, 8)]


def test_students_that_read_go_the_faster_way(mesh, uncompiled, monkeypatch):
  world = make_text_world('contiguous')
  c = override(make_text_config(), {'study.over_members': 'auto'})
  where = world.scene(c, mesh)
  in_turn = program(uncompiled, changed(where, {'study.over_members': 'scan'}))
  monkeypatch.setattr(
    Crews, '_measure', lambda self, crew: float(crew.program is not in_turn)
  )
  assert program(uncompiled, where) is in_turn


def test_how_a_text_is_cut_needs_another_program(mesh, uncompiled):
  found = set()
  for batching in ('contiguous', 'padded', 'packed'):
    world = make_text_world(batching)
    rows = slice(0, 28)  # as many of each
    train = data.Split(*(a[rows] for a in world.dataset.train[:2]))
    dataset = dataclasses.replace(world.dataset, train=train)
    where = world._replace(dataset=dataset).scene(make_text_config(), mesh)
    found.add(id(program(uncompiled, where)))
  assert len(found) == 3


def test_a_few_steps_take_some_time(trainer, whole):
  assert trainer.crews._measure(whole) > 0


def test_a_chunk_is_filled_up_with_the_last_setting(trainer, whole):
  crew = whole._replace(size=6)
  for first, places in ((0, range(6)), (6, (6, 7, 7, 7, 7, 7))):
    varied, *_ = trainer.crews.fixed(crew, first)
    for key, values in whole.group.varied.items():
      np.testing.assert_array_equal(varied[key], values[list(places)])
      assert len(varied[key].addressable_shards[0].data) == 3


@pytest.mark.parametrize(
  ('count', 'most', 'size'), [(8, 0, 8), (7, 0, 8), (8, 2, 2), (8, 1, 2)]
)
def test_the_size_is_what_was_asked_for(
  count, most, size, trainer, where, family_trials
):
  """In whole devices; more than there are settings helps nobody."""
  asked = changed(where, {'study.max_settings': most})
  group = group_of(asked, family_trials[-count:])
  assert trainer.crews.make(asked, group, SEEDS).size == size


def test_less_memory_makes_smaller_chunks(
  trainer, where, whole, family_trials, monkeypatch
):
  crews = trainer.crews
  group = group_of(where, family_trials)
  needed = memory.used_by(crews.compile(whole))
  fraction = where.config.study.memory_fraction
  assert fraction == 0.6
  for share, size in ((1.01, 8), (0.9, 6), (1e-6, 2)):
    monkeypatch.setattr(
      memory, 'of_device', lambda mesh, share=share: share * needed / fraction
    )
    crew = crews.make(where, group, SEEDS)
    assert crew.size == size
    used = memory.used_by(crews.compile(crew))
    assert used <= share * needed or size == 2


def test_a_fraction_of_the_memory_is_taken(trainer, where, family_trials):
  tiny = changed(where, {'study.memory_fraction': 1e-9})
  group = group_of(tiny, family_trials)
  assert trainer.crews.make(tiny, group, SEEDS).size == 2


def test_memory_grows_by_the_same_for_every_setting(trainer, whole):
  used = [
    memory.used_by(trainer.crews.compile(whole._replace(size=size)))
    for size in (2, 6, 8)
  ]
  each = np.diff(used) / np.diff([2, 6, 8])
  assert each.min() > 0
  assert each.max() < 1.2 * each.min()


def test_what_is_passed_on_counts_once():
  analysis = types.SimpleNamespace(
    argument_size_in_bytes=100,
    output_size_in_bytes=80,
    temp_size_in_bytes=30,
    alias_size_in_bytes=70,
  )
  compiled = types.SimpleNamespace(memory_analysis=lambda: analysis)
  assert memory.used_by(compiled) == 140


@pytest.mark.parametrize('stats', [None, {}, {'bytes_limit': 7e9}])
def test_the_memory_of_a_device(stats):
  device = types.SimpleNamespace(memory_stats=lambda: stats)

  def found(size):
    devices = np.full(size, device)
    return memory.of_device(types.SimpleNamespace(devices=devices, size=size))

  assert found(1) > 1e8
  # An accelerator has its own, the devices of a CPU share one.
  assert found(1) / found(2) == (1 if stats else 2)
