"""What all students of a scenario see."""

import dataclasses

import jax
import numpy as np
import pytest
from text_students import make_text_config, make_text_world

from kdjax import data, models
from kdjax.study import scene
from kdjax.study.config import override
from kdjax.train import evaluate, experiment, feeds
from kdjax.train.state import Weights


def of_teacher(world, split):
  """What the teacher says of a split."""
  inputs = data.normalise(split.inputs, world.dataset.mean, world.dataset.std)
  return models.apply(*world.teacher, inputs, train=False)[0].logits


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_every_device_holds_the_training_set_and_the_answers(
  where, vectors, mesh
):
  train, dev = vectors.dataset.train, vectors.dataset.dev
  np.testing.assert_array_equal(where.examples.inputs, train.inputs)
  np.testing.assert_array_equal(where.examples.labels, train.labels)
  close(where.examples.teacher.logits, of_teacher(vectors, train))
  close(where.dev_logits, of_teacher(vectors, dev))
  assert mesh.size == 2
  for leaf in jax.tree.leaves(where[3:]):
    assert leaf.sharding.is_fully_replicated
    assert len(leaf.devices()) == 2


def test_dev_and_test_are_batches_filled_up_with_padding(where, vectors):
  for name, size in (('dev', 33), ('test', 37)):
    inputs, labels = getattr(where, name)
    split = getattr(vectors.dataset, name)
    assert inputs.shape == (2, 20, 6)
    assert labels.shape == (2, 20)
    np.testing.assert_array_equal(inputs.reshape(-1, 6)[:size], split.inputs)
    np.testing.assert_array_equal(labels.reshape(-1)[:size], split.labels)
    assert (labels.reshape(-1)[size:] == data.PADDING).all()
  np.testing.assert_array_equal(where.dev_labels, vectors.dataset.dev.labels)


def test_a_batch_is_no_larger_than_the_split(vectors, config, mesh):
  large = override(config, {'eval_batch_size': 500})
  assert vectors.scene(large, mesh).dev[1].shape == (1, 33)


@pytest.mark.parametrize(
  'values',
  [{'dataset.mixup': 0.2}, {'teacher.precompute_logits': False}],
)
def test_a_teacher_may_answer_in_every_step(values, vectors, config, mesh):
  found = vectors.scene(override(config, values), mesh)
  assert found.examples.teacher is None
  close(found.dev_logits, of_teacher(vectors, vectors.dataset.dev))
  assert found.teacher is not None


def test_without_answers_and_without_a_teacher(where):
  asked = where.unanswered()
  assert asked.examples.teacher is None
  assert asked.teacher is where.teacher
  assert asked.dev_logits is where.dev_logits
  alone = where.alone()
  assert alone.teacher is alone.teacher_weights is alone.dev_logits is None
  assert alone.examples.teacher is None
  assert alone.examples.inputs is where.examples.inputs
  assert alone.test is where.test


def test_there_may_be_no_teacher(vectors, config, mesh):
  found = scene.make(config, vectors.dataset, None, mesh)
  assert found.teacher_weights is found.dev_logits is None
  assert found.examples.teacher is None


def test_how_good_and_how_large_the_teacher_is(where, vectors):
  found = scene.teacher_scores(where)
  for name in ('dev', 'test'):
    split = getattr(vectors.dataset, name)
    right = np.argmax(of_teacher(vectors, split), -1) == split.labels
    assert found.pop(f'{name}_accuracy') == pytest.approx(right.mean())
  assert found == {'num_params': 6 * 16 + 16 + 16 * 5 + 5}


