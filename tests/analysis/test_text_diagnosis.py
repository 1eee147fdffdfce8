"""A text: perplexity, tokens by frequency, and findings that make sense."""

import math

import numpy as np
import pytest
import reference

from kdjax.analysis import Answers, diagnose, diagnose_on, rules
from kdjax.analysis.scores import measure_scores

K, SHAPE = 40, (30, 12)


def text(seed=0, scale=1.0, shape=SHAPE):
  """Logits `[N, T, K]` and labels drawn from them, with some padding.

  Which words are likely depends on the place, not on the word that comes.
  """
  rng = np.random.default_rng(seed)
  logits = scale * rng.normal(size=(*shape, K)) - np.log(np.arange(1, K + 1))
  p = reference.softmax(logits)
  labels = (rng.random((*shape, 1)) < np.cumsum(p, -1)).argmax(-1)
  labels[-2:, 5:] = -1
  return logits.astype(np.float32), labels


TEACHER, LABELS = text(scale=2.0)
REAL = LABELS >= 0
STUDENT = TEACHER + np.random.default_rng(1).normal(size=TEACHER.shape).astype(
  np.float32
)


def nats(logits):
  p = reference.softmax(logits[REAL])
  return -np.log(p[np.arange(REAL.sum()), LABELS[REAL]])


def test_a_text_is_its_tokens_without_padding():
  spoilt = np.where(REAL[..., None], TEACHER, np.nan)
  found = diagnose(spoilt, LABELS, student_logits=STUDENT, temperature=2.0)
  rows = diagnose(
    TEACHER[REAL],
    LABELS[REAL],
    student_logits=STUDENT[REAL],
    temperature=2.0,
  )
  assert found.is_text
  assert not rows.is_text
  shared = {name: found.metrics[name] for name in rows.metrics}
  assert shared == pytest.approx(rows.metrics, rel=1e-5)
  assert found.signal.num_examples == REAL.sum()


def test_perplexity_bits_and_who_is_ahead():
  logits = {'teacher': TEACHER[REAL], 'student': STUDENT[REAL]}
  counts = np.arange(K)
  found = measure_scores(
    logits, LABELS[REAL], token_counts=counts, token_length=4.0
  )
  for name, array in (('teacher', TEACHER), ('student', STUDENT)):
    mean = nats(array).mean()
    assert found.metrics[f'{name}_perplexity'] == pytest.approx(
      math.exp(mean), rel=1e-4
    )
    assert found.metrics[f'{name}_bits_per_character'] == pytest.approx(
      mean / math.log(2) / 4, rel=1e-4
    )
    groups = np.array_split(np.argsort(counts[LABELS[REAL]], kind='stable'), 5)
    np.testing.assert_allclose(
      found.by_frequency[name].mean,
      [nats(array)[group].mean() for group in groups],
      rtol=1e-4,
    )
  ahead = nats(TEACHER) - nats(STUDENT)
  z = ahead.mean() / ahead.std() * np.sqrt(len(ahead))
  assert z < -3
  assert found.metrics['student_ahead_of_teacher_z'] == pytest.approx(
    z, rel=1e-3
  )
  unknown = measure_scores(logits, LABELS[REAL], token_counts=counts)
  assert 'teacher_bits_per_character' not in unknown.metrics


def test_a_hopeless_network_has_a_perplexity():
  logits = np.full((4, 3), -2e3, np.float32)
  logits[:, 0] = 0.0
  found = measure_scores(
    {'teacher': logits, 'student': logits},
    np.array([1, 2, 1, 2]),
    token_counts=np.ones(3),
  ).metrics
  assert math.isfinite(found['teacher_perplexity'])
  assert found['student_ahead_of_teacher_z'] == 0.0


def test_the_factor_by_frequency():
  found = diagnose(TEACHER, LABELS, student_logits=STUDENT, weight=0.5)
  counts = np.bincount(LABELS[REAL], minlength=K)[LABELS[REAL]]
  factor = found.signal.rescaling_factor
  groups = np.array_split(np.argsort(counts, kind='stable'), 5)
  for i, group in enumerate(groups, start=1):
    expected = np.median(factor[group])
    found_here = found.metrics[f'rescaling_frequency_{i}']
    assert found_here == pytest.approx(expected, rel=1e-5)
  assert found.signal.by_frequency.counts.shape == (5, 2)


