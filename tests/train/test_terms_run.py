"""Whole runs whose loss compares features: what they save, and leave."""

import functools
import json

import chex
import jax
import numpy as np
import pytest
import small_networks

from kdjax import models
from kdjax.train import experiment, finished, loop, networks, sharding, task
from kdjax.train.writers import read_metrics


@pytest.fixture
def network(monkeypatch):
  """A row of the table with maps."""
  small = functools.partial(small_networks.Maps, width=3)
  monkeypatch.setitem(models.MODELS, 'maps', small)


@pytest.fixture
def of_maps(config, network):
  """CRD and hints of small maps, two epochs."""
  config.student.name, config.student.widths = 'maps', ()
  config.num_epochs, config.eval_every_epochs, config.analysis = 2, 1, False
  config.method, config.also = 'crd', ('hint',)
  config.terms.crd.update({'num_negatives': 9, 'dim': 32})
  return config


WIDE = functools.partial(
  models.build, 'mlp', input_shape=(8, 8, 1), num_classes=10, seed=5
)


def mentor(kind='maps'):
  if kind == 'mlp':
    return small_networks.Network(*models.split(WIDE(widths=(12,))))
  model = small_networks.Maps(
    input_shape=(8, 8, 1),
    num_classes=10,
    width=4,
    dtype='float32',
    rngs=small_networks.nnx.Rngs(5),
  )
  return small_networks.Network(*models.split(model))


def fit(config, dataset, directory, session, reporter=None, teacher=None):
  return loop.fit(
    config,
    dataset,
    teacher=teacher or mentor(),
    name='student',
    directory=directory,
    session=session._replace(reporter=reporter or session.reporter),
  )


def rows(directory):
  found = read_metrics(directory / 'metrics.jsonl')
  for row in found:
    row.pop('images_per_second', None)  # the only clock in it
  return found


def saved(config, dataset, directory, mesh, teacher=None):
  """Everything in the last checkpoint."""
  like = task.like(config, dataset, mesh, teacher or mentor())
  folder = directory / 'checkpoints'
  last = max(loop.checkpoint.steps(folder))
  identity = loop._identity(config, dataset)
  return loop.checkpoint.read(folder, like, identity, step=last).tree


def test_projectors_and_memories_resume_bit_for_bit(
  of_maps, forty, tmp_path, session, interrupted
):
  of_maps.ema_decay = 0.9
  whole = fit(of_maps, forty, tmp_path / 'whole', session)
  with pytest.raises(KeyboardInterrupt):
    fit(of_maps, forty, tmp_path / 'cut', session, interrupted(6))
  cut = fit(of_maps, forty, tmp_path / 'cut', session)
  chex.assert_trees_all_equal(cut.last[1:], whole.last[1:])
  chex.assert_trees_all_equal(cut.best[1:], whole.best[1:])
  one, other = (
    saved(of_maps, forty, tmp_path / name, session.mesh)
    for name in ('whole', 'cut')
  )
  chex.assert_trees_all_equal(one.state, other.state)
  assert rows(tmp_path / 'cut') == rows(tmp_path / 'whole')
  # The checkpoint holds the aids, and what `fit` returns does not.
  assert set(one.state.aids.params) == {'crd', 'hint'}
  assert set(one.state.aids.rest) == {'crd', 'hint'}
  plain = networks.shapes(of_maps, forty)
  for found in (whole.last, whole.best, cut.last):
    chex.assert_trees_all_equal_shapes(found[1:], plain[1:])
    assert found.graphdef == plain.graphdef
  trained = [row for row in rows(tmp_path / 'whole') if 'train_loss' in row]
  for row in trained:
    assert row['train_loss'] > row['train_loss_crd'] > 0
    assert row['train_loss_hint'] > 0


def test_two_devices_share_the_memory_and_give_what_one_gives(config, forty):
  config.method = 'crd'
  config.terms.crd.update({'num_negatives': 9, 'dim': 32})
  found = []
  for mesh in (
    sharding.make_mesh(devices=jax.devices()[:1]),
    sharding.make_mesh(),
  ):
    job = task.prepare(config, forty, mentor('mlp'), mesh)
    snapshot = sharding.place(
      job.initialise(), jax.tree.map(lambda a: a.sharding, job.like)
    )
    job.feed.compile(snapshot)
    found.append(job.feed.advance(snapshot, 0, 9).state)
  bank = found[1].aids.rest['crd']['pair1']['bank']
  for side in ('student', 'teacher'):
    shards = bank[side].addressable_shards
    assert [s.data.shape for s in shards] == [(128, 32)] * 2
    assert len({s.device for s in shards}) == 2
    like = job.like.state.aids.rest['crd']['pair1']['bank'][side]
    assert like.sharding == sharding.by_example(mesh)
  others = (
    bank['log_partition'],
    bank['order'],
    bank['starts'],
    found[1].trained,
  )
  assert all(a.is_fully_replicated for a in jax.tree.leaves(others))
  chex.assert_trees_all_close(*map(jax.device_get, found), rtol=2e-3, atol=2e-4)


