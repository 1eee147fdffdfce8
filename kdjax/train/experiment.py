"""One experiment, from a configuration to its results."""

import dataclasses
import platform
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import kdjax
from kdjax import checks, data, methods, models
from kdjax import config as configuration
from kdjax.train import evaluate, figures, sharding, task, teacher, workdirs
from kdjax.train.files import read_json, write_json
from kdjax.train.loop import Fitted, fit
from kdjax.train.progress import Reporter
from kdjax.train.state import Network
from kdjax.train.writers import read_metrics


def run(config: ConfigDict, workdir: Path, reporter: Reporter) -> dict:
  """Trains teacher, baseline if asked, and student; writes what they did.

  Args:
    config: a configuration.
    workdir: takes every file of the run. Where it holds a part of the same
      run, training goes on from its last checkpoint.
    reporter: shows the progress.

  Returns:
    What `results.json` holds.

  Raises:
    ValueError: something in the config is not allowed, or the workdir is of
      another run.
  """
  begin = time.monotonic()
  configuration.validate(config)
  method = methods.get(config.method)
  mesh = sharding.make_mesh(model_devices=config.model_devices)
  dataset = load(config)
  transfer = dataclasses.replace(dataset, train=transfer_set(config, dataset))
  _check(config, dataset, transfer, mesh)
  workdirs.claim(workdir, config)
  path = workdir / 'results.json'
  if path.exists():
    reporter.say(f'{workdir} is finished already')
    return read_json(path)

  place = {'mesh': mesh, 'reporter': reporter}
  mentor, fitted = None, {}
  if method.needs_teacher:
    mentor = teacher.obtain(config, dataset, workdir=workdir, **place)
  if config.baseline:
    plain = config.copy_and_resolve_references()
    plain.method = 'ce'
    fitted['baseline'] = fit(
      plain,
      transfer,
      teacher=None,
      name='baseline',
      directory=workdir / 'baseline',
      **place,
    )
  fitted['student'] = fit(
    config,
    transfer,
    teacher=mentor,
    name='student',
    directory=workdir,
    **place,
  )
  results = _results(config, dataset, mentor, fitted, mesh)
  results['wall_seconds'] = round(time.monotonic() - begin, 2)
  results['environment'] = environment()
  _draw(workdir)
  write_json(path, results)  # the last file: a run that has it is finished
  return results


def environment() -> dict[str, str]:
  """Returns what ran: versions and devices."""
  device = jax.devices()[0]
  return {
    'kdjax': kdjax.__version__,
    'jax': jax.__version__,
    'python': platform.python_version(),
    'devices': f'{jax.device_count()} × {device.device_kind}',
  }


def load(config: ConfigDict) -> data.Dataset:
  """Returns the data set of a configuration, whole.

  Args:
    config: with `dataset`.

  Returns:
    The data set.

  Raises:
    ValueError: it is unknown or not prepared.
  """
  name = config.dataset.name
  return data.load(
    name,
    data_dir=config.dataset.data_dir,
    dev_fraction=config.dataset.dev_fraction,
    options=(
      config.dataset.options.to_dict() if name == 'synthetic_classes' else None
    ),
  )


def _check(
  config: ConfigDict,
  dataset: data.Dataset,
  transfer: data.Dataset,
  mesh: Mesh,
) -> None:
  """Everything that needs the data to be checked, before any training."""
  unused = config.method != 'kd_topk'
  if not (unused and config.topk == configuration.default().topk):
    checks.check_between('config.topk', config.topk, 1, dataset.num_classes)
  task.check(config, transfer, mesh)
  task.build(config, dataset)
  if not methods.get(config.method).needs_teacher:
    return
  if config.teacher.checkpoint:
    teacher.check_checkpoint(config)
    return
  own = teacher.config_of(config)
  task.check(own, dataset, mesh, prefix='teacher.')
  task.build(own, dataset)


def transfer_set(config: ConfigDict, dataset: data.Dataset) -> data.Split:
  """Returns what the student trains on, of the training set.

  Args:
    config: with `dataset` and `seed`.
    dataset: the whole data set.

  Returns:
    Without the excluded classes, thinned to `num_labels`.

  Raises:
    ValueError: there is no such class, or there are not so many examples.
  """
  for label in config.dataset.exclude_classes:
    checks.check_between(
      'config.dataset.exclude_classes', label, 0, dataset.num_classes - 1
    )
  split = dataset.train
  if config.dataset.exclude_classes:
    split = data.exclude_classes(split, config.dataset.exclude_classes)
  if config.dataset.num_labels:
    split = data.thin(
      split,
      num_labels=config.dataset.num_labels,
      num_classes=dataset.num_classes,
      seed=config.seed,
    )
  return split


def _results(
  config: ConfigDict,
  dataset: data.Dataset,
  mentor: Network | None,
  fitted: dict[str, Fitted],
  mesh: Mesh,
) -> dict:
  """Figures of every network; the only place that evaluates on test."""
  predictors = {}

  def score(network: Network) -> dict[str, float]:
    graphdef, *weights = network
    if graphdef not in predictors:
      predictors[graphdef] = task.predictor(graphdef, config, dataset, mesh)
    found = {}
    for name, split in (('dev', dataset.dev), ('test', dataset.test)):
      inputs, labels = map(jax.numpy.asarray, split)
      logits = predictors[graphdef](*weights, inputs)
      scores = evaluate.scores(logits, labels)
      found[f'{name}_accuracy'] = scores['accuracy']
    excluded = np.isin(dataset.test.labels, config.dataset.exclude_classes)
    if excluded.any():
      scores = evaluate.scores(logits[excluded], labels[excluded])
      found['test_accuracy_excluded_classes'] = scores['accuracy']
    return found

  def summary(network: Network) -> dict:
    return {
      **score(network),
      'num_params': models.num_params(network.params),
    }

  results = {'teacher': mentor and summary(mentor)}
  for name, trained in fitted.items():
    best = {'step': trained.best_step, **score(trained.best)}
    results[name] = {**summary(trained.last), 'best': best}
  return results


def _draw(workdir: Path) -> None:
  """Writes `curves.png` from the metrics files."""
  folders = {
    'teacher': workdir / 'teacher',
    'baseline': workdir / 'baseline',
    'student': workdir,
  }
  runs = {
    name: read_metrics(folder / 'metrics.jsonl')
    for name, folder in folders.items()
  }
  figures.curves(
    workdir / 'curves.png', {name: rows for name, rows in runs.items() if rows}
  )
