"""Finds the published files of a catalogue data set, or downloads them."""

import pathlib
from typing import ClassVar

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager

from kdjax.data.builders import files

# Seconds to find out that there is no network; TFDS would try for minutes.
_PATIENCE = 10


class Published(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set made of published files.

  Attributes:
    CATALOGUE: the class of the TFDS catalogue whose checksums hold.
    CONTENT_SHA256: file name -> sha256 of what is inside, for archives that
      are distributed in several packings.
  """

  CATALOGUE: ClassVar[type[tfds.core.DatasetBuilder]]
  CONTENT_SHA256: ClassVar[dict[str, str]] = {}

  @classmethod
  def published(cls) -> dict[str, tuple[str, str]]:
    """File name -> (address, sha256), by the list that TFDS ships."""
    return {
      # Lists of older data sets have no names of files.
      info.filename or url.rsplit('/', 1)[1]: (url, info.checksum)
      for url, info in cls.CATALOGUE.url_infos.items()
    }

  @classmethod
  def check_placed(cls, manual_dir: str) -> None:
    """Raises `FileNotFoundError` unless all files are in the folder."""
    folder = pathlib.Path(manual_dir)
    if not folder.is_dir():
      raise FileNotFoundError(
        f'there is no folder {folder}; it should hold {cls._wanted()}'
      )
    missing = [
      name for name in cls.published() if not (folder / name).is_file()
    ]
    if missing:
      raise FileNotFoundError(
        f'{folder} lacks {", ".join(missing)}; it should hold {cls._wanted()}'
      )

  @classmethod
  def _wanted(cls) -> str:
    return ', '.join(
      f'{name} (from {url})' for name, (url, _) in cls.published().items()
    )

  def fetch(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, pathlib.Path]:
    """Where each file is: placed by hand, else downloaded and checked.

    Args:
      dl_manager: knows the folder of files placed by hand, and downloads.

    Returns:
      The path of each file.

    Raises:
      ValueError: a file is not the published one.
      OSError: a file is neither placed nor to be had from the network.
    """
    paths = {}
    for name, (url, sha256) in self.published().items():
      path = pathlib.Path(dl_manager._manual_dir, name)
      if not path.is_file():
        path = self._download(dl_manager, url)
      if name not in self.CONTENT_SHA256:
        files.check_sha256(path, given=files.sha256(path), allowed=sha256)
      paths[name] = path
    return paths

  def _download(
    self, dl_manager: tfds.download.DownloadManager, url: str
  ) -> pathlib.Path:
    try:
      requests.head(url, timeout=_PATIENCE)
      return pathlib.Path(dl_manager.download(url))
    except download_manager.NonMatchingChecksumError as error:
      raise ValueError(f'{url} does not give the published file') from error
    except (requests.RequestException, tfds.download.DownloadError) as error:
      raise OSError(
        f'cannot download {url} ({type(error).__name__}); place its files in a'
        ' folder by hand and run: python -m kdjax.prepare'
        f' --dataset={self.name} --manual_dir=FOLDER. Needed:'
        f' {self._wanted()}'
      ) from error
