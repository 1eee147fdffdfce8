"""The 1797 handwritten digits that come with scikit-learn."""

from collections.abc import Iterator

import numpy as np
import sklearn.datasets
import tensorflow_datasets as tfds

from kdjax.data import dataset
from kdjax.data.builders import records

_NUM_TEST = 500


def arrays() -> dict[str, dataset.Split]:
  """Images [N, 8, 8, 1] of uint8 and labels, 1297 to train, 500 to test.

  The pixels of the source, 0 to 16, are spread over 0 to 255. The split never
  changes; the classes have equal shares of the test examples, 50 each.
  """
  source = sklearn.datasets.load_digits()
  pixels = np.rint(source.images[..., None] * (255 / 16)).astype(np.uint8)
  everything = dataset.Split(pixels, source.target.astype(np.int32))
  numbered = everything._replace(inputs=np.arange(len(pixels)))
  test = dataset.thin(
    numbered, num_labels=_NUM_TEST, num_classes=10, seed=0
  ).inputs
  train = np.setdiff1d(numbered.inputs, test)
  return {
    'train': dataset.take(everything, train),
    'test': dataset.take(everything, test),
  }


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Real digits, 8×8 pixels, from the UCI test set scikit-learn carries."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='The optical digits of scikit-learn, 0..16 scaled to 0..255.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(8, 8, 1)),
          'label': tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=('image', 'label'),
      homepage='https://scikit-learn.org/stable/datasets/toy_dataset.html',
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator]:
    del dl_manager  # Nothing to download.
    return {
      split: records.image_examples(*part[:2])
      for split, part in arrays().items()
    }

  def _generate_examples(self) -> None:
    """Unused: the generators are made above."""
