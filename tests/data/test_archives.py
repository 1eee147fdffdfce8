import gzip
import io
import pathlib
import tarfile

import numpy as np
import published
import pytest
import requests
import tensorflow_datasets as tfds

from kdjax import data
from kdjax.data.builders import cifar, mnist

CIFAR = 'cifar-100-binary.tar.gz'
IMAGES, LABELS = 'train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'


def archives_of(builder, tmp_path, monkeypatch):
  return published.Archives(tmp_path / 'files', builder, monkeypatch)


@pytest.fixture
def digits_files(tmp_path, monkeypatch):
  archives = archives_of(mnist.Mnist, tmp_path, monkeypatch)
  archives.arrays, _ = published.write_mnist(archives)
  return archives


@pytest.fixture
def cifar_files(tmp_path, monkeypatch):
  archives = archives_of(cifar.Cifar100, tmp_path, monkeypatch)
  sizes = {'train': published.NUM_CIFAR100, 'test': published.NUM_TEST}
  monkeypatch.setattr(cifar.Cifar100, 'SIZES', sizes)
  archives.rows, archives.members = published.cifar100_members()
  archives.write(CIFAR, published.tar(archives.members))
  return archives


def by_content(inputs, labels):
  return sorted(
    (x.tobytes(), int(y)) for x, y in zip(inputs, labels, strict=True)
  )


def everything(dataset):
  train = data.Split(
    *(
      np.concatenate(pair)
      for pair in zip(dataset.train, dataset.dev, strict=True)
    )
  )
  return {'train': train, 'test': dataset.test}


def test_mnist_files_become_records_and_arrays(digits_files, tmp_path):
  done = digits_files.prepare(tmp_path)
  assert done.num_examples == {'train': 12, 'test': 6}
  assert not done.was_prepared
  assert digits_files.prepare(tmp_path).was_prepared
  dataset = data.load('mnist', data_dir=str(tmp_path))
  for split, part in everything(dataset).items():
    assert by_content(*part[:2]) == by_content(*digits_files.arrays[split])
  assert dataset.input_shape == (28, 28, 1)
  assert dataset.class_names == tuple('0123456789')


def test_tfds_itself_reads_the_records(digits_files, tmp_path):
  digits_files.prepare(tmp_path)
  source = tfds.data_source(
    'mnist', split='test', data_dir=tmp_path, download=False
  )
  read = by_content(
    *zip(*((x['image'], x['label']) for x in source), strict=True)
  )
  assert read == by_content(*digits_files.arrays['test'])


def test_fashion_mnist_is_checked_by_content(tmp_path, monkeypatch):
  archives = archives_of(mnist.FashionMnist, tmp_path, monkeypatch)
  _, hashes = published.write_mnist(archives)
  monkeypatch.setattr(mnist.FashionMnist, 'CONTENT_SHA256', hashes)
  # Another gzip header, as Debian has it, is no other content.
  path = archives.folder / IMAGES
  content = gzip.decompress(path.read_bytes())
  path.write_bytes(gzip.compress(content, mtime=12345))
  archives.prepare(tmp_path)
  dataset = data.load('fashion_mnist', data_dir=str(tmp_path))
  assert dataset.class_names[9] == 'Ankle boot'
  # One pixel is.
  path.write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))
  with pytest.raises(ValueError, match=f'{IMAGES} is not the published file'):
    archives.prepare(tmp_path / 'other')
  assert not list((tmp_path / 'other').rglob('*.array_record*'))


