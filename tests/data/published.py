"""Tiny archives in the published formats, and what they hold."""

import gzip
import hashlib
import io
import struct
import tarfile

import numpy as np

from kdjax import data

NUM_TRAIN, NUM_TEST = 12, 6
NUM_CIFAR100 = 100


def idx(array):
  header = struct.pack('>I', 0x0800 + array.ndim)
  return header + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()


def sha256(content):
  return hashlib.sha256(content).hexdigest()


class Archives:
  """Files of a data set in a folder, and what they hold."""

  def __init__(self, folder, builder, monkeypatch):
    folder.mkdir()
    self.folder, self.builder, self.monkeypatch = folder, builder, monkeypatch
    self.contents = {}

  def write(self, name, content):
    (self.folder / name).write_bytes(content)
    self.contents[name] = content
    self.trust()

  def trust(self):
    """Makes what is written the published files."""
    published = {
      name: (f'http://localhost:9/{name}', sha256(content))
      for name, content in self.contents.items()
    }
    self.monkeypatch.setattr(
      self.builder, 'published', classmethod(lambda cls: published)
    )

  def prepare(self, root):
    return data.prepare(
      self.builder.name, data_dir=str(root), manual_dir=str(self.folder)
    )


def write_mnist(archives, *, last_label=9):
  """Four idx files, as MNIST and Fashion-MNIST have them."""
  rng = np.random.default_rng(0)
  arrays, hashes = {}, {}
  for split, prefix, size in (
    ('train', 'train', NUM_TRAIN),
    ('test', 't10k', NUM_TEST),
  ):
    images = rng.integers(0, 256, (size, 28, 28), np.uint8)
    labels = np.arange(size, dtype=np.uint8) % 10
    labels[-1] = last_label
    arrays[split] = (images[..., None], labels)
    for kind, array in (('images-idx3', images), ('labels-idx1', labels)):
      name = f'{prefix}-{kind}-ubyte.gz'
      archives.write(name, gzip.compress(idx(array), mtime=0))
      hashes[name] = sha256(idx(array))
  shapes = {split: array[0].shape[:3] for split, array in arrays.items()}
  archives.monkeypatch.setattr(archives.builder, 'SHAPES', shapes)
  return arrays, hashes


def tar(members):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
    for name, content in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return buffer.getvalue()


def cifar_rows(size, num_labels, rng):
  rows = rng.integers(0, 256, (size, num_labels + 3072), np.uint8)
  rows[:, num_labels - 1] = np.arange(size)
  return rows


def images_of(rows, num_labels):
  """The reference: red, green, blue planes, each row by row."""
  planes = rows[:, num_labels:].reshape(-1, 3, 32, 32)
  return np.stack([planes[:, 0], planes[:, 1], planes[:, 2]], axis=-1)


def cifar100_members():
  """The members of a tiny cifar-100-binary.tar.gz, and its rows."""
  rng = np.random.default_rng(1)
  rows = {
    'train': cifar_rows(NUM_CIFAR100, 2, rng),
    'test': cifar_rows(NUM_TEST, 2, rng),
  }
  for part in rows.values():
    part[:, 0] = part[:, 1] // 5
  fine = '\n'.join(f'fine{k}' for k in range(100)) + '\n'
  coarse = '\n'.join(f'coarse{k}' for k in range(20)) + '\n\n'
  prefix = 'cifar-100-binary/'
  return rows, {
    prefix + 'train.bin': rows['train'].tobytes(),
    prefix + 'test.bin': rows['test'].tobytes(),
    prefix + 'fine_label_names.txt': fine.encode(),
    prefix + 'coarse_label_names.txt': coarse.encode(),
    '../outside.txt': b'nothing reads this',
  }
