"""The teacher: loaded, found in the cache, or trained once."""

import hashlib
import json
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

import kdjax
from kdjax import data, methods, models
from kdjax.train import hosts, networks, teacher_cache, workdirs
from kdjax.train.files import read_json, write_json
from kdjax.train.loop import Fitted, fit, restore
from kdjax.train.session import Session
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
  'accumulate_steps',
  'compute_dtype',
  'ema_decay',
  'nonfinite',
  'seed',
)
_NETWORK = ('name', 'widths', 'dropout', 'tied')
_TRAINING = (
  'method',
  'smoothing',
  'num_epochs',
  'batch_size',
  'learning_rate',
)
# Of what a checkpoint holds: cached teachers of another layout are left alone.
_LAYOUT = 3
# Where the teachers' seeds begin: a teacher never starts from the weights of
# a student with the same network.
_SEEDS = 2**31


def config_of(config: ConfigDict) -> ConfigDict:
  """Returns the configuration that trains the teacher as a student would be.

  Args:
    config: a run's configuration.

  Returns:
    A copy whose `student` is the teacher's network, whose method, epochs,
    batch size and learning rate are the teacher's, and whose data are whole
    and not mixed.
    Its seed is the teacher's, apart from every student's.
  """
  own = config.copy_and_resolve_references()
  with own.unlocked():
    own.student = ConfigDict({key: config.teacher[key] for key in _NETWORK})
  for key in _TRAINING:
    own[key] = config.teacher[key]
  own.also = ()
  own.seed = _SEEDS + config.teacher.seed
  own.dataset.num_labels = 0
  own.dataset.exclude_classes = ()
  own.dataset.mixup = 0.0
  is_split = 'teacher' in config.split_networks
  own.split_networks = ('student',) if is_split else ()
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
    'layout': _LAYOUT,
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
  session: Session,
) -> Network:
  """Returns the trained teacher; several are one ensemble.

  From `config.teacher.checkpoint` where it is given; else from the workdir,
  else from the cache, else by training it into the workdir, from where the
  cache takes a copy. Likewise one for each of `config.teacher.num_seeds`, and
  those of `config.teacher.others`.

  Args:
    config: a run's configuration.
    dataset: with the whole training set.
    workdir: takes `teacher/`, and `teacher2/` and so on.
    session: the devices, and those who watch.

  Returns:
    The network after its last step.

  Raises:
    ValueError: a given checkpoint is missing or of another network.
  """
  members = [
    _restored(config, saved, dataset, session.mesh)
    if isinstance(saved, Path)
    else _obtain(config, saved, dataset, workdir / folder, session)
    for folder, saved in _sources(config).items()
  ]
  return _as_one(config, members)


def shapes(config: ConfigDict, dataset: data.Dataset) -> Network:
  """Returns what `obtain` would, without a number in it.

  Args:
    config: a run's configuration.
    dataset: decides the input shape and the classes.

  Returns:
    The network's shapes.

  Raises:
    ValueError: a given checkpoint is missing or of another network.
  """
  members = [
    networks.shapes(
      check_folder(config, saved) if isinstance(saved, Path) else saved, dataset
    )
    for saved in _sources(config).values()
  ]
  return _as_one(config, members)


def restore_all(
  config: ConfigDict, dataset: data.Dataset, *, workdir: Path, mesh: Mesh
) -> Network:
  """Returns the teacher of a finished run.

  Args:
    config: the run's configuration.
    dataset: with the whole training set.
    workdir: holds the teachers that the run has trained.
    mesh: the devices.

  Returns:
    The network after its last step.

  Raises:
    ValueError: a teacher is missing or damaged.
  """
  members = []
  for folder, saved in _sources(config).items():
    if isinstance(saved, Path):
      members.append(_restored(config, saved, dataset, mesh))
    else:
      given = config.copy_and_resolve_references()
      given.teacher.seed = saved.seed - _SEEDS
      given.teacher.checkpoint = str(workdir / folder)
      members.append(_restored(given, workdir / folder, dataset, mesh))
  return _as_one(config, members)


def configs(config: ConfigDict) -> list[ConfigDict]:
  """Returns the configurations of all teachers that a run trains.

  Args:
    config: a run's.

  Returns:
    As `config_of`, one for each seed; none where a checkpoint is given.
  """
  return [
    saved for saved in _sources(config).values() if not isinstance(saved, Path)
  ]


