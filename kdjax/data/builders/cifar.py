"""CIFAR-10 and CIFAR-100, from the binary archives: they hold no pickles."""

import pathlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import cifar as catalogue

from kdjax.data.builders import archives, files, records

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


class Cifar10(archives.Published, catalogue.Cifar10, skip_registration=True):
  """The catalogue's `cifar10`, read without TensorFlow.

  Attributes:
    SIZES: images in each file of a split.
  """

  name = 'cifar10'
  CATALOGUE = catalogue.Cifar10
  SIZES: ClassVar = {'train': 10_000, 'test': 10_000}

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator]:
    layout = self._cifar_info
    (path,) = self.fetch(dl_manager).values()
    parts = {'train': layout.train_files, 'test': layout.test_files}
    row = len(layout.label_keys) + _PIXELS
    sizes = {
      layout.prefix + name: self.SIZES[split] * row
      for split, names in parts.items()
      for name in names
    }
    texts = {layout.prefix + name: None for name in layout.label_files}
    content = files.tar_members(path, sizes=sizes | texts)
    for key, name in zip(layout.label_keys, layout.label_files, strict=True):
      self._name_classes(key, content[layout.prefix + name], path)
    rows = {}
    for split, names in parts.items():
      whole = b''.join(content[layout.prefix + name] for name in names)
      rows[split] = np.frombuffer(whole, np.uint8).reshape(-1, row)
      for column, key in enumerate(layout.label_keys):
        files.check_labels(
          rows[split][:, column],
          num_classes=self.info.features[key].num_classes,
          path=path,
        )
    return {
      split: self._generate_examples(f'{split}_', part)
      for split, part in rows.items()
    }

  def _name_classes(self, key: str, text: bytes, path: pathlib.Path) -> None:
    names = text.decode('ascii', 'replace').split()
    feature = self.info.features[key]
    if len(names) != feature.num_classes:
      raise ValueError(
        f'{path} names {len(names)} classes of {key!r}, not'
        f' {feature.num_classes}'
      )
    feature.names = names

  def _generate_examples(
    self, prefix: str, rows: np.ndarray
  ) -> Iterator[tuple[int, dict]]:
    keys = self._cifar_info.label_keys
    for position, row in enumerate(rows):
      labels, pixels = row[: len(keys)], row[len(keys) :]
      image = np.moveaxis(pixels.reshape(_SHAPE), 0, -1)
      yield (
        position,
        {
          'id': f'{prefix}{position:05d}',
          'image': records.png(image),
          **dict(zip(keys, labels.tolist(), strict=True)),
        },
      )


class Cifar100(Cifar10, catalogue.Cifar100, skip_registration=True):
  """The catalogue's `cifar100`, with its 20 super-classes."""

  name = 'cifar100'
  CATALOGUE = catalogue.Cifar100
  SIZES: ClassVar = {'train': 50_000, 'test': 10_000}
