"""What the documents name exists, and what they compute is right."""

import ast
import functools
import math
import re
import runpy
import shlex
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from kdjax import cli, models
from kdjax import config as configuration
from kdjax.analysis import signal, thresholds
from kdjax.study import __main__ as study
from kdjax.study import config as study_configuration
from kdjax.train import peers, watchdog, workdirs

ROOT = Path(__file__).parents[1]
FAULTS = (ROOT / 'docs/faults.md').read_text()
SCALE = (ROOT / 'docs/scale.md').read_text()
DIAGNOSIS = (ROOT / 'docs/diagnosis.md').read_text()
DOCUMENTS = [*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')]
STUDY = (ROOT / 'docs/study.md').read_text()
LARGE = ('resnet50', 'resnet152')


def _cells(line):
  return [cell.strip() for cell in line.strip('|\n').split('|')]


def _table(text, first):
  """The rows of the table whose header begins with `first`, by column."""
  lines = iter(text.splitlines())
  header = next(line for line in lines if line.startswith(f'| {first} |'))
  next(lines)
  rows = []
  for line in lines:
    if not line.startswith('|'):
      return rows
    rows.append(dict(zip(_cells(header), _cells(line), strict=True)))


def _number(text):
  return float(text.replace(',', ''))


def _convolutions(jaxpr):
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'conv_general_dilated':
      yield equation
    for value in equation.params.values():
      if hasattr(value, 'jaxpr'):
        yield from _convolutions(value.jaxpr)


@functools.cache
def _sizes(name):
  """Parameters, and what the convolutions give for an image, one by one."""

  def run(inputs):
    model = models.build(
      name, input_shape=(224, 224, 3), num_classes=1000, seed=0
    )
    graphdef, params, rest = models.split(model)
    models.apply(graphdef, params, rest, inputs, train=False)
    return params

  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  # A CPU is given some of them as matrix products.
  with mock.patch.object(jax, 'default_backend', return_value='gpu'):
    jaxpr, params = jax.make_jaxpr(run, return_shape=True)(image)
  found = list(_convolutions(jaxpr.jaxpr))
  maps = [equation.outvars[0].aval.size for equation in found]
  kernels = [equation.invars[1].aval.shape for equation in found]
  macs = sum(
    size * math.prod(kernel[:-1])
    for size, kernel in zip(maps, kernels, strict=True)
  )
  return models.num_params(params), maps, macs + 2048 * 1000


def test_the_tests_that_are_named_exist():
  named = re.findall(r'`(tests/[\w/]+\.py)(?:::(\w+))?`', FAULTS)
  assert len(named) > 50
  for path, name in named:
    body = ast.parse((ROOT / path).read_text()).body
    functions = {x.name for x in body if isinstance(x, ast.FunctionDef)}
    assert name in functions, f'{path}::{name}'


def test_every_fault_has_a_test():
  rows = [line for line in FAULTS.splitlines() if line.startswith('| ')]
  header = [i for i, line in enumerate(rows) if line.startswith('| fault |')]
  assert len(header) == 6
  faults = rows[header[0] : rows.index('| status | meaning |')]
  for line in faults:
    if not line.startswith('| fault |'):
      assert '`tests/' in _cells(line)[2], line


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_what_is_linked_is_there(path):
  for target in re.findall(r'\]\((?!http)([^)#]+)\)', path.read_text()):
    assert (path.parent / target).exists(), target


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_keys_that_are_named_exist(path):
  known = configuration.keys(study_configuration.default())
  known += ['config.study.search']
  files = {'config.json', 'config.py'}
  named = set(re.findall(r'(?<![\w/.])config(?:\.[a-z_]+)+', path.read_text()))
  assert named - files <= set(known)


@pytest.mark.parametrize('text', [FAULTS, SCALE], ids=['faults', 'scale'])
def test_environment_variables_that_are_named_are_read(text):
  code = ''.join(path.read_text() for path in (ROOT / 'kdjax').rglob('*.py'))
  for name in re.findall(r'\b(?:JAX|KDJAX|TPU)_[A-Z_]+\b', text):
    is_of_jax = hasattr(jax.config, name.lower())
    assert is_of_jax or f'{name}' in code, name


def _commands(text):
  """The arguments of every run that a document shows."""
  found = re.findall(r'python -m kdjax\.(?:main|study) (.*)', text)
  # One is quoted as a whole, and ends with the quote.
  return [x.removesuffix("'") if x.count("'") % 2 else x for x in found]


@pytest.mark.parametrize(
  'arguments',
  [
    *_commands(SCALE),
    *_commands(STUDY),
    *(
      command
      for path in ROOT.glob('docs/studies/*.md')
      for command in _commands(path.read_text())
    ),
  ],
)
def test_commands_are_understood(arguments, monkeypatch):
  argv = ['main', *shlex.split(arguments)]
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(sys, 'argv', argv)
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)
  config, _ = cli.parse_config(argv, '')
  configuration.validate(config)


