"""Texts, kept as records in the order in which they are read."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds

from kdjax.data import corpus, language, store, table, text_files, tokens


@dataclasses.dataclass
class TextConfig(tfds.core.BuilderConfig):
  """Which texts: TFDS keeps the records of each in a folder of its own."""

  options: table.Options | None = None


def config(options: table.Options) -> TextConfig:
  """The configuration whose name encodes what the texts hold."""
  return TextConfig(name=options.folder(), options=options)


class Texts(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Texts whose options know them.

  Attributes:
    HOMEPAGE: where they are described.
  """

  HOMEPAGE = 'https://www.tensorflow.org/datasets'
  config = staticmethod(config)
  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Text in blocks, numbered within their part.',
      features=tfds.features.FeaturesDict(
        {
          'position': np.int64,
          'document': np.int64,
          'name': tfds.features.Text(),
          'text': tfds.features.Text(),
        }
      ),
      homepage=self.HOMEPAGE,
    )

  def _documents(
    self, dl_manager: tfds.download.DownloadManager
  ) -> Sequence[corpus.Document]:
    del dl_manager  # Nothing to download.
    return self.builder_config.options.documents()

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator]:
    documents = self._documents(dl_manager)
    parts = {
      part: [document for document in documents if document.part == part]
      for part in language.SPLITS
    }
    return {
      store.TEXT_SPLITS[part]: self._generate_examples(found)
      for part, found in parts.items()
      if found
    }

  def _generate_examples(
    self, documents: Sequence[corpus.Document]
  ) -> Iterator[tuple[int, dict]]:
    for record in corpus.records_of(documents):
      yield record['position'], record


class TextFile(Texts, skip_registration=True):
  """A text, or a folder of texts, of the user's own."""


class PythonDocs(Texts, skip_registration=True):
  """What `help()` says of the topics of Python."""

  HOMEPAGE = 'https://docs.python.org/3/reference'


class Placed(Texts, skip_registration=True):
  """Three files that everyone has to place by hand."""

  @classmethod
  def files(cls) -> dict[str, str]:
    """The name of the file of each part."""
    return table.DATASETS[cls.name].reading.files

  @classmethod
  def check_placed(cls, manual_dir: str) -> None:
    """Raises `FileNotFoundError` unless all files are in the folder."""
    folder = pathlib.Path(manual_dir)
    wanted = ', '.join(cls.files().values())
    if not folder.is_dir():
      raise FileNotFoundError(
        f'there is no folder {folder}; it should hold {wanted}: place them'
        ' there by hand and run: python -m kdjax.prepare'
        f' --dataset={cls.name} --manual_dir=FOLDER'
      )
    missing = [
      name for name in cls.files().values() if not (folder / name).is_file()
    ]
    if missing:
      raise FileNotFoundError(
        f'{folder} lacks {", ".join(missing)}: it should hold {wanted}, and'
        f' holds {text_files.shown(folder)}'
      )

  def _documents(
    self, dl_manager: tfds.download.DownloadManager
  ) -> Sequence[corpus.Document]:
    folder = pathlib.Path(dl_manager._manual_dir)
    self.check_placed(str(folder))
    documents = [
      corpus.Document(name, part, text_files.read(folder / name))
      for part, name in self.files().items()
    ]
    self._check_words(documents)
    return documents

  def _check_words(self, documents: Sequence[corpus.Document]) -> None:
    """Nothing is written of files with words that train does not have."""
    found = tokens.tokenise(documents, 'word')
    positions = {part: found.positions(part) for part in language.SPLITS}
    settings = language.Settings()
    classes = language.classes_of(
      found, positions['train'], self.name, settings
    )
    language.check_inside(found, positions, classes)


class PennTreebank(Placed, skip_registration=True):
  """The Penn Treebank in words, as Mikolov prepared it."""

  HOMEPAGE = 'https://catalog.ldc.upenn.edu/LDC99T42'


class Wikitext2(Placed, skip_registration=True):
  """WikiText-2 in words, by Merity et al., 2016."""

  HOMEPAGE = 'https://arxiv.org/abs/1609.07843'
