import itertools
import re
import tarfile

import numpy as np
import photos
import published
import pytest
import tensorflow_datasets as tfds

from kdjax import data
from kdjax.data.builders import imagenet, tars

NAME = 'imagenet2012'


@pytest.fixture
def files(tmp_path, monkeypatch):
  archives = published.Archives(
    tmp_path / 'files', imagenet.Imagenet2012, monkeypatch
  )
  archives.classes, archives.images, archives.labels = photos.write_imagenet(
    archives
  )
  return archives


@pytest.fixture
def everything(imagenet_root):
  return data.load(NAME, data_dir=str(imagenet_root))


def test_every_image_keeps_its_label(everything):
  names = everything.class_names
  train, test = (
    {
      (part.inputs.encoded(i), names[part.labels[i]])
      for part in parts
      for i in range(len(part.labels))
    }
    for parts in ((everything.train, everything.dev), (everything.test,))
  )
  assert train == {
    (content, synset)
    for synset, members in photos.train_members().items()
    for _, content in members
  }
  labels = photos.SYNSETS[::-1]
  assert test == {
    (content, label)
    for (_, content), label in zip(
      photos.validation_members(), labels, strict=True
    )
  }


def test_it_is_a_data_set_like_any_other(everything, imagenet_root):
  assert everything.num_classes == len(everything.class_names) == 1000
  assert everything.input_shape == (224, 224, 3)
  assert (len(everything.train.labels), len(everything.dev.labels)) == (27, 3)
  assert everything.mean == (0.485, 0.456, 0.406)
  assert everything.groups is None
  for part in (everything.train, everything.dev, everything.test):
    assert isinstance(part.inputs, data.Images)
    assert part.labels.dtype == np.int32
    assert len(part.inputs) == len(part.labels)
  half = data.load(NAME, data_dir=str(imagenet_root), dev_fraction=0.5)
  assert len(half.dev.labels) == 15


def test_the_fingerprint_needs_no_image(everything, imagenet_root, monkeypatch):
  def decode(*_):
    raise AssertionError

  monkeypatch.setattr(data.Images, 'encoded', decode)
  again = data.load(NAME, data_dir=str(imagenet_root))
  assert again.fingerprint() == everything.fingerprint()
  half = data.load(NAME, data_dir=str(imagenet_root), dev_fraction=0.5)
  assert half.fingerprint() != everything.fingerprint()


def test_the_fingerprint_is_of_the_content(files, everything, tmp_path):
  files.prepare(tmp_path)
  same = data.load(NAME, data_dir=str(tmp_path))
  assert same.fingerprint() == everything.fingerprint()
  files.classes[photos.SYNSETS[0]][0] = (
    f'{photos.SYNSETS[0]}_0.JPEG',
    photos.jpeg(99),
  )
  files.write(photos.TRAIN, photos.train_tar(files.classes))
  files.prepare(tmp_path / 'other')
  other = data.load(NAME, data_dir=str(tmp_path / 'other'))
  assert other.fingerprint() != everything.fingerprint()


def test_the_cache_holds_labels_alone(files, tmp_path):
  files.prepare(tmp_path)
  (cache,) = tmp_path.rglob('*.npz')
  with np.load(cache) as found:
    assert set(found) == {
      'train_labels',
      'test_labels',
      'class_names',
      'groups',
    }
  first = data.load(NAME, data_dir=str(tmp_path))
  cache.unlink()
  second = data.load(NAME, data_dir=str(tmp_path))
  assert first.fingerprint() == second.fingerprint()
  assert cache.is_file()


def test_tfds_itself_reads_the_records(imagenet_root):
  source = tfds.data_source(
    NAME, split='validation', data_dir=imagenet_root, download=False
  )
  names = source.dataset_info.features['label'].names
  found = {x['file_name'].decode(): names[x['label']] for x in source}
  expected = [name for name, _ in photos.validation_members()]
  assert found == dict(zip(expected, photos.SYNSETS[::-1], strict=True))
  assert source[0]['image'].dtype == np.uint8


