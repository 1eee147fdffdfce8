import json
import pathlib
import shutil

import numpy as np
import pytest

from kdjax import data
from kdjax.data import manifest, store

DIGITS = 'digits/1.0.0'
IMAGENET = 'imagenet2012/5.1.0'


@pytest.fixture
def digits(root, tmp_path):
  """A copy of prepared digits that a test may spoil, without its cache."""
  folder = shutil.copytree(root, tmp_path / 'root') / DIGITS
  (folder / 'kdjax_arrays.npz').unlink()
  return folder


@pytest.fixture
def imagenet(imagenet_root, tmp_path):
  """A copy of a prepared, streamed data set that a test may spoil."""
  return shutil.copytree(imagenet_root, tmp_path / 'root') / IMAGENET


def load(folder):
  return data.load(folder.parent.name, data_dir=str(folder.parents[1]))


def prepare(folder):
  return data.prepare(folder.parent.name, data_dir=str(folder.parents[1]))


def flip(path, *, at=0.5):
  content = bytearray(path.read_bytes())
  content[int(at * len(content))] ^= 1
  path.write_bytes(content)


def test_it_lists_what_tfds_wrote(root):
  folder = root / DIGITS
  found = manifest.read(folder)
  assert set(found) == {
    path.name for path in folder.iterdir() if not path.name.startswith('kdjax_')
  }
  name = 'digits-train.array_record-00000-of-00001'
  assert found[name]['size'] == (folder / name).stat().st_size
  assert len(found[name]['sha256']) == 64
  manifest.check(folder, records=True)
  assert not list(folder.glob('*.partial'))


@pytest.mark.parametrize(
  'name',
  [
    'digits-train.array_record-00000-of-00001',
    'digits-test.array_record-00000-of-00001',
    'dataset_info.json',
    'features.json',
  ],
)
def test_a_flip_in_any_file_is_named(digits, name):
  flip(digits / name)
  message = f'{name} is not what was prepared.*delete .*{DIGITS}.*prepare again'
  with pytest.raises(OSError, match=message):
    load(digits)
  with pytest.raises(OSError, match=message):
    prepare(digits)


def test_a_missing_and_a_short_file(digits):
  path = digits / 'digits-test.array_record-00000-of-00001'
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(OSError, match=r'test\.array.* holds \d+ bytes, but \d+'):
    load(digits)
  path.unlink()
  with pytest.raises(OSError, match=r'test\.array.* is missing; delete'):
    load(digits)


def test_prepare_verifies_though_there_is_a_cache(root, tmp_path):
  folder = shutil.copytree(root, tmp_path / 'root') / DIGITS
  assert prepare(folder).was_prepared
  flip(folder / 'digits-train.array_record-00000-of-00001')
  load(folder)  # The cache has a check of its own.
  with pytest.raises(OSError, match='is not what was prepared'):
    prepare(folder)


@pytest.mark.parametrize(
  'spoil',
  [
    flip,
    lambda path: path.write_text(
      path.read_text().replace('"size": ', '"size": 1')
    ),
    lambda path: path.write_bytes(path.read_bytes()[:-10]),
    lambda path: path.write_bytes(b''),
    lambda path: path.write_text('[]'),
    lambda path: path.write_text('{"files": {}}'),
  ],
)
def test_a_damaged_list_is_told_from_damaged_files(digits, spoil):
  spoil(digits / manifest.NAME)
  with pytest.raises(OSError, match=r'kdjax_manifest\.json is damaged'):
    load(digits)


def test_data_of_an_older_version_load_and_are_listed_by_prepare(root, digits):
  (digits / manifest.NAME).unlink()
  expected = data.load('digits', data_dir=str(root)).fingerprint()
  assert load(digits).fingerprint() == expected
  assert not (digits / manifest.NAME).exists()
  assert prepare(digits).was_prepared
  assert manifest.read(digits) == manifest.read(root / DIGITS)


