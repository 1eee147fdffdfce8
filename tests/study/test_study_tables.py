import csv
import json
import math
import re

import handmade_records as handmade
import pytest

from kdjax.study import summary, tables

CE = [0.40, 0.42, 0.41]
TESTS = {
  'ce': CE,
  'kd': [0.45, 0.46, 0.47],  # a sure win
  'kd_pt': [0.41, 0.43, 0.40],  # chance
  'kd_sim': [0.30, 0.32, 0.30],  # a sure loss
}


def _markdown(records, **kwargs):
  return tables.markdown(
    summary.summarise(records), **{'title': 'A study'} | kwargs
  )


def _tables(text):
  """The tables, as lists of rows by header."""
  found = []
  for block in text.split('\n\n'):
    if block.startswith('|'):
      lines = [
        [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
        for line in block.splitlines()
      ]
      header, marks, *rows = lines
      assert all(mark in (':--', '--:') for mark in marks)
      assert all(len(row) == len(header) == len(marks) for row in rows)
      found.append([dict(zip(header, row, strict=True)) for row in rows])
  return found


def _column(table, name):
  return {row['arm']: row[name] for row in table}


def test_overview_and_details():
  scenarios = handmade.grid({handmade.CORRELATION: (0.0, 0.5)})
  records = handmade.study(scenarios)
  rows = summary.summarise(records)
  text = tables.markdown(rows, title='A study', note='Run by `me`.')
  overview, *details = _tables(text)
  assert text.startswith('# A study\n\nRun by `me`.\n\n')
  assert len(details) == 2
  assert list(overview[0]) == ['arm', 'correlation 0', 'correlation 0.5']
  assert [row['arm'] for row in overview] == [
    *dict.fromkeys(row.arm for row in rows),
    'teacher',
  ]
  for row in rows:
    name = f'correlation {row.scenario[handmade.CORRELATION]:g}'
    cell = _column(overview, name)[row.arm]
    number = f'{100 * row.test.mean:.2f} ± {100 * row.test.std:.2f}'
    assert cell == (f'**{number}**' if row.significant else number)
  assert {row.significant for row in rows} == {True, False}
  assert _column(overview, 'correlation 0')['teacher'] == '61.25'
  assert re.findall('^## .*$', text, re.MULTILINE) == [
    '## correlation 0',
    '## correlation 0.5',
  ]


def test_bold_is_what_is_significant_and_nothing_else():
  text = _markdown(handmade.records(TESTS))
  assert re.findall(r'\*\*(.*?)\*\*', text) == ['46.00 ± 1.00']
  assert _column(_tables(text)[0], 'test (%)') == {
    'ce': '41.00 ± 1.00',
    'kd': '**46.00 ± 1.00**',
    'kd_pt': '41.33 ± 1.53',
    'kd_sim': '30.67 ± 1.15',
    'teacher': '61.25',
  }
  assert 'Holm' in text


def test_details_of_an_arm():
  records = handmade.records(
    TESTS, settings={'learning_rate': 0.0123456, 'optimizer.weight_decay': 2e-4}
  )
  _, details = _tables(_markdown(records))
  # The differences are 5, 4 and 6: t(0.975, 2) / √3 = 2.48 of them.
  assert details[1] == {
    'arm': 'kd',
    'setting': 'learning_rate 0.0123, weight_decay 0.0002',
    'dev (%)': '47.00 ± 1.00',
    'test (%), last': '46.00 ± 1.00',
    'test (%), best on dev': '48.00 ± 1.00',
    'gain over CE [95 %]': '+5.00 [+2.52, +7.48]',
    'gain over KD [95 %]': '—',
  }
  assert _column(details, 'gain over CE [95 %]')['ce'] == '—'
  assert _column(details, 'gain over KD [95 %]')['ce'].startswith(
    '−5.00 [−7.48'
  )


def test_one_scenario_needs_no_name():
  text = _markdown(handmade.records(TESTS))
  assert [line for line in text.splitlines() if line.startswith('#')] == [
    '# A study',
    '## By arm',
  ]
  assert 'over 3 seeds' in text


def test_one_seed_shows_no_spread():
  text = _markdown(handmade.records({'ce': [0.4], 'kd': [0.5]}))
  overview, details = _tables(text)
  assert _column(overview, 'test (%)')['kd'] == '50.00 ± —'
  assert _column(details, 'gain over CE [95 %]')['kd'] == '+10.00 [—]'
  assert 'one seed' in text
  assert 'nothing is bold' in text
  assert 'nan' not in text
  assert '**' not in text


def test_arms_that_lack():
  text = _markdown(handmade.records({'kd_pt': CE, 'kd': CE}))
  assert 'Without an arm ce' in text
  assert 'gain over CE [' not in text
  assert 'gain over KD [' in text
  text = _markdown(handmade.records({'ce': CE, 'ls': CE}))
  assert 'gain over KD [' not in text
  assert 'teacher' not in text
  text = _markdown(handmade.records({'ls': CE}))
  assert 'Gains' not in text


def test_an_arm_may_lack_in_a_scenario():
  records = handmade.records({'ce': CE, 'kd': CE}, scenario={'a.r': 0.1})
  records += handmade.records({'ce': CE, 'ls': CE}, scenario={'a.r': 0.2})
  overview = _tables(_markdown(records))[0]
  assert _column(overview, 'r 0.2')['kd'] == '—'
  assert _column(overview, 'r 0.1')['ls'] == '—'
  assert _column(overview, 'r 0.2')['teacher'] == '—'


def test_teachers_that_differ_are_a_range():
  weak = handmade.TEACHER | {'test_accuracy': 0.5, 'num_params': 1000}
  records = handmade.records({'kd': CE})
  records += handmade.records({'kd_pt': CE}, teacher=weak)
  text = _markdown(records)
  assert _column(_tables(text)[0], 'test (%)')['teacher'] == '50.00 to 61.25'
  assert 'the teacher 1,000 to 54,321' in text


def test_the_diverged_are_said():
  records = handmade.records(TESTS)
  records[3]['diverged_at'] = 17
  text = _markdown(records)
  overview, details = _tables(text)
  assert _column(overview, 'test (%)')['kd'] == '**46.00 ± 1.00** †'
  assert _column(details, 'test (%), last')['kd'] == '46.00 ± 1.00 †'
  assert '† Diverged' in text
  assert 'kd (1 of 3 students)' in text
  assert '†' not in _markdown(handmade.records(TESTS))


def test_markup_in_names_is_text():
  records = handmade.records({'ce': CE}, scenario={'a.b': 'x|<y>'})
  text = _markdown(records, title='*loud*')
  assert text.startswith('# \\*loud\\*\n')
  assert list(_tables(text)[0][0]) == ['arm', r'b x\|\<y\>']


def test_a_gain_of_nothing_has_no_sign_of_loss():
  tests = {'ce': [0.5, 0.5, 0.5], 'kd': [0.49999, 0.49999, 0.5]}
  assert '−0.00' not in _markdown(handmade.records(tests))


def test_nothing_finished_yet():
  text = tables.markdown([], title='A study')
  assert text == '# A study\n\nNo student is finished.\n'


def _parsed(rows):
  text = tables.csv(rows)
  assert '\r' not in text
  return list(csv.DictReader(text.splitlines()))


def test_csv_has_every_digit():
  scenarios = handmade.grid({handmade.CORRELATION: (0.0, 0.5)})
  rows = summary.summarise(handmade.study(scenarios))
  lines = _parsed(rows)
  assert len(lines) == len(rows) == 16
  for row, line in zip(rows, lines, strict=True):
    assert (
      float(line[handmade.CORRELATION]) == row.scenario[handmade.CORRELATION]
    )
    assert (line['arm'], line['method']) == (row.arm, row.method)
    assert int(line['seeds']) == 5
    assert int(line['trial']) == row.trial
    assert int(line['num_params']) == row.num_params
    assert json.loads(line['significant']) is row.significant
    for name in ('dev', 'test', 'best'):
      value = getattr(row, name)
      assert float(line[f'{name}.mean']) == value.mean
      assert float(line[f'{name}.std']) == value.std
    for name in ('gain_over_ce', 'gain_over_kd'):
      gain = getattr(row, name)
      parts = ['mean', 'low', 'high', 'p_value', 'count']
      cells = [line[f'{name}.{part}'] for part in parts]
      assert [float(x or 'nan') for x in cells] == (
        pytest.approx([math.nan] * 5, nan_ok=True)
        if gain is None
        else list(gain)
      )
    for key, value in row.settings.items():
      assert float(line[f'setting.{key}']) == value
  assert lines[7]['fixed.topk'] == '10'
  assert lines[0]['fixed.topk'] == lines[0]['setting.temperature'] == ''
  assert lines[0]['adjusted_p'] == lines[0]['teacher.test_accuracy'] == ''
  assert float(lines[2]['teacher.test_accuracy']) == 0.6125


def test_csv_of_texts_lists_and_one_seed():
  records = handmade.records(
    {'ce': [0.5]}, scenario={'t.widths': (64, 32), 't.name': 'a, "b"'}
  )
  records[0]['diverged_at'] = 3
  (row,) = summary.summarise(records)
  assert math.isnan(row.test.std)
  (line,) = _parsed([row])
  assert json.loads(line['t.widths']) == [64, 32]
  assert line['t.name'] == 'a, "b"'
  assert line['test.std'] == ''
  assert line['diverged'] == '1'


def test_csv_starts_with_the_scenario_and_ends_with_the_settings():
  records = handmade.records({'ce': CE}, scenario={'a.r': 1})
  records += handmade.records({'kd': CE}, scenario={'a.m': 2}, fixed={'x': 1})
  header = tables.csv(summary.summarise(records)).splitlines()[0].split(',')
  assert header[:3] == ['a.r', 'a.m', 'arm']
  assert header[-2:] == ['fixed.x', 'setting.learning_rate']


def test_tables_end_with_a_line_break():
  rows = summary.summarise(handmade.records({'ce': CE}))
  for text in (tables.csv(rows), tables.markdown(rows, title='A study')):
    assert text.endswith('\n')
    assert not text.endswith('\n\n')


def test_tables_of_a_text():
  students = handmade.records({'ce': [0.40, 0.42, 0.41], 'kd': [0.5] * 3})
  rows = summary.summarise([handmade.of_text(x) for x in students])
  text = tables.markdown(rows, title='A text')
  assert 'Test perplexity after the last step:' in text
  assert '| arm | test |' in text
  assert '| kd | **20.00 ± 0.00** |' in text
  assert '| teacher | 16.33 |' in text
  assert 'a test perplexity of 16.33.' in text
  assert (
    '| dev | test, last | test, best on dev | gain over CE [95 %] |' in text
  )
  nats = math.log(0.5) - sum(math.log(x) for x in (0.40, 0.42, 0.41)) / 3
  assert f'| +{100 * (1 - math.exp(-nats)):.2f} [+' in text
  assert 'with the lowest dev perplexity' in text
  assert '100 · (1 − exp(−d)) %' in text
  assert 'ccurac' not in text
  header, _, line = tables.csv(rows).splitlines()
  found = dict(zip(header.split(','), line.split(','), strict=True))
  assert float(found['test.mean']) == pytest.approx(20)
  assert float(found['gain_over_ce.mean']) == pytest.approx(nats)
  assert float(found['teacher.test_perplexity']) == pytest.approx(10 / 0.6125)


def test_a_perplexity_that_is_no_number_is_a_dash():
  students = [handmade.of_text(handmade.record('ce', seed=i)) for i in (0, 1)]
  for key in ('test_perplexity', 'test_cross_entropy'):
    students[0]['metrics'][key] = None
  text = tables.markdown(summary.summarise(students), title='A text')
  assert '| ce | — ± — |' in text
