"""A whole study of a text: its score, its files, and what it refuses."""

import csv
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import small_study

from kdjax import cli, main
from kdjax.study import run
from kdjax.study.config import override
from kdjax.train import progress

ARMS = ('ce', 'kd', 'kd_topk_bucket topk=2')
NUM_TRIALS, NUM_SEEDS = 2, 2
_FILE = """
from kdjax.study.config import default


def get_config():
  config = default()
  config.dataset.name = 'text_file'
  config.dataset.data_dir = {path!r}
  config.dataset.dev_fraction = 0.2
  config.dataset.text.sequence_length = 5
  config.dataset.augment = 'none'
  config.student.name = config.teacher.name = 'lstm'
  config.student.widths, config.teacher.widths = (4,), (8,)
  config.batch_size = config.teacher.batch_size = 4
  config.eval_batch_size = 4
  config.num_epochs = config.teacher.num_epochs = 2
  config.eval_every_epochs = 1
  config.learning_rate = config.teacher.learning_rate = 0.5
  config.schedule.name = 'constant'
  config.study.arms = {arms!r}
  config.study.search.learning_rate = (0.1, 1.0)
  config.study.search.temperature = (1.0, 2.0)
  config.study.over_members = 'vmap'
  config.study.num_trials = 2
  config.study.num_seeds = 2
  return config
"""


def write(folder):
  """The study's file, and the text: words of which each prefers some others."""
  rng = np.random.default_rng(0)
  words = ['red', 'old', 'cat', 'sat', 'ran', 'far']
  chances = rng.dirichlet(np.full(6, 0.3), size=6)
  found = [0]
  for _ in range(600):
    found.append(rng.choice(6, p=chances[found[-1]]))
  lines = [
    ' '.join(words[i] for i in row) for row in np.reshape(found[1:], (60, 10))
  ]
  (folder / 'words.txt').write_text('\n'.join(lines) + '\n')
  path = folder / 'small.py'
  path.write_text(_FILE.format(path=str(folder / 'words.txt'), arms=ARMS))
  return path


def carry_out(config, workdir):
  return run.run(config, workdir, progress.Reporter(quiet=True))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Where data and teachers are kept, and the study's file."""
  folder = tmp_path_factory.mktemp('text_study')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(folder / 'cache'))
    patch.setenv('TFDS_DATA_DIR', str(folder / 'tfds'))
    write(folder)
    yield folder


@pytest.fixture(scope='module')
def finished(folder):
  """The folder of a study, and its rows."""
  rows = carry_out(cli.load_config(folder / 'small.py'), folder / 'run')
  return folder / 'run', rows


@pytest.fixture
def config(folder):
  return cli.load_config(folder / 'small.py')


def test_the_lines_of_a_text_have_perplexities(finished):
  for row in small_study.read(finished[0]):
    metrics, teacher = row['metrics'], row['teacher']
    assert set(teacher) == {'dev_perplexity', 'test_perplexity', 'num_params'}
    on_dev = {'dev_perplexity', 'dev_cross_entropy'}
    if row['phase'] == 'search':
      assert set(metrics) == on_dev
      continue
    assert set(metrics) == on_dev | {
      'test_perplexity',
      'test_cross_entropy',
      'best',
      'curve',
      'rescaling_factor',
    }
    for split in ('dev', 'test'):
      assert metrics[f'{split}_perplexity'] == pytest.approx(
        math.exp(metrics[f'{split}_cross_entropy'])
      )
    assert metrics['best']['dev_perplexity'] == min(
      metrics['curve']['dev_perplexity']
    )


def test_the_setting_that_surprises_least_on_dev_is_trained_again(finished):
  rows = small_study.read(finished[0])
  chosen = set()
  for arm in ARMS:
    of_arm = [row for row in rows if row['arm'] == arm]
    tried = {
      row['trial']: row['metrics']['dev_cross_entropy']
      for row in of_arm
      if row['phase'] == 'search'
    }
    assert len(tried) == NUM_TRIALS
    final = {row['trial'] for row in of_arm if row['phase'] == 'final'}
    assert final == {min(tried, key=tried.get)}
    chosen |= final
  assert chosen != {0}  # else the test could not fail


