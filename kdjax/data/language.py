"""From texts to the rows of a data set."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from kdjax import checks
from kdjax.data import dataset, store, table, text, tokens
from kdjax.data.corpus import Corpus
from kdjax.data.streaming import PADDING
from kdjax.data.vocabulary import OUTSIDE, Vocabulary, vocabulary

_BATCHINGS = ('contiguous', 'padded', 'packed')
_PREFIX = 'config.dataset.text'
SPLITS = ('train', 'dev', 'test')


@dataclasses.dataclass(frozen=True)
class Settings:
  """How rows are made of a text.

  Attributes:
    batching: 'contiguous', 'padded' or 'packed', see `kdjax.data.text`.
    sequence_length: tokens of a row.
    tokens: 'word', 'char' or a file, see `kdjax.data.tokens.tokenise`.
    vocabulary_size: the most classes, see `kdjax.data.vocabulary`; 0: all.
  """

  batching: str = 'contiguous'
  sequence_length: int = 35
  tokens: str = 'word'
  vocabulary_size: int = 0

  def __post_init__(self) -> None:
    for name, kind in (
      ('batching', str),
      ('sequence_length', int),
      ('tokens', str),
      ('vocabulary_size', int),
    ):
      value = getattr(self, name)
      if isinstance(value, bool) or not isinstance(value, kind):
        a = 'text' if kind is str else 'a whole number'
        raise ValueError(f'{_PREFIX}.{name}={value!r} must be {a}')
    if self.batching not in _BATCHINGS:
      raise ValueError(
        f'{_PREFIX}.batching={self.batching!r} must be one of'
        f' {", ".join(_BATCHINGS)}'
      )
    checks.check_between(
      f'{_PREFIX}.sequence_length', self.sequence_length, 1, 2**20
    )
    if self.vocabulary_size != 0 and not 3 <= self.vocabulary_size < 2**31:
      raise ValueError(
        f'{_PREFIX}.vocabulary_size={self.vocabulary_size} must be 0, for all'
        ' tokens, or at least 3'
      )
    tokens.check(self.tokens)


def settings(given: Mapping[str, Any] | None) -> Settings:
  """Checks `config.dataset.text`.

  Args:
    given: some or all of the attributes of `Settings`.

  Returns:
    The settings.

  Raises:
    ValueError: one is unknown, or its value not allowed.
  """
  known = [f'{_PREFIX}.{field.name}' for field in dataclasses.fields(Settings)]
  for name in given or {}:
    checks.check_known('key', f'{_PREFIX}.{name}', known)
  return Settings(**(given or {}))


def load(
  where: store.Place, *, dev_fraction: float, settings: Settings
) -> dataset.Dataset:
  """Makes the rows of a prepared text data set.

  Args:
    where: the prepared data.
    dev_fraction: share of what is to be split that is held out for dev, and as
      much for test, where the files have none of their own; in (0, 1/2).
    settings: how rows are made.

  Returns:
    The data set.

  Raises:
    ValueError: a token of dev or test is not in the training text, or there is
      too little text.
    OSError: the prepared data are damaged.
  """
  corpus = store.read_corpus(where, tokens=settings.tokens)
  positions = split(corpus, where.name, dev_fraction=dev_fraction)
  classes = classes_of(corpus, positions['train'], where.name, settings)
  remedy = f'; set {_PREFIX}.vocabulary_size to have one'
  check_inside(corpus, positions, classes, remedy=remedy)
  end = OUTSIDE if corpus.end < 0 else int(classes.classes[corpus.end])
  rows, characters = {}, {}
  for name, where_in in positions.items():
    stream = classes.classes[corpus.tokens[where_in]].astype(np.int32)
    inputs, labels = _rows(stream, name, end, settings)
    rows[name] = dataset.Split(inputs, labels, np.arange(len(labels)))
    first = int(settings.batching == 'contiguous')
    characters[name] = int(corpus.characters[where_in[first:]].sum())
  source = table.find(where.name)
  predicted = rows['train'].labels[rows['train'].labels != PADDING]
  return dataset.Dataset(
    name=where.name,
    **rows,
    num_classes=len(classes.names),
    mean=source.mean,
    std=source.std,
    class_names=classes.names,
    text=dataset.Text(
      batching=settings.batching,
      boundary=None if settings.batching == 'contiguous' else end,
      num_characters=characters,
      token_counts=np.bincount(predicted, minlength=len(classes.names)),
    ),
  )


def split(
  corpus: Corpus, name: str, *, dev_fraction: float
) -> dict[str, Int[np.ndarray, ' _']]:
  """Where the tokens of train, dev and test are.

  Parts that the files have stay. Missing ones are cut off the end of train, at
  the ends of lines: first dev, then test. Where documents are to stay whole,
  they are drawn by a permutation that never changes.

  Args:
    corpus: the tokens.
    name: of the data set.
    dev_fraction: share of train, of its tokens or documents, for each.

  Returns:
    The positions of the tokens of each.

  Raises:
    ValueError: `dev_fraction` leaves nothing to train, or there is too little
      text.
  """
  found = {part: corpus.positions(part) for part in SPLITS}
  missing = [part for part in SPLITS if not len(found[part])]
  if not missing:
    return found
  if dev_fraction * len(missing) >= 1:
    raise ValueError(
      f'dev_fraction={dev_fraction} must be below 1/{len(missing)}: as much is'
      f' held out for each of {", ".join(missing)}'
    )
  if table.find(name).reading.whole_documents:
    return _draw_documents(corpus, dev_fraction)
  train = found['train']
  shares = 1 - dev_fraction * np.arange(len(missing), 0, -1)
  ends = _line_ends(corpus, train, missing)
  pieces = np.split(train, _cuts(ends, shares * len(train)))
  return found | dict(zip(['train', *missing], pieces, strict=True))


def _line_ends(
  corpus: Corpus, train: Int[np.ndarray, ' n'], missing: Sequence[str]
) -> Int[np.ndarray, ' _']:
  """Where in the training text it may be cut: behind lines, if it has enough.

  A text of fewer lines may be cut behind any token.
  """
  ends = 1 + np.flatnonzero(corpus.tokens[train[:-1]] == corpus.end)
  if len(ends) < len(missing):
    ends = np.arange(1, len(train))
  if len(ends) < len(missing):
    raise ValueError(
      f'{", ".join(corpus.names)}: {len(train)} tokens are too few to be cut'
      f' into train, {", ".join(missing)}'
    )
  return ends


def _cuts(
  ends: Int[np.ndarray, ' L'], wanted: Float[np.ndarray, ' m']
) -> Int[np.ndarray, ' m']:
  """The first end at or behind each place; the ends are all different."""
  cuts: list[int] = []
  for number, place in enumerate(wanted):
    low = cuts[-1] + 1 if cuts else 0
    high = len(ends) - len(wanted) + number
    cuts.append(min(max(int(np.searchsorted(ends, place)), low), high))
  return ends[cuts]


def _draw_documents(
  corpus: Corpus, fraction: float
) -> dict[str, Int[np.ndarray, ' _']]:
  """Dev, test and train get documents by one permutation."""
  size = len(corpus.names)
  held = max(round(fraction * size), 1)
  order = dataset.permutation(size, seed=0)
  drawn = {
    'train': order[2 * held :],
    'dev': order[:held],
    'test': order[held : 2 * held],
  }
  of_document = np.repeat(np.arange(size), np.diff(corpus.starts))
  return {
    part: np.flatnonzero(np.isin(of_document, documents))
    for part, documents in drawn.items()
  }


def classes_of(
  corpus: Corpus,
  train: Int[np.ndarray, ' _'],
  name: str,
  settings: Settings,
) -> Vocabulary:
  """The class of each type of token, by what there is to train on.

  The numbers of a vocabulary that was there before stay, if none is cut off.

  Args:
    corpus: the tokens.
    train: positions of those to train on.
    name: of the data set.
    settings: with the size.

  Returns:
    The classes.
  """
  if corpus.is_fixed and not settings.vocabulary_size:
    return Vocabulary(corpus.types, np.arange(len(corpus.types)))
  return vocabulary(
    corpus.types,
    np.bincount(corpus.tokens[train], minlength=len(corpus.types)),
    end=corpus.end,
    size=settings.vocabulary_size,
    min_count=table.find(name).reading.min_count,
  )


def check_inside(
  corpus: Corpus,
  positions: Mapping[str, Int[np.ndarray, ' _']],
  classes: Vocabulary,
  *,
  remedy: str = '',
) -> None:
  """Raises `ValueError` if a token of dev or test is no class."""
  for name, where in positions.items():
    found = classes.classes[corpus.tokens[where]] == OUTSIDE
    if found.any():
      position = int(where[found.argmax()])
      token = corpus.types[corpus.tokens[position]]
      raise ValueError(
        f'{corpus.place(position)}: {token!r}, in the {name} text, is not among'
        f' the {len(classes.names)} tokens of the training text, which has no'
        f' {tokens.UNKNOWN!r} for it{remedy}'
      )


def _rows(
  stream: Int[np.ndarray, ' n'], name: str, end: int, settings: Settings
) -> text.Rows:
  """The rows of a split."""
  length = settings.sequence_length
  if settings.batching == 'contiguous':
    least = length + 1 if name == 'train' else 2
    if len(stream) < least:
      raise ValueError(
        f'the {name} text is too short: it has {len(stream)} tokens, and'
        f' {least} are needed, with {_PREFIX}.sequence_length={length}'
      )
    return text.contiguous(stream, length=length, blank=max(end, 0))
  if end == OUTSIDE:
    raise ValueError(
      f'{_PREFIX}.batching={settings.batching!r} needs sentences, but the text'
      " has no end of a line: use 'contiguous'"
    )
  sentences = np.split(stream, 1 + np.flatnonzero(stream[:-1] == end))
  make = text.padded if settings.batching == 'padded' else text.packed
  return make(sentences, length=length, boundary=end)
