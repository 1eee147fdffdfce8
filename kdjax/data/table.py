"""The data sets there are, and the numbers they are normalised with."""

import dataclasses
import importlib
from typing import Any

from kdjax import checks
from kdjax.data import python_docs, synthetic, text_files

# What chooses the records of a data set that has several sorts of them.
Options = synthetic.Options | text_files.TextFiles | python_docs.Edition


@dataclasses.dataclass(frozen=True)
class Reading:
  """How a text is read.

  Attributes:
    files: names of the files of each part, if they are always the same.
    min_count: how often a token must be in train, to be a class.
    whole_documents: whether no document may be in two splits.
  """

  files: dict[str, str] = dataclasses.field(default_factory=dict)
  min_count: int = 1
  whole_documents: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a data set comes from.

  Attributes:
    builder: `module:Class` of the TFDS builder, inside `kdjax.data.builders`.
    version: of the records, as the builder has it.
    mean: per channel, of inputs scaled as `normalise` does.
    std: ditto.
    options: what its options are, or None if it takes none.
    bundled: made from what is installed, so it needs no files and no network.
    streamed: too large for memory: images stay encoded until they are needed.
    splits: what TFDS calls the examples to train and to test on.
    reading: of a text; None for all others.
  """

  builder: str
  version: str
  mean: tuple[float, ...]
  std: tuple[float, ...]
  options: type[Options] | None = None
  bundled: bool = False
  streamed: bool = False
  splits: tuple[str, str] = ('train', 'test')
  reading: Reading | None = None


# A row per data set. Adding one: a builder, a row, a test. The numbers of
# digits are those of its training examples, the others the published ones.
DATASETS: dict[str, Source] = {
  'cifar10': Source(
    builder='cifar:Cifar10',
    version='3.0.2',
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
  ),
  'cifar100': Source(
    builder='cifar:Cifar100',
    version='3.0.2',
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
  ),
  'digits': Source(
    builder='digits:Digits',
    version='1.0.0',
    mean=(0.3053,),
    std=(0.3760,),
    bundled=True,
  ),
  'fashion_mnist': Source(
    builder='mnist:FashionMnist', version='3.0.1', mean=(0.2860,), std=(0.3530,)
  ),
  'imagenet2012': Source(
    builder='imagenet:Imagenet2012',
    version='5.1.0',
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    streamed=True,
    # The labels of its official test examples were never published.
    splits=('train', 'validation'),
  ),
  'mnist': Source(
    builder='mnist:Mnist', version='3.0.1', mean=(0.1307,), std=(0.3081,)
  ),
  'penn_treebank': Source(
    builder='text:PennTreebank',
    version='1.0.0',
    mean=(0.0,),
    std=(1.0,),
    reading=Reading(
      files={
        'train': 'ptb.train.txt',
        'dev': 'ptb.valid.txt',
        'test': 'ptb.test.txt',
      }
    ),
  ),
  'python_docs': Source(
    builder='text:PythonDocs',
    version='1.0.0',
    mean=(0.0,),
    std=(1.0,),
    options=python_docs.Edition,
    bundled=True,
    reading=Reading(min_count=3, whole_documents=True),
  ),
  'synthetic_classes': Source(
    builder='synthetic:SyntheticClasses',
    version='1.0.0',
    mean=(0.0,),
    std=(1.0,),
    options=synthetic.Options,
    bundled=True,
  ),
  'text_file': Source(
    builder='text:TextFile',
    version='1.0.0',
    mean=(0.0,),
    std=(1.0,),
    options=text_files.TextFiles,
    reading=Reading(),
  ),
  'wikitext2': Source(
    builder='text:Wikitext2',
    version='1.0.0',
    mean=(0.0,),
    std=(1.0,),
    reading=Reading(
      files={
        'train': 'wiki.train.tokens',
        'dev': 'wiki.valid.tokens',
        'test': 'wiki.test.tokens',
      }
    ),
  ),
}


# The data set in a folder of the user's own: it has no row and no builder.
OWN = 'npz'
# Texts of the user's own.
OWN_TEXT = 'text_file'


def names() -> tuple[str, ...]:
  """The names of all data sets, in alphabetical order."""
  return tuple(sorted([*DATASETS, OWN]))


def is_text(name: str) -> bool:
  """Whether it is the name of a data set for language models.

  >>> is_text('penn_treebank'), is_text('digits'), is_text('npz')
  (True, False, False)
  """
  return name in DATASETS and DATASETS[name].reading is not None


def find(name: str) -> Source:
  """The row of a data set; a name without one raises `ValueError`."""
  checks.check_known('data set', name, names())
  if name == OWN:
    raise ValueError(
      f'data set {OWN!r} needs no preparing: it is read from .npz files of your'
      ' own, where config.dataset.data_dir says'
    )
  return DATASETS[name]


def resolve(path: str) -> Any:  # noqa: ANN401
  """Imports `module:Class` from `kdjax.data.builders`, and TFDS with it."""
  module, name = path.split(':')
  return getattr(importlib.import_module(f'kdjax.data.builders.{module}'), name)
