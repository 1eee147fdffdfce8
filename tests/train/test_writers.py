import json

import pytest

from kdjax.train.writers import MetricsWriter, read_metrics


def _steps(folder):
  return [row['step'] for row in read_metrics(folder / 'metrics.jsonl')]


def test_rows_are_json_lines_with_a_step(tmp_path):
  with MetricsWriter(tmp_path, resume_step=0) as writer:
    writer.write(3, {'loss': 0.5})
    writer.write(6, {'loss': float('nan')})
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
    {'step': 3, 'loss': 0.5},
    {'step': 6, 'loss': None},
  ]
  (events,) = tmp_path.glob('events.out.tfevents.*')
  assert b'loss' in events.read_bytes()


def test_going_on_drops_the_rows_that_will_come_again(tmp_path):
  with MetricsWriter(tmp_path, resume_step=0) as writer:
    for step in (2, 4, 6):
      writer.write(step, {'loss': 1.0})
  with MetricsWriter(tmp_path, resume_step=4) as writer:
    writer.write(6, {'loss': 2.0})
  assert _steps(tmp_path) == [2, 4, 6]
  assert read_metrics(tmp_path / 'metrics.jsonl')[-1]['loss'] == 2.0


@pytest.mark.parametrize(
  'torn', ['{"step": 4, "lo', '{"step": 4}', '\0\0\n{"step": 4}\n']
)
def test_rows_end_at_the_first_damage(tmp_path, torn):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 2}\n' + torn)
  assert _steps(tmp_path) == [2]


def test_no_file_is_no_rows(tmp_path):
  assert read_metrics(tmp_path / 'metrics.jsonl') == []


def test_a_step_that_was_not_scored_is_scored_again(tmp_path):
  with MetricsWriter(tmp_path, resume_step=0) as writer:
    writer.write(4, {'train_loss': 1.0})
    writer.write(4, {'dev_accuracy': 0.5})
  with MetricsWriter(tmp_path, resume_step=4, is_scored=False) as writer:
    writer.write(4, {'dev_accuracy': 0.5})
  assert _steps(tmp_path) == [4, 4]
  with MetricsWriter(tmp_path, resume_step=4):
    pass
  assert _steps(tmp_path) == [4, 4]


@pytest.mark.parametrize('line', [b'5', b'[]', b'{"stfp": 4}', b'\xff{}'])
def test_what_is_no_row_ends_the_rows(tmp_path, line):
  content = b'{"step": 2}\n' + line + b'\n{"step": 6}\n'
  (tmp_path / 'metrics.jsonl').write_bytes(content)
  assert _steps(tmp_path) == [2]
