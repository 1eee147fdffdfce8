import tempfile

import photos
import pytest

from kdjax import data


@pytest.fixture(scope='session')
def root(tmp_path_factory):
  """A data_dir in which digits are prepared."""
  folder = tmp_path_factory.mktemp('prepared')
  data.load('digits', data_dir=str(folder))
  return folder


@pytest.fixture(scope='session')
def imagenet_root(tmp_path_factory):
  """A data_dir in which six classes of made-up ImageNet are prepared."""
  folder = tmp_path_factory.mktemp('imagenet')
  photos.prepare_imagenet(folder)
  return folder


@pytest.fixture(autouse=True)
def _private_tmp(tmp_path, monkeypatch):
  """TFDS leaves an empty folder for every builder that is not prepared."""
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path.parent))