def test_gains_of_a_text_are_of_cross_entropy(finished):
  workdir, rows = finished
  final = [r for r in small_study.read(workdir) if r['phase'] == 'final']
  nats = {
    arm: [r['metrics']['test_cross_entropy'] for r in final if r['arm'] == arm]
    for arm in ARMS
  }
  table = csv.DictReader((workdir / 'table.csv').read_text().splitlines())
  for line, row in zip(table, rows, strict=True):
    assert float(line['test.mean']) == pytest.approx(
      np.mean(np.exp(nats[row.arm]))
    )
    assert float(line['teacher.test_perplexity'] or 1) >= 1
    if row.arm == 'ce':
      continue
    gain = np.mean(np.subtract(nats['ce'], nats[row.arm]))
    assert row.gain_over_ce.mean == pytest.approx(gain)
    assert float(line['gain_over_ce.mean']) == pytest.approx(gain)


def test_the_files_of_a_text_say_perplexity(finished):
  workdir, rows = finished
  text = (workdir / 'table.md').read_text()
  assert 'Test perplexity after the last step:' in text
  assert 'a test perplexity of ' in text
  assert 'with the lowest dev perplexity' in text
  assert 'accurac' not in text.lower()
  shown = f'{100 * -math.expm1(-rows[1].gain_over_ce.mean):+.2f}'
  assert f'| {shown.replace("-", "−")} [' in text
  names = {path.name for path in (workdir / 'figures').iterdir()}
  assert names == {'learning_curves.png', 'rescaling_factors.png'}


@pytest.mark.parametrize('arm', ARMS[1:])
def test_a_line_of_a_text_trains_the_same_student(
  arm, finished, folder, tmp_path, monkeypatch
):
  rows = small_study.read(finished[0])
  row = [x for x in rows if x['arm'] == arm and x['phase'] == 'final'][-1]
  flags = [f'--config.{key}={value}' for key, value in row['config'].items()]
  argv = ['main', f'--config={folder / "small.py"}', f'--workdir={tmp_path}']
  monkeypatch.setattr(sys, 'argv', [*argv, *flags])
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)
  main.main()
  results = json.loads(Path(tmp_path, 'results.json').read_text())
  metrics, student = row['metrics'], results['student']
  for key in ('dev_perplexity', 'test_perplexity'):
    assert student[key] == pytest.approx(metrics[key], rel=1e-4)
    assert student['best'][key] == pytest.approx(metrics['best'][key], rel=1e-4)
    assert results['teacher'][key] == pytest.approx(row['teacher'][key])
  assert student['best']['step'] == metrics['best']['step']


def test_a_study_of_a_text_whose_students_all_diverge_ends(config, tmp_path):
  config = override(
    config,
    {
      'study.search.learning_rate': (1e30, 1e31),
      'study.arms': ('ce', 'ls'),
      'study.scenarios': ((('batch_size', 4),), (('batch_size', 8),)),
    },
  )
  rows = carry_out(config, tmp_path / 'run')
  assert [row.diverged for row in rows] == [NUM_SEEDS] * 4
  assert '† Diverged' in (tmp_path / 'run/table.md').read_text()


@pytest.mark.parametrize(
  ('values', 'said'),
  [
    ({'study.arms': ('ce', 'hint')}, 'hint cannot be used on a text'),
    ({'dataset.num_labels': 5}, 'config.dataset.num_labels=5'),
    ({'loss_block_tokens': 8}, 'config.loss_block_tokens=8: a study'),
    (
      {'study.arms': ('ce', 'kd loss_block_tokens=8')},
      'config.loss_block_tokens=8: a study',
    ),
    ({'student.name': 'mlp'}, "'mlp' does not read the data set 'text_file'"),
    (
      {'study.arms': ('ce', 'kd_sampled')},
      'config.teacher.precompute_logits=False: set it',
    ),
    (
      {
        'study.arms': ('ce',),
        'study.scenarios': (
          (('dataset.name', 'text_file'), ('student.name', 'lstm')),
          (('dataset.name', 'digits'), ('student.name', 'mlp')),
        ),
      },
      'the data sets text_file, digits: perplexities and accuracies',
    ),
  ],
)
def test_what_a_study_of_a_text_refuses(values, said, config, tmp_path):
  with pytest.raises(ValueError, match=re.escape(said)) as error:
    carry_out(override(config, values), tmp_path / 'run')
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()
