"""What a teacher says, against plain float64 loops, and in pieces."""

import numpy as np
import pytest
import reference
import scipy.stats
import teachers

from kdjax.analysis import pieces, signal
from kdjax.analysis.signal import measure_signal, suggest_temperature

SETTINGS = {'weight': 0.7, 'temperature': 3.0, 'temperature_power': 2}
TEACHER, LABELS = teachers.answers(num_examples=301, margin=6.0)
STUDENT = teachers.answers(num_examples=301, margin=4.0, seed=5)[0]
K = teachers.NUM_CLASSES
HOT = np.eye(K)[LABELS]


def measured(**more):
  return measure_signal(
    TEACHER, LABELS, **({'student_logits': STUDENT} | SETTINGS | more)
  )


def entropy(p):
  return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1)


def incorrect(temperature):
  odds = reference.softmax(TEACHER, temperature) * (1 - HOT)
  return odds / odds.sum(-1, keepdims=True)


def by_class(values):
  return np.stack([values[c == LABELS].mean(0) for c in range(K)])


def test_the_teachers_distribution():
  found = measured()
  p, own = reference.softmax(TEACHER, 3.0), reference.softmax(TEACHER)
  expected = {
    'teacher_true_confidence': (p * HOT).sum(-1).mean(),
    'dark_mass': 1 - p.max(-1).mean(),
    'dark_mass_untempered': 1 - own.max(-1).mean(),
    'divergence_from_uniform': np.log(K) - entropy(p).mean(),
    'incorrect_entropy': entropy(incorrect(3.0)).mean() / np.log(K - 1),
    'incorrect_entropy_untempered': entropy(incorrect(1.0)).mean()
    / np.log(K - 1),
    'relation_spread': np.median(np.log(K - 1) - entropy(incorrect(1.0))),
    'tail_mass': 1 - np.sort(p, -1)[:, -3:].sum(-1).mean(),
    'kept_classes': 3,
  }
  for name, value in expected.items():
    np.testing.assert_allclose(found.metrics[name], value, 1e-4, err_msg=name)
  np.testing.assert_allclose(found.teacher_confidence, (p * HOT).sum(-1), 1e-4)
  for curve, q in ((found.topk_mass, p), (found.topk_mass_untempered, own)):
    mass = np.cumsum(-np.sort(-q, -1), -1).mean(0)
    np.testing.assert_allclose(curve, mass, 1e-4)
  np.testing.assert_allclose(found.relations, by_class(incorrect(1)), 0, 1e-5)
  np.testing.assert_array_equal(found.class_counts, np.bincount(LABELS))


def test_the_pull_on_the_student():
  found = measured()
  p, q = reference.softmax(TEACHER, 3.0), reference.softmax(STUDENT, 3.0)
  ours = 0.3 * (reference.softmax(STUDENT) - HOT)
  theirs = 0.7 * 3.0 * (q - p)
  w = ((ours + theirs) * HOT).sum(-1) / (
    (reference.softmax(STUDENT) - HOT) * HOT
  ).sum(-1)
  np.testing.assert_allclose(found.rescaling_factor, w, 1e-3)
  confidence = (p * HOT).sum(-1)
  smoothing = 1 - confidence.mean()
  even = (1 - HOT) / (K - 1)
  smoothed, mean = (1 - smoothing) * HOT + smoothing * even, by_class(p)[LABELS]
  parts = {
    'label': ours + 2.1 * (q - HOT),
    'smoothing': 2.1 * (HOT - smoothed),
    'class_relations': 2.1 * (smoothed - mean),
    'instance': 2.1 * (mean - p),
  }
  norms = {k: np.linalg.norm(v, axis=-1).mean() for k, v in parts.items()}
  total = sum(norms.values())
  for name, norm in norms.items():
    np.testing.assert_allclose(found.gradient_shares[name], norm / total, 1e-4)
    assert found.metrics[f'share_{name}'] == found.gradient_shares[name]
  a, b = (np.linalg.norm(x, axis=-1) for x in (ours, theirs))
  quantiles = np.quantile(w, (0.1, 0.5, 0.9), method='nearest')
  expected = {
    'teacher_gradient_share': np.mean(b / (a + b)),
    'rescaling_negative': np.mean(w < 0),
    'rescaling_p10': quantiles[0],
    'rescaling_p50': quantiles[1],
    'rescaling_p90': quantiles[2],
    'rescaling_confidence_correlation': scipy.stats.spearmanr(
      w, confidence
    ).statistic,
    'effective_weight': 0.7,
  }
  for name, value in expected.items():
    np.testing.assert_allclose(found.metrics[name], value, 2e-3, err_msg=name)


def test_without_a_student_the_gradient_is_of_a_uniform_one():
  found = measured(student_logits=None)
  zeros = measured(student_logits=np.zeros_like(TEACHER))
  assert not found.has_student
  assert zeros.has_student
  np.testing.assert_allclose(found.rescaling_factor, zeros.rescaling_factor)
  assert 'relation_correlation' not in found.metrics
  assert list(found.similarity) == ['teacher']


