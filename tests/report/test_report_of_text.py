"""A report of a text: its figures and tables, tokens and perplexity."""

import dataclasses
import json

import handmade
import numpy as np
import pytest
from handmade import legend

from kdjax import analysis, report
from kdjax.analysis.frequency import ByFrequency
from kdjax.report import content, figures, frequency, measures, style


def groups(**changes):
  """Three groups with values that are known."""
  given = {
    'counts': np.array([[1, 9], [9, 1200], [5000, 5000]]),
    'low': np.array([-1.0, 0.5, 0.5]),
    'median': np.array([0.75, 1.0, 1.5]),
    'high': np.array([1.0, 2.0, 3.0]),
    'mean': np.array([0.5, 1.25, 2.0]),
  }
  return ByFrequency(**(given | changes))


NATS = {
  'teacher': groups(mean=np.array([7.0, 4.0, 2.0])),
  'student': groups(mean=np.array([7.5, 4.5, 2.25])),
}
TICKS = ['1–9', '9–1,200', '5,000']


def labels(axes):
  return [
    label.get_text().replace('\n', '') for label in axes.get_xticklabels()
  ]


def test_the_figure_of_token_frequency():
  figure = frequency.token_frequency(groups(), NATS)
  left, right = figure.axes
  assert labels(left) == labels(right) == TICKS
  lines = {line.get_label(): line.get_ydata() for line in left.lines}
  np.testing.assert_array_equal(lines['median'], groups().median)
  np.testing.assert_array_equal(lines['mean'], groups().mean)
  ends = [path.vertices[:, 1] for path in left.collections[0].get_paths()]
  np.testing.assert_array_equal(
    ends, np.stack([groups().low, groups().high], 1)
  )
  assert left.get_yscale() == 'linear'
  for line, (name, found) in zip(right.lines, NATS.items(), strict=True):
    assert line.get_label() == name
    np.testing.assert_array_equal(line.get_ydata(), found.mean)
  assert right.get_ylim()[0] == 0
  assert len({line.get_linestyle() for line in right.lines}) == 2


def test_factors_that_are_large_or_infinite(tmp_path):
  given = groups(mean=np.array([1.0, np.inf, 900.0]))
  figure = frequency.token_frequency(given, NATS)
  left = figure.axes[0]
  assert left.get_yscale() == 'symlog'
  assert 'log beyond ±2' in left.get_ylabel()
  style.save(figure, tmp_path / 'a.png')
  table, _ = frequency.tables(given, NATS)
  assert [row[-1] for row in table.rows] == ['1', 'inf', '900']


def test_the_tables_of_token_frequency():
  factor, nats = frequency.tables(groups(), NATS)
  assert [row[0] for row in factor.rows] == TICKS
  assert factor.rows[0][1:] == ('-1', '0.75', '1', '0.5')
  assert nats.header[1:] == ('teacher', 'student')
  assert nats.rows[2] == ('5,000', '2', '2.25')


def test_perplexity_is_what_to_know_first():
  named = {f'{name}_accuracy': 0.5 for name in measures.NETWORKS}
  assert measures.headlines(named)[0] == ('teacher: accuracy', '50.0 %')
  named |= {'teacher_perplexity': 51.25, 'student_perplexity': 60.0}
  found = measures.headlines(named)
  assert found == (
    ('teacher: perplexity', '51.2'),
    ('student: perplexity', '60'),
  )
  table = measures.tables(named)[0]
  assert table.rows[0] == ('perplexity', '51.2', '60', '–')
  assert any(row[0] == 'accuracy (%)' for row in table.rows)


@pytest.mark.parametrize('chosen', [None, 40])
def test_few_tokens_are_drawn_with_their_names(chosen):
  names = [f'w{k}' for k in range(50)]
  diagnosis = handmade.text(chosen=chosen)
  plates = figures.draw(diagnosis, class_names=names)
  assert next(iter(plates)) == 'token_frequency'
  for name in ('class_similarity', 'class_relations'):
    figure = plates[name].figure
    axes = figure.axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(shown) == sorted(names[-32:])  # the most frequent
    assert axes.images[0].get_array().shape == (32, 32)
    assert '32 most frequent of 50 tokens' in figure.get_supxlabel()
    # Token 0 has no examples.
    among = chosen or 49
    assert f'among {among}' in figure.get_supxlabel()


