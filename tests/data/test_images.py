import pickle

import numpy as np
import photos
import pytest

from kdjax import data
from kdjax.data import crops, dataset, images, shards

SIZE = 24


@pytest.fixture
def all_images(imagenet_root):
  """The 30 training images, in the order of their records."""
  records = shards.Shards(imagenet_root / 'imagenet2012/5.1.0', 'train')
  return images.Images(records, np.arange(30), size=SIZE)


def files_of(part):
  return [part.encoded(i) for i in range(len(part))]


def test_it_stands_where_an_array_does(all_images):
  assert all_images.shape == (30, SIZE, SIZE, 3)
  assert (len(all_images), all_images.dtype) == (30, np.uint8)
  assert all_images.ndim == 4
  assert (
    images.Images(all_images.records, np.arange(2)).shape[1:3] == (224,) * 2
  )
  written = {
    content for part in photos.train_members().values() for _, content in part
  }
  assert set(files_of(all_images)) == written


def test_a_part_is_the_same_images(all_images):
  everything = files_of(all_images)
  some = all_images[np.array([4, 0, 29])]
  assert isinstance(some, images.Images)
  assert some.shape == (3, SIZE, SIZE, 3)
  assert files_of(some) == [everything[i] for i in (4, 0, 29)]
  assert files_of(some[1:]) == [everything[i] for i in (0, 29)]
  mask = np.arange(30) == 7
  assert files_of(all_images[mask]) == [everything[7]]


def test_a_number_decodes_one(all_images):
  encoded = all_images.encoded(3)
  expected = crops.centre_crop(encoded, SIZE)
  np.testing.assert_array_equal(all_images[3], expected)
  np.testing.assert_array_equal(all_images[np.int64(3)], expected)
  rng = np.random.default_rng
  np.testing.assert_array_equal(
    all_images.random_resized_crop(3, rng(0)),
    crops.random_resized_crop(encoded, rng(0), SIZE),
  )
  assert sum(1 for _ in all_images[:3]) == 3


def test_splits_are_cut_as_those_of_arrays_are(all_images):
  labels = np.repeat(np.arange(6), 5).astype(np.int32)
  split = data.Split(all_images, labels)
  numbers = data.Split(np.arange(30), labels)
  for cut in (
    lambda part: dataset.hold_out(part, fraction=0.3)[1],
    lambda part: data.thin(part, num_labels=12, num_classes=6, seed=1),
    lambda part: data.exclude_classes(part, [2, 3]),
  ):
    ours, expected = cut(split), cut(numbers)
    np.testing.assert_array_equal(ours.inputs.positions, expected.inputs)
    np.testing.assert_array_equal(ours.labels, expected.labels)


def test_it_is_pickled_without_its_open_files(all_images):
  encoded = all_images.encoded(5)
  content = pickle.dumps(all_images)
  assert len(content) < 2000
  assert pickle.loads(content).encoded(5) == encoded


def test_what_identifies_it(all_images):
  assert all_images.content() == all_images[:].content()
  assert all_images.content() != all_images[::-1].content()


def test_no_such_record(all_images):
  with pytest.raises(IndexError):
    all_images.encoded(30)
  with pytest.raises(IndexError, match=r'record 30 is not in 0\.\.29'):
    all_images.records[30]


def test_an_image_that_is_none_is_named(all_images, monkeypatch):
  monkeypatch.setattr(
    shards.Shards, '__getitem__', lambda self, index: {'image': b'no image'}
  )
  name = r'record 7 of .*-train\.array_record-00000-of-00001'
  with pytest.raises(ValueError, match=f'{name}: no image can be decoded'):
    all_images[5:][2]
  with pytest.raises(ValueError, match=f'{name}: no image can be decoded'):
    all_images.random_resized_crop(7, np.random.default_rng(0))
