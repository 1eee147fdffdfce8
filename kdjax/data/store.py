"""Prepared data on disk: TFDS records, and a cache of their arrays."""

import contextlib
import dataclasses
import io
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kdjax import checks
from kdjax.data import synthetic, table

_CACHE = 'kdjax_arrays.npz'
_SPLITS = ('train', 'test')


class Arrays(NamedTuple):
  """All examples of a prepared data set.

  Attributes:
    train_inputs: [N, ...].
    train_labels: [N] of int32.
    test_inputs: [M, ...].
    test_labels: [M] of int32.
    class_names: [K] of text.
    groups: super-class of each class [K], of int32; empty if unknown.
  """

  train_inputs: np.ndarray
  train_labels: np.ndarray
  test_inputs: np.ndarray
  test_labels: np.ndarray
  class_names: np.ndarray
  groups: np.ndarray


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
  options: synthetic.Options | None = None

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


def _decode(image: bytes) -> np.ndarray:
  pixels = np.asarray(Image.open(io.BytesIO(image)))
  return pixels[..., None] if pixels.ndim == 2 else pixels


def read_records(builder: Any) -> Arrays:  # noqa: ANN401
  """Reads every record of a prepared data set into arrays.

  Args:
    builder: of a prepared data set.

  Returns:
    The arrays, in the order of the records.
  """
  import tensorflow_datasets as tfds

  skip = tfds.decode.SkipDecoding()
  features = builder.info.features
  is_image = 'image' in features
  arrays, groups = {}, {}
  for split in _SPLITS:
    source = builder.as_data_source(
      split, decoders={'image': skip} if is_image else None
    )
    examples = source.__getitems__(range(len(source)))
    arrays[f'{split}_inputs'] = np.stack(
      [_decode(e['image']) if is_image else e['input'] for e in examples]
    )
    labels = [e['label'] for e in examples]
    arrays[f'{split}_labels'] = np.asarray(labels, np.int32)
    groups |= {
      e['label']: e['coarse_label'] for e in examples if 'coarse_label' in e
    }
  names = features['label'].names
  known = [groups[k] for k in range(len(names))] if groups else []
  return Arrays(
    **arrays,
    class_names=np.asarray(names),
    groups=np.asarray(known, np.int32),
  )


def _read_cache(path: pathlib.Path) -> Arrays | None:
  """The cached arrays, or None if there are none that can be trusted."""
  try:
    with open(path, 'rb') as file:
      # NumPy stops where a header says so, short of zipfile's own check.
      if zipfile.ZipFile(file).testzip() is not None:
        return None
      file.seek(0)
      cache = np.load(file, allow_pickle=False)
      arrays = Arrays(*(cache[field] for field in Arrays._fields))
  except Exception:  # Whatever ails a cache, the records are still there.
    return None
  whole = all(
    len(inputs) == len(labels) > 0 and inputs.dtype in (np.uint8, np.float32)
    for inputs, labels in (arrays[:2], arrays[2:4])
  )
  return arrays if whole else None


def _write_cache(path: pathlib.Path, arrays: Arrays) -> None:
  """Writes the cache whole or not at all; a folder may be read-only."""
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    with open(partial, 'wb') as file:
      np.savez(file, **arrays._asdict())
    partial.replace(path)
  except OSError:
    with contextlib.suppress(OSError):
      partial.unlink()


def read(where: Place) -> Arrays | None:
  """All examples of a prepared data set; from the second time on, faster.

  Args:
    where: the prepared data.

  Returns:
    The arrays, or None if the data are not prepared.

  Raises:
    ValueError: the data were prepared in a format without random access.
    OSError: the records are damaged.
  """
  if not is_prepared(where):
    return None
  cache = where.folder / _CACHE
  arrays = _read_cache(cache)
  if arrays is not None:
    return arrays
  try:
    with _quiet():
      arrays = read_records(where.builder())
  except NotImplementedError as error:
    raise ValueError(
      f'{where.folder} was prepared in a format without random access, not by'
      ' kdjax: use another data_dir'
    ) from error
  except RuntimeError as error:
    raise OSError(
      f'the records in {where.folder} are damaged; delete that folder and'
      f' prepare again ({error})'
    ) from error
  _write_cache(cache, arrays)
  return arrays
