"""The teacher: loaded, found in the cache, or trained once."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

import kdjax
from kdjax import data
from kdjax.train.loop import Fitted, fit, restore
from kdjax.train.progress import Reporter
from kdjax.train.state import Network

# Keys of a training that decide its outcome, beside the data itself.
_DETERMINANTS = (
  'student',
  'method',
  'smoothing',
  'num_epochs',
  'batch_size',
  'learning_rate',
  'optimizer',
  'schedule',
  'ema_decay',
  'seed',
  'model_devices',
)
_NETWORK = ('name', 'widths', 'dropout')
_TRAINING = (
  'method',
  'smoothing',
  'num_epochs',
  'batch_size',
  'learning_rate',
  'seed',
)


def config_of(config: ConfigDict) -> ConfigDict:
  """Returns the configuration that trains the teacher as a student would be.

  Args:
    config: a run's configuration.

  Returns:
    A copy whose `student` is the teacher's network and whose method, epochs,
    batch size, learning rate and seed are the teacher's.
  """
  own = config.copy_and_resolve_references()
  with own.unlocked():
    own.student = ConfigDict({key: config.teacher[key] for key in _NETWORK})
  for key in _TRAINING:
    own[key] = config.teacher[key]
  return own


def fingerprint(config: ConfigDict, dataset: data.Dataset) -> str:
  """Returns a hash of everything that determines a trained teacher.

  Args:
    config: what `config_of` returns.
    dataset: with the whole training set.

  Returns:
    16 hexadecimal digits.
  """
  determinants = {
    'kdjax': kdjax.__version__,
    'data': dataset.fingerprint(),
    'augment': config.dataset.augment,
    **{key: config.to_dict()[key] for key in _DETERMINANTS},
  }
  text = json.dumps(determinants, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def obtain(
  config: ConfigDict,
  dataset: data.Dataset,
  *,
  workdir: Path,
  mesh: Mesh,
  reporter: Reporter,
) -> Network:
  """Returns the trained teacher.

  From `config.teacher.checkpoint` where it is given; else from the workdir,
  else from the cache, else by training it into the workdir, from where the
  cache takes a copy.

  Args:
    config: a run's configuration.
    dataset: with the whole training set.
    workdir: takes `teacher/`.
    mesh: the devices.
    reporter: shows the progress.

  Returns:
    The network after its last step.

  Raises:
    ValueError: the given checkpoint is missing or of another network.
  """
  if config.teacher.checkpoint:
    return _load(config, dataset, mesh)
  own = config_of(config)
  directory = workdir / 'teacher'
  cached = _cache_dir(config)
  if cached:
    cached = cached / fingerprint(own, dataset)
  if cached and cached.exists() and not directory.exists():
    _copy(cached, directory)
    reporter.say(f'teacher   from the cache: {cached}')
  fitted = _train(own, dataset, directory, mesh, reporter)
  if cached and not cached.exists():
    _copy(directory, cached)
  return fitted.last


def _train(
  own: ConfigDict,
  dataset: data.Dataset,
  directory: Path,
  mesh: Mesh,
  reporter: Reporter,
) -> Fitted:
  directory.mkdir(parents=True, exist_ok=True)
  (directory / 'config.json').write_text(own.to_json(indent=2, sort_keys=True))
  return fit(
    own,
    dataset,
    teacher=None,
    name='teacher',
    directory=directory,
    mesh=mesh,
    reporter=reporter,
  )


def _load(config: ConfigDict, dataset: data.Dataset, mesh: Mesh) -> Network:
  """The network in `config.teacher.checkpoint`."""
  directory = Path(config.teacher.checkpoint)
  path = directory / 'config.json'
  given = f'config.teacher.checkpoint={str(directory)!r}'
  if not path.exists() or not (directory / 'checkpoints').exists():
    raise ValueError(
      f'{given} is not a trained network: it needs config.json and '
      f'checkpoints/, as in the folder teacher/ of a workdir'
    )
  own = ConfigDict(json.loads(path.read_text()))
  asked = {key: config.teacher[key] for key in _NETWORK}
  for key, value in json.loads(json.dumps(asked)).items():
    saved = own.student[key]
    if list(saved) != value if key == 'widths' else saved != value:
      raise ValueError(
        f'{given} holds {key}={saved!r}, config.teacher.{key} is {value!r}'
      )
  if own.dataset.name != config.dataset.name:
    raise ValueError(
      f'{given} was trained on {own.dataset.name!r}, '
      f'config.dataset.name is {config.dataset.name!r}'
    )
  return restore(own, dataset, directory=directory, mesh=mesh)


def _cache_dir(config: ConfigDict) -> Path | None:
  """Where finished teachers are kept."""
  given = config.teacher.cache_dir
  if given == 'off':
    return None
  if given:
    return Path(given).expanduser()
  home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return Path(home).expanduser() / 'kdjax' / 'teachers'


def _copy(source: Path, target: Path) -> None:
  """Copies a folder so that `target` is there whole or not at all."""
  target.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
    copy = Path(scratch) / 'copy'
    shutil.copytree(source, copy)
    try:
      copy.rename(target)
    except OSError:
      if not target.exists():  # else another run was first
        raise
