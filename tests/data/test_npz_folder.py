"""A user's own files: a data set, or refused by file, array and row."""

import os

import numpy as np
import pytest

from kdjax import data
from kdjax.data import dataset, npz_folder, store

RNG = np.random.default_rng(0)
LABELS = {'train': np.arange(20) % 3, 'dev': [2, 1], 'test': [0, 0, 1, 2]}
IMAGES = {
  name: RNG.integers(0, 256, (len(labels), 4, 5, 3), np.uint8)
  for name, labels in LABELS.items()
}
VECTORS = {
  name: RNG.normal(3.0, 2.0, (len(labels), 6)).astype(np.float16)
  for name, labels in LABELS.items()
}
GOOD = {
  name: {'inputs': IMAGES[name], 'labels': LABELS[name]}
  for name in ('train', 'test')
}


@pytest.fixture
def folder(tmp_path):
  """Good files; a test breaks one of them."""
  return write(tmp_path, **GOOD)


def write(folder, *, save=np.savez, **files):
  for name, arrays in files.items():
    save(folder / f'{name}.npz', **arrays)
  return folder


def change(folder, split, **arrays):
  write(folder, **{split: GOOD[split] | arrays})


def of(inputs):
  return {
    name: {'inputs': inputs[name], 'labels': LABELS[name]}
    for name in ('train', 'test')
  }


def load(folder, **arguments):
  return data.load('npz', data_dir=str(folder), **arguments)


def refused(folder):
  """The one line that is said instead of a data set."""
  with pytest.raises((ValueError, OSError)) as error:
    load(folder)
  return str(error.value)


def test_images(folder):
  mine = load(folder, dev_fraction=0.25)
  assert (mine.name, mine.input_shape, mine.num_classes) == (
    'npz',
    (4, 5, 3),
    3,
  )
  assert (mine.class_names, mine.groups) == (('0', '1', '2'), None)
  for split in (mine.train, mine.dev, mine.test):
    assert (split.inputs.dtype, split.labels.dtype) == (np.uint8, np.int32)
  whole = dataset.Split(IMAGES['train'], LABELS['train'], np.arange(20))
  for ours, theirs in zip(
    (mine.train, mine.dev), dataset.hold_out(whole, fraction=0.25), strict=True
  ):
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(mine.test.inputs, IMAGES['test'])
  np.testing.assert_array_equal(mine.test.labels, LABELS['test'])
  assert mine.fingerprint() == load(folder, dev_fraction=0.25).fingerprint()


def test_dev_examples_of_ones_own(folder):
  change(folder, 'train')
  write(folder, dev={'inputs': IMAGES['dev'], 'labels': LABELS['dev']})
  mine = load(folder)
  np.testing.assert_array_equal(mine.train.inputs, IMAGES['train'])
  np.testing.assert_array_equal(mine.dev.inputs, IMAGES['dev'])
  assert mine.dev.labels.tolist() == LABELS['dev']


def test_a_missing_channel_is_added(tmp_path):
  grey = {name: images[..., 0] for name, images in IMAGES.items()}
  mine = load(write(tmp_path, **of(grey)))
  assert (mine.input_shape, mine.train.inputs.dtype) == ((4, 5, 1), np.uint8)


@pytest.mark.parametrize('inputs', [IMAGES, VECTORS], ids=['images', 'vectors'])
def test_what_is_trained_on_is_normalised(inputs, tmp_path, monkeypatch):
  monkeypatch.setattr(npz_folder, '_PART', 100)
  mine = load(write(tmp_path, **of(inputs)), dev_fraction=0.3)
  assert len(mine.mean) == len(mine.std) == inputs['train'].shape[-1]
  assert np.float32(mine.mean).tolist() == list(mine.mean)
  assert len(mine.train.labels) == 14
  x = data.normalise(mine.train.inputs, mine.mean, mine.std)
  axes = tuple(range(x.ndim - 1))
  np.testing.assert_allclose(x.mean(axes), 0, atol=1e-6)
  np.testing.assert_allclose(x.std(axes), 1, atol=1e-6)


