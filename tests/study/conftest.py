"""What many tests share: tiny data, their teacher, and a trainer."""

import functools

import pytest
from students import SEEDS, Keeper, make_config, make_world

from kdjax import models
from kdjax.models.residual import BasicBlock, ResidualNetwork
from kdjax.study import arms, scene


@pytest.fixture
def config():
  return make_config()


@pytest.fixture
def convolutional(config, monkeypatch):
  """Of students with convolutions and batch norm, for cropped images."""
  monkeypatch.setitem(
    models.MODELS,
    'tiny',
    functools.partial(
      ResidualNetwork,
      block=BasicBlock,
      num_blocks=(),  # a stem is enough, and compiles in no time
      widths=(4,),
      stem_size=3,
      stem_stride=2,
      stem_pools=False,
      last_scale=1.0,
    ),
  )
  config.student.name = 'tiny'
  config.student.widths = ()
  config.dataset.augment = 'crop_flip'
  config.dataset.num_labels = 0
  config.dataset.exclude_classes = ()
  config.num_epochs = 3
  return config


@pytest.fixture(scope='session')
def vectors():
  return make_world((6,), train=100, dev=33, test=37)


@pytest.fixture(scope='session')
def images():
  return make_world((8, 8, 3), train=24, dev=10, test=10, as_images=True)


@pytest.fixture(scope='session')
def mesh():
  """Two devices."""
  return scene.make_mesh()


@pytest.fixture(scope='session')
def trainer(mesh):
  """One for all tests, since it keeps the programs that it has compiled."""
  return Keeper(mesh)


@pytest.fixture(scope='session')
def where(vectors, mesh):
  """Vectors with their teacher; not to be changed."""
  return vectors.scene(make_config(), mesh)


@pytest.fixture(scope='session')
def family_trials():
  """One of each method of the family, all with other settings."""
  c = make_config()
  return [arms.trials(c, arm)[i] for i, arm in enumerate(arms.of(c))]


@pytest.fixture
def family(trainer, where, family_trials):
  """The students of them."""
  return trainer.students(where, family_trials, SEEDS)
