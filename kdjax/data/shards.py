"""Records of a prepared data set, read one by one from their shards."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

# Records that are read at once where all are wanted.
_CHUNK = 1024


class Shards:
  """The records of a split, opened when the first of them is read.

  It may be pickled: each process opens the files anew. Start processes by
  spawning them; a forked one must not read.

  Attributes:
    folder: where TFDS keeps the records.
    split: the name that TFDS has for it.
  """

  def __init__(self, folder: pathlib.Path, split: str) -> None:
    self.folder, self.split = pathlib.Path(folder), split
    self._source: Any = None

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_source': None}

  def _open(self) -> Any:  # noqa: ANN401
    """The data source of TFDS, which leaves images encoded."""
    if self._source is None:
      import tensorflow_datasets as tfds

      builder = tfds.builder_from_directory(self.folder)
      is_image = 'image' in builder.info.features
      skip = {'image': tfds.decode.SkipDecoding()} if is_image else None
      self._source = builder.as_data_source(self.split, decoders=skip)
    return self._source

  @property
  def features(self) -> Any:  # noqa: ANN401
    """What TFDS knows of the fields of a record."""
    return self._open().dataset_info.features

  @property
  def paths(self) -> list[pathlib.Path]:
    """The files, in the order of the records."""
    info = self._open().dataset_info.splits[self.split]
    return [pathlib.Path(path) for path in info.filepaths]

  def __len__(self) -> int:
    return len(self._open())

  def where(self, index: int) -> str:
    """Says which record of which file it is."""
    info = self._open().dataset_info.splits[self.split]
    ends = np.cumsum(info.shard_lengths)
    shard = int(np.searchsorted(ends, index, side='right'))
    first = int(ends[shard - 1]) if shard else 0
    return f'record {index - first} of {self.paths[shard]}'

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Reads a record.

    Args:
      index: its position in the split.

    Returns:
      Its fields; an image is the bytes of a file.

    Raises:
      IndexError: there is no such record.
      OSError: it is damaged; the file and its index there are named.
    """
    if not 0 <= index < len(self):
      raise IndexError(f'record {index} is not in 0..{len(self) - 1}')
    try:
      return self._open()[index]
    except Exception as error:  # Whatever its readers make of damage.
      raise OSError(
        f'{self.where(index)} (example {index} of {self.split}) is damaged:'
        f' delete {self.folder} and prepare again ({error})'
      ) from error

  def __iter__(self) -> Iterator[dict[str, Any]]:
    """Reads all records in their order, faster than one by one."""
    for start in range(0, len(self), _CHUNK):
      indices = range(start, min(start + _CHUNK, len(self)))
      try:
        examples = self._open().__getitems__(indices)
      except Exception:  # One by one finds out which it is.
        examples = [self[index] for index in indices]
      yield from examples