@pytest.fixture
def of_rows(config):
  """Features of MLPs, one of a path within the teacher."""
  config.method, config.also = 'l2', ('kd',)
  config.terms.l2.pairs = (('hidden1', 'hidden/hidden1'),)
  config.num_epochs = 2
  return config


def test_answers_computed_once_are_those_of_every_step(
  of_rows, forty, tmp_path, session
):
  found, features = [], []
  for how in ({}, {'precompute_logits': False}, {'precompute_megabytes': 0}):
    config = of_rows.copy_and_resolve_references()
    config.teacher.update(how)
    job = task.prepare(config, forty, mentor('mlp'), session.mesh)
    said = job.feed.examples.teacher
    features.append(said and {k: v.shape for k, v in said.features.items()})
    snapshot = job.initialise()
    job.feed.compile(snapshot)
    found.append(job.feed.advance(snapshot, 0, 6))
  assert features == [{'hidden/hidden1': (40, 12)}, None, None]
  for other in found[1:]:
    chex.assert_trees_all_close(other, found[0], rtol=1e-5, atol=1e-6)


def test_the_student_is_exported_without_its_aids(config, tmp_path, silent):
  config.method, config.also, config.baseline = 'crd', ('l2',), True
  config.terms.crd.update({'num_negatives': 9, 'dim': 8})
  config.analysis = False
  workdir = tmp_path / 'run'
  results = experiment.run(config, workdir, silent)
  assert results['student']['num_params'] == 64 * 6 + 6 + 6 * 10 + 10
  assert results['baseline']['num_params'] == results['student']['num_params']
  alone = finished.student(workdir)
  assert set(alone.params) == {'hidden', 'head'}
  assert jax.tree.leaves(alone.rest) == []
  run = finished.read(workdir)
  assert list(run.networks) == ['teacher', 'student', 'baseline']
  chex.assert_trees_all_equal(run.networks['student'][1:], alone[1:])
  said = run.logits('student', run.dataset.test).argmax(-1)
  accuracy = np.mean(said == run.dataset.test.labels)
  assert accuracy == pytest.approx(results['student']['test_accuracy'])
  kept = json.loads((workdir / 'config.json').read_text())
  assert kept['also'] == ['l2']
  # The baseline has no terms.
  names = {key for row in rows(workdir / 'baseline') for key in row}
  assert not any(key.startswith('train_loss_') for key in names)
  names = {key for row in rows(workdir) for key in row}
  assert {'train_loss_crd', 'train_loss_l2'} <= names


def test_a_student_is_exported_when_its_teacher_is_gone(
  config, tmp_path, silent
):
  config.num_epochs = 1
  experiment.run(config, tmp_path / 'first', silent)
  config.teacher.checkpoint = str(tmp_path / 'first' / 'teacher')
  experiment.run(config, tmp_path / 'second', silent)
  (tmp_path / 'first').rename(tmp_path / 'moved')
  alone = finished.student(tmp_path / 'second')
  assert set(alone.params) == {'hidden', 'head'}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'also': ('hnit',)}, "'hnit'; did you mean 'hint'"),
    ({'also': ('l2', 'l2')}, 'each term once'),
    ({'method': 'crd', 'also': ('crd',)}, 'each term once'),
    ({'method': 'crd', 'dataset': {'mixup': 0.2}}, 'mixup=0.2: crd remembers'),
    (
      {'method': 'crd', 'dataset': {'exclude_classes': tuple(range(9))}},
      'at least two classes',
    ),
    ({'method': 'at'}, r"'hidden1' of the student, \(2, 6\), .* \(2, 12\)"),
    ({'method': 'hint'}, r'second stage is needed: .*config\.terms\.hint'),
    (
      {'method': 'irg', 'teacher': {'widths': (12, 12)}},
      'has the stages hidden1, the teacher hidden1, hidden2',
    ),
    (
      {'method': 'l2', 'terms': {'l2': {'projector': 'identity'}}},
      r'\(2, 6\), with .*\(2, 12\): .*6 channels .*12.*projector',
    ),
    (
      {'method': 'l2', 'terms': {'l2': {'pairs': (('hiden1', 'pooled'),)}}},
      "the student: 'hiden1'",
    ),
    (
      {
        'method': 'attention_relation',
        'terms': {'attention_relation': {'num_heads': 5}},
      },
      'num_heads=5',
    ),
  ],
)
def test_mistakes_are_found_before_a_teacher_trains(
  change, message, config, tmp_path, silent
):
  if 'exclude_classes' in change.get('dataset', {}):
    config.dataset.num_labels = 0
  config.update(change)
  with pytest.raises(ValueError, match=message):
    experiment.run(config, tmp_path / 'run', silent)
  assert not silent.phases
  assert not (tmp_path / 'run').exists()
