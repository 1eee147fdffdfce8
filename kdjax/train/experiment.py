"""One experiment, from a configuration to its results."""

import contextlib
import dataclasses
import platform
import time
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

import kdjax
from kdjax import checks, data, methods, models
from kdjax import config as configuration
from kdjax.train import (
  evaluate,
  figures,
  hosts,
  networks,
  sharding,
  task,
  teacher,
  workdirs,
)
from kdjax.train.files import read_json, write_json
from kdjax.train.interrupts import Interrupts
from kdjax.train.loop import Fitted, fit
from kdjax.train.progress import Reporter
from kdjax.train.session import Session
from kdjax.train.state import Network, Weights
from kdjax.train.watchdog import Watchdog
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
    FloatingPointError: a number is not finite.
    Interrupted: a signal came; what was trained is saved.
    OSError: something cannot be read or written, or another process is in the
      workdir.
  """
  begin = time.monotonic()
  configuration.validate(config)
  with (
    Interrupts() as interrupts,
    Watchdog(config.watchdog_seconds, announce=hosts.announce) as watchdog,
    contextlib.ExitStack() as stack,
  ):
    with watchdog.paused():
      mesh = sharding.make_mesh(model_devices=config.model_devices)
      dataset = load(config)
      transfer = dataclasses.replace(
        dataset, train=transfer_set(config, dataset)
      )
      check(config, dataset, transfer, mesh)
    finished = hosts.on_primary(lambda: _finished(workdir, config, dataset))
    if finished:
      reporter.say(f'{workdir} is finished already')
      return finished
    claim = workdirs.claimed(workdir, config)
    hosts.on_primary(lambda: stack.enter_context(claim))
    workdirs.check_shared(workdir)
    session = Session(mesh, reporter, interrupts, watchdog)
    mentor, fitted = _fit_all(config, dataset, transfer, workdir, session)
    with watchdog.paused():
      results = _results(config, dataset, mentor, fitted, mesh)
      compared = task.outlined(config, transfer, mentor).lesson.plan
    if compared:
      results['terms'] = {term.name: term.pairs for term in compared}
    results['wall_seconds'] = round(time.monotonic() - begin, 2)
    results['data'] = dataset.fingerprint()
    results['environment'] = environment()
    hosts.on_primary(lambda: _finish(workdir, results))
  return results


def _fit_all(
  config: ConfigDict,
  dataset: data.Dataset,
  transfer: data.Dataset,
  workdir: Path,
  session: Session,
) -> tuple[Network | None, dict[str, Fitted]]:
  """Trains the teacher if there is none, the baseline if asked, the student."""
  mentor, fitted = None, {}
  if methods.needs_teacher(config):
    mentor = teacher.obtain(config, dataset, workdir=workdir, session=session)
  if config.baseline:
    fitted['baseline'] = fit(
      baseline_of(config),
      transfer,
      teacher=None,
      name='baseline',
      directory=workdir / 'baseline',
      session=session,
    )
  fitted['student'] = fit(
    config,
    transfer,
    teacher=mentor,
    name='student',
    directory=workdir,
    session=session,
  )
  return mentor, fitted


def baseline_of(config: ConfigDict) -> ConfigDict:
  """Returns the configuration of the same student without a teacher."""
  plain = config.copy_and_resolve_references()
  plain.method, plain.also = 'ce', ()
  return plain


def _finished(
  workdir: Path, config: ConfigDict, dataset: data.Dataset
) -> dict | None:
  """The results of a run that is at its end, else None."""
  workdirs.check(workdir, config)
  path = workdir / 'results.json'
  if not path.exists():
    return None
  results = read_json(path)
  content = dataset.fingerprint()
  if results.get('data', content) != content:
    raise ValueError(
      f'--workdir={workdir} holds a finished run on other data of the name '
      f'{dataset.name!r}: give a new one'
    )
  return results


def _finish(workdir: Path, results: dict) -> None:
  """Writes the last files; a run that has `results.json` is finished."""
  _draw(workdir)
  write_json(workdir / 'results.json', results)


def environment() -> dict[str, str]:
  """Returns what ran: versions and devices."""
  device = jax.devices()[0]
  return {
    'kdjax': kdjax.__version__,
    'jax': jax.__version__,
    'python': platform.python_version(),
    'devices': f'{jax.device_count()} × {device.device_kind}',
    'hosts': str(jax.process_count()),
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
    image_size=config.dataset.image_size,
    text=config.dataset.text.to_dict(),
    options=(
      config.dataset.options.to_dict() if name == 'synthetic_classes' else None
    ),
  )


def check(
  config: ConfigDict,
  dataset: data.Dataset,
  transfer: data.Dataset,
  mesh: Mesh,
) -> None:
  """Checks everything that needs the data, before any training.

  Args:
    config: a run's.
    dataset: the whole data set.
    transfer: `train` is what the student sees.
    mesh: the devices.

  Raises:
    ValueError: something does not fit.
  """
  unused = 'topk' not in methods.get(config.method).reads
  if not (unused and config.topk == configuration.default().topk):
    checks.check_between('config.topk', config.topk, 1, dataset.num_classes)
  task.check(config, transfer, mesh)
  networks.shapes(config, dataset)
  if not methods.needs_teacher(config):
    return
  for own in teacher.configs(config):
    task.check(own, dataset, mesh, prefix='teacher.')
  task.outlined(config, transfer, teacher.shapes(config, dataset))


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
  c = config.dataset
  if dataset.text and (c.exclude_classes or c.num_labels):
    raise ValueError(
      f'config.dataset.num_labels={c.num_labels} and config.dataset.'
      f'exclude_classes={tuple(c.exclude_classes)} are for examples with one '
      f'label each; for {dataset.name} leave them at 0 and ()'
    )
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
  evaluators = {}

  def totals(network: Network, name: str) -> evaluate.Totals:
    key = network.graphdef, name
    if key not in evaluators:
      split = getattr(dataset, name)
      evaluators[key] = networks.evaluator(
        network.graphdef, split, config, dataset, mesh
      )
    return evaluators[key](Weights(network.params, network.rest))

  def score(network: Network) -> dict[str, float]:
    dev, test = totals(network, 'dev'), totals(network, 'test')
    if dataset.text:
      return _text_scores(dataset, dev=dev, test=test)
    found = {
      'dev_accuracy': evaluate.scores(dev)['accuracy'],
      'test_accuracy': evaluate.scores(test)['accuracy'],
    }
    excluded = list(config.dataset.exclude_classes)
    if test.examples[excluded].sum():
      accuracy = evaluate.scores(test, excluded)['accuracy']
      found['test_accuracy_excluded_classes'] = accuracy
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


def _text_scores(
  dataset: data.Dataset, **totals: evaluate.Totals
) -> dict[str, float]:
  found = {
    name: evaluate.text_scores(counted, dataset.text.num_characters[name])
    for name, counted in totals.items()
  }
  return {
    f'{name}_{key}': found[name][key]
    for key in ('perplexity', 'bits_per_character')
    for name in totals
  }


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