def test_what_the_words_before_explain_is_no_noise():
  """The same numbers of what is no text have findings."""
  logits, labels = text(scale=1.5, shape=(60, 30))
  real = labels >= 0
  classes = diagnose(logits[real], labels[real], temperature=2.0)
  assert 'no_class_structure' in classes.codes
  tokens = diagnose(logits, labels, temperature=2.0)
  assert not {'no_class_structure', 'noisy_tail'} & set(tokens.codes)
  assert 'relation_share' in tokens.metrics  # it is measured all the same


def metrics(**changes):
  found = diagnose(TEACHER, LABELS, student_logits=STUDENT, temperature=2.0)
  return found.metrics | changes


SETTINGS = {'weight': 0.9, 'temperature': 2.0, 'temperature_power': 2}


def test_a_healthy_text():
  (found,) = rules.apply(metrics(), SETTINGS)
  assert found.code == 'healthy'
  assert 'classes' not in found.explanation
  assert set(found.evidence) == {'dark_mass', 'teacher_gradient_share'}


@pytest.mark.parametrize(
  ('perplexity', 'z', 'is_found'),
  [(95.0, 2.1, True), (99.5, 9.0, False), (95.0, 1.9, False)],
)
def test_a_teacher_is_weaker_by_its_perplexity(perplexity, z, is_found):
  """Whoever names more words."""
  given = metrics(
    teacher_perplexity=100.0,
    student_perplexity=perplexity,
    student_ahead_of_teacher_z=z,
    student_accuracy=0.0,
    agreement=1.0,
  )
  found = [
    f
    for f in rules.apply(given, SETTINGS)
    if f.code == 'teacher_weaker_than_student'
  ]
  assert bool(found) == is_found
  if is_found:
    assert 'perplexity of 100, the student one of 95' in found[0].explanation
    assert found[0].settings == {'method': 'ce'}


def test_a_text_is_not_to_be_sharpened():
  """It doubts by more than 30 % of itself: T = 1 is low enough."""
  given = metrics(suggested_temperature=0.4, divergence_from_uniform=0.05)
  hot = SETTINGS | {'temperature': 8.0}
  (found,) = rules.apply(given, hot)
  assert found.code == 'temperature_too_high'
  assert found.settings == {'temperature': 1.0}
  cold = SETTINGS | {'temperature': 0.25}
  codes = {f.code: f for f in rules.apply(metrics(dark_mass=0.05), cold)}
  assert codes['temperature_too_low'].settings['temperature'] >= 1.0


def test_examples_are_called_tokens():
  given = metrics(teacher_confidence=0.9, teacher_accuracy=0.5, agreement=0.1)
  found = {f.code: f for f in rules.apply(given, SETTINGS)}
  for code in ('teacher_miscalibrated', 'low_fidelity'):
    assert 'of the tokens' in found[code].explanation


def test_two_samples_of_a_text():
  answers = Answers(TEACHER[REAL], LABELS[REAL], STUDENT[REAL])
  few = Answers(*(x[:50] for x in answers[:3]))
  counts = np.arange(K)
  found = diagnose_on(
    few,
    answers,
    token_counts=counts,
    token_length=5.0,
    **SETTINGS,
  )
  assert len(found.signal.rescaling_factor) == 50
  assert found.scores.num_examples == REAL.sum()
  assert found.signal.by_frequency.counts.max() == counts[few.labels].max()


@pytest.mark.parametrize(
  ('shape', 'labels', 'text'),
  [
    ((30, 12, K), LABELS[:, 1:], r'labels has \(30, 11\)'),
    ((30, 12, K), np.where(REAL, LABELS, -2), r'row 28, token 5: -2 is no'),
    ((30, 12, K), np.where(REAL, LABELS + 9, -1), r'allowed is 0..39, and -1'),
    ((30, 12, K), LABELS.reshape(-1), r'or labels \[N, T\] with logits'),
    ((360, K), LABELS, r'labels has shape \(30, 12\): \[N\] needed'),
  ],
)
def test_what_does_not_fit_is_refused(shape, labels, text):
  with pytest.raises(ValueError, match=text):
    diagnose(np.zeros(shape, np.float32), labels)


def test_a_mapped_text_without_padding_stays_mapped(tmp_path):
  from kdjax.analysis import inputs

  np.save(tmp_path / 'a.npy', TEACHER)
  mapped = np.load(tmp_path / 'a.npy', mmap_mode='r')
  found, labels, counts = inputs.in_rows({'a': mapped}, np.abs(LABELS))
  assert isinstance(found['a'], np.memmap)
  assert np.shares_memory(found['a'], mapped)
  assert counts.sum() == labels.size == LABELS.size
