import dataclasses
import json
import re
from html.parser import HTMLParser

import handmade
import numpy as np
import pytest
from handmade import FINDINGS

from kdjax import analysis, report

SCRIPT = '<script>alert("x")</script>'
NO_END = {'meta', 'img', 'br', 'hr', 'link', 'input'}


def _write(folder, diagnosis=None, **arguments):
  return report.write(
    diagnosis or handmade.diagnosis(),
    folder,
    **{'title': 'A title', 'source': {'run': 'r1'}, **arguments},
  )


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """The folder of a report that nobody changes, and its files."""
  folder = tmp_path_factory.mktemp('reports') / 'deep' / 'down'
  return folder, _write(folder)


class Page(HTMLParser):
  """What a page consists of; a tag that is not closed is an error."""

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.attributes = [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, name, value) for name, value in attrs]
    if tag not in NO_END:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def values(self, tag, name):
    return [v for t, n, v in self.attributes if (t, n) == (tag, name)]


def _no_constant(name):
  raise AssertionError(f'{name} is no JSON')


def test_writes_what_it_says_it_wrote(written):
  folder, paths = written
  found = {p.relative_to(folder).as_posix() for p in paths}
  assert found == {
    'report.json',
    'report.md',
    'report.html',
    'figures/rescaling_factor.png',
    'figures/gradient_shares.png',
    'figures/class_similarity.png',
    'figures/class_relations.png',
    'figures/topk_mass.png',
    'figures/reliability.png',
    'figures/class_gain.png',
  }
  there = [p for p in folder.rglob('*') if p.is_file()]
  assert sorted(there) == sorted(paths)
  assert all(p.read_bytes().startswith(b'\x89PNG') for p in paths[3:])


def test_json_is_strict_and_complete(tmp_path):
  diagnosis = handmade.diagnosis()
  _write(tmp_path, diagnosis, source={'run': 'r1', 'method': 'kd'})
  text = (tmp_path / 'report.json').read_text()
  facts = json.loads(text, parse_constant=_no_constant)
  assert list(facts) == ['findings', 'metrics', 'settings', 'source']
  assert facts['findings'] == [
    {
      'code': 'teacher_weaker_than_student',
      'severity': 'error',
      'evidence': {'teacher_accuracy': 0.625, 'of_a_new_kind': None},
      'explanation': FINDINGS[0].explanation,
      'remedy': 'Take a better teacher.',
      'settings': {'method': 'ce'},
    },
    {
      'code': 'noisy_tail',
      'severity': 'warning',
      'evidence': {'tail_mass': 0.25},
      'explanation': 'The tail is noise.',
      'remedy': 'Keep the likeliest classes.',
      'settings': {'method': 'kd_topk', 'topk': 3, 'teacher.name': 'a b'},
    },
  ]
  assert facts['metrics'].pop('of_a_new_kind') is None
  expected = dict(diagnosis.metrics)
  del expected['of_a_new_kind']
  assert facts['metrics'] == expected
  assert list(facts['metrics']) == sorted(facts['metrics'])
  assert facts['settings'] == diagnosis.settings
  assert facts['source'] == {'run': 'r1', 'method': 'kd'}


def test_markdown_says_it_all(tmp_path):
  paths = _write(tmp_path, source={'run': 'r|1', 'method': 'kd'})
  text = (tmp_path / 'report.md').read_text()
  assert text.startswith('# A title\n\n- run: r\\|1\n- method: kd\n')
  assert 'λ = 0.75, T = 4, n = 2' in text
  for finding in FINDINGS:
    assert f'`{finding.code}`' in text
    assert finding.remedy in text
  assert 'The teacher \\<b\\>errs' in text
  assert '| teacher: accuracy | 62.5 % |' in text
  assert '\n--config.method=ce\n' in text
  flags = "--config.method=kd_topk --config.topk=3 --config.teacher.name='a b'"
  assert f'\n{flags}\n' in text
  assert '| accuracy (%) | 62.5 | 62.5 | 62.5 |' in text
  links = re.findall(r'!\[[^\]]+\]\(([^)]+)\)', text)
  assert [tmp_path / link for link in links] == paths[3:]
  findings = text.index('## Findings')
  assert findings < text.index('## Figures') < text.index('## Measures')


def test_page_asks_for_no_other_file(written):
  folder, paths = written
  text = (folder / 'report.html').read_text()
  page = Page(text)
  sources = page.values('img', 'src')
  assert len(sources) == len(paths) - 3
  assert all(s.startswith('data:image/png;base64,') for s in sources)
  assert all(h.startswith('#') for h in page.values('a', 'href'))
  assert not {'script', 'link', 'iframe', 'object'} & set(page.tags)
  assert not re.search(r'url\(|@import|//', re.sub('base64,[^"]*', '', text))


def test_page_is_for_everyone(written):
  folder, _ = written
  page = Page((folder / 'report.html').read_text())
  assert page.values('html', 'lang') == ['en']
  assert all(page.values('img', 'alt'))
  assert len(page.values('img', 'alt')) == page.tags.count('img')
  assert page.tags.count('h1') == 1
  assert page.tags.count('h2') == 3
  assert page.tags.count('th') == len(page.values('th', 'scope'))
  ids = page.values('section', 'id')
  assert [f'#{name}' for name in ids] == page.values('a', 'href')
  assert page.values('meta', 'name') == ['viewport']


