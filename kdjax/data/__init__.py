"""Data sets, their batches, and what happens to a batch on the device.

`load` reads a prepared data set, or one of your own, in `.npz` files or as a
text; `prepare` makes one ready. `batches` streams what is too large for memory.
TFDS is imported only to prepare or to read records, Grain only to stream.
"""

from kdjax.data.augment import flip, mixup, normalise, pad_crop_flip
from kdjax.data.dataset import Dataset, Split, Text, exclude_classes, thin
from kdjax.data.images import Images
from kdjax.data.pipeline import Prepared, load, prepare
from kdjax.data.streaming import PADDING, Streamed, batches
from kdjax.data.synthetic import SyntheticClasses, synthetic_classes
from kdjax.data.table import DATASETS, is_text, names

__all__ = [
  'DATASETS',
  'PADDING',
  'Dataset',
  'Images',
  'Prepared',
  'Split',
  'Streamed',
  'SyntheticClasses',
  'Text',
  'batches',
  'exclude_classes',
  'flip',
  'is_text',
  'load',
  'mixup',
  'names',
  'normalise',
  'pad_crop_flip',
  'prepare',
  'synthetic_classes',
  'thin',
]
