import json

import pytest

from kdjax.config import default
from kdjax.train import workdirs


def test_a_folder_is_claimed_and_recognised(tmp_path):
  workdirs.claim(tmp_path / 'a' / 'b', default())
  workdirs.claim(tmp_path / 'a' / 'b', default())
  saved = json.loads((tmp_path / 'a' / 'b' / 'config.json').read_text())
  assert saved == json.loads(default().to_json())


def test_where_the_data_lie_does_not_make_another_run(tmp_path):
  workdirs.claim(tmp_path, default())
  moved = default()
  moved.dataset.data_dir = '/elsewhere'
  workdirs.claim(tmp_path, moved)


def test_another_config_is_refused(tmp_path):
  workdirs.claim(tmp_path, default())
  other = default()
  other.schedule.decay_epochs = (1, 2, 3)
  with pytest.raises(ValueError, match=r'different are schedule\.decay_epochs'):
    workdirs.claim(tmp_path, other)


def test_a_file_is_no_workdir(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='is a file'):
    workdirs.claim(tmp_path / 'file', default())
