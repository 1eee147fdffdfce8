"""Rows of tokens: nothing is lost, nothing twice, nothing out of place."""

import itertools

import numpy as np
import pytest

from kdjax import data
from kdjax.data import text

BOUNDARY = 0


def made_up(*, num_sentences=60, longest=23, seed=0):
  """Sentences of different tokens, which end in the boundary."""
  rng = np.random.default_rng(seed)
  sizes = rng.integers(0, longest, num_sentences)
  bounds = 1 + np.cumsum([0, *sizes])
  return [
    np.array([*range(low, high), BOUNDARY])
    for low, high in itertools.pairwise(bounds)
  ]


def pairs_of(rows):
  """What is read and what is to be predicted, wherever it stands."""
  real = rows.labels != data.PADDING
  return sorted(
    zip(rows.inputs[real].tolist(), rows.labels[real].tolist(), strict=True)
  )


def pairs_in(sentences):
  return sorted(
    pair
    for sentence in sentences
    for pair in zip([BOUNDARY, *sentence[:-1]], sentence, strict=True)
  )


def segments(rows):
  """What a model may see together: the tokens of each sentence of each row."""
  found = []
  for inputs, labels in zip(*rows, strict=True):
    real = labels != data.PADDING
    numbers = np.cumsum(inputs == BOUNDARY)
    for number in np.unique(numbers[real]):
      found.append(labels[real & (numbers == number)].tolist())
  return found


@pytest.mark.parametrize('size', [2, 3, 9, 10, 11, 12, 50])
@pytest.mark.parametrize('length', [1, 2, 5, 60])
def test_contiguous_rows_are_the_stream(size, length):
  stream = np.arange(100, 100 + size)
  rows = text.contiguous(stream, length=length)
  assert (
    rows.inputs.shape == rows.labels.shape == (-(-(size - 1) // length), length)
  )
  assert (rows.inputs.dtype, rows.labels.dtype) == (np.int32, np.int32)
  real = rows.labels.ravel() != data.PADDING
  # Padding is at the end alone, and less than a row.
  assert real.sum() == size - 1
  assert real[: size - 1].all()
  np.testing.assert_array_equal(rows.inputs.ravel()[real], stream[:-1])
  np.testing.assert_array_equal(rows.labels.ravel()[real], stream[1:])
  assert not rows.inputs.ravel()[~real].any()


def test_contiguous_rows_do_not_depend_on_what_comes_later():
  stream = np.arange(40)
  few, many = (text.contiguous(stream[:n], length=7) for n in (29, 40))
  np.testing.assert_array_equal(few.inputs, many.inputs[:4])
  np.testing.assert_array_equal(few.labels, many.labels[:4])


def test_the_blank_of_the_last_row():
  rows = text.contiguous(np.array([5, 6, 7]), length=4, blank=9)
  assert rows.inputs.tolist() == [[5, 6, 9, 9]]


@pytest.mark.parametrize('make', [text.padded, text.packed])
@pytest.mark.parametrize('length', [1, 4, 22, 23, 24, 70])
def test_every_token_is_predicted_once_from_the_one_before(make, length):
  sentences = made_up()
  rows = make(sentences, length=length, boundary=BOUNDARY)
  assert rows.inputs.shape == rows.labels.shape
  assert rows.inputs.shape[1] == length
  assert (rows.inputs.dtype, rows.labels.dtype) == (np.int32, np.int32)
  assert pairs_of(rows) == pairs_in(sentences)
  assert (rows.inputs[rows.labels == data.PADDING] == BOUNDARY).all()
  # Padding is at the end of a row alone, and no row is nothing else.
  real = rows.labels != data.PADDING
  assert (np.diff(real.astype(int), axis=1) <= 0).all()
  assert real[:, 0].all()


@pytest.mark.parametrize('make', [text.padded, text.packed])
def test_a_segment_is_a_sentence(make):
  sentences = made_up()
  found = segments(make(sentences, length=24, boundary=BOUNDARY))
  assert sorted(found) == sorted(x.tolist() for x in sentences)


@pytest.mark.parametrize('make', [text.padded, text.packed])
@pytest.mark.parametrize('length', [1, 4, 7])
def test_the_rest_of_a_long_sentence_is_read_without_what_was_before(
  make, length
):
  sentences = made_up(num_sentences=20)
  found = segments(make(sentences, length=length, boundary=BOUNDARY))
  pieces = [
    x[start : start + length].tolist()
    for x in sentences
    for start in range(0, len(x), length)
  ]
  assert sorted(found) == sorted(pieces)


def test_padded_rows_are_in_the_order_of_the_sentences():
  sentences = made_up(num_sentences=20)
  rows = text.padded(sentences, length=24, boundary=BOUNDARY)
  for sentence, inputs, labels in zip(sentences, *rows, strict=True):
    size = len(sentence)
    assert labels[:size].tolist() == sentence.tolist()
    assert inputs[:size].tolist() == [BOUNDARY, *sentence[:-1]]


def test_packing_wastes_little():
  sentences = made_up(num_sentences=500)
  rows = text.packed(sentences, length=35, boundary=BOUNDARY)
  num_tokens = sum(map(len, sentences))
  assert len(rows.labels) == -(-num_tokens // 35)
  again = text.packed(sentences, length=35, boundary=BOUNDARY)
  np.testing.assert_array_equal(rows.inputs, again.inputs)


def test_a_sentence_may_do_without_its_end():
  sentences = [np.array([3, 4]), np.array([5])]
  rows = text.padded(sentences, length=3, boundary=BOUNDARY)
  assert rows.inputs.tolist() == [[0, 3, 0], [0, 0, 0]]
  assert rows.labels.tolist() == [[3, 4, -1], [5, -1, -1]]
  rows = text.packed(sentences, length=3, boundary=BOUNDARY)
  assert rows.inputs.tolist() == [[0, 3, 0]]
  assert rows.labels.tolist() == [[3, 4, 5]]


@pytest.mark.parametrize('make', [text.padded, text.packed])
@pytest.mark.parametrize('sentences', [[], [np.array([], np.int32)]])
def test_no_sentences(make, sentences):
  with pytest.raises(ValueError, match='no sentence'):
    make(sentences, length=3, boundary=0)


def test_too_few_tokens_and_no_length():
  with pytest.raises(ValueError, match='at least 2 tokens, not 1'):
    text.contiguous(np.array([1]), length=3)
  for make in (text.padded, text.packed):
    with pytest.raises(ValueError, match='length=0 must be positive'):
      make([np.array([1, 2])], length=0, boundary=0)
  with pytest.raises(ValueError, match='length=0 must be positive'):
    text.contiguous(np.array([1, 2]), length=0)