def test_geometry():
  weights = np.eye(K, 16, dtype=np.float32)  # all classes equally far
  found = measured(class_weights=weights)
  assert found.metrics['weight_similarity_spread'] == pytest.approx(0, abs=1e-6)
  means = by_class(TEACHER - TEACHER.mean(-1, keepdims=True))
  unit = means / np.linalg.norm(means, axis=-1, keepdims=True)
  np.testing.assert_allclose(
    found.similarity['teacher'], unit @ unit.T, 0, 1e-4
  )
  same = measured(student_logits=2 * TEACHER)
  assert same.metrics['relation_correlation'] == pytest.approx(1, abs=1e-4)


def test_in_pieces_as_in_one(monkeypatch):
  whole = measured()
  monkeypatch.setattr(pieces, '_PIECE', 500)
  told = []
  cut = measured(progress=told.append)
  assert sum(told) == 2 * len(LABELS)
  assert len(told) > 10
  assert cut.metrics == pytest.approx(whole.metrics, rel=1e-4, abs=1e-5)
  np.testing.assert_allclose(cut.topk_mass, whole.topk_mass, 1e-5)
  np.testing.assert_allclose(cut.rescaling_factor, whole.rescaling_factor, 1e-4)


@pytest.mark.parametrize(
  ('related', 'noise', 'low', 'high'),
  [(2.0, 0.3, 0.7, 1.0), (0.0, 1.0, 0.0, 0.02), (1.0, 1.0, 0.2, 0.6)],
)
def test_the_class_explains_its_share(related, noise, low, high):
  logits, labels = teachers.answers(related=related, noise=noise, wrong=0.0)
  found = measure_signal(logits, labels, **SETTINGS).metrics
  assert low <= found['relation_share'] <= high
  assert low - 0.1 <= found['tail_class_share'] <= high


def test_chance_explains_nothing():
  """Many classes, few examples each: the class means follow the noise."""
  logits, labels = teachers.answers(
    num_examples=500, num_classes=50, related=0.0, noise=2.0
  )
  found = measure_signal(logits, labels, **SETTINGS).metrics
  assert found['relation_information'] > 0.05  # by chance alone
  assert found['relation_share'] < 0.02
  assert abs(found['tail_class_share']) < 0.03


def test_the_order_of_the_examples_does_not_matter():
  """Not even where every other example is of every other class."""
  expected = measured().metrics
  turns = np.argsort(LABELS, kind='stable')
  counts = np.bincount(LABELS)
  place = np.concatenate([np.arange(n) for n in counts])
  interleaved = turns[np.argsort(place, kind='stable')]
  for order in (turns, interleaved):
    found = measure_signal(
      TEACHER[order],
      LABELS[order],
      student_logits=STUDENT[order],
      **SETTINGS,
    ).metrics
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_two_classes_have_no_relations():
  logits, labels = teachers.answers(num_classes=2)
  found = measure_signal(logits, labels, **SETTINGS).metrics
  assert not {'relation_spread', 'tail_class_share'} & found.keys()
  assert all(np.isfinite(list(found.values())))


def test_absent_classes_count_nowhere():
  seen = LABELS != 3
  found = measure_signal(TEACHER[seen], LABELS[seen], **SETTINGS)
  assert np.all(np.isfinite(list(found.metrics.values())))
  assert found.class_counts[3] == 0
  assert not found.relations[3].any()


def test_half_precision_and_order_of_memory():
  found = measure_signal(
    np.asfortranarray(TEACHER.astype(np.float16)), LABELS, **SETTINGS
  )
  exact = measure_signal(TEACHER, LABELS, **SETTINGS)
  assert found.metrics == pytest.approx(exact.metrics, rel=0.02, abs=0.02)


def test_the_suggested_temperature_leaves_the_doubt_that_suits():
  for scale in (0.5, 1.0, 2.0):
    temperature = suggest_temperature(TEACHER * np.float32(scale))
    p = reference.softmax(TEACHER * scale, temperature)
    assert 1 - p.max(-1).mean() == pytest.approx(0.3, abs=0.02)
  low, high = signal.TEMPERATURES
  assert suggest_temperature(TEACHER * np.float32(1e3)) == high
  assert suggest_temperature(TEACHER * np.float32(1e-3)) == low


def test_a_student_that_is_sure_beyond_float32():
  found = measured(student_logits=STUDENT * np.float32(100))
  assert np.any(np.isinf(found.rescaling_factor))
  names = {'rescaling_p10', 'rescaling_p50', 'rescaling_p90'}
  assert not any(np.isnan(v) for v in found.metrics.values())
  rest = {k: v for k, v in found.metrics.items() if k not in names}
  assert np.all(np.isfinite(list(rest.values())))
