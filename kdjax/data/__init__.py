"""Data sets in host memory, and what happens to a batch on the device.

`load` reads a prepared data set; `prepare` makes one ready. TFDS is imported
only to prepare, or to read records for the first time.
"""

from kdjax.data.augment import normalise, pad_crop_flip
from kdjax.data.dataset import Dataset, Split, exclude_classes, thin
from kdjax.data.pipeline import Prepared, load, prepare
from kdjax.data.synthetic import SyntheticClasses, synthetic_classes
from kdjax.data.table import DATASETS, names

__all__ = [
  'DATASETS',
  'Dataset',
  'Prepared',
  'Split',
  'SyntheticClasses',
  'exclude_classes',
  'load',
  'names',
  'normalise',
  'pad_crop_flip',
  'prepare',
  'synthetic_classes',
  'thin',
]
