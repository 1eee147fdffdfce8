import json
import math

import handmade_records as handmade
import numpy as np
import pytest
from scipy import stats

from kdjax.study import scores, summary

CE = [0.40, 0.42, 0.41]
KD = [0.45, 0.46, 0.47]
# Differences of 2, 3 and 2 points: t is 7 and p 0.02, too much for four tests.
BETTER = [0.42, 0.45, 0.43]


def _by_arm(records):
  return {row.arm: row for row in summary.summarise(records)}


def test_a_row_says_what_the_records_say():
  records = handmade.records({'ce': CE, 'kd': KD})
  row = _by_arm(records)['kd']
  assert (row.method, row.fixed, row.scenario) == ('kd', {}, {})
  assert (row.settings, row.trial) == ({'learning_rate': 0.1}, 3)
  assert (row.num_params, row.teacher) == (9714, handmade.TEACHER)
  assert row.diverged == 0
  np.testing.assert_allclose(row.test, (0.46, 0.01, 3))
  np.testing.assert_allclose(row.dev, (0.47, 0.01, 3))
  np.testing.assert_allclose(row.best, (0.48, 0.01, 3))


def test_gains_are_of_pairs():
  rows = _by_arm(handmade.records({'ce': CE, 'kd': KD, 'kd_pt': CE}))
  reference = stats.ttest_rel(KD, CE)
  gain = rows['kd'].gain_over_ce
  np.testing.assert_allclose(
    gain, (0.05, *reference.confidence_interval(), reference.pvalue, 3)
  )
  assert rows['ce'].gain_over_ce is None
  assert rows['kd'].gain_over_kd is None
  assert rows['ce'].gain_over_kd.mean == pytest.approx(-0.05)
  assert rows['kd_pt'].gain_over_ce == (0, 0, 0, 1, 3)


def test_the_search_is_left_out():
  found = handmade.record('kd', test=0.9, phase='search')
  found['metrics'] = {'dev_accuracy': 0.9}
  rows = summary.summarise([found, *handmade.records({'ce': CE, 'kd': KD})])
  assert [row.arm for row in rows] == ['ce', 'kd']
  assert summary.summarise([found]) == []


def test_seeds_pair_whatever_their_order():
  records = handmade.records({'ce': CE, 'kd': KD})
  gain = _by_arm(records)['kd'].gain_over_ce
  shuffled = _by_arm(records[::-1])['kd'].gain_over_ce
  np.testing.assert_allclose(gain, shuffled)


def test_a_missing_seed_is_left_out_of_its_pair():
  records = handmade.records({'ce': CE, 'kd': [0.9, *KD[1:]]})
  rows = _by_arm(records[1:])  # ce has no first seed
  assert rows['kd'].test.count == 3
  np.testing.assert_allclose(
    rows['kd'].gain_over_ce,
    [
      0.05,
      *stats.ttest_rel(KD[1:], CE[1:]).confidence_interval(),
      stats.ttest_rel(KD[1:], CE[1:]).pvalue,
      2,
    ],
  )


def test_no_pair_is_no_gain():
  records = [handmade.record('ce', seed=0), handmade.record('kd', seed=1)]
  row = _by_arm(records)['kd']
  assert row.gain_over_ce is None
  assert not row.significant


def test_arms_may_lack():
  row = _by_arm(handmade.records({'kd_pt': KD, 'kd': CE}))['kd_pt']
  assert row.gain_over_ce is None
  assert row.gain_over_kd.mean == pytest.approx(0.05)
  assert math.isnan(row.adjusted_p)
  assert not row.significant


def test_significance_is_after_holm():
  tests = {'ce': CE, 'kd': BETTER}
  row = _by_arm(handmade.records(tests))['kd']
  p_value = row.gain_over_ce.p_value
  assert 0.0125 < p_value < 0.05
  assert row.significant
  assert row.adjusted_p == p_value
  chance = {f'kd_{k}': [0.41, 0.40, 0.42] for k in ('pt', 'sim', 'topk')}
  row = _by_arm(handmade.records(tests | chance))['kd']
  assert row.adjusted_p == pytest.approx(4 * p_value)
  assert not row.significant


def test_scenarios_are_tested_apart():
  better = {'ce': CE, 'kd': BETTER}
  records = [
    record
    for r in (0.0, 0.3, 0.6, 0.9)
    for record in handmade.records(better, scenario={'r': r})
  ]
  assert [row.significant for row in summary.summarise(records)] == [
    False,
    True,
  ] * 4


