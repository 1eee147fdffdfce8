"""Prepared data on disk: where they are, and that they are what they were."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from kdjax import checks
from kdjax.data import arrays, corpus, manifest, table
from kdjax.data import tokens as tokenising
from kdjax.data.arrays import Arrays, read_cache, read_records, write_cache
from kdjax.data.corpus import Corpus, Document
from kdjax.data.shards import Shards

_CACHE = 'kdjax_arrays.npz'
# The parts of a text, as TFDS calls them.
TEXT_SPLITS = {'train': 'train', 'dev': 'validation', 'test': 'test'}


def data_dir_or_default(data_dir: str) -> str:
  """TFDS's own default when `data_dir` is empty, read when it is asked for."""
  default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return os.path.expanduser(data_dir or default)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silences TFDS's progress bars, prints and hints; errors pass."""
  from absl import logging
  from tensorflow_datasets.core.utils import tqdm_utils

  verbosity, shown = logging.get_verbosity(), tqdm_utils._active
  logging.set_verbosity(logging.ERROR)
  tqdm_utils.display_progress_bar(False)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)
    tqdm_utils.display_progress_bar(shown)


@dataclasses.dataclass(frozen=True)
class Place:
  """Which prepared data, and where; nothing of it needs TFDS.

  Attributes:
    name: of the data set.
    root: what TFDS calls `data_dir`.
    options: which configuration, or None if the data set has but one.
  """

  name: str
  root: pathlib.Path
  options: table.Options | None = None

  @property
  def folder(self) -> pathlib.Path:
    """Where TFDS keeps the records."""
    variant = self.options.folder() if self.options else ''
    version = table.find(self.name).version
    return self.root / self.name / variant / version

  def builder(self) -> Any:  # noqa: ANN401
    """The TFDS builder, a `tfds.core.GeneratorBasedBuilder`."""
    builder = table.resolve(table.find(self.name).builder)
    if self.options is None:
      return builder(data_dir=self.root)
    return builder(data_dir=self.root, config=builder.config(self.options))


def place(
  name: str, *, data_dir: str = '', options: Mapping[str, Any] | None = None
) -> Place:
  """Checks a name and its options.

  Args:
    name: of the data set.
    data_dir: where prepared data lie; empty for TFDS's own default.
    options: which configuration, for a data set that has several.

  Returns:
    The place of the prepared data, which need not be there.

  Raises:
    ValueError: the name or an option is unknown, or its value not allowed.
  """
  kind = table.find(name).options
  root = pathlib.Path(data_dir_or_default(data_dir))
  if kind is None:
    if options:
      raise ValueError(f'data set {name!r} takes no options: {dict(options)}')
    return Place(name, root)
  known = [field.name for field in dataclasses.fields(kind)]
  for option in options or {}:
    checks.check_known(f'option of {name}', option, known)
  return Place(name, root, kind(**(options or {})))


def is_prepared(where: Place) -> bool:
  """Whether the records are there; TFDS renames a complete folder at once."""
  return (where.folder / 'dataset_info.json').is_file()


def command(where: Place) -> str:
  """The command line that prepares the data, or checks what is prepared."""
  found = f'python -m kdjax.prepare --dataset={where.name}'
  if where.root != pathlib.Path(data_dir_or_default('')):
    found += f' --data_dir={where.root}'
  return found


def write_records(where: Place, *, manual_dir: str = '') -> None:
  """Prepares a data set as array_record, without TensorFlow.

  Args:
    where: the data, not prepared yet.
    manual_dir: a folder with the files of the data set; empty to look into
      `downloads/manual` of the root and to download what is not there.

  Raises:
    ValueError: a file is not the published one, or the data set has no files.
    OSError: a file, the network or room on the disk is missing.
  """
  import tensorflow_datasets as tfds

  if manual_dir and table.find(where.name).bundled:
    raise ValueError(f'data set {where.name!r} needs no files: no manual_dir')
  config = tfds.download.DownloadConfig(
    manual_dir=os.path.abspath(manual_dir) if manual_dir else None,
    try_download_gcs=False,
  )
  with _quiet():
    builder = where.builder()
    if manual_dir:
      builder.check_placed(manual_dir)
    try:
      builder.download_and_prepare(
        download_config=config, file_format='array_record'
      )
    except OSError:
      # Another process may have been faster.
      if not is_prepared(where):
        raise
  manifest.write(where.folder)


