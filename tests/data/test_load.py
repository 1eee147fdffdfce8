import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets

from kdjax import data
from kdjax.data import store, table

SMALL = {
  'num_examples': 40,
  'num_test_examples': 20,
  'num_inputs': 8,
  'num_classes': 4,
  'num_groups': 2,
}


@pytest.fixture
def own_root(root, tmp_path):
  """A copy of the prepared digits that a test may spoil."""
  return shutil.copytree(root, tmp_path / 'root')


def cache_of(root):
  (path,) = pathlib.Path(root).rglob('*.npz')
  return path


def manifest_of(root):
  (path,) = pathlib.Path(root).rglob('kdjax_manifest.json')
  return path


def rows(split):
  return sorted(
    x.tobytes() + bytes([y])
    for x, y in zip(split.inputs, split.labels.astype(np.uint8), strict=True)
  )


def test_digits_are_those_of_scikit_learn(root):
  digits = data.load('digits', data_dir=str(root))
  assert (len(digits.train.labels), len(digits.dev.labels)) == (1167, 130)
  assert np.bincount(digits.test.labels).tolist() == [50] * 10
  assert (digits.input_shape, digits.num_classes) == ((8, 8, 1), 10)
  assert digits.class_names == tuple('0123456789')
  assert digits.groups is None
  for split in (digits.train, digits.dev, digits.test):
    assert (split.inputs.dtype, split.labels.dtype) == (np.uint8, np.int32)
  source = sklearn.datasets.load_digits()
  pixels = np.rint(source.images * 255 / 16).astype(np.uint8)[..., None]
  ours = rows(digits.train) + rows(digits.dev) + rows(digits.test)
  assert sorted(ours) == rows(data.Split(pixels, source.target))


def test_normalised_digits_have_mean_0_and_std_1(root):
  digits = data.load('digits', data_dir=str(root))
  x = data.normalise(digits.train.inputs, digits.mean, digits.std)
  assert abs(float(x.mean())) < 0.02
  assert abs(float(x.std()) - 1) < 0.02


def test_dev_fraction_moves_examples_from_train_to_dev(root):
  few = data.load('digits', data_dir=str(root), dev_fraction=0.1)
  many = data.load('digits', data_dir=str(root), dev_fraction=0.5)
  assert len(many.dev.labels) == 648
  assert rows(few.test) == rows(many.test)
  assert set(rows(few.dev)) <= set(rows(many.dev))
  assert few.fingerprint() != many.fingerprint()
  again = data.load('digits', data_dir=str(root))
  assert again.fingerprint() == few.fingerprint()
  with pytest.raises(ValueError, match='dev_fraction=1'):
    data.load('digits', data_dir=str(root), dev_fraction=1)


def test_preparing_twice_gives_the_same(root, tmp_path):
  first = data.load('digits', data_dir=str(root))
  second = data.load('digits', data_dir=str(tmp_path))
  assert first.fingerprint() == second.fingerprint()


def test_the_default_folder_is_that_of_tfds(monkeypatch, tmp_path):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'here'))
  place = store.place('digits')
  assert place.folder == tmp_path / 'here/digits/1.0.0'
  monkeypatch.delenv('TFDS_DATA_DIR')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert store.place('digits').root == tmp_path / 'tensorflow_datasets'


def test_the_table_has_the_versions_of_the_builders(tmp_path):
  text = tmp_path / 'mine.txt'
  text.write_text('a text\n')
  for name in data.DATASETS:
    options = {'path': str(text)} if name == table.OWN_TEXT else None
    place = store.place(name, data_dir=str(tmp_path), options=options)
    assert place.builder().data_path == place.folder
    assert place.builder().name == name


def test_an_unknown_data_set_suggests_the_nearest():
  with pytest.raises(ValueError, match="did you mean 'fashion_mnist'"):
    data.load('fashon_mnist')


def test_a_data_set_like_no_other_lists_all():
  with pytest.raises(ValueError, match='known are') as error:
    data.load('zzz')
  assert all(name in str(error.value) for name in data.names())