def test_what_does_not_vary_stays_finite(tmp_path):
  vectors = {name: np.float64(x) for name, x in VECTORS.items()}
  for x in vectors.values():
    # Constant, or no more than the last bit of float32 from it.
    last_bit = np.arange(len(x)) % 2 / 16
    x[:, 0], x[:, 1], x[:, 2] = 0.1, 1e6 + last_bit, 1e-42 * x[:, 2]
  mine = load(write(tmp_path, **of(vectors)))
  assert mine.std[:3] == (1.0, 1.0, 1.0) != mine.std[3:]
  x = data.normalise(mine.test.inputs, mine.mean, mine.std)
  assert float(abs(x).max()) < 10
  black = {name: np.zeros_like(images) for name, images in IMAGES.items()}
  mine = load(write(tmp_path, **of(black)))
  assert (mine.mean, mine.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
  'store_as',
  [
    np.float32,
    np.float64,
    lambda x: x.astype('>f4'),
    lambda x: np.asfortranarray(x, np.float32),
  ],
)
@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_how_it_is_stored_does_not_matter(store_as, save, tmp_path):
  expected = load(write(tmp_path, **of(VECTORS))).fingerprint()
  stored = {name: store_as(x) for name, x in VECTORS.items()}
  mine = load(write(tmp_path, save=save, **of(stored)))
  assert mine.train.inputs.dtype == np.float32
  assert mine.fingerprint() == expected


def test_images_of_floats_are_taken_as_they_are(tmp_path):
  floats = {name: images / 7 for name, images in IMAGES.items()}
  mine = load(write(tmp_path, **of(floats)))
  assert (mine.input_shape, mine.train.inputs.dtype) == ((4, 5, 3), np.float32)
  assert max(mine.mean) > 2


def test_the_fingerprint_is_of_the_content(folder):
  before = load(folder)
  images = IMAGES['test'].copy()
  images[0, 0, 0, 0] ^= 1
  change(folder, 'test', inputs=images)
  assert load(folder).fingerprint() != before.fingerprint()


def test_names_and_groups_of_classes(folder):
  about = {'class_names': ['ant', 'bée', 'cat'], 'groups': np.uint8([1, 1, 0])}
  change(folder, 'train', **about)
  mine = load(folder)
  assert (mine.class_names, mine.groups) == (('ant', 'bée', 'cat'), (1, 1, 0))
  assert all(type(group) is int for group in mine.groups)
  assert all(type(name) is str for name in mine.class_names)


def test_it_has_no_options_and_needs_no_preparing(folder):
  assert 'npz' in data.names()
  with pytest.raises(ValueError, match='takes no options'):
    load(folder, options={'seed': 1})
  with pytest.raises(ValueError, match='dev_fraction=1'):
    load(folder, dev_fraction=1)
  for function in (data.prepare, store.place):
    with pytest.raises(ValueError, match="'npz' needs no preparing"):
      function('npz', data_dir=str(folder))


@pytest.mark.parametrize(
  ('data_dir', 'text'),
  [
    ('', "data_dir='' names no folder"),
    ('/no/where', 'there is no folder /no/where'),
    (__file__, f'there is no folder {__file__}'),
  ],
)
def test_no_folder(data_dir, text):
  message = refused(data_dir)
  assert text in message
  assert 'a data_dir with train.npz and test.npz' in message


@pytest.mark.parametrize(
  ('name', 'spoil'),
  [
    ('train', lambda path: path.unlink()),
    ('test', lambda path: path.unlink()),
    ('test', lambda path: (path.unlink(), path.mkdir())),
    ('test', lambda path: (path.unlink(), os.mkfifo(path))),
    ('dev', lambda path: path.symlink_to('nowhere')),
  ],
)
def test_no_file(folder, name, spoil):
  path = folder / f'{name}.npz'
  spoil(path)
  assert f'there is no file {path}: ' in refused(folder)


def row(array, index, value):
  array = np.array(array)
  array[index] = value
  return array


