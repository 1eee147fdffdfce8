"""One experiment, from a configuration to its results."""

import dataclasses
import json
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
  dataset = _load(config)
  _check(config, dataset)
  workdirs.claim(workdir, config)
  path = workdir / 'results.json'
  if path.exists():
    reporter.say(f'{workdir} is finished already')
    return json.loads(path.read_text())

  place = {'mesh': mesh, 'reporter': reporter}
  mentor, networks, fitted = None, {}, {}
  if method.needs_teacher:
    mentor = teacher.obtain(config, dataset, workdir=workdir, **place)
    networks['teacher'] = mentor
  transfer = dataclasses.replace(dataset, train=_transfer_set(config, dataset))
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
  path.write_text(json.dumps(results, indent=2) + '\n')
  _draw(workdir)
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


def _load(config: ConfigDict) -> data.Dataset:
  name = config.dataset.name
  return data.load(
    name,
    data_dir=config.dataset.data_dir,
    dev_fraction=config.dataset.dev_fraction,
    options=(
      config.dataset.options.to_dict() if name == 'synthetic_classes' else None
    ),
  )


def _check(config: ConfigDict, dataset: data.Dataset) -> None:
  """Everything that needs the data to be checked, before any training."""
  num_classes = dataset.num_classes
  checks.check_between('config.topk', config.topk, 1, num_classes)
  for label in config.dataset.exclude_classes:
    checks.check_between(
      'config.dataset.exclude_classes', label, 0, num_classes - 1
    )
  task.build(config, dataset)
  if methods.get(config.method).needs_teacher:
    task.build(teacher.config_of(config), dataset)


def _transfer_set(config: ConfigDict, dataset: data.Dataset) -> data.Split:
  """What the student trains on."""
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
  """Test figures of every network; the only place that looks at test."""

  def test(network: Network) -> dict:
    predict = task.predictor(network.graphdef, config, dataset, mesh)
    found = {}
    for name, split in (('dev', dataset.dev), ('test', dataset.test)):
      inputs, labels = map(jax.numpy.asarray, split)
      logits = predict(network.params, network.rest, inputs)
      scores = evaluate.scores(logits, labels)
      found[f'{name}_accuracy'] = scores['accuracy']
    excluded = np.isin(dataset.test.labels, config.dataset.exclude_classes)
    if excluded.any():
      scores = evaluate.scores(logits[excluded], labels[excluded])
      found['test_accuracy_excluded_classes'] = scores['accuracy']
    return found

  results = {'teacher': None}
  if mentor:
    results['teacher'] = _counted(test(mentor), mentor)
  for name, fit_ in fitted.items():
    results[name] = _counted(test(fit_.last), fit_.last)
    results[name]['best'] = {'step': fit_.best_step, **test(fit_.best)}
  return results


def _counted(figures_: dict, network: Network) -> dict:
  return {**figures_, 'num_params': models.num_params(network.params)}


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
