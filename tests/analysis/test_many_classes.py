"""Thousands of classes: measured among the most frequent, in small tables."""

import numpy as np
import pytest
import reference
import teachers

from kdjax import analysis
from kdjax.analysis import structure
from kdjax.analysis.signal import measure_signal

SETTINGS = {'weight': 0.7, 'temperature': 3.0, 'temperature_power': 2}
K, FEW = 30, 8


@pytest.fixture
def few(monkeypatch):
  """As if more than ten classes were too many, and eight were held."""
  monkeypatch.setattr(structure, '_MOST_CLASSES', 10)
  monkeypatch.setattr(structure, '_CHOSEN', FEW)


def answers(seed=0):
  """Logits of classes of which later ones are rarer, the last ones absent."""
  logits, _ = teachers.answers(num_examples=900, num_classes=K, seed=seed)
  rng = np.random.default_rng(3)
  chances = 1.0 / np.arange(1, K + 1)
  chances[-4:] = 0
  labels = rng.choice(K, p=chances / chances.sum(), size=900)
  logits += teachers.relations(K)[labels] + 3 * np.eye(K)[labels]
  return logits.astype(np.float32), labels


TEACHER, LABELS = answers()
STUDENT, _ = answers(seed=5)


def measured(logits=TEACHER, labels=LABELS, **more):
  return measure_signal(logits, labels, **(SETTINGS | more))


def test_the_most_frequent_are_chosen(few):
  found = measured()
  counts = np.bincount(LABELS, minlength=K)
  np.testing.assert_array_equal(found.class_counts, counts)
  assert len(found.classes) == FEW
  assert counts[found.classes].min() >= np.delete(counts, found.classes).max()
  assert np.all(np.diff(counts[found.classes]) <= 0)


def test_relations_are_those_among_the_chosen(few):
  """As if there were these classes alone."""
  found = measured(student_logits=STUDENT, class_weights=np.eye(K, 40))
  inside = np.isin(LABELS, found.classes)
  place = np.argsort(np.argsort(found.classes))  # their order by number
  columns = np.sort(found.classes)
  alone = measured(
    TEACHER[inside][:, columns], np.searchsorted(columns, LABELS[inside])
  )
  names = (
    'relation_information',
    'relation_reliability',
    'relation_share',
    'mutual_information',
  )
  for name in names:
    assert found.metrics[name] == pytest.approx(alone.metrics[name], rel=1e-3)
  assert found.relations.shape == (FEW, FEW)
  np.testing.assert_allclose(
    found.relations, alone.relations[np.ix_(place, place)], 0, 1e-5
  )
  assert set(found.similarity) == {'teacher', 'student'}
  for table in found.similarity.values():
    assert table.shape == (FEW, FEW)


def test_the_rest_is_of_all_classes(few, monkeypatch):
  found = measured(student_logits=STUDENT)
  monkeypatch.setattr(structure, '_MOST_CLASSES', K)
  whole = measured(student_logits=STUDENT)
  assert whole.classes is None
  differ = {
    name
    for name, value in found.metrics.items()
    if value != pytest.approx(whole.metrics[name], rel=1e-4)
  }
  assert differ <= {
    'relation_information', 'relation_reliability', 'relation_share',
    'mutual_information', 'tail_class_share', 'class_similarity_spread',
    'relation_correlation', 'share_label', 'share_smoothing',
    'share_class_relations', 'share_instance',
  }  # fmt: skip
  np.testing.assert_allclose(found.topk_mass, whole.topk_mass, 1e-5)
  inside = found.classes
  np.testing.assert_allclose(
    found.similarity['teacher'],
    whole.similarity['teacher'][np.ix_(inside, inside)],
    0,
    1e-4,
  )


def test_the_gradient_is_split_where_a_class_is_chosen(few):
  found = measured(student_logits=STUDENT)
  inside = np.isin(LABELS, found.classes)
  p = reference.softmax(TEACHER, 3.0)
  epsilon = 1 - p[np.arange(len(LABELS)), LABELS].mean()
  mean = np.zeros((K, K))
  for k in found.classes:
    mean[k] = p[k == LABELS].mean(0)
  parts = analysis.gradient_parts(
    STUDENT[inside],
    TEACHER[inside],
    LABELS[inside],
    class_probs=mean.astype(np.float32),
    smoothing=epsilon,
    **SETTINGS,
  )
  norms = {
    name: np.linalg.norm(part, axis=-1).sum()
    for name, part in parts._asdict().items()
  }
  for name, norm in norms.items():
    expected = norm / sum(norms.values())
    assert found.gradient_shares[name] == pytest.approx(expected, rel=1e-3)


def test_the_tail_is_of_the_examples_of_chosen_classes(few):
  """In all columns: the variance between cells, less what is by chance."""
  found = measured()
  inside = np.isin(LABELS, found.classes)
  logits, labels = TEACHER[inside], LABELS[inside]
  in_tail = logits < np.sort(logits, axis=-1)[:, -3:-2]
  values = np.ma.masked_array(logits.astype(np.float64), ~in_tail)
  values = (values - values.mean(axis=-1, keepdims=True)).filled(0.0)
  explained, cells = 0.0, 0
  for k in found.classes:
    count = in_tail[labels == k].sum(0)
    total = values[labels == k].sum(0)
    explained += np.sum(total**2 / np.maximum(count, 1))
    cells += np.sum(count > 0)
  share, by_chance = explained / np.sum(values**2), cells / in_tail.sum()
  expected = (share - by_chance) / (1 - by_chance)
  assert found.metrics['tail_class_share'] == pytest.approx(expected, rel=1e-3)


def test_tables_do_not_grow_with_the_square_of_the_classes():
  num_classes = 3000
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 40, 60) * 70
  logits = rng.normal(size=(60, num_classes)).astype(np.float32)
  found = analysis.diagnose(logits, labels, class_weights=logits.T.copy())
  assert len(found.signal.classes) == len(np.unique(labels)) < 60
  sizes = [
    np.size(x)
    for x in (found.signal.relations, *found.signal.similarity.values())
  ]
  assert max(sizes) < 60**2
  assert all(np.isfinite(list(found.metrics.values())))