@pytest.mark.parametrize(
  ('split', 'arrays', 'text'),
  [
    ('train', {'inputs': IMAGES['train'].astype(int)}, 'inputs is of int64'),
    ('train', {'inputs': IMAGES['train'] > 7}, 'inputs is of bool'),
    ('train', {'inputs': np.zeros((20, 6), 'g')}, 'inputs is of float'),
    (
      'train',
      {'inputs': np.zeros((20, 6), 'u1')},
      r'vectors \[N, D\] of floats',
    ),
    ('train', {'inputs': np.zeros(20, 'f4')}, r'shape \(20,\): needed are'),
    ('train', {'inputs': np.zeros((20, 3, 8, 8), 'u1')}, '1 to 4 channels'),
    ('train', {'inputs': np.zeros((20, 8, 8, 0), 'u1')}, 'it is empty'),
    ('train', {'inputs': IMAGES['train'][:0], 'labels': []}, 'it is empty'),
    ('test', {'inputs': IMAGES['test'][:0], 'labels': []}, 'it is empty'),
    ('test', {'inputs': IMAGES['test'][:, :3]}, r'uint8 and shape \(3, 5, 3\)'),
    ('test', {'inputs': IMAGES['test'] / 255}, 'of float32 and shape'),
    ('train', {'labels': LABELS['train'] / 1}, r'float64 .*integers \[20\]'),
    ('train', {'labels': LABELS['train'] > 0}, r'bool .*integers \[20\]'),
    (
      'train',
      {'labels': np.eye(20, dtype=int)},
      r'\(20, 20\): integers \[20\]',
    ),
    ('train', {'labels': LABELS['train'][:9]}, r'\(9,\): integers \[20\]'),
    ('train', {'labels': row(LABELS['train'], [7, 9], -1)}, 'row 7: -1 is no'),
    ('train', {'labels': row(LABELS['train'], 7, 2**31)}, 'row 7: 2147483648'),
    ('test', {'labels': np.int8([0, 1, -3, 0])}, 'row 2: -3 is no class'),
    ('train', {'labels': LABELS['train'] + 1}, 'no example of class 0'),
    ('train', {'labels': row(LABELS['train'], 7, 2**31 - 1)}, 'of class 3'),
    ('train', {'labels': LABELS['train'] // 2 * 2}, 'no example of class 1;'),
    ('train', {'class_names': list('ab')}, 'row 2: 2 is no class.* 0..1'),
    ('train', {'class_names': list('abcd')}, 'of class 3; each of the 4'),
    ('train', {'class_names': [1, 2, 3]}, r'int64 .*: text \[3\]'),
    ('train', {'class_names': 'abc'}, r'shape \(\): text'),
    ('train', {'class_names': np.array([], str)}, 'number of classes is 0'),
    ('train', {'groups': [0, 1]}, r'\(2,\): integers \[3\] needed'),
    ('train', {'groups': [0.0, 1.0, 1.0]}, r'float64 .*: integers \[3\]'),
  ],
)
def test_what_is_no_data_set(folder, split, arrays, text):
  change(folder, split, **arrays)
  file = folder / ('train.npz' if 'no example' in text else f'{split}.npz')
  with pytest.raises(ValueError, match=f'^{file}: .*{text}'):
    load(folder)


def test_a_label_of_test_that_nothing_was_learnt_of(folder):
  change(folder, 'test', labels=[0, 1, 2, 4])
  assert 'train.npz: labels have no example of class 3' in refused(folder)
  change(folder, 'train', class_names=list('abc'))
  assert f'{folder}/test.npz: labels, row 3: 4 is no class' in refused(folder)


@pytest.mark.parametrize('character', [0xD800, 0x7FFFFFFF])
def test_what_is_no_text(folder, character):
  names = np.full(3, character, np.uint32).view('U1')
  change(folder, 'train', class_names=names)
  assert f'{folder}/train.npz: class_names is no text' in refused(folder)


def test_a_damaged_file_is_named(folder):
  path = folder / 'test.npz'
  path.write_bytes(path.read_bytes()[:-9])
  assert f'{path} cannot be read' in refused(folder)
  change(folder, 'test', label=LABELS['test'])
  assert "did you mean 'labels'" in refused(folder)


def test_one_class(tmp_path):
  files = {
    name: arrays | {'labels': np.zeros(len(arrays['labels']), int)}
    for name, arrays in GOOD.items()
  }
  assert 'number of classes is 1' in refused(write(tmp_path, **files))


@pytest.mark.parametrize('value', [np.nan, -np.inf, 1e39])
def test_a_number_that_is_not_finite(tmp_path, value):
  files = of({name: np.float64(x) for name, x in VECTORS.items()})
  files['test']['inputs'][2:, 5] = value
  message = refused(write(tmp_path, **files))
  assert f'{tmp_path}/test.npz: inputs, row 2: every number' in message
