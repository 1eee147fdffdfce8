"""Each trait of a made-up teacher is found, by its code, and nothing else."""

import numpy as np
import pytest
import teachers

from kdjax.analysis import Answers, diagnose, diagnose_on, rules

LOGITS, LABELS = teachers.answers()


def follow(logits, noise=0.5, seed=3):
  rng = np.random.default_rng(seed)
  return (logits + noise * rng.normal(size=logits.shape)).astype(np.float32)


STUDENT = follow(LOGITS)


def smoothed():
  """Every wrong class at the same logit, but for a trace."""
  return teachers.answers(margin=4.5, related=0.1, noise=0.2)[0]


def unrelated():
  return teachers.answers(related=0.0, noise=2.0)[0]


CASES = {
  'healthy': (LOGITS, {}, ['healthy']),
  'healthy with a student': (
    LOGITS,
    {'student_logits': STUDENT},
    ['healthy'],
  ),
  'healthy at T = 2': (LOGITS, {'temperature': 2.0}, ['healthy']),
  'near one-hot': (
    5 * LOGITS,
    {},
    ['teacher_near_one_hot', 'temperature_too_low'],
  ),
  'one-hot at any temperature': (1e3 * LOGITS, {}, ['teacher_near_one_hot']),
  'label-smoothed': (
    smoothed(),
    {'temperature': 2.0},
    ['teacher_class_relations_erased'],
  ),
  'no structure': (
    unrelated(),
    {'temperature': 2.0},
    ['no_class_structure'],
  ),
  'T too high': (LOGITS, {'temperature': 40.0}, ['temperature_too_high']),
  'T too low': (
    teachers.answers(margin=6.0)[0],
    {'temperature': 0.5},
    ['temperature_too_low'],
  ),
  'T² missing': (
    LOGITS,
    {'temperature_power': 0},
    ['teacher_term_vanishes'],
  ),
  'hardly any weight': (LOGITS, {'weight': 0.05}, ['teacher_term_vanishes']),
  'student better': (
    teachers.answers(wrong=0.3, margin=4.5)[0],
    {'student_logits': STUDENT, 'temperature': 2.0},
    ['teacher_weaker_than_student'],
  ),
  'baseline better': (
    teachers.answers(wrong=0.3, margin=4.5)[0],
    {'baseline_logits': STUDENT, 'temperature': 2.0},
    ['teacher_weaker_than_student'],
  ),
  'sure and wrong': (
    teachers.answers(wrong=0.4)[0],
    {},
    ['teacher_miscalibrated'],
  ),
  'student elsewhere': (
    LOGITS,
    {'student_logits': np.roll(STUDENT, 1, axis=1)},
    ['low_fidelity'],
  ),
}


@pytest.mark.parametrize('name', CASES)
def test_a_trait_is_found(name):
  logits, settings, codes = CASES[name]
  found = diagnose(logits.astype(np.float32), LABELS, **settings)
  assert list(found.codes) == codes


def test_a_noisy_tail():
  rng = np.random.default_rng(0)
  logits, labels = teachers.answers(num_classes=50, noise=0.2, wrong=0.0)
  tail = logits < np.sort(logits, -1)[:, -5:-4]
  noise = rng.normal(size=logits.shape)
  noisy = np.where(tail, -1 + noise, logits).astype(np.float32)
  assert diagnose(logits, labels, temperature=2.0).codes == ('healthy',)
  (found,) = diagnose(noisy, labels, temperature=2.0).findings
  assert found.code == 'noisy_tail'
  assert found.settings == {'method': 'kd_topk', 'topk': 5}


def test_class_weights_are_evidence():
  found = diagnose(
    unrelated(), LABELS, class_weights=np.eye(10), temperature=2.0
  ).findings[0]
  assert found.code == 'no_class_structure'
  assert found.evidence['weight_similarity_spread'] == pytest.approx(
    0, abs=1e-6
  )


@pytest.mark.parametrize('name', CASES)
def test_findings_carry_numbers_and_remedies(name):
  logits, settings, _ = CASES[name]
  for finding in diagnose(
    logits.astype(np.float32), LABELS, **settings
  ).findings:
    assert finding.severity in ('error', 'warning', 'info')
    assert all(isinstance(v, float) for v in finding.evidence.values())
    assert finding.evidence
    assert finding.explanation.endswith('.')
    assert finding.remedy.endswith('.')


@pytest.mark.parametrize(
  'name', ['near one-hot', 'T too high', 'T too low', 'T² missing']
)
def test_the_remedy_of_a_setting_heals(name):
  logits, settings, _ = CASES[name]
  logits = logits.astype(np.float32)
  (remedy, *_) = diagnose(logits, LABELS, **settings).findings
  settings = settings | remedy.settings
  assert diagnose(logits, LABELS, **settings).codes == ('healthy',)


def test_errors_come_first():
  found = diagnose(LOGITS, LABELS, temperature=40.0, temperature_power=0)
  assert found.codes == ('teacher_term_vanishes', 'temperature_too_high')
  assert [f.severity for f in found.findings] == ['error', 'warning']


