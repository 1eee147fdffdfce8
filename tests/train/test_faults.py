"""Faults of docs/faults.md that belong to no single module."""

import dataclasses
import importlib.util
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from kdjax.train import (
  checkpoint,
  evaluate,
  finite,
  sharding,
  step,
  task,
  teacher,
  writers,
)
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.interrupts import Interrupted, Interrupts
from kdjax.train.loop import fit
from kdjax.train.writers import read_metrics

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


def _soak():
  """The benchmark, which declares the run and reads what it leaves."""
  spec = importlib.util.spec_from_file_location('soak', BENCHMARKS / 'soak.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _start(soak, workdir):
  return subprocess.Popen(
    soak.command(workdir, num_epochs=60),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def _kill_later(process, soak, workdir, seconds):
  """Kills a run so long after it has gone further than before."""
  before = soak.newest(workdir)
  while soak.newest(workdir) == before:
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.01)
  time.sleep(seconds)
  process.kill()
  process.communicate()
  assert process.returncode == -signal.SIGKILL


def test_a_run_that_is_killed_at_random_moments_ends_to_the_same_bits(tmp_path):
  soak, rng = _soak(), random.Random(0)
  calm, shaken = tmp_path / 'calm' / 'run', tmp_path / 'shaken' / 'run'
  whole = _start(soak, calm)
  before = [0, 0]
  for _ in range(2):
    _kill_later(_start(soak, shaken), soak, shaken, rng.uniform(0, 0.3))
    after = soak.newest(shaken)
    assert all(a >= b for a, b in zip(after, before, strict=True))
    before = after
  last = _start(soak, shaken)
  for process in (whole, last):
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
  assert soak.end(shaken) == soak.end(calm)


def _fit(config, dataset, directory, session):
  return fit(
    config,
    dataset,
    teacher=None,
    name='student',
    directory=directory,
    session=session,
  )


@pytest.fixture
def plain(config):
  config.method = 'ce'
  config.student.dropout = 0.3
  return config


def _rows(directory):
  clock = {'images_per_second'}
  rows = read_metrics(directory / 'metrics.jsonl')
  return [{k: v for k, v in row.items() if k not in clock} for row in rows]


@pytest.mark.parametrize(
  ('phase', 'kind', 'stop_at'),
  [
    ('__call__', evaluate.Evaluator, 8),
    ('save', Checkpoints, 8),
    ('wait', Checkpoints, 8),
    ('compile', evaluate.Evaluator, 0),
  ],
  ids=['evaluation', 'save', 'previous save', 'compile'],
)
def test_a_signal_in_any_phase_loses_nothing(
  phase, kind, stop_at, plain, forty, tmp_path, session, silent
):
  """Two signals in a row: the second changes nothing."""
  whole = _fit(plain, forty, tmp_path / 'whole', session)
  real, told = getattr(kind, phase), []

  def signalled(*args, **keywords):
    if not told:
      told.append(True)
      os.kill(os.getpid(), signal.SIGTERM)
      os.kill(os.getpid(), signal.SIGINT)
    return real(*args, **keywords)

  with Interrupts() as interrupts, pytest.MonkeyPatch.context() as patch:
    patch.setattr(kind, phase, signalled)
    asked = session._replace(interrupts=interrupts)
    where = f': .* at step {stop_at} of 16' if stop_at else ''
    with pytest.raises(Interrupted, match=f'SIGTERM{where}'):
      _fit(plain, forty, tmp_path / 'cut', asked)
  cut = _fit(plain, forty, tmp_path / 'cut', session)
  assert silent.phases[-1] == ('student', stop_at, 16)
  chex.assert_trees_all_equal(cut.last[1:], whole.last[1:])
  assert _rows(tmp_path / 'cut') == _rows(tmp_path / 'whole')


def _flip(folder):
  """A bit of the largest file of arrays, whose path is returned."""
  files = [p for p in folder.glob('ocdbt.process_0/d/*') if p.is_file()]
  path = max(files, key=lambda p: p.stat().st_size)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  return path


def test_a_damaged_best_is_named_and_not_replaced(tmp_path):
  tree = {'kernel': np.arange(1000, dtype=np.float32)}
  with Checkpoints(tmp_path, keep=1, config={}) as checkpoints:
    for step, score in {1: 0.9, 2: 0.1}.items():
      checkpoints.save(tree, step=step, score=score)
  path = _flip(tmp_path / '00000001')
  like = jax.device_put(tree)
  with Checkpoints(tmp_path, keep=1, config={}) as checkpoints:
    assert checkpoints.latest(like, print).step == 2
    assert checkpoints.best() == 1
    with pytest.raises(ValueError, match=f'{path} is damaged'):
      checkpoints.read(like, step=1)


def test_a_given_teacher_that_is_damaged_is_named(
  config, digits, tmp_path, session
):
  config.teacher.cache_dir = 'off'
  teacher.obtain(config, digits, workdir=tmp_path, session=session)
  folder = tmp_path / 'teacher' / 'checkpoints'
  path = _flip(folder / f'{max(checkpoint.steps(folder)):08d}')
  config.teacher.checkpoint = str(tmp_path / 'teacher')
  with pytest.raises(ValueError, match=f'{path} is damaged'):
    teacher.obtain(config, digits, workdir=tmp_path / 'new', session=session)


@pytest.mark.parametrize(('before', 'after'), [(2, 1), (1, 2)])
def test_other_devices_restore_every_bit(before, after, tmp_path):
  rng = np.random.default_rng(0)
  values = {'kernel': rng.normal(size=(64, 32)), 'bias': rng.normal(size=32)}
  values = jax.tree.map(lambda a: a.astype(np.float32), values)

  def placed(num_devices):
    devices = jax.devices()[:num_devices]
    mesh = sharding.make_mesh(model_devices=num_devices, devices=devices)
    return jax.device_put(values, sharding.split(mesh, values))

  with Checkpoints(tmp_path, keep=1, config={}) as checkpoints:
    checkpoints.save(placed(before), step=1)
  like = placed(after)
  with Checkpoints(tmp_path, keep=1, config={}) as checkpoints:
    found = checkpoints.latest(like, print).tree
  assert found['kernel'].sharding == like['kernel'].sharding
  assert len(found['kernel'].addressable_shards) == after
  chex.assert_trees_all_equal(found, values)


def test_batch_statistics_are_named(plain, forty, session):
  """The running averages overflow, while loss and gradient are finite."""
  plain.student = {'name': 'resnet8', 'widths': (), 'dropout': 0.0}
  job = task.prepare(plain, forty, None, session.mesh)
  state = job.initialise().state
  rest = jax.tree.map(lambda a: a * np.inf, state.rest)
  state = dataclasses.replace(state, rest=rest)
  batch, key = job.feed.batch(0)
  positions = job.feed.positions(batch)
  after, metrics = step.train_step(job.task, state, None, batch, key)
  assert (int(after.step), metrics['skipped']) == (0, 1.0)
  chex.assert_trees_all_equal(after.params, state.params)
  text = finite.explain(job.task, state, None, batch, positions, key)
  assert text.startswith('batch_statistics/stage1/block1/norm1/mean is not fin')


def test_a_row_that_finds_no_room_is_told(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(28, 'No space left on device')

  with writers.MetricsWriter(tmp_path, resume_step=0) as writer:
    monkeypatch.setattr(writer._file, 'flush', refuse)
    with pytest.raises(OSError, match='No space left'):
      writer.write(1, {'loss': 1.0})
    monkeypatch.undo()
