import dataclasses

import numpy as np
import pytest

from kdjax.data import dataset


def split_of(labels):
  labels = np.asarray(labels, np.int32)
  return dataset.Split(np.arange(len(labels), dtype=np.float32), labels)


@pytest.fixture
def skewed():
  return split_of([0] * 50 + [1] * 30 + [2] * 4)


def dataset_of(train):
  return dataset.Dataset(
    name='x',
    train=train,
    dev=split_of([0]),
    test=split_of([1]),
    num_classes=3,
    mean=(0.0,),
    std=(1.0,),
    class_names=('a', 'b', 'c'),
  )


@pytest.mark.parametrize('num_labels', [1, 2, 3, 10, 11, 12])
def test_thin_counts_differ_by_at_most_one(skewed, num_labels):
  thinned = dataset.thin(skewed, num_labels=num_labels, num_classes=3, seed=0)
  counts = np.bincount(thinned.labels, minlength=3)
  assert counts.sum() == num_labels
  assert counts.max() - counts.min() <= 1
  np.testing.assert_array_equal(
    thinned.labels, skewed.labels[thinned.inputs.astype(int)]
  )


def test_thin_goes_on_when_a_class_has_run_out(skewed):
  thinned = dataset.thin(skewed, num_labels=44, num_classes=3, seed=0)
  assert np.bincount(thinned.labels).tolist() == [20, 20, 4]


def test_thin_is_deterministic_nested_and_follows_the_seed(skewed):
  def draw(num_labels, seed):
    kept = dataset.thin(skewed, num_labels=num_labels, num_classes=3, seed=seed)
    return kept.inputs.tolist()

  assert draw(20, 0) == draw(20, 0)
  assert draw(20, 0) != draw(20, 1)
  assert set(draw(10, 0)) < set(draw(20, 0))
  assert len(set(draw(84, 3))) == 84
  # The class that has the first turn is drawn as well.
  first = {skewed.labels[int(draw(1, seed)[0])] for seed in range(20)}
  assert first == {0, 1, 2}


@pytest.mark.parametrize('num_labels', [0, -1, 85])
def test_thin_rejects_counts(skewed, num_labels):
  with pytest.raises(ValueError, match=r'num_labels=.* must lie in 1\.\.84'):
    dataset.thin(skewed, num_labels=num_labels, num_classes=3, seed=0)


def test_thin_rejects_labels_beyond_the_classes(skewed):
  with pytest.raises(ValueError, match='num_classes=2'):
    dataset.thin(skewed, num_labels=3, num_classes=2, seed=0)


def test_exclude_classes(skewed):
  kept = dataset.exclude_classes(skewed, (0, 2))
  assert kept.labels.tolist() == [1] * 30
  assert kept.inputs.tolist() == list(range(50, 80))
  assert len(dataset.exclude_classes(skewed, ()).labels) == 84


@pytest.mark.parametrize('classes', [(3,), (0, -1), (0, 1, 2)])
def test_exclude_classes_rejects(skewed, classes):
  with pytest.raises(ValueError, match=r'left out|leaving out'):
    dataset.exclude_classes(skewed, classes)


@pytest.mark.parametrize(
  ('fraction', 'num_held'), [(0.1, 8), (1e-9, 1), (0.999, 83)]
)
def test_hold_out_is_disjoint_and_complete(skewed, fraction, num_held):
  left, held = dataset.hold_out(skewed, fraction=fraction)
  assert len(held.labels) == num_held
  together = np.concatenate([left.inputs, held.inputs])
  assert sorted(together.tolist()) == skewed.inputs.tolist()
  for part in (left, held):
    np.testing.assert_array_equal(
      part.labels, skewed.labels[part.inputs.astype(int)]
    )


@pytest.mark.parametrize('fraction', [0, 1, -0.1, 1.5, float('nan')])
def test_hold_out_rejects(skewed, fraction):
  with pytest.raises(ValueError, match='dev_fraction'):
    dataset.hold_out(skewed, fraction=fraction)


PERMUTATION = [3, 2, 1, 6, 0, 7, 4, 5]


def test_permutation_never_changes():
  # What prepared runs rest on: these positions stay, with any NumPy.
  assert dataset.permutation(8, seed=0).tolist() == PERMUTATION
  assert dataset.permutation(8, seed=1).tolist() != PERMUTATION


def test_fingerprint_is_of_the_content():
  first = dataset_of(split_of([0, 1, 2]))
  assert first.fingerprint() == dataset_of(split_of([0, 1, 2])).fingerprint()
  assert first.fingerprint() == first.fingerprint()
  other = [
    dataset_of(split_of([0, 1, 1])),
    dataclasses.replace(first, mean=(0.5,)),
    dataclasses.replace(first, dev=first.test, test=first.dev),
    dataclasses.replace(
      first,
      train=first.train._replace(inputs=first.train.inputs.astype(np.int32)),
    ),
    dataclasses.replace(
      first, train=first.train._replace(inputs=first.train.inputs[:, None])
    ),
  ]
  prints = {first.fingerprint()} | {x.fingerprint() for x in other}
  assert len(prints) == 6


def test_input_shape():
  split = dataset.Split(np.zeros((2, 8, 8, 1)), np.zeros(2))
  assert dataset_of(split).input_shape == (8, 8, 1)
