"""Every experiment file takes two real steps, on synthetic data.

Networks, method, optimiser and augmentation are as declared; epochs, batches
and data are small. The CIFAR-100 files share one teacher a worker. Smaller
ones stand in for networks that XLA compiles for minutes on a CPU; the declared
ones are only built. Studies run to their end, with what they
set for `quick`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from kdjax import cli, data, methods, models
from kdjax.study import __main__ as study
from kdjax.study import arms, scenarios
from kdjax.train import experiment, networks, progress, teacher

FILES = sorted((Path(__file__).parents[1] / 'experiments').glob('*.py'))
STUDIES = [path for path in FILES if path.stem.startswith('study_')]
RUNS = [path for path in FILES if path not in STUDIES]
# Name of a data set: the shape of an example, and the classes.
SHAPES = {
  'digits': ((8, 8, 1), 10),
  'mnist': ((28, 28, 1), 10),
  'fashion_mnist': ((28, 28, 1), 10),
  'cifar10': ((32, 32, 3), 10),
  'cifar100': ((32, 32, 3), 100),
  'synthetic_classes': ((100,), 50),
  'imagenet2012': ((32, 32, 3), 1000),
  'npz': ((13,), 3),
}
# Of a text: tokens of a row, and the vocabulary.
TEXTS = {
  'penn_treebank': (35, 90),
  'python_docs': (35, 90),
  'text_file': (35, 90),
}
STANDS_IN = {
  'resnet152': 'resnet34',
  'resnet50': 'resnet18',
  'resnet110': 'resnet56',
  'resnet32': 'resnet20',
  'resnet32x4': 'resnet8x4',
  'resnet8x4': 'resnet8',
  'wrn_40_2': 'wrn_16_2',
  'wrn_16_2': 'wrn_16_1',
  'lstm_medium': 'lstm_small',
  'lstm_small': 'lstm',
}
BATCH_SIZE = 8
STEPS = 2


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  """A folder for the teachers."""
  return tmp_path_factory.mktemp('shared')


def declared(path):
  """The configuration, as the command reads it."""
  argv = ['main', f'--config={path}']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, 'argv', argv)
    patch.delitem(sys.modules, 'config_config', raising=False)
    config, workdir = cli.parse_config(argv, '')
  assert workdir == Path('runs', path.stem)
  return config


def shrink(config, cache_dir):
  """Leaves two steps for the teacher and two for the student."""
  for run in (config, config.teacher):
    run.num_epochs = 1
    run.batch_size = BATCH_SIZE
  config.eval_batch_size = BATCH_SIZE
  config.schedule.warmup_steps = min(config.schedule.warmup_steps, STEPS)
  if config.dataset.num_labels:
    config.dataset.num_labels = STEPS * BATCH_SIZE
  config.teacher.cache_dir = str(cache_dir)
  for run in (config.student, config.teacher):
    name, run.name = run.name, STANDS_IN.get(run.name, run.name)
    if name == 'lstm_small':
      run.widths = (20, 20)
  if config.dataset.augment == 'resized_crop_flip':
    config.dataset.augment = 'crop_flip'  # images here are arrays


def synthetic(name, *, exclude_classes, num_examples=STEPS * BATCH_SIZE):
  """Two batches, and one example of each class that the student never sees."""
  if name in TEXTS:
    return synthetic_text(name, num_examples)
  shape, num_classes = SHAPES[name]
  rng = np.random.default_rng(0)
  seen = [k for k in range(num_classes) if k not in exclude_classes]

  def split(labels):
    size = len(labels), *shape
    inputs = (
      rng.integers(0, 256, size, np.uint8)
      if len(shape) == 3
      else rng.normal(size=size).astype(np.float32)
    )
    return data.Split(inputs, np.asarray(labels, np.int32))

  train = [*np.resize(seen, num_examples), *exclude_classes]
  held_out = np.resize(range(num_classes), BATCH_SIZE)
  return data.Dataset(
    name=name,
    train=split(train),
    dev=split(held_out),
    test=split(held_out),
    num_classes=num_classes,
    **scale(name),
    class_names=tuple(map(str, range(num_classes))),
  )


def synthetic_text(name, num_rows):
  length, num_classes = TEXTS[name]
  rng = np.random.default_rng(0)

  def split(num_rows):
    tokens = rng.integers(0, num_classes, (num_rows, length + 1), np.int32)
    return data.Split(tokens[:, :-1], tokens[:, 1:])

  splits = {
    'train': split(num_rows),
    'dev': split(BATCH_SIZE),
    'test': split(BATCH_SIZE),
  }
  return data.Dataset(
    name=name,
    num_classes=num_classes,
    **scale(name),
    class_names=tuple(map(str, range(num_classes))),
    text=data.Text(
      batching='contiguous',
      boundary=None,
      num_characters=dict.fromkeys(splits, 1000),
      token_counts=np.bincount(
        splits['train'].labels.reshape(-1), minlength=num_classes
      ),
    ),
    **splits,
  )


def scale(name):
  row = data.DATASETS.get(name)  # the user's own data are in no table
  return (
    {'mean': row.mean, 'std': row.std}
    if row
    else {'mean': (0.0,), 'std': (1.0,)}
  )


def last_step(folder):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert all(np.isfinite(list(row.values())).all() for row in rows)
  return rows[-1]['step']


@pytest.mark.parametrize('path', RUNS, ids=lambda path: path.stem)
def test_two_steps_of_teacher_and_student(path, shared, tmp_path, monkeypatch):
  config = declared(path)
  name, excluded = config.dataset.name, config.dataset.exclude_classes
  shrink(config, shared / 'teachers')
  dataset = synthetic(name, exclude_classes=excluded)
  asked = []

  def load(name, **_):
    asked.append(name)
    return dataset

  monkeypatch.setattr(data, 'load', load)
  results = experiment.run(config, tmp_path, progress.Reporter())
  assert asked == [name]
  assert last_step(tmp_path) == STEPS
  assert results['student']['best']['step'] == STEPS
  if name in TEXTS:
    assert results['student']['test_perplexity'] > 1
  else:
    assert 0 <= results['student']['test_accuracy'] <= 1
  assert json.loads((tmp_path / 'results.json').read_text()) == results
  needs_teacher = methods.get(config.method).needs_teacher
  assert bool(results['teacher']) == needs_teacher
  if needs_teacher:
    assert last_step(tmp_path / 'teacher') == STEPS
    sizes = [results[who]['num_params'] for who in ('teacher', 'student')]
    assert sizes[0] > sizes[1]
  assert ('baseline' in results) == config.baseline
  if config.baseline:
    assert last_step(tmp_path / 'baseline') == STEPS


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_the_declared_networks_are_there(path):
  config = declared(path)
  dataset = synthetic(config.dataset.name, exclude_classes=())
  for run in (config, teacher.config_of(config)):
    assert models.num_params(networks.shapes(run, dataset).params)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_the_docstring_states_the_command(path):
  docstring = path.read_text().split('"""')[1]
  name = 'study' if path in STUDIES else 'main'
  command = f'python -m kdjax.{name} --config=experiments/{path.name}'
  assert command in [line.strip() for line in docstring.splitlines()]


