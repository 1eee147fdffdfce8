"""What is to be diagnosed: a finished run, or arrays in files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdjax import data
from kdjax.analysis import Answers, Diagnosis, diagnose_on
from kdjax.report import arrays
from kdjax.report.measures import NETWORKS
from kdjax.train import finished
from kdjax.train.state import Network

_MOST_EXAMPLES = 50_000  # of the student's: more would not change a figure


class Case(NamedTuple):
  """What is to be diagnosed.

  Attributes:
    title: a line.
    source: where it comes from, by what.
    taught: what the networks say of examples that the student is trained on.
    held_out: what they say of others.
    settings: of the loss.
    class_weights: `[K, D]`, rows of the last layer, by network; may be empty.
    class_names: K names, or None.
    groups: the super-class of each class, or None.
  """

  title: str
  source: dict[str, str]
  taught: Answers
  held_out: Answers
  settings: dict[str, object]
  class_weights: dict[str, np.ndarray]
  class_names: Sequence[str] | None = None
  groups: Sequence[int] | None = None

  def diagnose(self, progress: Callable[[float], None]) -> Diagnosis:
    """Returns the diagnosis; `progress` is told the fraction done."""
    return diagnose_on(
      self.taught,
      self.held_out,
      class_weights=self.class_weights.get('teacher'),
      progress=progress,
      **self.settings,
    )


def of_files(
  paths: dict[str, Path],
  *,
  settings: dict[str, float],
  class_names: Sequence[str] | None = None,
) -> Case:
  """Reads logits of any framework.

  Args:
    paths: `.npy` files of 'teacher_logits' and 'labels', and where there are
      of 'student_logits', 'baseline_logits' and 'class_weights'.
    settings: weight, temperature and temperature_power.
    class_names: K names, or None.

  Returns:
    The case.

  Raises:
    TypeError: an array is of the wrong type; the file is named.
    ValueError: a file is missing or holds what cannot be diagnosed; the file
      is named, and the row where there is one.
    OSError: a file cannot be read.
  """
  for name in ('teacher_logits', 'labels'):
    if name not in paths:
      raise ValueError(f'give --{name}=FILE.npy, too')
  paths = dict(paths)
  weights = paths.pop('class_weights', None)
  answers = arrays.read_answers(paths)
  num_classes = answers.teacher_logits.shape[1]
  if class_names is not None and len(class_names) != num_classes:
    raise ValueError(
      f'--class_names has {len(class_names)} names for {num_classes} classes'
    )
  return Case(
    title=paths['teacher_logits'].stem,
    source={name.replace('_', ' '): str(path) for name, path in paths.items()},
    taught=answers,
    held_out=answers,
    settings=settings,
    class_weights={'teacher': arrays.read_weights(weights, num_classes)}
    if weights
    else {},
    class_names=class_names,
  )


def of_run(
  workdir: Path, *, compare: Sequence[Path] = (), data_dir: str = ''
) -> Case:
  """Restores a finished run, and asks its networks.

  The student's training examples show what it is taught, the held-out ones how
  good the answers are; the test set is not touched.

  Args:
    workdir: the folder of a run with a teacher.
    compare: folders of other runs, whose students' classes are set beside.
    data_dir: where the data is now, if it is not where the run found it.

  Returns:
    The case.

  Raises:
    ValueError: there is no finished run, it has no teacher, or its data is not
      what it was.
  """
  run = finished.read(workdir, data_dir=data_dir)
  config, dataset = run.config, run.dataset
  train = finished.sample(dataset.train, at_most=_MOST_EXAMPLES)
  networks = run.networks | _others(run, compare, data_dir)
  source = {
    'run': str(workdir),
    'method': config.method,
    'what is taught': f'{len(train.labels):,} training examples',
    'how good it is': f'{len(dataset.dev.labels):,} held-out examples',
  }
  if compare:
    source['set beside'] = ', '.join(map(str, compare))
  if config.method != 'kd':
    source['gradient'] = (
      f'what kd would do with these settings; what {config.method} does is '
      f'logged in metrics.jsonl'
    )
  return Case(
    title=f'{workdir.resolve().name}: {config.teacher.name} teaches '
    f'{config.student.name} on {dataset.name}',
    source=source,
    taught=_answers(run, train),
    held_out=_answers(run, dataset.dev),
    settings={
      'weight': config.weight,
      'temperature': config.temperature,
      'temperature_power': config.temperature_power,
      'method': config.method,
    },
    class_weights={
      name: finished.class_weights(network)
      for name, network in networks.items()
    },
    class_names=dataset.class_names,
    groups=dataset.groups,
  )


def _answers(run: finished.Run, split: data.Split) -> Answers:
  logits = {f'{name}_logits': run.logits(name, split) for name in run.networks}
  return Answers(labels=split.labels, **logits)


def _others(
  run: finished.Run, folders: Sequence[Path], data_dir: str
) -> dict[str, Network]:
  """The students of other runs, by the names of their folders."""
  found = {}
  for folder in folders:
    name = folder.resolve().name
    if name in found or name in NETWORKS:
      raise ValueError(
        f'--compare={folder}: there is a {name!r} already, rename the folder'
      )
    of = finished.config_of(folder).dataset.name
    if of != run.dataset.name:
      raise ValueError(
        f'--compare={folder} was trained on {of}, not on {run.dataset.name}'
      )
    found[name] = finished.student(folder, data_dir=data_dir)
  return found