def test_cifar100_becomes_records_and_arrays(cifar_files, tmp_path):
  cifar_files.prepare(tmp_path)
  dataset = data.load('cifar100', data_dir=str(tmp_path))
  for split, part in everything(dataset).items():
    rows = cifar_files.rows[split]
    assert by_content(*part[:2]) == by_content(
      published.images_of(rows, 2), rows[:, 1]
    )
  assert dataset.input_shape == (32, 32, 3)
  assert dataset.class_names[99] == 'fine99'
  assert dataset.groups == tuple(k // 5 for k in range(100))
  assert dataset.mean == (0.5071, 0.4867, 0.4408)
  assert not (tmp_path.parent / 'outside.txt').exists()


def test_cifar10_reads_all_its_files(tmp_path, monkeypatch):
  archives = archives_of(cifar.Cifar10, tmp_path, monkeypatch)
  monkeypatch.setattr(cifar.Cifar10, 'SIZES', {'train': 4, 'test': 4})
  rng = np.random.default_rng(0)
  prefix = 'cifar-10-batches-bin/'
  names = [f'{prefix}data_batch_{i}.bin' for i in range(1, 6)]
  rows = {
    name: published.cifar_rows(4, 1, rng)
    for name in [*names, prefix + 'test_batch.bin']
  }
  members = {name: part.tobytes() for name, part in rows.items()}
  members[prefix + 'batches.meta.txt'] = b'\n'.join(
    b'c%d' % k for k in range(10)
  )
  archives.write('cifar-10-binary.tar.gz', published.tar(members))
  archives.prepare(tmp_path)
  dataset = data.load('cifar10', data_dir=str(tmp_path))
  whole = np.concatenate([rows[name] for name in names])
  assert by_content(*everything(dataset)['train'][:2]) == by_content(
    published.images_of(whole, 1), whole[:, 0]
  )
  assert dataset.groups is None


def test_wrong_checksum(digits_files, tmp_path):
  path = digits_files.folder / LABELS
  path.write_bytes(
    gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=9)
  )
  with pytest.raises(ValueError, match=f'{LABELS} is not the published file'):
    digits_files.prepare(tmp_path)


def truncate(content):
  return content[:-20]


def stretch(content):
  return gzip.compress(gzip.decompress(content) + b'0' * 1000)


def shorten(content):
  return gzip.compress(gzip.decompress(content)[:-1])


def remagic(content):
  return gzip.compress(b'\0\0\x0d\x03' + gzip.decompress(content)[4:])


def reshape(content):
  whole = gzip.decompress(content)
  return gzip.compress(whole[:8] + whole[12:16] * 2 + b'1' * (len(whole) - 16))


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (truncate, f'{IMAGES} is damaged: Compressed file ended'),
    (lambda content: b'no gzip', f'{IMAGES} is damaged: Not a gzipped file'),
    (lambda content: content[:50] + b'0000' + content[54:], 'is damaged'),
    (stretch, f'{IMAGES} should hold 9424 bytes, but holds more'),
    (shorten, f'{IMAGES} should hold 9424 bytes, but holds 9423'),
    (remagic, f'{IMAGES} is no idx file of uint8'),
    (lambda content: gzip.compress(b''), 'but holds 0'),
  ],
)
def test_damaged_idx_files_are_named(digits_files, tmp_path, spoil, message):
  digits_files.write(IMAGES, spoil(digits_files.contents[IMAGES]))
  with pytest.raises(ValueError, match=message):
    digits_files.prepare(tmp_path)
  assert not list(tmp_path.rglob('*.array_record*'))


def test_wrong_count(digits_files, tmp_path, monkeypatch):
  whole = gzip.decompress(digits_files.contents[LABELS])
  fewer = whole[:7] + bytes([whole[7] - 1]) + whole[8:]
  digits_files.write(LABELS, gzip.compress(fewer))
  with pytest.raises(ValueError, match=r'holds an array \(11,\), not \(12,\)'):
    digits_files.prepare(tmp_path)


def test_label_out_of_range(tmp_path, monkeypatch):
  archives = archives_of(mnist.Mnist, tmp_path, monkeypatch)
  published.write_mnist(archives, last_label=10)
  with pytest.raises(ValueError, match=rf'{LABELS} has a label 10; .* 0\.\.9'):
    archives.prepare(tmp_path)


TRAIN = 'cifar-100-binary/train.bin'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda m: m.pop(TRAIN), f'lacks {TRAIN}'),
    (lambda m: m.update({TRAIN: m[TRAIN][1:]}), f'{TRAIN} holds 307399 bytes'),
    (lambda m: m.update({TRAIN: bytes([0, 100]) + m[TRAIN][2:]}), 'label 100'),
    (lambda m: m.update({TRAIN: bytes([20, 0]) + m[TRAIN][2:]}), 'label 20'),
    (
      lambda m: m.update({'cifar-100-binary/fine_label_names.txt': b'a b'}),
      "names 2 classes of 'label', not 100",
    ),
  ],
)
def test_wrong_members_are_named(cifar_files, tmp_path, change, message):
  change(cifar_files.members)
  cifar_files.write(CIFAR, published.tar(cifar_files.members))
  with pytest.raises(ValueError, match=message) as error:
    cifar_files.prepare(tmp_path)
  assert CIFAR in str(error.value)


