"""Texts as numbers: what is kept of a text data set, and read again."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from kdjax.data.shards import Shards


class Document(NamedTuple):
  """A text with a name.

  Attributes:
    name: of its file, or of what it is about.
    part: 'train', 'dev' or 'test', as the files have it.
    text: all of it.
  """

  name: str
  part: str
  text: str


class Corpus(NamedTuple):
  """The tokens of all documents, one after the other.

  Attributes:
    tokens: of which type each token is, [n].
    characters: how many characters of the text each stands for, [n].
    starts: position of the first token of each document, and n, [D + 1].
    names: of the documents.
    parts: which of 'train', 'dev' and 'test' each document is of.
    types: the different tokens there are.
    end: type of the token that ends a line; −1 if there is none.
    is_fixed: whether the types are a vocabulary that was there before.
  """

  tokens: Int[np.ndarray, ' n']
  characters: Int[np.ndarray, ' n']
  starts: Int[np.ndarray, ' _']
  names: tuple[str, ...]
  parts: tuple[str, ...]
  types: tuple[str, ...]
  end: int
  is_fixed: bool

  def positions(self, part: str) -> Int[np.ndarray, ' _']:
    """Where the tokens of a part are."""
    is_in = np.array([found == part for found in self.parts], bool)
    return np.flatnonzero(np.repeat(is_in, np.diff(self.starts)))

  def place(self, position: int) -> str:
    """Says which line of which document a token is in."""
    document = int(np.searchsorted(self.starts, position, side='right')) - 1
    before = self.tokens[self.starts[document] : position]
    line = 1 + int(np.count_nonzero(before == self.end))
    return f'{self.names[document]}, line {line}'


# What a corpus has in arrays; the rest is kept as JSON.
_ARRAYS = ('tokens', 'characters', 'starts')


def to_arrays(corpus: Corpus) -> dict[str, np.ndarray]:
  """The corpus in arrays of numbers alone, for a cache."""
  found = corpus._asdict()
  arrays = {name: found.pop(name) for name in _ARRAYS}
  text = json.dumps(found).encode()
  return {**arrays, 'described': np.frombuffer(text, np.uint8)}


def from_arrays(arrays: Mapping[str, np.ndarray] | None) -> Corpus | None:
  """What `to_arrays` was given, or None if it is not to be trusted."""
  try:
    described = json.loads(arrays['described'].tobytes())
    for name in ('names', 'parts', 'types'):
      described[name] = tuple(described[name])
    corpus = Corpus(**{name: arrays[name] for name in _ARRAYS}, **described)
    size, last = len(corpus.tokens), len(corpus.types) - 1
    is_whole = (
      len(corpus.characters) == size == corpus.starts[-1]
      and len(corpus.names) == len(corpus.parts) == len(corpus.starts) - 1
      and 0 <= corpus.tokens.min() <= corpus.tokens.max() <= last
    )
  except Exception:  # Whatever ails a cache, the records are still there.
    return None
  return corpus if is_whole else None


# Characters of a record: a text may be larger than what a record may hold.
_BLOCK = 2**20


def records_of(documents: Iterable[Document]) -> Iterable[dict[str, Any]]:
  """Yields the records that hold the documents."""
  position = 0
  for number, (name, _, text) in enumerate(documents):
    for start in range(0, len(text), _BLOCK):
      yield {
        'position': position,
        'document': number,
        'name': name,
        'text': text[start : start + _BLOCK],
      }
      position += 1


def documents_of(parts: Mapping[str, Shards]) -> list[Document]:
  """The documents whose records these are.

  Args:
    parts: the records of each part.

  Returns:
    The documents, part by part.

  Raises:
    OSError: a record is damaged, which is named.
  """
  documents = []
  for part, records in parts.items():
    texts: dict[tuple[int, str], list[str]] = {}
    for record in sorted(records, key=lambda record: record['position']):
      key = (int(record['document']), record['name'].decode())
      texts.setdefault(key, []).append(record['text'].decode())
    documents += [
      Document(name, part, ''.join(blocks))
      for (_, name), blocks in texts.items()
    ]
  return documents