def test_a_certain_loss_is_no_win():
  row = _by_arm(handmade.records({'ce': KD, 'kd': [0.1, 0.11, 0.12]}))['kd']
  assert row.adjusted_p < 0.05
  assert not row.significant


def test_one_seed_is_never_significant():
  row = _by_arm(handmade.records({'ce': [0.1], 'kd': [0.9]}))['kd']
  assert row.gain_over_ce.mean == pytest.approx(0.8)
  assert row.significant is False


def test_order_is_that_of_the_records():
  scenarios = [{'r': 0.9}, {'r': 0.1}]
  records = handmade.study(
    scenarios, arms=[('kd', {}), ('ce', {}), ('kd_topk', {'topk': 2})]
  )
  rows = summary.summarise(records)
  assert [(row.scenario['r'], row.arm) for row in rows] == [
    (r, arm) for r in (0.9, 0.1) for arm in ('kd', 'ce', 'kd_topk topk=2')
  ]


def test_records_that_were_read_join_those_that_were_not():
  records = handmade.records({'ce': CE, 'kd': KD}, scenario={'w': (64, 32)})
  read = json.loads(json.dumps(records[:3]))
  assert len(summary.summarise(read + records[3:])) == 2
  gain = _by_arm(read + records[3:])['kd'].gain_over_ce
  assert gain.mean == pytest.approx(0.05)


def test_the_diverged_are_counted():
  records = handmade.records({'ce': CE, 'kd': KD})
  records[4]['diverged_at'] = 0
  assert [row.diverged for row in summary.summarise(records)] == [0, 1]


def test_several_teachers_are_averaged():
  records = handmade.records({'kd': KD})
  records[0]['teacher'] = handmade.TEACHER | {'test_accuracy': 0.3125}
  teacher = summary.summarise(records)[0].teacher
  assert teacher['test_accuracy'] == pytest.approx((2 * 0.6125 + 0.3125) / 3)
  assert teacher['num_params'] == handmade.TEACHER['num_params']


def test_a_seed_may_occur_once():
  records = handmade.records({'kd': KD})
  with pytest.raises(ValueError, match=r"arm 'kd' .* has seeds .*1002, 1000"):
    summary.summarise([*records, records[0]])


def test_one_trial_is_chosen():
  records = handmade.records({'kd': KD})
  records[1]['trial'] = 8
  with pytest.raises(ValueError, match=r"arm 'kd' .* has trials \[3, 8\]"):
    summary.summarise(records)


def test_keys_that_end_alike_are_shown_in_full():
  keys = ['teacher.widths', 'student.widths', 'a.b.weight', 'weight_decay']
  assert summary.short_keys(keys + keys) == {
    'teacher.widths': 'teacher.widths',
    'student.widths': 'student.widths',
    'a.b.weight': 'weight',
    'weight_decay': 'weight_decay',
  }


def _of_text(tests):
  return [handmade.of_text(x) for x in handmade.records(tests)]


def test_of_a_text_gains_are_of_cross_entropy():
  """What has p of the answers right has a perplexity of 10/p."""
  row = _by_arm(_of_text({'ce': CE, 'kd': KD}))['kd']
  assert row.score is scores.PERPLEXITY
  np.testing.assert_allclose(row.test.mean, np.mean(10 / np.array(KD)))
  np.testing.assert_allclose(row.dev.mean, np.mean(10 / (np.array(KD) + 0.01)))
  np.testing.assert_allclose(row.best.mean, np.mean(10 / (np.array(KD) + 0.02)))
  reference = stats.ttest_rel(np.log(KD), np.log(CE))
  np.testing.assert_allclose(
    row.gain_over_ce,
    (
      np.mean(np.log(KD) - np.log(CE)),
      *reference.confidence_interval(),
      reference.pvalue,
      3,
    ),
  )
  assert row.gain_over_ce.mean > 0
  assert row.significant
  assert row.teacher['test_perplexity'] == pytest.approx(10 / 0.6125)


def test_a_certain_loss_of_a_text_is_no_win():
  row = _by_arm(_of_text({'ce': KD, 'kd': [0.1, 0.11, 0.12]}))['kd']
  assert row.adjusted_p < 0.05
  assert row.gain_over_ce.mean < 0
  assert not row.significant


def test_a_perplexity_that_is_no_number_is_told_and_no_gain():
  records = _of_text({'ce': CE, 'kd': KD})
  for key in ('test_perplexity', 'test_cross_entropy'):
    records[4]['metrics'][key] = None
  row = _by_arm(records)['kd']
  assert math.isnan(row.test.mean)
  assert math.isnan(row.gain_over_ce.mean)
  assert not row.significant
