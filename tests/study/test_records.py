"""The lines of a study: written whole, read back, and what is made of them."""

import json
import math

import pytest

from kdjax.study import arms, records
from kdjax.study.arms import Trial
from kdjax.study.population import Outcome
from kdjax.study.records import Records


def row(arm='ce', *, trial=0, seed=0, dev=0.5, phase='search', **other):
  return {
    'phase': phase,
    'scenario': {},
    'arm': arm,
    'trial': trial,
    'seed': seed,
    'data': 'abc',
    'metrics': {'dev_accuracy': dev},
    'diverged_at': None,
  } | other


def trials(name, count):
  return [Trial(arms.parse(name), index, {}) for index in range(count)]


def chosen(rows, *tried):
  best = records.best_trials(
    rows, [trial for group in tried for trial in group]
  )
  return {trial.arm.name: trial.index for trial in best}


def text(folder):
  return (folder / 'runs.jsonl').read_text()


def test_what_is_added_is_read_back(tmp_path):
  found = Records(tmp_path)
  assert found.rows == []
  assert not (tmp_path / 'runs.jsonl').exists()
  found.add([row(), row(seed=1)])
  found.add([row(seed=2)])
  assert len(text(tmp_path).splitlines()) == 3
  assert text(tmp_path).endswith('\n')
  assert (
    Records(tmp_path).rows
    == found.rows
    == [row(seed=seed) for seed in range(3)]
  )
  assert [path.name for path in tmp_path.iterdir()] == ['runs.jsonl']


def test_a_student_that_is_there_keeps_its_line(tmp_path):
  found = Records(tmp_path)
  found.add([row(dev=0.25), row(phase='final', dev=0.5)])
  before = text(tmp_path)
  found.add([row(dev=0.75), row(phase='final', dev=0.75), row('kd', dev=1.0)])
  assert text(tmp_path).startswith(before)
  assert text(tmp_path).count('\n') == 3
  assert [r['metrics']['dev_accuracy'] for r in found.rows] == [0.25, 0.5, 1.0]


def test_a_failure_to_write_leaves_the_old_file(tmp_path, monkeypatch):
  found = Records(tmp_path)
  found.add([row()])
  before = text(tmp_path)

  def full(descriptor):
    raise OSError('No space left on device')

  monkeypatch.setattr('os.fsync', full)
  with pytest.raises(OSError, match='No space'):
    found.add([row(seed=1)])
  assert text(tmp_path) == before


def test_records_of_a_phase_in_a_scenario(tmp_path):
  place = {'student.widths': (5,), 'topk': 2}
  there = {'student.widths': [5], 'topk': 2}
  found = Records(tmp_path)
  found.add(
    [
      row(scenario=there),
      row(scenario=there, phase='final'),
      row(scenario={'student.widths': [6], 'topk': 2}),
    ]
  )
  for known in (found, Records(tmp_path)):
    assert known.of('search', place) == [row(scenario=there)]
    assert known.of('final', place) == [row(scenario=there, phase='final')]
    assert known.of('final', {}) == []


@pytest.mark.parametrize(
  'damaged',
  [
    '{"phase": "search", "scen',
    '',
    'null',
    '{}',
    json.dumps({key: x for key, x in row().items() if key != 'metrics'}),
    b'{"phase": "\xff\xfe"}',
  ],
)
def test_a_damaged_line_is_named(damaged, tmp_path):
  good = json.dumps(row()).encode()
  bad = damaged if isinstance(damaged, bytes) else damaged.encode()
  (tmp_path / 'runs.jsonl').write_bytes(good + b'\n' + bad + b'\n' + good)
  with pytest.raises(ValueError, match=r'runs\.jsonl, line 2 is damaged'):
    Records(tmp_path)


