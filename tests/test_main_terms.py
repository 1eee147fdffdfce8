"""Terms and teachers on the command line."""

import functools
import json
import sys
from pathlib import Path

import pytest
import small_networks

from kdjax import cli, main, models

MLPS = 'teacher.widths=(12,)', 'student.widths=(6,)'
DIGITS = Path(__file__).parents[1] / 'experiments' / 'digits_kd.py'
SMALL = (
  'num_epochs=1',
  'eval_every_epochs=1',
  'batch_size=50',
  'baseline=false',
  'analysis=false',
  'teacher.num_epochs=1',
  'terms.crd.num_negatives=9',
  'terms.crd.dim=8',
)


@pytest.fixture
def call(monkeypatch, tmp_path):
  """Runs the command in this process, in a folder of its own."""

  def run(*values, networks=MLPS):
    values = *SMALL, *networks, *values
    given = [f'--config.{value}' for value in values]
    workdir = f'--workdir={tmp_path / "run"}'
    argv = ['main', f'--config={DIGITS}', workdir, *given]
    monkeypatch.setattr(sys, 'argv', argv)
    # What an experiment file defines stays in this module of ml_collections.
    monkeypatch.delitem(sys.modules, 'config_config', raising=False)
    cli.run(main.main)
    return tmp_path / 'run'

  return run


def test_a_method_and_others_beside_it(call):
  folder = call(
    'method=crd',
    "also=('l2', 'kd')",
    'terms.l2.weight=2.5',
    'teacher.num_seeds=2',
  )
  saved = json.loads((folder / 'config.json').read_text())
  assert (saved['method'], saved['also']) == ('crd', ['l2', 'kd'])
  assert saved['terms']['l2']['weight'] == 2.5
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  assert {key for line in lines for key in json.loads(line)} >= {
    'train_loss_crd',
    'train_loss_l2',
    'train_loss_kd',
  }
  results = json.loads((folder / 'results.json').read_text())
  assert results['student']['num_params'] == 64 * 6 + 6 + 6 * 10 + 10
  assert (folder / 'teacher2').exists()


def test_pairs_of_maps(call, monkeypatch):
  network = functools.partial(small_networks.Maps, width=3)
  monkeypatch.setitem(models.MODELS, 'maps', network)
  folder = call(
    "also=('at',)",
    "terms.at.pairs=(('stage1','stage2'),)",
    networks=(
      'student.name=maps',
      'student.widths=()',
      'teacher.name=maps',
      'teacher.widths=()',
      'teacher.batch_size=200',
    ),
  )
  saved = json.loads((folder / 'config.json').read_text())
  assert saved['terms']['at']['pairs'] == [['stage1', 'stage2']]
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  assert any('train_loss_at' in json.loads(line) for line in lines)


@pytest.mark.parametrize(
  ('values', 'named'),
  [
    (["also=('hnit',)"], ["'hnit'", "'hint'"]),
    (["also=('l2','l2')"], ['each term once']),
    (['method=crdd'], ["'crdd'", "'crd'"]),
    (['method=hint'], ['second stage', 'config.terms.hint.pairs']),
    (['method=at'], ['(2, 6)', '(2, 12)', 'maps']),
    (["terms.at.pairs=('stage1','stage2')"], ['terms.at.pairs', 'pairs of']),
    (['terms.at.pairs=((1, 2),)'], ['terms.at.pairs', 'pairs of']),
    (['terms.at.pairs=(1,)'], ['terms.at.pairs', 'pairs of']),
    (['terms.at.wieght=3'], ['wieght', 'config.terms.at.weight']),
    (['terms.at.weight=-1'], ['config.terms.at.weight=-1', '0 or more']),
    (['terms.l2.projector=cnn'], ['projector', "'conv'"]),
    (
      ['method=l2', 'terms.l2.projector=identity'],
      ['(2, 6)', '(2, 12)', 'projector'],
    ),
    (
      ['method=l2', "terms.l2.pairs=(('hidden','pooled'),)"],
      ["'hidden'", 'no feature'],
    ),
    (
      ['method=l2', "terms.l2.pairs=(('hidden/hiden1','pooled'),)"],
      ["'hiden1'", "'hidden1'"],
    ),
    (['method=crd', 'dataset.mixup=0.3'], ['mixup=0.3', 'crd']),
    (
      ['teacher.num_seeds=2', 'teacher.checkpoint=/no/where'],
      ['num_seeds=2', 'others'],
    ),
    (['teacher.num_seeds=2', 'teacher.shares=(1,)'], ['shares', '2 numbers']),
    (
      ['teacher.num_seeds=2', "teacher.shares=('a','b')"],
      ['shares', '2 numbers'],
    ),
    (['teacher.features_from=1'], ['features_from=1']),
    (["teacher.others=('/no/where',)"], ['others', 'not a trained network']),
    (['teacher.average=mean'], ["average='mean'", "'probs'"]),
  ],
)
def test_a_mistake_ends_with_one_line(values, named, call, capsys, tmp_path):
  with pytest.raises(SystemExit) as end:
    call(*values)
  assert end.value.code == 2
  stderr = capsys.readouterr().err
  assert 'Traceback' not in stderr
  *others, last = stderr.splitlines()
  assert last.startswith('error: ')
  assert not any(line.startswith('error: ') for line in others)
  for text in named:
    assert text in last
  assert not (tmp_path / 'run').exists()
