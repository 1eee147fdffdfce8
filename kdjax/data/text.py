"""Rows of tokens, each with the token after it: what a language model reads."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from kdjax import checks
from kdjax.data.streaming import PADDING


class Rows(NamedTuple):
  """Tokens to read and tokens to predict.

  Attributes:
    inputs: tokens [N, T] of int32.
    labels: the token after each [N, T] of int32; −1 where there is nothing to
      predict.
  """

  inputs: Int[np.ndarray, 'N T']
  labels: Int[np.ndarray, 'N T']


def contiguous(
  tokens: Int[np.ndarray, ' n'], *, length: int, blank: int = 0
) -> Rows:
  """Cuts a stream into rows that go on from each other.

  Row r reads the tokens `r · T` to `r · T + T − 1` and predicts the token after
  each. Every token but the first, which is only read, is predicted once.

  Args:
    tokens: the stream, at least 2 tokens.
    length: T, tokens of a row.
    blank: the input token where the last row has nothing to predict.

  Returns:
    `⌈(n − 1) / T⌉` rows.

  Raises:
    ValueError: there are fewer than 2 tokens, or `length` is not positive.

  >>> rows = contiguous(np.array([5, 6, 7, 8]), length=2)
  >>> rows.inputs.tolist(), rows.labels.tolist()
  ([[5, 6], [7, 0]], [[6, 7], [8, -1]])
  """
  checks.check_positive('length', length)
  if len(tokens) < 2:
    raise ValueError(f'a row needs at least 2 tokens, not {len(tokens)}')
  num_labels = len(tokens) - 1
  rows = _blank_rows(-(-num_labels // length), length, blank)
  rows.inputs.flat[:num_labels] = tokens[:-1]
  rows.labels.flat[:num_labels] = tokens[1:]
  return rows


def padded(
  sentences: Sequence[Int[np.ndarray, ' _']], *, length: int, boundary: int
) -> Rows:
  """Gives each sentence a row of its own, filled up with padding.

  A sentence `[w1 .. wn, end]` is predicted from `[boundary, w1 .. wn]`. Of one
  that is longer than a row, the rest begins the next row: it is read from the
  token before it, without what came earlier.

  Args:
    sentences: tokens of each, with the one that ends it.
    length: T, tokens of a row.
    boundary: the token read before a sentence, and where there is none.

  Returns:
    The rows, in the order of the sentences; every token is predicted once.

  Raises:
    ValueError: there is no sentence, or `length` is not positive.

  >>> rows = padded([np.array([5, 6, 0]), np.array([7])], length=2, boundary=0)
  >>> rows.inputs.tolist(), rows.labels.tolist()
  ([[0, 5], [6, 0], [0, 0]], [[5, 6], [0, -1], [7, -1]])
  """
  pieces = _pieces(sentences, length)
  return _place(sentences, boundary, pieces, np.arange(len(pieces)), length)


def packed(
  sentences: Sequence[Int[np.ndarray, ' _']], *, length: int, boundary: int
) -> Rows:
  """Puts several sentences into a row, as `padded` has them, one by one.

  The rest of a sentence that is longer than a row begins a row. Then, longest
  first, each sentence goes where the least room suffices, into the newest of
  such rows, else into a new one.

  Args:
    sentences: tokens of each, with the one that ends it.
    length: T, tokens of a row.
    boundary: the token read before a sentence, and where there is none.

  Returns:
    The rows; every token is predicted once.

  Raises:
    ValueError: there is no sentence, or `length` is not positive.

  >>> sentences = [np.array([5, 0]), np.array([6, 7, 0]), np.array([0])]
  >>> rows = packed(sentences, length=4, boundary=0)
  >>> rows.inputs.tolist(), rows.labels.tolist()
  ([[0, 6, 7, 0], [0, 5, 0, 0]], [[6, 7, 0, 0], [5, 0, -1, -1]])
  """
  pieces = _pieces(sentences, length)
  return _place(sentences, boundary, pieces, _best_fit(pieces, length), length)


def _blank_rows(num_rows: int, length: int, blank: int) -> Rows:
  shape = (num_rows, length)
  return Rows(
    np.full(shape, blank, np.int32), np.full(shape, PADDING, np.int32)
  )


def _pieces(
  sentences: Sequence[Int[np.ndarray, ' _']], length: int
) -> Int[np.ndarray, 'P 2']:
  """Length of each piece of a sentence, and whether a sentence begins there."""
  checks.check_positive('length', length)
  sizes = [len(sentence) for sentence in sentences if len(sentence)]
  if not sizes:
    raise ValueError('there is no sentence to make rows of')
  return np.array(
    [
      (min(length, size - start), start == 0)
      for size in sizes
      for start in range(0, size, length)
    ]
  )


def _best_fit(
  pieces: Int[np.ndarray, 'P 2'], length: int
) -> Int[np.ndarray, ' P']:
  """The row of each piece."""
  sizes, begins = pieces.T.tolist()
  # Rows by the room they have left.
  rows_with: list[list[int]] = [[] for _ in range(length + 1)]
  rows, num_rows = np.zeros(len(sizes), np.int64), 0
  for piece in sorted(range(len(sizes)), key=lambda i: (begins[i], -sizes[i])):
    size = sizes[piece]
    rooms = range(size, length + 1) if begins[piece] else ()
    room = next((room for room in rooms if rows_with[room]), None)
    if room is None:
      room, row = length, num_rows
      num_rows += 1
    else:
      row = rows_with[room].pop()
    rows_with[room - size].append(row)
    rows[piece] = row
  return rows


def _place(
  sentences: Sequence[Int[np.ndarray, ' _']],
  boundary: int,
  pieces: Int[np.ndarray, 'P 2'],
  row_of: Int[np.ndarray, ' P'],
  length: int,
) -> Rows:
  """Writes every piece into its row, behind those that are there."""
  tokens = np.concatenate(sentences)
  sizes, begins = pieces.T
  starts = np.cumsum(sizes) - sizes
  before = np.concatenate([[boundary], tokens[:-1]])
  before[starts[begins == 1]] = boundary
  # Within a row the rest of a sentence is first.
  order = np.lexsort((np.arange(len(sizes)), begins, row_of))
  ends = np.cumsum(sizes[order])
  is_first = np.diff(row_of[order], prepend=-1) != 0
  row_starts = np.maximum.accumulate(np.where(is_first, ends - sizes[order], 0))
  column = np.empty_like(sizes)
  column[order] = ends - sizes[order] - row_starts
  first = row_of * length + column
  where = np.arange(len(tokens)) + np.repeat(first - starts, sizes)
  rows = _blank_rows(int(row_of.max()) + 1, length, boundary)
  rows.inputs.flat[where] = before
  rows.labels.flat[where] = tokens
  return rows