def read(where: Place) -> Arrays | None:
  """All examples of a prepared data set; from the second time on, faster.

  Args:
    where: the prepared data.

  Returns:
    The arrays, or None if the data are not prepared.

  Raises:
    ValueError: the data were prepared in a format without random access.
    OSError: the files or the records are damaged, or those of a streamed data
      set have never been listed.
  """
  if not is_prepared(where):
    return None
  source = table.find(where.name)
  if source.streamed:
    _check_listed(where)
  arrays = read_cache(
    where.folder / _CACHE, _records(where), streamed=source.streamed
  )
  if arrays is not None:
    return arrays
  # Records that are streamed check themselves when they are read.
  manifest.check(where.folder, records=not source.streamed)
  arrays = _read_all(where)
  write_cache(where.folder / _CACHE, arrays)
  return arrays


def read_corpus(where: Place, *, tokens: str) -> Corpus:
  """The tokens of a prepared text data set; from the second time on, faster.

  Args:
    where: the prepared data.
    tokens: 'word', 'char' or a file, see `kdjax.data.tokens.tokenise`.

  Returns:
    The tokens.

  Raises:
    ValueError: the texts cannot be cut so.
    OSError: the files or the records are damaged.
  """
  cache = where.folder / f'kdjax_{tokenising.key(tokens)}.npz'
  found = corpus.from_arrays(arrays.read_npz(cache))
  if found is None:
    manifest.check(where.folder, records=True)
    found = tokenising.tokenise(_documents(where), tokens)
    arrays.write_npz(cache, corpus.to_arrays(found))
  return found


def verify(where: Place) -> None:
  """Reads every file of prepared data again, and compares.

  Data of an older version, which listed no files, are listed now if all their
  records can be read.

  Args:
    where: the prepared data.

  Raises:
    ValueError: the data were prepared in a format without random access.
    OSError: a file is missing or not what was prepared; it is named.
  """
  if manifest.read(where.folder) is None:
    if table.is_text(where.name):
      _documents(where)
    else:
      _read_all(where)
    manifest.write(where.folder)
  else:
    manifest.check(where.folder, records=True)


def _records(where: Place) -> dict[str, Shards]:
  """Those to train and to test on, not opened yet."""
  train, test = table.find(where.name).splits
  return {
    'train': Shards(where.folder, train),
    'test': Shards(where.folder, test),
  }


def _read_all(where: Place) -> Arrays:
  streamed = table.find(where.name).streamed
  try:
    with _quiet():
      return read_records(_records(where), streamed=streamed)
  except NotImplementedError as error:
    raise ValueError(
      f'{where.folder} was prepared in a format without random access, not by'
      ' kdjax: use another data_dir'
    ) from error


def _documents(where: Place) -> list[Document]:
  """The texts of all records; not every text has all parts."""
  info = json.loads((where.folder / 'dataset_info.json').read_bytes())
  there = {split['name'] for split in info['splits']}
  with _quiet():
    return corpus.documents_of(
      {
        part: Shards(where.folder, name)
        for part, name in TEXT_SPLITS.items()
        if name in there
      }
    )


def _check_listed(where: Place) -> None:
  """Hashing a streamed data set takes too long, but not the rest."""
  if manifest.read(where.folder) is None:
    raise FileNotFoundError(
      f'the files in {where.folder} are not listed yet; to do so, run:'
      f' {command(where)}'
    )
  manifest.check(where.folder, records=False)
