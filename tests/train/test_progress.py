import io
import subprocess
import sys

import pytest
from rich.console import Console

from kdjax.train import progress
from kdjax.train.progress import Reporter, show_results

RESULTS = {
  'teacher': {'test_accuracy': 0.9, 'num_params': 1234},
  'student': {
    'test_accuracy': 0.85,
    'num_params': 12,
    'best': {'step': 3, 'test_accuracy': 0.86, 'dev_accuracy': 0.9},
  },
  'wall_seconds': 12.3,
}


@pytest.fixture
def reporter(request):
  reporter = Reporter()
  terminal = getattr(request, 'param', False)
  reporter._console = Console(
    file=io.StringIO(), force_terminal=terminal, width=100
  )
  return reporter


def _text(reporter):
  return reporter._console.file.getvalue()


def _train(reporter):
  with reporter.phase('student', num_steps=8, start=0) as phase:
    for step in (1, 4, 8):
      phase.update(step, 1234.5, f'dev accuracy {step}%')


def test_elsewhere_a_phase_is_one_plain_line(reporter):
  _train(reporter)
  assert _text(reporter) == (
    'student   step 8/8  1,234 images/s  dev accuracy 8%  0s\n'
  )


def test_a_long_phase_says_how_long_it_still_takes(reporter, monkeypatch):
  now = iter(range(0, 10**6, 30))
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(now))
  _train(reporter)
  first, second, end = _text(reporter).splitlines()
  assert first.endswith('step 4/8  1,234 images/s  dev accuracy 4%  40s left')
  assert second.endswith('0s left')
  assert 'left' not in end


@pytest.mark.parametrize('reporter', [True], indirect=True)
def test_a_terminal_shows_a_bar(reporter):
  _train(reporter)
  assert 'student' in _text(reporter)
  assert '8/8' in _text(reporter)
  assert '━' in _text(reporter)


def test_the_table_has_a_row_for_each_network(reporter):
  show_results(reporter, RESULTS)
  text = _text(reporter)
  for cell in ('teacher', '1,234', '90.00%', 'student', '85.00%', '86.00%'):
    assert cell in text
  assert 'baseline' not in text
  assert 'excluded' not in text


def test_a_reader_that_goes_away_ends_nothing():
  code = """
import sys
from kdjax.train.progress import Reporter
reporter = Reporter()
for _ in range(20000):
  reporter.say('a line')
print('went on', file=sys.stderr)
"""
  with subprocess.Popen(
    [sys.executable, '-c', code], stdout=-1, stderr=-1, text=True
  ) as process:
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == 'went on\n'
  assert process.returncode == 0
