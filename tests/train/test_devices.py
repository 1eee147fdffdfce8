"""The same run on 1, 2, 4 and 8 devices, in every arrangement."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name('device_program.py')


def _run(folder, num_devices, model_devices=1, split=(), stop=0, network='mlp'):
  given = [num_devices, model_devices, split, stop, network, str(folder)]
  done = subprocess.run(
    [sys.executable, PROGRAM, json.dumps(given)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  return {
    network: _run(tmp_path_factory.mktemp('one'), 1, network=network)
    for network in ('mlp', 'resnet8')
  }


def _close(found, expected):
  for name in ('params', 'rest'):
    for a, b in zip(found[name], expected[name], strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
  ('num_devices', 'model_devices', 'split', 'parts'),
  [
    (2, 1, (), 1),
    (8, 1, (), 1),
    (8, 8, ('student', 'teacher'), 8),
    (8, 2, ('student',), 2),
    (8, 4, ('teacher',), 1),
  ],
)
def test_any_number_of_devices_gives_what_one_gives(
  num_devices, model_devices, split, parts, alone, tmp_path
):
  found = _run(tmp_path, num_devices, model_devices, split)
  _close(found, alone['mlp'])
  assert found['parts'] == parts


def test_batch_statistics_are_those_of_the_whole_batch(alone, tmp_path):
  found = _run(tmp_path, 8, 2, ('student',), network='resnet8')
  _close(found, alone['resnet8'])


@pytest.mark.parametrize(('num_devices', 'model_devices'), [(1, 1), (4, 4)])
def test_what_eight_devices_saved_goes_on_on_others(
  num_devices, model_devices, alone, tmp_path
):
  split = ('student', 'teacher')
  assert _run(tmp_path, 8, 8, split, stop=1) is None
  found = _run(tmp_path, num_devices, model_devices, split)
  _close(found, alone['mlp'])
