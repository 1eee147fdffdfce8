"""Ways to cut a text into tokens: words, characters, or a model's."""

import hashlib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kdjax.data.corpus import Corpus, Document

# The word that stands for the end of a line, and the one for all others.
END, UNKNOWN = '<eos>', '<unk>'


def check(tokens: str) -> None:
  """Raises `ValueError` unless it is a way to cut a text into tokens."""
  if tokens in ('word', 'char') or _path(tokens).is_file():
    return
  raise ValueError(
    f"config.dataset.text.tokens={tokens!r} must be 'word', 'char' or the path"
    ' of a JSON file of the library tokenizers; there is no such file'
  )


def key(tokens: str) -> str:
  """What tells the tokens from others: a word, or the content of a file."""
  if tokens in ('word', 'char'):
    return tokens
  return hashlib.sha256(_path(tokens).read_bytes()).hexdigest()[:16]


def tokenise(documents: Sequence[Document], tokens: str) -> Corpus:
  r"""Cuts documents into tokens.

  Args:
    documents: the texts.
    tokens: 'word', what blanks separate, and `<eos>` at the end of each line;
      'char', each character of Unicode, the end of a line included; or the path
      of a JSON file of the library tokenizers, applied line by line, with
      `<eos>` at the end of each.

  Returns:
    The tokens. A word stands for its characters and for the blank or the
    newline behind it; the tokens of such a file for the characters they decode
    to, all counted at the end of the line.

  Raises:
    ValueError: a word of the text is `<eos>`, the file is no such model, or the
      library is not installed.

  >>> corpus = tokenise([Document('a.txt', 'train', 'to be\nto\n')], 'word')
  >>> corpus.types, corpus.tokens.tolist(), corpus.characters.tolist()
  (('<eos>', 'to', 'be'), [1, 2, 0, 1, 0], [3, 3, 0, 3, 0])
  """
  if tokens == 'char':
    return _characters(documents)
  if tokens == 'word':
    return _words(documents)
  return _with_model(documents, _model(_path(tokens)))


def lines(text: str) -> list[str]:
  r"""The lines of a text; the last may do without its newline.

  >>> lines('a\n\nb')
  ['a', '', 'b']
  """
  found = text.split('\n')
  return found if found[-1] else found[:-1]


def _path(tokens: str) -> pathlib.Path:
  return pathlib.Path(os.path.expanduser(tokens))


def _words(documents: Sequence[Document]) -> Corpus:
  numbers = {END: 0}

  def read(document: Document) -> np.ndarray:
    found: list[int] = []
    for number, line in enumerate(lines(document.text), 1):
      words = line.split()
      if END in words:
        raise ValueError(
          f'{document.name}, line {number}: the word {END!r} stands for the end'
          ' of a line; leave it out'
        )
      found += [numbers.setdefault(word, len(numbers)) for word in words]
      found.append(0)
    return np.array(found, np.int32)

  tokens, starts = _join([read(document) for document in documents])
  sizes = np.array([len(word) + 1 for word in numbers], np.int32)
  characters = sizes[tokens]
  # The newline is counted with the last word, if the line has one.
  is_end = tokens == 0
  is_blank = is_end & np.concatenate([[True], is_end[:-1]])
  characters[is_end] = is_blank[is_end]
  return _corpus(documents, tokens, characters, starts, tuple(numbers), end=0)


def _characters(documents: Sequence[Document]) -> Corpus:
  codes, starts = _join(
    [
      np.frombuffer(document.text.encode('utf-32-le'), np.uint32)
      for document in documents
    ]
  )
  # As np.unique has it, but without sorting the text.
  is_there = np.zeros(sys.maxunicode + 1, bool)
  is_there[codes] = True
  types = tuple(map(chr, np.flatnonzero(is_there).tolist()))
  tokens = (np.cumsum(is_there, dtype=np.int32) - 1)[codes]
  end = types.index('\n') if '\n' in types else -1
  ones = np.ones(len(tokens), np.int32)
  return _corpus(documents, tokens, ones, starts, types, end=end)


def _model(path: pathlib.Path) -> Any:  # noqa: ANN401
  """A `tokenizers.Tokenizer`."""
  try:
    import tokenizers
  except ImportError as error:
    raise ValueError(
      f'config.dataset.text.tokens={str(path)!r} needs the library tokenizers:'
      " pip install 'kdjax[text]'"
    ) from error
  try:
    model = tokenizers.Tokenizer.from_str(path.read_text(encoding='utf-8'))
  except Exception as error:  # The library raises nothing more special.
    raise ValueError(
      f'{path} is no JSON file of the library tokenizers: {error}'
    ) from error
  model.no_truncation()
  model.no_padding()
  return model


def _with_model(documents: Sequence[Document], model: Any) -> Corpus:  # noqa: ANN401
  """The tokens of a `tokenizers.Tokenizer`, whose numbers they keep."""
  vocabulary = model.get_vocab(with_added_tokens=True)
  names = {number: name for name, number in vocabulary.items()}
  size = max(names) + 1
  end = vocabulary.get(END, size)
  names.setdefault(end, END)
  decode = _decoder(model)
  streams, sizes = [], []
  for document in documents:
    found = model.encode_batch(lines(document.text), add_special_tokens=False)
    for line, decoded in zip(found, decode(found), strict=True):
      streams.append(np.array([*line.ids, end], np.int32))
      sizes.append(np.zeros(len(line.ids) + 1, np.int32))
      sizes[-1][-1] = len(decoded) + 1
  tokens, bounds = _join(streams)
  counts = np.cumsum([0, *(len(lines(x.text)) for x in documents)])
  # What numbers are left out are names of nothing.
  types = tuple(names.get(i, f'<{i}>') for i in range(max(size, end + 1)))
  corpus = _corpus(
    documents, tokens, _join(sizes)[0], bounds[counts], types, end=end
  )
  return corpus._replace(is_fixed=True)


def _decoder(model: Any) -> Callable[[Sequence[Any]], list[str]]:  # noqa: ANN401
  return lambda found: model.decode_batch(
    [line.ids for line in found], skip_special_tokens=False
  )


def _join(streams: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """All streams as one, and where each begins, and the last ends."""
  starts = np.cumsum([0, *map(len, streams)])
  return np.concatenate(streams), starts


def _corpus(
  documents: Sequence[Document],
  tokens: np.ndarray,
  characters: np.ndarray,
  starts: np.ndarray,
  types: tuple[str, ...],
  *,
  end: int,
) -> Corpus:
  return Corpus(
    tokens=tokens,
    characters=characters,
    starts=starts,
    names=tuple(document.name for document in documents),
    parts=tuple(document.part for document in documents),
    types=types,
    end=end,
    is_fixed=False,
  )