@pytest.mark.parametrize('exclude', [(), (3,), (0, 2)])
@pytest.mark.parametrize('num_labels', [0, 20])
def test_each_seed_sees_what_its_run_would(
  num_labels, exclude, vectors, config, mesh
):
  sets = {
    'dataset.num_labels': num_labels,
    'dataset.exclude_classes': exclude,
    'seed': 9,  # of the study, and of no student
  }
  config = override(config, sets)
  stream = scene.stream(config, vectors.dataset, (0, 3, 0), mesh)
  for seed, key, rows in zip((0, 3, 0), *stream, strict=True):
    own = override(config, {'seed': seed})
    wanted = experiment.transfer_set(own, vectors.dataset)
    train = vectors.dataset.train
    np.testing.assert_array_equal(train.inputs[rows], wanted.inputs)
    np.testing.assert_array_equal(train.labels[rows], wanted.labels)
    assert key == feeds.run_key(seed)
  a, b, c = map(np.asarray, stream.rows)
  assert (a == c).all()
  assert (a == b).all() == (not num_labels)


def test_too_few_labels_are_refused(vectors, config, mesh):
  config = override(config, {'dataset.num_labels': 101})
  with pytest.raises(ValueError, match='num_labels=101'):
    scene.stream(config, vectors.dataset, (0,), mesh)


def test_streamed_data_are_refused(vectors):
  scene.check(vectors.dataset)
  encoded = data.Split(object.__new__(data.Images), vectors.dataset.train[1])
  streamed = dataclasses.replace(vectors.dataset, train=encoded)
  with pytest.raises(ValueError, match="'made-up' is streamed from disk"):
    scene.check(streamed)


@pytest.fixture(scope='module')
def reading():
  """A text in order, and how it is studied."""
  return make_text_world('contiguous'), make_text_config()


def test_a_text_is_cut_into_streams(reading, mesh):
  world, config = reading
  where = world.scene(config, mesh)
  split = world.dataset.dev
  size = len(split.labels)
  for found, wanted, filling in zip(
    where.dev, split[:2], (0, data.PADDING), strict=True
  ):
    steps, streams, _ = found.shape
    assert (steps, streams) == (-(-size // 4), 4)
    rows = np.swapaxes(found, 0, 1).reshape(-1, wanted.shape[1])
    np.testing.assert_array_equal(rows[:size], wanted)
    assert (rows[size:] == filling).all()
  assert where.dev_logits is None
  assert where.dev_labels is where.dev[1]


def test_there_are_streams_for_all_devices(reading, mesh):
  """As a run on them reads: three would be filled up to four."""
  world, config = reading
  where = world.scene(override(config, {'eval_batch_size': 3}), mesh)
  assert where.dev[1].shape[1] == 4


@pytest.mark.parametrize('batching', ['contiguous', 'padded'])
def test_what_the_teacher_says_of_a_text_is_kept_if_it_fits(batching, mesh):
  world, config = make_text_world(batching), make_text_config()
  where = world.scene(config, mesh)
  rows = world.dataset.train.inputs
  logits = where.examples.teacher.logits
  assert logits.shape == (*rows.shape, world.dataset.num_classes)
  if batching == 'padded':  # to the last row, though it fills no batch
    said = models.apply(*world.teacher, rows, train=False)[0].logits
    close(logits, said)
  else:
    steps = len(rows) // config.batch_size
    first = rows[:steps].reshape(1, -1)  # the first stream, in one go
    said = models.apply(*world.teacher, first, train=False)[0].logits
    close(logits[:steps].reshape(said.shape), said)
  config.teacher.precompute_megabytes = 0
  assert world.scene(config, mesh).examples.teacher is None


def test_how_good_the_teacher_of_a_text_is(reading, mesh):
  world, config = reading
  found = scene.teacher_scores(world.scene(config, mesh))
  own = override(config, {'student.widths': (10,)})
  weights = Weights(*world.teacher[1:])
  for name in ('dev', 'test'):
    totals = evaluate.scores(world.evaluator(own, name)(weights))
    assert found[f'{name}_perplexity'] == pytest.approx(
      np.exp(totals['cross_entropy']), rel=1e-5
    )
  assert set(found) == {'dev_perplexity', 'test_perplexity', 'num_params'}
