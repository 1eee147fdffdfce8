"""What is to be diagnosed: a finished run, or arrays in files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdjax import data
from kdjax.analysis import Answers, Diagnosis, diagnose_on
from kdjax.report import arrays, style
from kdjax.report.measures import NETWORKS
from kdjax.train import excerpts, finished
from kdjax.train.state import Network

_MOST_EXAMPLES = 50_000  # of the student's: more would not change a figure
# Of what a network says of tokens: 256 MB. A text has a logit for each of its
# thousands of words.
_MOST_LOGITS = 2**26


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
    token_counts: `[K]`, of a text, how often each token is in the training
      text; else None.
    token_length: the mean of its characters, or None if that is unknown.
  """

  title: str
  source: dict[str, str]
  taught: Answers
  held_out: Answers
  settings: dict[str, object]
  class_weights: dict[str, np.ndarray]
  class_names: Sequence[str] | None = None
  groups: Sequence[int] | None = None
  token_counts: np.ndarray | None = None
  token_length: float | None = None

  def diagnose(self, progress: Callable[[float], None]) -> Diagnosis:
    """Returns the diagnosis; `progress` is told the fraction done."""
    return diagnose_on(
      self.taught,
      self.held_out,
      class_weights=self.class_weights.get('teacher'),
      token_counts=self.token_counts,
      token_length=self.token_length,
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
  token_counts = None
  if arrays.read(paths['labels']).ndim > 1:  # a text's, as far as it is known
    token_counts = np.bincount(answers.labels, minlength=num_classes)
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
    token_counts=token_counts,
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
  networks = run.networks | _others(run, compare, data_dir)
  is_text = dataset.text is not None
  if is_text:
    taught = _read(run, dataset.train, at_most=_MOST_EXAMPLES)
    held_out = _read(run, dataset.dev)
  else:
    train = finished.sample(dataset.train, at_most=_MOST_EXAMPLES)
    taught, held_out = (_answers(run, s) for s in (train, dataset.dev))
  source = {
    'run': str(workdir),
    'method': config.method,
    'what is taught': _number(taught, dataset.train, 'training', is_text),
    'how good it is': _number(held_out, dataset.dev, 'held-out', is_text),
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
    taught=taught,
    held_out=held_out,
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
    class_names=[style.visible(token) for token in dataset.class_names]
    if is_text
    else dataset.class_names,
    groups=dataset.groups,
    token_counts=dataset.text.token_counts if is_text else None,
    token_length=_token_length(dataset) if is_text else None,
  )


def _answers(run: finished.Run, split: data.Split) -> Answers:
  logits = {f'{name}_logits': run.logits(name, split) for name in run.networks}
  return Answers(labels=split.labels, **logits)


def _read(
  run: finished.Run, split: data.Split, *, at_most: int = _MOST_LOGITS
) -> Answers:
  """Of a text, the answers to so many tokens, evenly over it, or to fewer."""
  room = max(_MOST_LOGITS // run.dataset.num_classes, 1)
  tokens = excerpts.choose(split, at_most=min(at_most, room))
  logits = {
    f'{name}_logits': run.logits(name, split, tokens) for name in run.networks
  }
  return Answers(labels=split.labels.reshape(-1)[tokens], **logits)


def _number(
  answers: Answers, split: data.Split, which: str, is_text: bool
) -> str:
  """How many there are, and of a text how many are looked at."""
  if not is_text:
    return f'{len(answers.labels):,} {which} examples'
  total = np.sum(split.labels != data.PADDING)
  found = f'{len(answers.labels):,} {which} tokens, read in their order'
  if len(answers.labels) == total:
    return found
  return f'{found}, evenly out of {total:,}'


def _token_length(dataset: data.Dataset) -> float:
  num_tokens = np.sum(dataset.dev.labels != data.PADDING)
  return dataset.text.num_characters['dev'] / num_tokens


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
    num_classes = len(finished.class_weights(found[name]))
    if num_classes != run.dataset.num_classes:
      raise ValueError(
        f'--compare={folder} has {num_classes} classes, and there are '
        f'{run.dataset.num_classes}: give a run with the same tokens'
      )
  return found
