import json
import subprocess
import sys

import pytest

from kdjax import config as configuration
from kdjax.train import workdirs


def test_the_first_run_writes_its_config(tmp_path):
  config = configuration.default()
  with workdirs.claimed(tmp_path / 'new' / 'run', config):
    found = json.loads((tmp_path / 'new' / 'run' / 'config.json').read_text())
  assert found == json.loads(config.to_json())


def test_another_place_is_the_same_run(tmp_path):
  config = configuration.default()
  with workdirs.claimed(tmp_path, config):
    pass
  config.dataset.data_dir = '/elsewhere'
  config.model_devices = 2
  with workdirs.claimed(tmp_path, config):
    pass


def test_another_run_is_refused_with_its_keys(tmp_path):
  config = configuration.default()
  with workdirs.claimed(tmp_path, config):
    pass
  config.seed, config.optimizer.momentum = 1, 0.5
  with (
    pytest.raises(ValueError, match=r'different are optimizer\.momentum, seed'),
    workdirs.claimed(tmp_path, config),
  ):
    pass


def test_two_runs_do_not_share_a_workdir(tmp_path):
  """The second is told who is there; the lock goes with its process."""
  code = f"""
import os, sys
from pathlib import Path
from kdjax import config
from kdjax.train import workdirs
with workdirs.claimed(Path({str(tmp_path)!r}), config.default()):
  print('claimed', flush=True)
  sys.stdin.read()
  os._exit(1)
"""
  with subprocess.Popen(
    [sys.executable, '-c', code], stdin=-1, stdout=-1, text=True
  ) as first:
    assert first.stdout.readline() == 'claimed\n'
    with (
      pytest.raises(OSError, match=f'is in use by process {first.pid} on '),
      workdirs.claimed(tmp_path, configuration.default()),
    ):
      pass
    first.communicate()
  with workdirs.claimed(tmp_path, configuration.default()):
    pass


@pytest.mark.parametrize('content', ['', '{', '{"seed": '])
def test_a_damaged_config_is_named(content, tmp_path):
  (tmp_path / 'config.json').write_text(content)
  with (
    pytest.raises(ValueError, match=r'config\.json is damaged'),
    workdirs.claimed(tmp_path, configuration.default()),
  ):
    pass


def test_a_saved_config_is_carried_out_elsewhere():
  config = configuration.default()
  saved = json.loads(config.to_json())
  with config.unlocked():
    config.seed, config.model_devices = 5, 4
  config.dataset.data_dir = '/elsewhere'
  found = workdirs.carried_out_as(config, saved)
  assert (found.seed, found.model_devices) == (0, 4)
  assert found.dataset.data_dir == '/elsewhere'
  assert not workdirs.different_keys(json.loads(found.to_json()), saved)
