"""ImageNet (ILSVRC 2012), from its two archives, which nobody may pass on."""

import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.imagenet2012 import (
  imagenet2012_dataset_builder as catalogue,
)

from kdjax.data.builders import archives, tars

_FOLDER = 'datasets/imagenet2012'
_TRAIN, _VALIDATION = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'


class Imagenet2012(
  archives.Published, catalogue.Builder, skip_registration=True
):
  """The catalogue's `imagenet2012`, read without TensorFlow.

  Images are kept byte by byte as published; the few that are CMYK or PNG
  become RGB when they are decoded.

  Attributes:
    SIZES: images in each split.
  """

  name = 'imagenet2012'
  pkg_dir_path = tfds.core.tfds_path(_FOLDER)
  CATALOGUE = catalogue.Builder
  SIZES: ClassVar = {'train': 1_281_167, 'validation': 50_000}

  @classmethod
  def validation_labels(cls) -> list[str]:
    """The synset of each validation image, by the list that TFDS ships."""
    path = tfds.core.tfds_path(f'{_FOLDER}/validation_labels.txt')
    return path.read_text().split()

  def _download(
    self, dl_manager: tfds.download.DownloadManager, url: str
  ) -> pathlib.Path:
    name = url.rsplit('/', 1)[1]
    raise FileNotFoundError(
      f'{name} is not in {dl_manager._manual_dir}; register at'
      ' https://image-net.org/download-images, place it in a folder by hand and'
      f' run: python -m kdjax.prepare --dataset={self.name} --manual_dir=FOLDER'
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator]:
    paths = self.fetch(dl_manager)
    return {
      'train': self._generate_train(paths[_TRAIN]),
      'validation': self._generate_validation(paths[_VALIDATION]),
    }

  def _generate_train(
    self, path: pathlib.Path
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    synsets, count = set(self.info.features['label'].names), 0
    outer, inner = r'(n\d{8})\.tar', r'(n\d{8})_\d+\.JPEG'
    for archive, file, image in tars.nested_images(
      path, outer=outer, inner=inner
    ):
      if archive[1] not in synsets or file[1] != archive[1]:
        raise ValueError(
          f'{path}: {archive[0]}: {file[0]} belongs to no class, or to another'
        )
      count += 1
      yield file[0], _example(file[0], image, archive[1])
    self._check_count(path, 'train', count)

  def _generate_validation(
    self, path: pathlib.Path
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    labels, count = self.validation_labels(), 0
    for file, image in tars.images(
      path, pattern=r'ILSVRC2012_val_(\d{8})\.JPEG'
    ):
      number = int(file[1])
      if not 1 <= number <= len(labels):
        raise ValueError(
          f'{path}: {file[0]} has no label: there are 1..{len(labels)}'
        )
      count += 1
      yield file[0], _example(file[0], image, labels[number - 1])
    self._check_count(path, 'validation', count)

  def _check_count(self, path: pathlib.Path, split: str, count: int) -> None:
    if count != self.SIZES[split]:
      raise ValueError(f'{path} holds {count} images, not {self.SIZES[split]}')


def _example(name: str, image: bytes, label: str) -> dict[str, Any]:
  return {'file_name': name, 'image': image, 'label': label}