def test_the_named_experiments_are_there():
  cifar = ['ce', 'ls', 'kd', 'kdpt', 'kdsim', 'kdptsim', 'kdtopk', 'dkd']
  named = {f'cifar100_{method}' for method in cifar}
  named |= {'digits_kd', 'digits_missing_class', 'fashion_mnist_kd'}
  words = ['ce', 'ls', 'kd', 'kdpt', 'kdsim', 'kdtopk']
  named |= {f'ptb_lstm_{method}' for method in words} | {'python_docs_lm_kd'}
  assert named <= {path.stem for path in FILES}


@pytest.mark.parametrize(
  'path',
  [path for path in FILES if path.stem.startswith('cifar100_')],
  ids=lambda path: path.stem,
)
def test_the_cifar_files_are_one_recipe(path):
  config = declared(path)
  assert config.dataset.name == 'cifar100'
  assert (config.num_epochs, config.batch_size) == (240, 64)
  pair = f'{config.teacher.name}_{config.student.name}_'
  if pair == 'resnet56_resnet20_':
    pair = ''
  method = config.method.replace('_', '')
  written = path.stem.removeprefix('cifar100_')
  assert written.replace('_', '') == pair.replace('_', '') + method


def test_the_files_of_penn_treebank_differ_in_the_method_alone():
  files = [path for path in FILES if path.stem.startswith('ptb_lstm_')]
  recipes = set()
  for path in files:
    config = declared(path)
    written = path.stem.removeprefix('ptb_lstm_')
    assert config.method.replace('_', '') == written
    with config.unlocked():
      del config.method, config.topk
    recipes.add(config.to_json(sort_keys=True))
  assert len(files) == 6
  assert len(recipes) == 1


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_a_study_fits_its_data(path, monkeypatch):
  config = declared(path)
  name = config.dataset.name
  dataset = synthetic(name, exclude_classes=(), num_examples=10000)
  monkeypatch.setattr(experiment, 'load', lambda _: dataset)
  compared = arms.of(config)
  assert 'ce' in [arm.name for arm in compared]
  for place in scenarios.of(config):
    scenarios.check(place, compared)


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_a_quick_study_runs_to_its_end(path, tmp_path, monkeypatch, capsys):
  load = data.load

  def load_or_make_up(name, **options):
    if name == 'synthetic_classes':
      return load(name, **options)
    return synthetic(name, exclude_classes=(), num_examples=1000)

  monkeypatch.setattr(data, 'load', load_or_make_up)
  argv = ['study', f'--config={path}', f'--workdir={tmp_path}']
  argv += ['--config.quick=True']
  if path.stem == 'study_cifar100':
    # To choose, 'auto' compiles both ways, the longer one for half a minute.
    argv += ['--config.study.over_members=scan']
  monkeypatch.setattr(sys, 'argv', argv)
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)
  study.main()
  c = json.loads((tmp_path / 'config.json').read_text())['study']
  students = c['num_trials'] * c['num_search_seeds'] + c['num_seeds']
  num_rows = len(c['scenarios']) * len(c['arms'])
  lines = (tmp_path / 'runs.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert len(rows) == num_rows * students
  assert {row['diverged_at'] for row in rows} == {None}
  table = (tmp_path / 'table.csv').read_text().splitlines()
  assert len(table) == 1 + num_rows
  assert '| ce |' in (tmp_path / 'table.md').read_text()
  assert (tmp_path / 'figures/rescaling_factors.png').stat().st_size
  assert str(tmp_path) in capsys.readouterr().out.splitlines()[-1]