def test_a_link_is_not_followed(cifar_files, tmp_path):
  secret = tmp_path / 'secret'
  secret.write_bytes(b'0' * len(cifar_files.members[TRAIN]))
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
    link = tarfile.TarInfo(TRAIN)
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    link.size = secret.stat().st_size
    archive.addfile(link)
  cifar_files.write(CIFAR, buffer.getvalue())
  with pytest.raises(ValueError, match='no plain file'):
    cifar_files.prepare(tmp_path)


@pytest.mark.parametrize('size', [0, 100, 200_000])
def test_a_truncated_tar_is_named(cifar_files, tmp_path, size):
  cifar_files.write(CIFAR, cifar_files.contents[CIFAR][:size])
  with pytest.raises(ValueError, match=f'{CIFAR} is damaged'):
    cifar_files.prepare(tmp_path)


def test_missing_files_are_listed(digits_files, tmp_path):
  (digits_files.folder / LABELS).unlink()
  with pytest.raises(FileNotFoundError) as error:
    digits_files.prepare(tmp_path)
  message = str(error.value)
  assert f'lacks {LABELS}; ' in message
  assert f'{IMAGES} (from http://localhost:9/{IMAGES})' in message


def test_no_network_says_what_to_place(digits_files, tmp_path):
  # Nothing listens on port 9 of this machine.
  with pytest.raises(OSError, match='cannot download') as error:
    data.prepare('mnist', data_dir=str(tmp_path))
  message = str(error.value)
  assert '--dataset=mnist --manual_dir=FOLDER' in message
  assert all(name in message for name in digits_files.contents)


class Server:
  """Stands in for the network, below TFDS's download manager."""

  def __init__(self, contents, monkeypatch):
    self.contents, self.asked = contents, []
    monkeypatch.setattr(requests, 'head', lambda *_, **__: None)
    monkeypatch.setattr(
      tfds.download.DownloadManager, 'download', self.download
    )
    self.folder = None

  def download(self, url):
    name = url.rsplit('/', 1)[1]
    self.asked.append(name)
    path = pathlib.Path(self.folder, name)
    path.write_bytes(self.contents[name])
    return path


def test_downloads_what_is_not_placed(digits_files, tmp_path, monkeypatch):
  server = Server(digits_files.contents, monkeypatch)
  server.folder = tmp_path / 'downloaded'
  server.folder.mkdir()
  placed = tmp_path / 'downloads/manual'
  placed.mkdir(parents=True)
  (placed / IMAGES).write_bytes(digits_files.contents[IMAGES])
  done = data.prepare('mnist', data_dir=str(tmp_path))
  assert done.num_examples['train'] == 12
  assert sorted(server.asked) == sorted(set(digits_files.contents) - {IMAGES})


def test_downloaded_files_are_checked(digits_files, tmp_path, monkeypatch):
  wrong = dict(digits_files.contents)
  wrong[LABELS] = gzip.compress(b'something else')
  server = Server(wrong, monkeypatch)
  server.folder = tmp_path
  with pytest.raises(ValueError, match=f'{LABELS} is not the published file'):
    data.prepare('mnist', data_dir=str(tmp_path))


@pytest.mark.parametrize(
  ('builder', 'names'),
  [
    (mnist.Mnist, {IMAGES, LABELS, *mnist.FashionMnist.CONTENT_SHA256}),
    (mnist.FashionMnist, set(mnist.FashionMnist.CONTENT_SHA256)),
    (cifar.Cifar10, {'cifar-10-binary.tar.gz'}),
    (cifar.Cifar100, {CIFAR}),
  ],
)
def test_the_catalogue_knows_the_files(builder, names):
  found = builder.published()
  assert set(found) == names
  for url, sha256 in found.values():
    assert url.startswith('http')
    assert len(sha256) == 64


def test_bundled_data_sets_take_no_files(tmp_path):
  with pytest.raises(ValueError, match='needs no files'):
    data.prepare('digits', data_dir=str(tmp_path), manual_dir=str(tmp_path))