def _sources(config: ConfigDict) -> dict[str, Path | ConfigDict]:
  """By folder in the workdir: where each teacher is, or what trains it."""
  given = config.teacher.checkpoint
  if given:
    found = {'teacher': Path(given)}
  else:
    found = {}
    for i in range(config.teacher.num_seeds):
      own = config_of(config)
      own.seed += i
      found[f'teacher{i + 1}' if i else 'teacher'] = own
  others = map(Path, config.teacher.others)
  return found | {f'other{i}': folder for i, folder in enumerate(others)}


def _as_one(config: ConfigDict, members: list[Network]) -> Network:
  if len(members) == 1:
    return members[0]
  c = config.teacher
  ensemble = models.Ensemble(
    [models.merge(*member) for member in members],
    shares=tuple(c.shares) or (1.0,) * len(members),
    average=c.average,
    temperature=config.temperature,
    features_from=c.features_from,
  )
  return Network(*models.split(ensemble))


def _restored(
  config: ConfigDict, folder: Path, dataset: data.Dataset, mesh: Mesh
) -> Network:
  saved = check_folder(config, folder)
  # One that learned by comparing features kept what helped it.
  own = shapes(saved, dataset) if methods.terms_of(saved) else None
  return restore(saved, dataset, directory=folder, mesh=mesh, teacher=own)


def _obtain(
  config: ConfigDict,
  own: ConfigDict,
  dataset: data.Dataset,
  directory: Path,
  session: Session,
) -> Network:
  """One teacher, from the workdir, the cache, or trained."""
  cached = teacher_cache.directory(config)
  if cached:
    cached = cached / fingerprint(own, dataset)
  if cached and hosts.on_primary(lambda: teacher_cache.take(cached, directory)):
    session.reporter.say(f'{directory.name}   from the cache: {cached}')
  fitted = _train(own, dataset, directory, session)
  if cached:
    hosts.on_primary(lambda: teacher_cache.copy(directory, cached))
  return fitted.last


def _train(
  own: ConfigDict,
  dataset: data.Dataset,
  directory: Path,
  session: Session,
) -> Fitted:
  saved = hosts.on_primary(lambda: _saved_config(own, directory))
  return fit(
    workdirs.carried_out_as(own, saved),
    dataset,
    teacher=None,
    name=directory.name,
    directory=directory,
    session=session,
  )


def _saved_config(own: ConfigDict, directory: Path) -> dict:
  """What the teacher in the folder was trained by; now written if it is new.

  One from the cache may have been evaluated and logged at other steps.
  """
  path = directory / 'config.json'
  if not path.exists():
    directory.mkdir(parents=True, exist_ok=True)
    write_json(path, json.loads(own.to_json()))
  return read_json(path)


def check_folder(config: ConfigDict, directory: Path) -> ConfigDict:
  """Returns what a given teacher was trained by.

  Args:
    config: a run's configuration.
    directory: `config.teacher.checkpoint`, or one of `config.teacher.others`,
      which may hold any network.

  Returns:
    The configuration in the folder.

  Raises:
    ValueError: it is no trained network, or of another network or other data.
  """
  path = directory / 'config.json'
  is_other = directory != Path(config.teacher.checkpoint)
  key = 'others' if is_other else 'checkpoint'
  given = f'config.teacher.{key}={str(directory)!r}'
  if not path.exists() or not (directory / 'checkpoints').exists():
    raise ValueError(
      f'{given} is not a trained network: it needs config.json and '
      f'checkpoints/, as in the folder teacher/ of a workdir'
    )
  saved = read_json(path)
  asked = json.loads(config_of(config).to_json())
  others = workdirs.differences(saved, {}) ^ set(asked)
  if not others <= workdirs.CIRCUMSTANCES:
    raise ValueError(f'{given}: its config.json is not one of a network')
  names = ('dataset',) if is_other else ('student', 'dataset')
  parts = {name: saved[name] for name in names}
  different = (
    workdirs.differences(parts, {name: asked[name] for name in names})
    - workdirs.CIRCUMSTANCES
    - {'dataset.augment'}
  )
  if different:
    names = sorted(name.replace('student', 'teacher') for name in different)
    raise ValueError(
      f'{given} was trained with other values of config.'
      f'{", config.".join(names)}: see {path}'
    )
  return workdirs.carried_out_as(config, saved)