def test_damage_without_a_list_is_still_told(digits):
  (digits / manifest.NAME).unlink()
  path = digits / 'digits-test.array_record-00000-of-00001'
  flip(path)
  with pytest.raises(
    OSError, match=rf'record \d+ of .*{path.name}.*is damaged'
  ):
    load(digits)
  with pytest.raises(
    OSError, match=rf'record \d+ of .*{path.name}.*is damaged'
  ):
    prepare(digits)
  # What is damaged is not listed as if it were not.
  assert not (digits / manifest.NAME).exists()


def test_a_streamed_data_set_is_listed_before_it_is_used(imagenet):
  (imagenet / manifest.NAME).unlink()
  with pytest.raises(FileNotFoundError) as error:
    load(imagenet)
  command = 'python -m kdjax.prepare --dataset=imagenet2012 --data_dir='
  assert command + str(imagenet.parents[1]) in str(error.value)
  prepare(imagenet)
  assert len(load(imagenet).test.labels) == 6


def test_a_streamed_data_set_checks_sizes_at_once(imagenet):
  (path,) = imagenet.glob('*train.array_record*')
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(OSError, match=rf'{path.name} holds \d+ bytes'):
    load(imagenet)


@pytest.mark.parametrize('name', ['dataset_info.json', 'label.labels.txt'])
def test_a_streamed_data_set_checks_what_describes_it(imagenet, name):
  """A flip in the length of a shard would give images others' labels."""
  flip(imagenet / name)
  with pytest.raises(OSError, match=f'{name} is not what was prepared'):
    load(imagenet)


def test_a_streamed_data_set_is_verified_by_prepare(imagenet):
  (path,) = imagenet.glob('*validation.array_record*')
  flip(path)
  load(imagenet)  # Reading all of it would take too long.
  with pytest.raises(OSError, match=f'{path.name} is not what was prepared'):
    prepare(imagenet)


def damaged(content, rng):
  """One random bit is flipped, or the end is missing."""
  place = rng.integers(len(content))
  if rng.random() < 0.3:
    return content[:place]
  return (
    content[:place]
    + bytes([content[place] ^ 1 << rng.integers(8)])
    + content[place + 1 :]
  )


def test_no_damage_to_records_is_silent(imagenet):
  """100 flips and truncations, past the sizes that `load` compares."""
  everything = load(imagenet)
  expected = [
    everything.train.inputs.encoded(i)
    for i in range(len(everything.train.inputs))
  ]
  (path,) = imagenet.glob('*train.array_record*')
  whole, rng, told = path.read_bytes(), np.random.default_rng(0), []
  for _ in range(100):
    path.write_bytes(damaged(whole, rng))
    images = load_unchecked(imagenet).train.inputs
    for index, content in enumerate(expected):
      try:
        assert images.encoded(index) == content
      except OSError as error:
        told.append(
          (f'record {images.positions[index]} of {path} ', str(error))
        )
  assert len(told) > 100
  assert all(name in message for name, message in told)


def load_unchecked(folder):
  """Loads without a list of files, but with labels that are cached."""
  where = store.place('imagenet2012', data_dir=str(folder.parents[1]))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(manifest, 'check', lambda *_, **__: None)
    return data.load(where.name, data_dir=str(where.root))


def test_no_damage_to_arrays_is_silent(root, digits):
  expected = data.load('digits', data_dir=str(root)).fingerprint()
  shards = sorted(digits.glob('*.array_record*'))
  rng = np.random.default_rng(1)
  for _ in range(20):
    path = shards[rng.integers(2)]
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, rng))
    with pytest.raises(OSError, match=path.name):
      load(digits)
    path.write_bytes(whole)
  assert load(digits).fingerprint() == expected


def test_a_full_disk_leaves_no_half_a_list(digits, monkeypatch):
  (digits / manifest.NAME).unlink()

  def full(self, text):
    self.touch()
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_text', full)
  with pytest.raises(OSError, match='No space left'):
    manifest.write(digits)
  assert not list(digits.glob('kdjax_manifest*'))


def test_the_list_is_plain_json(root):
  content = json.loads((root / DIGITS / manifest.NAME).read_text())
  assert set(content) == {'files', 'sha256'}