@pytest.mark.parametrize(
  'name',
  [
    name
    for name, x in table.DATASETS.items()
    if not x.bundled and name != table.OWN_TEXT
  ],
)
def test_what_is_not_prepared_names_the_command(name, tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    data.load(name, data_dir=str(tmp_path))
  message = str(error.value)
  command = f'python -m kdjax.prepare --dataset={name} --data_dir={tmp_path}'
  assert command in message
  assert '\n' not in message
  assert not any(tmp_path.iterdir())


def test_synthetic_options(tmp_path):
  first = data.load('synthetic_classes', data_dir=str(tmp_path), options=SMALL)
  assert first.train.inputs.shape == (36, 8)
  assert first.train.inputs.dtype == np.float32
  assert len(first.test.labels) == 20
  assert first.groups == (0, 0, 1, 1)
  assert first.num_classes == len(first.class_names) == 4
  other = data.load(
    'synthetic_classes',
    data_dir=str(tmp_path),
    options={**SMALL, 'correlation': 0.9},
  )
  assert other.fingerprint() != first.fingerprint()
  again = data.load('synthetic_classes', data_dir=str(tmp_path), options=SMALL)
  assert again.fingerprint() == first.fingerprint()


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('digits', {'seed': 1}, "'digits' takes no options"),
    ('synthetic_classes', {'sed': 1}, "did you mean 'seed'"),
    ('synthetic_classes', {'correlation': 2.0}, 'correlation=2.0 must'),
  ],
)
def test_wrong_options(name, options, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    data.load(name, data_dir=str(tmp_path), options=options)


def flip_a_byte(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def shorten_the_headers(path):
  """Announces fewer training examples; their bytes stay where they are."""
  content = path.read_bytes()
  for shape in (b'(1297,)', b'(1297, 8, 8, 1)'):
    assert content.count(shape) == 1
    content = content.replace(shape, shape.replace(b'1297', b' 100'))
  path.write_bytes(content)


def encrypt(path):
  """Sets a flag in the list of files, as one flipped bit would."""
  content = bytearray(path.read_bytes())
  content[content.index(b'PK\1\2') + 8] |= 1
  path.write_bytes(content)


@pytest.mark.parametrize(
  'spoil',
  [
    flip_a_byte,
    shorten_the_headers,
    encrypt,
    lambda path: path.write_bytes(path.read_bytes()[:-100]),
    lambda path: path.write_bytes(b''),
    lambda path: path.unlink(),
    lambda path: np.savez(path, train_inputs=np.zeros(3)),
  ],
)
def test_a_spoiled_cache_is_made_again(root, own_root, spoil):
  good = cache_of(own_root).read_bytes()
  spoil(cache_of(own_root))
  digits = data.load('digits', data_dir=str(own_root))
  expected = data.load('digits', data_dir=str(root))
  assert digits.fingerprint() == expected.fingerprint()
  assert len(cache_of(own_root).read_bytes()) == len(good)
  assert not list(own_root.rglob('*.partial'))


@pytest.mark.parametrize(
  ('field', 'label'), [('train_labels', 10), ('test_labels', -1)]
)
def test_a_label_that_is_no_class(own_root, field, label):
  with np.load(cache_of(own_root)) as cache:
    arrays = dict(cache)
  arrays[field][[7, 9]] = label
  np.savez(cache_of(own_root), **arrays)
  split = field.removesuffix('_labels')
  message = f'example 7 of the {split} split has the label {label};'
  with pytest.raises(ValueError, match=rf'{message} .* lie in 0\.\.9'):
    data.load('digits', data_dir=str(own_root))


class Bomb:
  """Leaves a file behind if it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_a_cache_executes_nothing(own_root, tmp_path):
  bomb = np.array([Bomb(tmp_path / 'executed')])
  fields = dict.fromkeys(store.Arrays._fields, bomb)
  np.savez(cache_of(own_root), **fields, allow_pickle=True)
  data.load('digits', data_dir=str(own_root))
  assert not (tmp_path / 'executed').exists()


def test_a_folder_without_room_for_a_cache_still_loads(
  root, own_root, monkeypatch
):
  cache_of(own_root).unlink()

  def full(*_, **__):
    raise OSError('no space left on device')

  monkeypatch.setattr(np, 'savez', full)
  digits = data.load('digits', data_dir=str(own_root))
  assert len(digits.test.labels) == 500
  assert not list(own_root.rglob('*.npz*'))


def test_damaged_records_are_named(own_root):
  cache_of(own_root).unlink()
  (records,) = own_root.rglob('*test.array_record*')
  records.write_bytes(records.read_bytes()[:-1000])
  with pytest.raises(OSError, match=r'digits/1\.0\.0.*delete'):
    data.load('digits', data_dir=str(own_root))


def test_records_in_another_format_are_refused(own_root):
  cache_of(own_root).unlink()
  manifest_of(own_root).unlink()
  (info,) = own_root.rglob('dataset_info.json')
  text = info.read_text()
  assert '"array_record"' in text
  info.write_text(text.replace('"array_record"', '"tfrecord"'))
  with pytest.raises(ValueError, match='another data_dir'):
    data.load('digits', data_dir=str(own_root))


def test_imports_and_loads_without_tfds(root):
  program = f"""
import sys
import kdjax.data
assert not {{'tensorflow_datasets', 'flax', 'grain'}} & set(sys.modules)
kdjax.data.load('digits', data_dir={str(root)!r})
assert not {{'tensorflow_datasets', 'tensorflow'}} & set(sys.modules)
"""
  subprocess.run([sys.executable, '-c', program], check=True)


def test_preparing_prints_nothing(tmp_path, capfd):
  data.load('synthetic_classes', data_dir=str(tmp_path), options=SMALL)
  assert capfd.readouterr() == ('', '')


def test_every_example_knows_where_it_was(root):
  digits = data.load('digits', data_dir=str(root))
  ids = np.concatenate([digits.train.ids, digits.dev.ids])
  assert sorted(ids) == list(range(len(ids)))
  few = data.thin(digits.train, num_labels=30, num_classes=10, seed=0)
  place = {i: k for k, i in enumerate(digits.train.ids)}
  for index, i in enumerate(few.ids):
    np.testing.assert_array_equal(
      few.inputs[index], digits.train.inputs[place[i]]
    )
