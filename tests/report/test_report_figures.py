import handmade
import numpy as np
import pytest

from kdjax.report import figures


def test_figures_have_texts():
  plates = figures.draw(handmade.diagnosis())
  assert list(plates) == list(figures.TEXTS)
  for plate in plates.values():
    assert all((plate.title, plate.caption, plate.description))


@pytest.mark.parametrize(
  ('networks', 'what'),
  [
    (('teacher',), 'teacher'),
    (('teacher', 'student'), 'student − teacher'),
    (handmade.ALL, 'student − baseline'),
  ],
)
def test_gain_is_over_what_says_most(networks, what):
  plates = figures.draw(handmade.diagnosis(networks=networks))
  title = plates['class_gain'].figure.axes[0].get_title()
  assert title.splitlines()[0] == f'Accuracy by class: {what}'


def test_heat_maps_are_in_the_order_of_the_teacher():
  diagnosis = handmade.diagnosis(6)
  plates = figures.draw(
    diagnosis, class_names=list('abcdef'), groups=[1, 0, 1, 0, 1, 0]
  )
  axes = plates['class_similarity'].figure.axes[1]
  order = [1, 3, 5, 0, 2, 4]
  table = diagnosis.signal.similarity['student'][np.ix_(order, order)]
  shown = axes.images[0].get_array()
  np.testing.assert_allclose(
    shown.data[~shown.mask], table[~shown.mask], rtol=1e-6
  )
  relations = plates['class_relations'].figure.axes[0]
  names = [label.get_text() for label in relations.get_yticklabels()]
  assert names == list('bdface')
  assert {line.get_xdata()[0] for line in relations.lines[1::2]} == {2.5}
  table = 100 * diagnosis.signal.relations[np.ix_(order, order)]
  shown = relations.images[0].get_array()
  np.testing.assert_allclose(
    shown.data[~shown.mask], table[~shown.mask], rtol=1e-5
  )


def test_classes_without_examples_are_left_out():
  plates = figures.draw(
    handmade.diagnosis(6, absent=(2, 5)), class_names=list('abcdef')
  )
  for name in ('class_similarity', 'class_relations'):
    figure = plates[name].figure
    names = {t.get_text() for t in figure.axes[0].get_yticklabels()}
    assert names == set('abde')
    assert 'left out: 2' in figure.get_supxlabel()


def test_last_layers_are_preferred_and_like_is_held_against_like():
  diagnosis = handmade.diagnosis(6)
  rows = np.random.default_rng(3).normal(size=(6, 3))
  weights = {'teacher': rows, 'other': rows, 'baseline': -rows[:, :2]}
  plates = figures.draw(diagnosis, class_weights=weights)
  axes = plates['class_similarity'].figure.axes
  titles = [a.get_title().splitlines() for a in axes[:4]]
  assert [title[0] for title in titles] == [
    'teacher, last layer',
    'student, logits',
    'baseline, last layer',
    'other, last layer',
  ]
  off = ~np.eye(6, dtype=bool)
  similarity = diagnosis.signal.similarity
  expected = np.corrcoef(
    similarity['student'][off], similarity['teacher'][off]
  )[0, 1]
  assert titles[1][1] == f'r = {expected:.2f} with the teacher'
  assert titles[3][1] == 'r = 1.00 with the teacher'