def test_every_code_of_the_contract_has_a_case():
  codes = {code for _, _, found in CASES.values() for code in found}
  assert codes | {'noisy_tail'} == {
    'healthy',
    'teacher_near_one_hot',
    'teacher_class_relations_erased',
    'teacher_weaker_than_student',
    'teacher_miscalibrated',
    'temperature_too_high',
    'temperature_too_low',
    'teacher_term_vanishes',
    'noisy_tail',
    'no_class_structure',
    'low_fidelity',
  }


def test_a_lead_within_chance_is_none():
  few = slice(0, 60)
  weaker = LOGITS.copy()
  weaker[:2] = np.roll(weaker[:2], 1, axis=1)  # two answers worse of sixty
  found = diagnose(weaker[few], LABELS[few], student_logits=LOGITS[few])
  assert 'teacher_weaker_than_student' not in found.codes


def test_a_remedy_that_is_in_place_is_no_finding():
  metrics = diagnose(unrelated(), LABELS, temperature=2.0).metrics
  settings = {'weight': 0.9, 'temperature': 2.0, 'temperature_power': 2}
  (found,) = rules.apply(metrics, settings, method='kd_pt')
  assert found.code == 'healthy'


@pytest.mark.parametrize(
  ('method', 'settings', 'silent'),
  [
    ('dkd', {'weight': 0.05}, 'teacher_term_vanishes'),
    ('dist', {'temperature_power': 0}, 'teacher_term_vanishes'),
    ('kd_standardised', {'temperature_power': 0}, 'teacher_term_vanishes'),
    ('kd_sim', {'temperature': 40.0}, 'temperature_too_high'),
    ('kd_standardised', {'temperature': 0.3}, 'temperature_too_low'),
  ],
)
def test_what_says_nothing_of_a_method_is_no_finding(method, settings, silent):
  metrics = diagnose(LOGITS, LABELS, **settings).metrics
  given = {'weight': 0.9, 'temperature': 4.0, 'temperature_power': 2} | settings
  assert silent in [f.code for f in rules.apply(metrics, given)]
  found = rules.apply(metrics, given, method=method)
  assert [f.code for f in found] == ['healthy']


@pytest.mark.parametrize(
  ('temperature', 'settings'), [(1.0, True), (20.0, False)]
)
def test_calibration_is_remedied_by_a_higher_temperature_only(
  temperature, settings
):
  logits = teachers.answers(wrong=0.4)[0]
  found = diagnose(logits, LABELS, temperature=temperature)
  (finding,) = [f for f in found.findings if f.code == 'teacher_miscalibrated']
  assert bool(finding.settings) == settings
  if settings:
    higher = finding.settings['temperature']
    fitted = found.metrics['teacher_fitted_temperature']
    assert higher == pytest.approx(fitted, abs=0.05)
    assert higher > temperature


def test_without_labels_in_the_loss_nothing_is_outweighed():
  found = diagnose(LOGITS, LABELS, weight=1.0, temperature_power=0)
  assert found.codes == ('healthy',)


@pytest.mark.parametrize(
  ('num_examples', 'num_classes'), [(600, 3), (100, 100), (60, 100)]
)
def test_what_cannot_be_measured_is_no_finding(num_examples, num_classes):
  """Three classes have no relations, and one example of a class shows none."""
  labels = np.arange(num_examples) % num_classes
  logits = teachers.relations(num_classes)[labels]
  logits += 8 * np.eye(num_classes)[labels]
  found = diagnose(logits, labels, temperature=4.0)
  assert 'relation_share' not in found.metrics
  assert found.codes == ('healthy',)


def test_two_sets_of_examples():
  """The signal is of the taught ones, the scores of those held out."""
  held = teachers.answers(num_examples=500, seed=9)
  found = diagnose_on(
    Answers(LOGITS, LABELS),
    Answers(*held),
    weight=0.9,
    temperature=4.0,
  )
  assert found.signal.num_examples == 2000
  assert found.scores.num_examples == 500
  assert found.metrics['teacher_accuracy'] == np.mean(
    held[0].argmax(-1) == held[1]
  )


def test_progress_ends_at_one():
  told = []
  diagnose(LOGITS, LABELS, student_logits=STUDENT, progress=told.append)
  assert told == sorted(told)
  assert told[-1] == 1.0


@pytest.mark.parametrize(
  ('settings', 'text'),
  [
    ({'weight': 1.5}, 'weight=1.5'),
    ({'temperature': 0.0}, 'temperature=0.0'),
    ({'temperature_power': 1}, 'temperature_power=1 must be 0 or 2'),
    ({'student_logits': STUDENT[:5]}, r'student_logits has shape \(5, 10\)'),
    ({'class_weights': np.eye(9)}, 'class_weights has 9 rows'),
  ],
)
def test_bad_input(settings, text):
  with pytest.raises(ValueError, match=text):
    diagnose(LOGITS, LABELS, **settings)


def test_arrays_are_named_by_their_arguments():
  broken = STUDENT.copy()
  broken[3, 1] = np.nan
  with pytest.raises(ValueError, match='student_logits, row 3: nan'):
    diagnose(LOGITS, LABELS, student_logits=broken)