def test_a_line_has_all_that_is_known_of_a_student():
  trial = Trial(arms.parse('kd_topk topk=3'), 4, {'learning_rate': 0.1})
  made = records.make(
    Outcome(
      trial=trial,
      seed=7,
      num_params=101,
      metrics={'dev_accuracy': 0.5},
      diverged_at=None,
      wall_seconds=0.25,
    ),
    phase='final',
    scenario={'student.widths': (5,)},
    sets={'student.widths': (5,), 'seed': 1, 'learning_rate': 9.0},
    content='abc',
    teacher={'test_accuracy': 0.9},
  )
  assert made == {
    'phase': 'final',
    'scenario': {'student.widths': [5]},
    'arm': 'kd_topk topk=3',
    'method': 'kd_topk',
    'fixed': {'topk': 3},
    'trial': 4,
    'seed': 7,
    'settings': {'learning_rate': 0.1},
    'config': {
      'student.widths': [5],
      'method': 'kd_topk',
      'topk': 3,
      'learning_rate': 0.1,
      'seed': 7,
    },
    'data': 'abc',
    'teacher': {'test_accuracy': 0.9},
    'num_params': 101,
    'metrics': {'dev_accuracy': 0.5},
    'diverged_at': None,
    'wall_seconds': 0.25,
  }


def test_missing_are_trials_without_all_seeds():
  ce, kd = trials('ce', 3), trials('kd', 2)
  rows = [
    *(row('ce', trial=0, seed=seed) for seed in (0, 1)),
    row('ce', trial=1, seed=1),
    *(row('kd', trial=1, seed=seed) for seed in (0, 1, 2)),
  ]
  assert records.missing(rows, ce + kd, range(2)) == [ce[1], ce[2], kd[0]]
  assert records.missing(rows, ce + kd, (1,)) == [ce[2], kd[0]]
  assert records.missing([], ce, range(2)) == ce


def test_the_best_mean_on_dev_is_chosen_for_each_arm():
  rows = [
    row('ce', trial=0, seed=0, dev=0.9),
    row('ce', trial=0, seed=1, dev=0.1),
    row('ce', trial=1, seed=0, dev=0.5),
    row('ce', trial=1, seed=1, dev=0.6),
    row('kd', trial=0, dev=0.8),
    row('kd', trial=1, dev=0.7),
  ]
  assert chosen(rows, trials('ce', 2), trials('kd', 2)) == {'ce': 1, 'kd': 0}


def test_of_a_text_the_lowest_mean_cross_entropy_is_chosen():
  """Not the lowest mean perplexity; and a number rather than none."""

  def read(trial, *nats):
    return [
      row(trial=trial, seed=seed)
      | {
        'metrics': {
          'dev_perplexity': x and math.exp(x),
          'dev_cross_entropy': x,
        }
      }
      for seed, x in enumerate(nats)
    ]

  rows = [*read(0, 2.1, 2.1), *read(1, 1.0, 3.0), *read(2, 0.5, None)]
  assert chosen(rows, trials('ce', 3)) == {'ce': 1}
  assert chosen(rows[4:], trials('ce', 3)[2:]) == {'ce': 2}
  unknown = [*read(0, None, 0.1), *read(1, 9.0, 9.0)]
  assert chosen(unknown, trials('ce', 2)) == {'ce': 1}


def test_of_equals_the_first_is_chosen():
  rows = [
    row(trial=trial, dev=dev) for trial, dev in enumerate((0.2, 0.5, 0.5))
  ]
  assert chosen(rows, trials('ce', 3)) == {'ce': 1}
  assert chosen(rows[::-1], trials('ce', 3)) == {'ce': 1}


def test_a_trial_with_a_student_that_diverged_is_chosen_only_alone():
  rows = [
    row(trial=0, seed=0, dev=0.9),
    row(trial=0, seed=1, dev=0.9, diverged_at=5),
    row(trial=1, seed=0, dev=0.2),
    row(trial=1, seed=1, dev=0.2),
  ]
  assert chosen(rows, trials('ce', 2)) == {'ce': 1}
  assert chosen(rows[:2], trials('ce', 1)) == {'ce': 0}
  everywhere = [r | {'diverged_at': 0} for r in rows]
  assert chosen(everywhere, trials('ce', 2)) == {'ce': 0}
