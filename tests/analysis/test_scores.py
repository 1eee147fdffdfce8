"""How good the answers are, against plain float64."""

import numpy as np
import pytest
import reference
import teachers

from kdjax.analysis import pieces
from kdjax.analysis.scores import measure_scores

TEACHER, LABELS = teachers.answers(num_examples=301, margin=4.0, wrong=0.2)
STUDENT = teachers.answers(num_examples=301, margin=3.0, wrong=0.3, seed=5)[0]
BASELINE = teachers.answers(num_examples=301, margin=3.0, wrong=0.1, seed=6)[0]
LOGITS = {'teacher': TEACHER, 'student': STUDENT, 'baseline': BASELINE}


def test_scores_of_each_network():
  found = measure_scores(LOGITS, LABELS)
  for name, logits in LOGITS.items():
    p = reference.softmax(logits)
    right = logits.argmax(-1) == LABELS
    confidence = p.max(-1)
    place = np.ceil(confidence * 15)
    ece = sum(
      np.mean(place == b) * abs(np.mean((right - confidence)[place == b]))
      for b in np.unique(place)
    )
    expected = {
      'accuracy': right.mean(),
      'confidence': confidence.mean(),
      'nll': reference.cross_entropy(logits, LABELS).mean(),
      'brier': ((p - np.eye(10)[LABELS]) ** 2).sum(-1).mean(),
      'ece': ece,
    }
    for key, value in expected.items():
      assert found.metrics[f'{name}_{key}'] == pytest.approx(value, rel=1e-4)
    by_class = [right[c == LABELS].mean() for c in range(10)]
    np.testing.assert_allclose(found.class_accuracy[name], by_class, 1e-6)


def test_the_student_against_the_teacher():
  found = measure_scores(LOGITS, LABELS).metrics
  p, q = reference.softmax(TEACHER), reference.log_softmax(STUDENT)
  tops = (np.argsort(-x, -1, kind='stable')[:, :5] for x in (STUDENT, TEACHER))
  both = [len(set(a) & set(b)) / 5 for a, b in zip(*tops, strict=True)]
  agree = STUDENT.argmax(-1) == TEACHER.argmax(-1)
  assert found['agreement'] == pytest.approx(agree.mean(), rel=1e-5)
  assert found['teacher_kl'] == pytest.approx(
    reference.kl(p, q).mean(), rel=1e-4
  )
  assert found['topk_agreement'] == pytest.approx(np.mean(both), rel=1e-5)
  right = {name: x.argmax(-1) == LABELS for name, x in LOGITS.items()}
  for name in ('student', 'baseline'):
    gains = np.sum(right[name] & ~right['teacher'])
    losses = np.sum(right['teacher'] & ~right[name])
    z = (gains - losses) / np.sqrt(gains + losses)
    assert found[f'{name}_beats_teacher_z'] == pytest.approx(z)


def test_in_pieces_as_in_one(monkeypatch):
  whole = measure_scores(LOGITS, LABELS)
  monkeypatch.setattr(pieces, '_PIECE', 500)
  told = []
  cut = measure_scores(LOGITS, LABELS, progress=told.append)
  assert sum(told) == 4 * len(LABELS)
  assert cut.metrics == pytest.approx(whole.metrics, rel=1e-4)


def test_a_teacher_alone():
  found = measure_scores({'teacher': TEACHER}, LABELS)
  assert all(name.startswith('teacher_') for name in found.metrics)


def test_absent_classes_have_no_accuracy():
  seen = LABELS != 3
  found = measure_scores({'teacher': TEACHER[seen]}, LABELS[seen])
  assert np.isnan(found.class_accuracy['teacher'][3])
  assert np.all(np.isfinite(list(found.metrics.values())))


def test_few_classes_have_no_top_five():
  logits, labels = teachers.answers(num_classes=3)
  found = measure_scores({'teacher': logits, 'student': logits}, labels)
  assert found.metrics['agreement'] == 1.0
  assert 'topk_agreement' not in found.metrics