def test_nothing_is_extracted(files, tmp_path):
  files.prepare(tmp_path)
  assert not list(tmp_path.rglob('*.JPEG'))
  assert not list(tmp_path.rglob(f'{photos.SYNSETS[0]}*'))


def test_the_published_files_are_those_of_the_catalogue():
  found = imagenet.Imagenet2012.published()
  assert set(found) == {photos.TRAIN, photos.VALIDATION}
  assert {digest[:8] for _, digest in found.values()} == {
    'b08200a2',
    'c7e06a6c',
  }
  labels = imagenet.Imagenet2012.validation_labels()
  assert len(labels) == imagenet.Imagenet2012.SIZES['validation'] == 50_000
  assert len(set(labels)) == 1000


@pytest.mark.parametrize('name', [photos.TRAIN, photos.VALIDATION])
def test_an_archive_that_is_not_the_published_one(files, tmp_path, name):
  path = files.folder / name
  path.write_bytes(path.read_bytes() + b'\0')
  with pytest.raises(ValueError, match=f'{name} is not the published file'):
    files.prepare(tmp_path)
  assert not list(tmp_path.rglob('*.array_record*'))


def test_a_missing_archive(files, tmp_path):
  (files.folder / photos.VALIDATION).unlink()
  with pytest.raises(FileNotFoundError, match=f'lacks {photos.VALIDATION}'):
    files.prepare(tmp_path)
  message = 'register at https://image-net.org/download-images'
  with pytest.raises(FileNotFoundError, match=message):
    data.prepare(NAME, data_dir=str(tmp_path))


def link(name, kind=tarfile.SYMTYPE, target='/etc/passwd'):
  info = tarfile.TarInfo(name)
  info.type, info.linkname = kind, target
  return info, b''


def bomb(name):
  """Says to hold more than any image, which follows not."""
  info = tarfile.TarInfo(name)
  info.size = tars._MAX_IMAGE + 1
  return info, b'0' * 512


SYNSET = photos.SYNSETS[0]
GOOD = f'{SYNSET}_0.JPEG'
IMAGE = photos.jpeg(0)
PATH, KIND = 'no name that belongs there', 'is no plain file'
SIZE, OTHER = 'bytes, not 1 to', 'belongs to no class, or to another'
INNER = [
  (('../outside.JPEG', IMAGE), PATH),
  ((f'../{GOOD}', IMAGE), PATH),
  ((f'/tmp/{GOOD}', IMAGE), PATH),
  ((f'a/{GOOD}', IMAGE), PATH),
  (('readme.txt', b'text'), PATH),
  (('n01443537_1.JPEG', IMAGE), OTHER),
  (link(GOOD), KIND),
  (link(GOOD, tarfile.LNKTYPE, '../../secret'), KIND),
  (link(GOOD, tarfile.CHRTYPE), KIND),
  (link(GOOD, tarfile.FIFOTYPE), KIND),
  (link(GOOD, tarfile.DIRTYPE), KIND),
  (bomb(GOOD), SIZE),
  ((GOOD, b''), SIZE),
]


@pytest.mark.parametrize(('member', 'message'), INNER)
def test_a_wrong_image_is_refused(files, tmp_path, member, message):
  files.classes[SYNSET] = [member]
  files.write(photos.TRAIN, photos.train_tar(files.classes))
  names = [f'{SYNSET}.tar', name_of(member), message]
  refused(files, tmp_path, photos.TRAIN, names)


@pytest.mark.parametrize(
  'member',
  [
    (f'../{SYNSET}.tar', b''),
    (f'/{SYNSET}.tar', b''),
    ('n99999999.tar', photos.tar([('n99999999_1.JPEG', IMAGE)])),
    ('pictures.tar', photos.tar([(GOOD, IMAGE)])),
    link(f'{SYNSET}.tar'),
    (f'{SYNSET}.tar', b'no archive' * 100),
  ],
)
def test_a_wrong_class_is_refused(files, tmp_path, member):
  files.write(photos.TRAIN, photos.tar([member]))
  refused(files, tmp_path, photos.TRAIN, [name_of(member)])


