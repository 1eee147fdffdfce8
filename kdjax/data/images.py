"""Images that stay encoded in their records until they are asked for."""

import dataclasses

import numpy as np
from jaxtyping import Int, UInt8

from kdjax.data import crops, manifest
from kdjax.data.shards import Shards


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """N encoded images; stands where a `Split` has an array of images.

  Indexing by an array or a slice gives other `Images`, without reading any.
  Indexing by a number decodes one, cropped at the centre.

  Attributes:
    records: where they are, in all.
    positions: which of the records, and in which order, [N].
    size: pixels of a side of a decoded image.
  """

  records: Shards
  positions: Int[np.ndarray, ' N']
  size: int = 224

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """The shape of the decoded images, [N, size, size, 3]."""
    return (len(self), self.size, self.size, 3)

  @property
  def dtype(self) -> np.dtype:
    """The type of decoded pixels, uint8."""
    return np.dtype(np.uint8)

  @property
  def ndim(self) -> int:
    """Number of axes of the decoded images, 4."""
    return 4

  def __len__(self) -> int:
    return len(self.positions)

  def __getitem__(
    self, index: int | slice | np.ndarray
  ) -> 'Images | np.ndarray':
    if isinstance(index, slice) or np.ndim(index):
      return dataclasses.replace(self, positions=self.positions[index])
    return self.centre_crop(index)

  def encoded(self, index: int) -> bytes:
    """The bytes of the image file at `index`.

    Args:
      index: position in these images.

    Returns:
      A JPEG, most often.

    Raises:
      OSError: the record is damaged; its file and index are named.
    """
    return self.records[int(self.positions[index])]['image']

  def centre_crop(self, index: int) -> UInt8[np.ndarray, 'size size 3']:
    """Decodes the centre of an image, see `crops.centre_crop`."""
    encoded = self.encoded(index)
    try:
      return crops.centre_crop(encoded, self.size)
    except ValueError as error:
      raise self._named(index, error) from error

  def random_resized_crop(
    self, index: int, rng: np.random.Generator
  ) -> UInt8[np.ndarray, 'size size 3']:
    """Decodes a window of an image, see `crops.random_resized_crop`."""
    encoded = self.encoded(index)
    try:
      return crops.random_resized_crop(encoded, rng, self.size)
    except ValueError as error:
      raise self._named(index, error) from error

  def content(self) -> bytes:
    """What identifies the images: the sha256s of their files, and which.

    Raises:
      OSError: their files have never been listed, or the list is damaged.
    """
    files = manifest.read(self.records.folder)
    if files is None:
      raise FileNotFoundError(
        f'{self.records.folder} has no {manifest.NAME}, which'
        ' python -m kdjax.prepare writes'
      )
    digests = [files[path.name]['sha256'] for path in self.records.paths]
    return ''.join(digests).encode() + self.positions.tobytes()

  def _named(self, index: int, error: ValueError) -> ValueError:
    where = self.records.where(int(self.positions[index]))
    return ValueError(f'{where}: {error}')