def test_a_folder_of_your_own_is_studied(tmp_path, monkeypatch):
  (code,) = re.findall(r'```python\n(.*?)```', STUDY, re.DOTALL)
  (command,) = (line for line in _commands(STUDY) if 'study_npz' in line)
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'experiments').symlink_to(ROOT / 'experiments')
  exec(code, {})
  argv = ['study', *shlex.split(command), '--config.quick=True']
  monkeypatch.setattr(sys, 'argv', [*argv, '--config.teacher.cache_dir=off'])
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)
  study.main()
  assert '| kd |' in (tmp_path / 'runs/study_npz/table.md').read_text()


def test_the_keys_that_may_change_are_all_named():
  text = SCALE.split('These keys may change')[1].split('Any other')[0]
  named = re.findall(r'`config\.([a-z_.]+)`', text)
  assert sorted(named) == sorted(workdirs.CIRCUMSTANCES)


def test_the_statuses_are_those_of_the_code():
  rows = {row['status']: row['meaning'] for row in _table(FAULTS, 'status')}
  assert list(rows) == ['0', '1', '2', '70', '75', '130, 143']
  assert 'watchdog' in rows[str(watchdog.EXIT_STALLED)]
  assert 'another host' in rows[str(peers.EXIT_LOST_HOST)]


def test_the_constants_are_those_of_the_networks():
  for name, macs in zip(LARGE, (4.09e9, 11.5e9), strict=True):
    num_params, maps, exact = _sizes(name)
    assert f'{num_params:,}' in SCALE
    assert f'{sum(maps):,}' in SCALE
    assert f'{max(maps):,}' in SCALE
    assert exact == pytest.approx(macs, rel=2e-3)


def test_the_memory_table():
  (p50, maps50, _), (p152, maps152, _) = map(_sizes, LARGE)
  networks = {
    'ResNet-50': (p50, p152, sum(maps50), max(maps152)),
    'ResNet-152': (p152, 0, sum(maps152), 0),
  }
  rows = _table(SCALE, 'trained')
  assert len(rows) == 12
  for row in rows:
    p, q, a, t = networks[row['trained']]
    d, m, g = (
      int(row[key]) for key in ('devices D', 'model axis M', 'parts G')
    )
    images = 1024 / d
    expected = {
      'parameters, momentum': 8 * p / m,
      'teacher': 4 * q / m,
      'gradient': 4 * p if g == 1 else 8 * p,
      'copies': (2 if m == 1 else 2 + 4) * (p + q),
      'activations': 6 * a * images / g,
      'of the teacher': 6 * t * images / g,
      'inputs': (3 * 224**2 * 3 + 2 * 4 * 224**2 * 3) * images,
    }
    for key, value in expected.items():
      assert row[key] == f'{value / 1e9:.2f}', (row, key)
    assert row['sum'] == f'{sum(expected.values()) / 1e9:.2f}', row


def _step_flops():
  return 3 * 2 * 4.09e9 + 2 * 11.5e9