def test_a_cell_is_of_the_tokens_that_it_names():
  diagnosis = handmade.text(chosen=40)
  signal = diagnosis.signal
  places = {int(k): i for i, k in enumerate(signal.classes)}
  axes = figures.draw(diagnosis)['class_relations'].figure.axes[0]
  order = [places[int(t.get_text())] for t in axes.get_yticklabels()]
  expected = 100 * signal.relations[np.ix_(order, order)]
  shown = axes.images[0].get_array()
  off = ~np.eye(32, dtype=bool)
  np.testing.assert_allclose(shown.data[off], expected[off], rtol=1e-5)


def test_the_last_layer_is_of_the_tokens_too():
  diagnosis = handmade.text(chosen=40)
  rng = np.random.default_rng(0)
  weights = {name: rng.normal(size=(50, 4)) for name in handmade.ALL}
  figure = figures.draw(diagnosis, class_weights=weights)[
    'class_similarity'
  ].figure
  axes = figure.axes[0]
  here = [int(label.get_text()) for label in axes.get_yticklabels()]
  expected = handmade.similarity(weights['teacher'][here])
  off = ~np.eye(32, dtype=bool)
  np.testing.assert_allclose(
    axes.images[0].get_array().data[off], expected[off], atol=1e-5
  )
  chosen = diagnosis.signal.classes
  tables = [
    handmade.similarity(weights[name][chosen])[~np.eye(40, dtype=bool)]
    for name in ('teacher', 'student')
  ]
  r = np.corrcoef(tables)[0, 1]
  assert f'r = {r:.2f}' in figure.axes[1].get_title()


def test_gains_are_of_the_most_frequent_tokens():
  figure = figures.draw(handmade.text(chosen=40))['class_gain'].figure
  axes = figure.axes[0]
  shown = {label.get_text() for label in axes.get_yticklabels()}
  assert shown == {str(k) for k in range(20, 50)}
  title = axes.get_title()
  assert title.startswith('Accuracy at the 30 most frequent tokens: student')
  assert 'of 30 tokens gain' in title


def test_examples_are_tokens():
  plates = figures.draw(handmade.text())
  assert 'a token (60 of 60)' in legend(plates['rescaling_factor'].figure)
  lower = plates['reliability'].figure.axes[3]
  assert lower.get_ylabel() == 'tokens'
  report = content.gather(handmade.text(chosen=40), (), title='', source={})
  basis = dict(report.source)
  assert basis['Examples (tokens)'].startswith('60 for')
  assert basis['Classes (the tokens)'].endswith('of the 40 most frequent')


@pytest.mark.parametrize(
  ('token', 'shown'),
  [
    ('the', 'the'),
    ("'", "'"),
    (' ', "' '"),
    ('\n', r"'\n'"),
    ('', "''"),
    ('a b', "'a b'"),
    ('\u00a0', r"'\xa0'"),
    ('日', '日'),
  ],
)
def test_a_token_is_seen(token, shown):
  assert style.visible(token) == shown


def test_thousands_of_classes_that_are_no_text():
  diagnosis = handmade.diagnosis(50)
  few = handmade.signal(40, 1)
  diagnosis = dataclasses.replace(
    diagnosis,
    signal=diagnosis.signal._replace(
      classes=np.arange(40),
      relations=few.relations,
      similarity=few.similarity,
    ),
  )
  plates = figures.draw(diagnosis, groups=np.arange(50) // 10)
  assert 'token_frequency' not in plates
  figure = plates['class_relations'].figure
  assert '32 most frequent of 50 classes' in figure.get_supxlabel()


def test_whatever_is_measured_of_a_text_has_a_label(tmp_path):
  rng = np.random.default_rng(0)
  labels = rng.integers(6, size=(9, 10))
  labels[-1, 5:] = -1
  logits = rng.normal(size=(3, 9, 10, 6))
  logits[..., :3] += 2
  diagnosis = analysis.diagnose(
    logits[0],
    labels,
    student_logits=logits[1],
    baseline_logits=logits[2],
    class_weights=rng.normal(size=(6, 4)),
  )
  report.write(
    diagnosis,
    tmp_path,
    title='a text',
    source={},
    class_names=['a', "' '", r"'\n'", '<b>', '$', '|'],
  )
  text = (tmp_path / 'report.md').read_text()
  assert 'Other measures' not in text
  assert '| perplexity |' in text
  assert '### Rescaling factor w by token frequency' in text
  assert '<b>' not in (tmp_path / 'report.html').read_text()
  facts = json.loads((tmp_path / 'report.json').read_text())
  assert facts['metrics'] == diagnosis.metrics
  picture = tmp_path / 'figures' / 'token_frequency.png'
  assert picture.exists()
  report.write(handmade.diagnosis(), tmp_path, title='no text', source={})
  assert not picture.exists()
