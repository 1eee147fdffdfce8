"""From a name to arrays, and what to say if they are not there yet."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.data import dataset, language, npz_folder, store, table
from kdjax.data.images import Images


class Prepared(NamedTuple):
  """What `prepare` did.

  Attributes:
    folder: where the records are.
    num_examples: per split; of a text, its tokens.
    was_prepared: whether they were there before.
    vocabulary_size: different tokens of a text, in words; 0 for all others.
  """

  folder: str
  num_examples: dict[str, int]
  was_prepared: bool
  vocabulary_size: int = 0


def prepare(
  name: str,
  *,
  data_dir: str = '',
  manual_dir: str = '',
  options: Mapping[str, Any] | None = None,
) -> Prepared:
  """Writes the records of a data set, or verifies those that are there.

  All are then read, so that the next time is faster.

  Args:
    name: of the data set.
    data_dir: where prepared data go; empty for TFDS's own default.
    manual_dir: a folder with the files of the data set, placed by hand; empty
      to download them. For `text_file`, the text, see `load`.
    options: of `synthetic_classes`, see `kdjax.data.synthetic.Options`.

  Returns:
    What was done.

  Raises:
    ValueError: an unknown name, option or file content, or a data set that
      needs no preparing.
    OSError: a file or the network is missing, or prepared data are damaged.
  """
  is_own = name == table.OWN_TEXT
  if is_own:
    options = {**(options or {}), 'path': manual_dir}
  where = store.place(name, data_dir=data_dir, options=options)
  was_prepared = store.is_prepared(where)
  if was_prepared:
    store.verify(where)
  else:
    store.write_records(where, manual_dir='' if is_own else manual_dir)
  if table.is_text(name):
    return _prepared_text(where, was_prepared=was_prepared)
  arrays = store.read(where)
  return Prepared(
    folder=str(where.folder),
    num_examples={
      'train': len(arrays.train_labels),
      'test': len(arrays.test_labels),
    },
    was_prepared=was_prepared,
  )


def _prepared_text(where: store.Place, *, was_prepared: bool) -> Prepared:
  settings = language.Settings()
  corpus = store.read_corpus(where, tokens=settings.tokens)
  positions = language.split(corpus, where.name, dev_fraction=0.1)
  classes = language.classes_of(
    corpus, positions['train'], where.name, settings
  )
  return Prepared(
    folder=str(where.folder),
    num_examples={name: len(found) for name, found in positions.items()},
    was_prepared=was_prepared,
    vocabulary_size=len(classes.names),
  )


def load(
  name: str,
  *,
  data_dir: str = '',
  dev_fraction: float = 0.1,
  image_size: int = 0,
  options: Mapping[str, Any] | None = None,
  text: Mapping[str, Any] | None = None,
) -> dataset.Dataset:
  """Loads a data set into host memory; a streamed one keeps images on disk.

  `digits`, `python_docs`, `synthetic_classes` and `text_file` are prepared on
  their first use, `npz` needs none; the others have to be prepared by
  `python -m kdjax.prepare`. The dev examples are held out of the training
  examples by a permutation that never changes. Texts that come in one piece are
  cut, see `kdjax.data.language.split`.

  Args:
    name: of the data set, see `names`.
    data_dir: where prepared data lie; empty for TFDS's own default, which is
      `TFDS_DATA_DIR` or `~/tensorflow_datasets`. For `npz`, the folder of the
      files, see `kdjax.data.npz_folder`. For `text_file`, a file or a folder of
      yours, see `kdjax.data.text_files`; its records are in TFDS's own default.
    dev_fraction: share of the training examples held out, in (0, 1).
    image_size: pixels of a side that encoded images are cropped to; 0 for the
      usual 224. Of no concern to data sets in arrays.
    options: of `synthetic_classes`, see `kdjax.data.synthetic.Options`.
    text: how rows are made of a text, see `kdjax.data.language.Settings`. Of no
      concern to other data sets.

  Returns:
    The data set.

  Raises:
    ValueError: an unknown name or option, `dev_fraction` outside (0, 1), a
      label that is no class, or files that are no data set.
    FileNotFoundError: the data are not prepared; it says which command does.
    OSError: the data are damaged; it says which file.
  """
  dataset.check_dev_fraction(dev_fraction)
  if name == table.OWN:
    if options:
      raise ValueError(f'data set {name!r} takes no options: {dict(options)}')
    return npz_folder.load(data_dir, dev_fraction=dev_fraction)
  if table.is_text(name):
    return _load_text(name, data_dir, dev_fraction, options, text)
  where = store.place(name, data_dir=data_dir, options=options)
  source = table.find(name)
  arrays = store.read(where)
  if arrays is None and source.bundled:
    store.write_records(where)
    arrays = store.read(where)
  if arrays is None:
    raise _not_prepared(where)
  _check_labels('train', arrays.train_labels, len(arrays.class_names))
  _check_labels('test', arrays.test_labels, len(arrays.class_names))
  everything = _split(arrays.train_inputs, arrays.train_labels, image_size)
  train, dev = dataset.hold_out(everything, fraction=dev_fraction)
  groups = where.options.groups() if where.options else arrays.groups
  return dataset.Dataset(
    name=name,
    train=train,
    dev=dev,
    test=_split(arrays.test_inputs, arrays.test_labels, image_size),
    num_classes=len(arrays.class_names),
    mean=source.mean,
    std=source.std,
    class_names=tuple(str(name) for name in arrays.class_names),
    groups=tuple(int(group) for group in groups) or None,
  )


def _load_text(
  name: str,
  data_dir: str,
  dev_fraction: float,
  options: Mapping[str, Any] | None,
  text: Mapping[str, Any] | None,
) -> dataset.Dataset:
  if options:
    raise ValueError(f'data set {name!r} takes no options: {dict(options)}')
  settings = language.settings(text)
  is_own = name == table.OWN_TEXT
  if is_own:
    where = store.place(name, options={'path': data_dir})
  else:
    where = store.place(name, data_dir=data_dir)
  if not store.is_prepared(where):
    if not is_own and not table.find(name).bundled:
      raise _not_prepared(where)
    store.write_records(where)
  return language.load(where, dev_fraction=dev_fraction, settings=settings)


def _not_prepared(where: store.Place) -> FileNotFoundError:
  source = table.find(where.name)
  hint = '(with --manual_dir=FOLDER if there is no network)'
  if source.reading:
    files = ', '.join(source.reading.files.values())
    hint = f'--manual_dir=FOLDER, one that holds {files}'
  return FileNotFoundError(
    f'data set {where.name!r} is not prepared in {where.root}; to do so, run:'
    f' {store.command(where)} {hint}'
  )


def _split(
  inputs: np.ndarray | Images, labels: np.ndarray, image_size: int
) -> dataset.Split:
  if image_size and isinstance(inputs, Images):
    inputs = dataclasses.replace(inputs, size=image_size)
  return dataset.Split(inputs, labels, np.arange(len(labels)))


def _check_labels(split: str, labels: np.ndarray, num_classes: int) -> None:
  wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if wrong.size:
    position = int(wrong[0])
    raise ValueError(
      f'example {position} of the {split} split has the label'
      f' {labels[position]}; labels must lie in 0..{num_classes - 1}'
    )