def test_page_says_it_all(written):
  folder, _ = written
  text = (folder / 'report.html').read_text()
  assert '1 error and 1 warning found.' in text
  for finding in FINDINGS:
    assert f'<code>{finding.code}</code>' in text
    assert finding.remedy in text
  assert '<span>--config.topk=3</span>' in text
  assert 'of a new kind' in text


def test_text_is_never_markup(tmp_path):
  finding = dataclasses.replace(
    FINDINGS[0],
    explanation=SCRIPT,
    remedy=SCRIPT,
    evidence={SCRIPT: 1.0},
    settings={'dataset.name': SCRIPT},
  )
  diagnosis = handmade.diagnosis()
  diagnosis.scores.metrics[SCRIPT] = 1.0
  diagnosis = dataclasses.replace(diagnosis, findings=(finding,))
  _write(
    tmp_path,
    diagnosis,
    title=SCRIPT,
    source={SCRIPT: SCRIPT},
    class_names=[SCRIPT, '$x^{', 'a\nb', 'é' * 90, '日本'],
    class_weights={SCRIPT: np.eye(5)},
  )
  text = (tmp_path / 'report.html').read_text()
  assert 'script' not in Page(text).tags
  assert '&lt;script&gt;' in text
  prose = re.sub(
    '```.*?```', '', (tmp_path / 'report.md').read_text(), flags=re.S
  )
  assert not re.search(r'(?<!\\)<', prose)


def test_a_healthy_teacher_gets_a_page_too(tmp_path):
  healthy = analysis.Finding('healthy', 'info', {}, 'All is well.', 'None.')
  diagnosis = dataclasses.replace(handmade.diagnosis(), findings=(healthy,))
  _write(tmp_path, diagnosis)
  for name in ('report.md', 'report.html'):
    text = (tmp_path / name).read_text()
    assert 'Nothing wrong was found.' in text
    assert '--config' not in text


def test_two_classes_have_no_relations(tmp_path):
  paths = _write(tmp_path, handmade.diagnosis(2, networks=('teacher',)))
  assert [p.stem for p in paths[3:]] == [
    'rescaling_factor',
    'gradient_shares',
    'reliability',
    'class_gain',
  ]


def test_a_teacher_without_weight_rescales_nothing(tmp_path):
  diagnosis = handmade.diagnosis(weight=0.0)
  diagnosis.signal.rescaling_factor[:] = 1.0
  diagnosis.signal.gradient_shares.update(
    dict.fromkeys(diagnosis.signal.gradient_shares, 0.0)
  )
  names = {p.stem for p in _write(tmp_path, diagnosis)}
  assert not names & {'rescaling_factor', 'gradient_shares'}


def test_figures_of_an_older_report_are_removed(tmp_path):
  _write(tmp_path)
  other = tmp_path / 'figures' / 'mine.png'
  other.touch()
  _write(tmp_path, handmade.diagnosis(2))
  names = {p.stem for p in (tmp_path / 'figures').iterdir()}
  assert 'class_similarity' not in names
  assert {'reliability', 'mine'} < names


def test_a_thousand_classes_make_no_large_page(tmp_path):
  rng = np.random.default_rng(0)
  weights = {name: rng.normal(size=(1000, 8)) for name in handmade.ALL}
  diagnosis = handmade.diagnosis(1000, 5000)
  _write(tmp_path, diagnosis, class_weights=weights)
  assert (tmp_path / 'report.html').stat().st_size < 2e6


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'class_names': ['a']}, 'class_names has 1 entries, and there are 5'),
    ({'groups': [0] * 6}, 'groups has 6 entries, and there are 5'),
    (
      {'class_weights': {'student': np.ones((4, 2))}},
      r"class_weights\['student'\] has shape \(4, 2\)",
    ),
    ({'class_weights': {'teacher': np.ones(5)}}, r'shape \(5,\)'),
    (
      {'class_weights': {'teacher': np.full((5, 2), np.nan)}},
      'not finite',
    ),
  ],
)
def test_what_does_not_fit_is_refused(tmp_path, arguments, message):
  with pytest.raises(ValueError, match=message):
    _write(tmp_path / 'out', **arguments)
  assert not (tmp_path / 'out').exists()


def test_a_file_in_the_way_is_an_error(tmp_path):
  (tmp_path / 'taken').touch()
  with pytest.raises(OSError, match='taken'):
    _write(tmp_path / 'taken')


def test_whatever_is_measured_has_a_label(tmp_path):
  rng = np.random.default_rng(0)
  labels = rng.integers(6, size=90)
  logits = rng.normal(size=(3, 90, 6)) + 3 * np.eye(6)[labels]
  diagnosis = analysis.diagnose(
    logits[0],
    labels,
    student_logits=logits[1],
    baseline_logits=logits[2],
    class_weights=rng.normal(size=(6, 4)),
  )
  _write(tmp_path, diagnosis)
  assert 'Other measures' not in (tmp_path / 'report.md').read_text()
  facts = json.loads((tmp_path / 'report.json').read_text())
  assert facts['metrics'] == diagnosis.metrics
