import collections

import numpy as np
import pytest

from kdjax.data.vocabulary import OUTSIDE, vocabulary

TYPES = ('<eos>', 'a', 'b', 'c', 'd', 'e')
COUNTS = np.array([4, 3, 5, 3, 1, 0])


def total(found, counts=COUNTS):
  """How often each class is there."""
  names = collections.Counter()
  for class_, count in zip(found.classes, counts, strict=True):
    names[found.names[class_]] += int(count)
  return [names[name] for name in found.names]


def test_most_frequent_first_ties_by_word():
  found = vocabulary(TYPES, COUNTS, end=0)
  assert found.names == ('b', '<eos>', 'a', 'c', 'd')
  assert found.classes.tolist() == [1, 2, 0, 3, 4, OUTSIDE]


def test_a_text_with_unk_has_it_for_what_is_outside():
  types, counts = (*TYPES, '<unk>'), np.array([*COUNTS, 9])
  found = vocabulary(types, counts, end=0)
  assert found.names == ('<unk>', 'b', '<eos>', 'a', 'c', 'd')
  assert found.classes[5] == found.classes[6] == 0


def test_unk_that_train_does_not_have_is_outside_too():
  types, counts = (*TYPES, '<unk>'), np.array([*COUNTS, 0])
  assert vocabulary(types, counts, end=0).classes[6] == OUTSIDE


@pytest.mark.parametrize('size', [3, 4, 5, 6, 7, 100])
def test_a_size_keeps_the_most_frequent(size):
  found = vocabulary(TYPES, COUNTS, end=0, size=size)
  assert len(found.names) == min(size, 6)
  kept = ['b', 'a', 'c', 'd'][: size - 2]
  assert set(found.names) == {'<eos>', '<unk>', *kept}
  counts = total(found)
  assert counts == sorted(counts, reverse=True)
  assert sum(counts) == COUNTS.sum()
  for name in kept:
    assert found.names[found.classes[TYPES.index(name)]] == name


def test_the_end_is_kept_however_rare():
  found = vocabulary(('a', 'b', '\n'), np.array([5, 4, 1]), end=2, size=3)
  assert found.names == ('a', '<unk>', '\n')


def test_without_an_end():
  found = vocabulary(('a', 'b', 'c'), np.array([5, 4, 1]), size=3)
  assert found.names == ('a', 'b', '<unk>')


def test_min_count():
  found = vocabulary(TYPES, COUNTS, end=0, min_count=3)
  assert found.names == ('b', '<eos>', 'a', 'c', '<unk>')
  assert found.classes.tolist() == [1, 2, 0, 3, 4, 4]
  smaller = vocabulary(TYPES, COUNTS, end=0, min_count=3, size=4)
  assert smaller.names == ('b', '<eos>', '<unk>', 'a')


def test_it_does_not_depend_on_the_order_of_types():
  order = [3, 1, 5, 0, 2, 4]
  found = vocabulary([TYPES[i] for i in order], COUNTS[order], end=3, size=5)
  expected = vocabulary(TYPES, COUNTS, end=0, size=5)
  assert found.names == expected.names
  np.testing.assert_array_equal(found.classes, expected.classes[order])