def test_the_throughput_table():
  (_, maps50, _), (_, maps152, _) = map(_sizes, LARGE)
  moved = 2 * (15 * sum(maps50) + 2 * sum(maps152))
  assert f'{moved:,} bytes' in SCALE
  assert f'{_step_flops() / 1e9:.2f} GFLOP' in SCALE
  images = int(0.99 * 1_281_167)
  assert f'{images:,}' in SCALE
  rows = _table(SCALE, 'chip')
  assert [row['chip'] for row in rows] == ['H100 SXM', 'TPU v4', 'TPU v5e']
  for row in rows:
    peak = _number(row['peak, TFLOP/s']) * 1e12
    low, high = (share * peak / _step_flops() for share in (0.15, 0.4))
    memory = _number(row['memory, TB/s']) * 1e12 / moved
    assert row['images/s at 40 %'] == f'{high:,.0f}'
    assert row['at 15 %'] == f'{low:,.0f}'
    assert row['bound by memory'] == f'{memory:,.0f}'
    for key, d in {'hours on 1 at 15 %': 1, 'on 8': 8, 'on 64': 64}.items():
      assert row[key] == f'{90 * images / (d * low) / 3600:.1f}'


def test_what_the_sum_of_gradients_needs():
  moved = 2 * 63 / 64 * 4 * _sizes('resnet50')[0]
  seconds = 16 / (0.15 * 989e12 / _step_flops())
  text = ' '.join(SCALE.split())
  assert f'{moved / 1e9:.2f} GB for *D* = 64' in text
  assert f'lasts {seconds * 1e3:.1f} ms' in text
  assert f'{moved / seconds / 1e9:.0f} GB/s for the sum alone' in text


def test_the_cores_that_a_device_needs():
  rate = _number(re.search(r'A core decodes ([\d,]+) images/s', SCALE)[1])
  after = SCALE.split('**The host.**')[1]
  for row, chip in zip(
    _table(after, 'chip'), _table(SCALE, 'chip'), strict=True
  ):
    assert row['chip'] == chip['chip']
    peak = _number(chip['peak, TFLOP/s']) * 1e12
    for key, share in (('cores a device at 40 %', 0.4), ('at 15 %', 0.15)):
      needed = math.ceil(share * peak / _step_flops() / rate)
      assert row[key] == str(needed), row


def test_the_thresholds_of_a_diagnosis():
  """Each row of the table has the constants of its rule, and no others."""
  rows = {r['code'].strip('`'): r['when'] for r in _table(DIAGNOSIS, 'code')}
  constants = {
    'healthy': (),
    'teacher_weaker_than_student': (
      thresholds.MOST_LEAD,
      thresholds.MOST_DEVIATIONS,
    ),
    'teacher_term_vanishes': (thresholds.LEAST_EFFECTIVE_WEIGHT,),
    'teacher_near_one_hot': (
      thresholds.NEAR_ONE_HOT,
      thresholds.LEAST_DARK_MASS,
    ),
    'temperature_too_low': (thresholds.LEAST_DARK_MASS,),
    'temperature_too_high': (thresholds.LEAST_DIVERGENCE,),
    'teacher_class_relations_erased': (thresholds.LEAST_RELATION_SPREAD,),
    'no_class_structure': (thresholds.LEAST_RELATION_SHARE,),
    'noisy_tail': (thresholds.MOST_TAIL_MASS, thresholds.LEAST_TAIL_SHARE),
    'teacher_miscalibrated': (thresholds.MOST_OVERCONFIDENCE,),
    'low_fidelity': (thresholds.LEAST_FIDELITY,),
  }
  assert set(rows) == set(constants)
  for code, expected in constants.items():
    text = re.sub(r'at T = 1', '', rows[code])
    found = [float(x) for x in re.findall(r'(?<![\w²⁻])\d+(?:\.\d+)?', text)]
    found = [x for x in found if x != 1]  # of 1 − max p
    assert found == list(expected), code
  low, high = signal.TEMPERATURES
  assert f'between {low:g} and {high:g}' in DIAGNOSIS


def test_the_failures_are_those_of_the_benchmark():
  """Every case has its row, and its expected finding stands in bold."""
  cases = runpy.run_path(str(ROOT / 'benchmarks/failures.py'))['CASES']
  rows = {row['case']: row for row in _table(DIAGNOSIS, 'case')}
  for case in cases:
    assert f'**`{case.expected}`**' in rows[case.what]['found']
    assert bool(rows[case.what]['remedy']) == (case.expected != 'healthy')
