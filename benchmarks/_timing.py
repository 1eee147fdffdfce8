"""What the speed benchmarks share: experiments, alternating rounds, tables."""

import argparse
import dataclasses
import functools
import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import cli, models
from kdjax import config as configuration
from kdjax.train import (
  experiment,
  given,
  networks,
  resident,
  sharding,
  state,
  step,
  task,
  teacher,
)

_EXPERIMENTS = Path(__file__).parents[1] / 'experiments'


def parser(doc, *, default):
  """Returns the flags that every benchmark takes."""
  style = argparse.RawDescriptionHelpFormatter
  found = argparse.ArgumentParser(description=doc, formatter_class=style)
  add = found.add_argument
  add('--config', action='append', type=Path, help='an experiment file')
  add('--quick', action='store_true', help='seconds only; rough figures')
  add('--rounds', type=int, help='how often all are measured')
  found.set_defaults(defaults=[_EXPERIMENTS / f'{name}.py' for name in default])
  return found


def load(path):
  """Returns the configuration of an experiment file and its data set."""
  config = cli.load_config(path)
  configuration.validate(config)
  dataset = experiment.load(config)
  seen = experiment.transfer_set(config, dataset)
  return config, dataclasses.replace(dataset, train=seen)


def untrained_teacher(config, dataset):
  """Returns the teacher's network; its weights do not change any time."""
  model = networks.build(teacher.config_of(config), dataset)
  return state.Network(*models.split(model))


class Training(NamedTuple):
  """The training of a student, on one device, from arrays."""

  task: given.Task
  initial: state.State
  teacher: state.Weights
  examples: given.Batch
  key: jax.Array
  num_steps: int


def one_device():
  """Returns a mesh of one device."""
  return sharding.make_mesh(devices=jax.devices()[:1])


def prepare(config, dataset, mentor):
  """Returns the training of the student on one device."""
  job = task.prepare(config, dataset, mentor, one_device())
  feed = job.feed
  return Training(
    job.task,
    job.initialise().state,
    feed.teacher,
    feed.examples,
    feed.key,
    job.num_steps,
  )


def training_loop(job):
  """Returns a function: seconds a step of `run_steps`, over so many steps."""
  run = jax.jit(
    functools.partial(resident.run_steps, job.task), donate_argnums=0
  )
  order = resident.no_order(job.task)

  def measure(num_steps):
    start = state.Snapshot(
      jax.tree.map(jnp.copy, job.initial),
      step.zero_sums(job.task.lesson.plan),
    )
    fixed = job.teacher, job.examples, order, job.key
    stop = jax.device_put(np.int32(num_steps))
    return seconds(run, start, *fixed, stop) / num_steps

  return measure


def touched(inputs, index):
  """Returns a batch with one number changed.

  In a loop over `index` XLA can then not move work on the batch out of it.
  """
  place = (index % len(inputs), *[0] * (inputs.ndim - 1))
  return inputs.at[place].set((index % 2).astype(inputs.dtype))


def seconds(function, *args):
  """Returns how long a call takes, until its results are there."""
  jax.block_until_ready(args)
  begin = time.perf_counter()
  jax.block_until_ready(function(*args))
  return time.perf_counter() - begin


def alternate(measures, *, rounds, num_steps):
  """Measures everything once a round, every other round backwards.

  Args:
    measures: by name, functions from a number of steps to seconds a step.
    rounds: how often.
    num_steps: steps in one measurement.

  Returns:
    By name, seconds a step in each round.
  """
  for measure in measures.values():
    measure(2)  # compiles
  found = {name: [] for name in measures}
  for index in range(rounds):
    for name in list(measures)[:: -1 if index % 2 else 1]:
      found[name].append(measures[name](num_steps))
  return found


def spread(values, *, scale=1.0, digits=1):
  """Writes the median and the quartiles."""
  low, middle, high = (
    scale * q for q in statistics.quantiles(values, n=4, method='inclusive')
  )
  return f'{middle:,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})'


def table(header, rows):
  """Returns a Markdown table."""
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def surroundings(**versions):
  """Returns a line: date, processor, load and versions."""
  cpu, path = platform.machine(), Path('/proc/cpuinfo')
  if path.exists():
    found = re.search(r'model name\s*: (.*)', path.read_text())
    cpu = found[1] if found else cpu
  versions = {
    'Python': platform.python_version(),
    'JAX': jax.__version__,
    **versions,
  }
  cores, load_ = len(os.sched_getaffinity(0)), os.getloadavg()[0]
  return (
    f'{time.strftime("%Y-%m-%d")}; {cpu}, {cores} cores'
    f' ({jax.devices()[0].platform}), load {load_:.1f} at the end; '
    + ', '.join(f'{name} {value}' for name, value in versions.items())
    + '. Median (quartiles) over the rounds.'
  )