@pytest.mark.parametrize(
  'member',
  [
    ('ILSVRC2012_val_00000000.JPEG', IMAGE),
    ('ILSVRC2012_val_00000007.JPEG', IMAGE),
    ('../ILSVRC2012_val_00000001.JPEG', IMAGE),
    link('ILSVRC2012_val_00000001.JPEG'),
    bomb('ILSVRC2012_val_00000001.JPEG'),
  ],
)
def test_a_wrong_validation_image_is_refused(files, tmp_path, member):
  files.write(photos.VALIDATION, photos.tar([member]))
  refused(files, tmp_path, photos.VALIDATION, [name_of(member)])


def name_of(member):
  return getattr(member[0], 'name', member[0])


def refused(files, tmp_path, archive, names):
  """Preparing names archive and member, and leaves nothing behind."""
  before = set(tmp_path.parent.rglob('*'))
  with pytest.raises(ValueError, match=re.escape(archive)) as error:
    files.prepare(tmp_path / 'root')
  for name in names:
    assert name in str(error.value)
  left = set(tmp_path.parent.rglob('*')) - before
  assert not [path for path in left if not path.is_dir()]


def test_an_image_or_a_class_twice(files, tmp_path):
  files.classes[SYNSET][1] = files.classes[SYNSET][0]
  files.write(photos.TRAIN, photos.train_tar(files.classes))
  refused(files, tmp_path, photos.TRAIN, [SYNSET, GOOD, 'twice'])
  again = photos.tar([(f'{SYNSET}.tar', photos.tar([(GOOD, IMAGE)]))] * 2)
  files.write(photos.TRAIN, again)
  refused(files, tmp_path, photos.TRAIN, [SYNSET, 'twice'])


@pytest.mark.parametrize('name', [photos.TRAIN, photos.VALIDATION])
def test_a_wrong_count(files, tmp_path, monkeypatch, name):
  sizes = imagenet.Imagenet2012.SIZES
  split = 'train' if name == photos.TRAIN else 'validation'
  monkeypatch.setattr(
    imagenet.Imagenet2012, 'SIZES', {**sizes, split: sizes[split] + 1}
  )
  message = f'holds {sizes[split]} images, not {sizes[split] + 1}'
  refused(files, tmp_path, name, [message])


@pytest.mark.parametrize('name', [photos.TRAIN, photos.VALIDATION])
@pytest.mark.parametrize('share', [0, 0.01, 0.3, 0.5, 0.9])
def test_a_truncated_archive(files, tmp_path, name, share):
  content = files.contents[name].rstrip(b'\0')
  files.write(name, content[: int(share * len(content))])
  refused(files, tmp_path, name, [])


def test_an_archive_ends_between_two_images(files, tmp_path):
  # A .tar without its end is not known to be short: its count is.
  content = files.contents[photos.VALIDATION]
  starts = [
    i for i in range(0, len(content), 512) if content[i:][:6] == b'ILSVRC'
  ]
  assert len(starts) == 6
  files.write(photos.VALIDATION, content[: starts[3]])
  refused(files, tmp_path, photos.VALIDATION, ['3 images'])


def test_random_flips_of_an_archive_are_named_or_harmless(tmp_path):
  """Whatever the headers say, nothing but `ValueError` comes of it."""
  rng = np.random.default_rng(0)
  whole = photos.train_tar(photos.train_members(per_class=2))
  headers = [
    i for i in range(0, len(whole), 512) if whole[i + 257 :][:5] == b'ustar'
  ]
  path = tmp_path / photos.TRAIN
  outer, inner = r'(n\d{8})\.tar', r'(n\d{8})_\d+\.JPEG'
  messages = []
  for header in itertools.islice(itertools.cycle(headers), 100):
    content = bytearray(whole)
    content[header + rng.integers(512)] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    try:
      found = list(tars.nested_images(path, outer=outer, inner=inner))
      assert len(found) <= 12
    except ValueError as error:
      messages.append(str(error))
  assert len(messages) > 20
  assert all(photos.TRAIN in message for message in messages)
