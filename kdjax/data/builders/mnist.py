"""MNIST and Fashion-MNIST, from the files their authors published."""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import mnist as catalogue

from kdjax.data.builders import archives, files, records

_NUM_CLASSES = 10
_PREFIXES = {'train': 'train', 'test': 't10k'}


class Mnist(archives.Published, catalogue.MNIST, skip_registration=True):
  """The catalogue's `mnist`, read without TensorFlow.

  Attributes:
    SHAPES: images per split, their height and width.
  """

  name = 'mnist'
  CATALOGUE = catalogue.MNIST
  SHAPES: ClassVar = {'train': (60_000, 28, 28), 'test': (10_000, 28, 28)}

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator]:
    paths = self.fetch(dl_manager)
    parts = {}
    for split, prefix in _PREFIXES.items():
      shape = self.SHAPES[split]
      images = self._array(paths[f'{prefix}-images-idx3-ubyte.gz'], shape)
      path = paths[f'{prefix}-labels-idx1-ubyte.gz']
      labels = self._array(path, shape[:1])
      files.check_labels(labels, num_classes=_NUM_CLASSES, path=path)
      parts[split] = (images[..., None], labels)
    return {
      split: self._generate_examples(*part) for split, part in parts.items()
    }

  def _array(self, path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
    content = files.gunzip(path, size=files.idx_size(shape))
    allowed = self.CONTENT_SHA256.get(path.name)
    if allowed:
      given = hashlib.sha256(content).hexdigest()
      files.check_sha256(path, given=given, allowed=allowed)
    return files.parse_idx(content, shape=shape, path=path)

  def _generate_examples(
    self, images: np.ndarray, labels: np.ndarray
  ) -> Iterator[tuple[int, dict]]:
    for position, image in enumerate(images):
      label = int(labels[position])
      yield position, {'image': records.png(image), 'label': label}


class FashionMnist(Mnist, catalogue.FashionMNIST, skip_registration=True):
  """The catalogue's `fashion_mnist`, read without TensorFlow.

  Its archives circulate with two gzip headers: the authors', and that of
  Debian's package `dataset-fashion-mnist`. So the content is what is checked.
  """

  name = 'fashion_mnist'
  CATALOGUE = catalogue.FashionMNIST
  CONTENT_SHA256: ClassVar = {
    'train-images-idx3-ubyte.gz': (
      'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888'
    ),
    'train-labels-idx1-ubyte.gz': (
      'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9'
    ),
    't10k-images-idx3-ubyte.gz': (
      '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b'
    ),
    't10k-labels-idx1-ubyte.gz': (
      '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34'
    ),
  }
