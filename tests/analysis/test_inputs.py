"""What cannot be diagnosed is refused, by name and row."""

import numpy as np
import pytest

from kdjax.analysis import inputs, pieces


def good(rows=6, classes=3):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(rows, classes)).astype(np.float32)
  return logits, np.arange(rows) % classes


def refused(kind, text, logits, labels, **more):
  with pytest.raises(kind, match=text):
    inputs.check({'A.npy': logits, **more}, labels, labels_name='Y.npy')


def test_what_is_right_passes():
  logits, labels = good()
  inputs.check({'t': logits, 's': logits.astype(np.float16)}, labels)
  log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  inputs.check({'t': log_probs}, labels)


def test_lengths_and_shapes():
  logits, labels = good()
  refused(ValueError, r'Y.npy has 5 rows, but A.npy has 6', logits, labels[:5])
  refused(
    ValueError,
    r'B.npy has shape \(5, 3\), but A.npy has \(6, 3\)',
    logits,
    labels,
    **{'B.npy': logits[:5]},
  )
  refused(ValueError, r'A.npy has shape \(6,\)', logits[:, 0], labels)
  refused(ValueError, r'Y.npy has shape \(6, 1\)', logits, labels[:, None])
  refused(ValueError, r'A.npy.*at least two classes', logits[:, :1], labels)
  refused(ValueError, r'A.npy.*is empty', logits[:0], labels[:0])


def test_types():
  logits, labels = good()
  refused(TypeError, 'A.npy is of int64: floating', logits.astype(int), labels)
  refused(TypeError, 'Y.npy is of float32', logits, labels.astype('f4'))
  refused(TypeError, 'Y.npy is of bool', logits, labels.astype(bool))


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_the_row_that_is_not_finite_is_named(bad, monkeypatch):
  logits, labels = good(rows=12)
  logits[7, 2] = bad
  monkeypatch.setattr(pieces, '_PIECE', 12)  # the row is in the second piece
  refused(ValueError, f'A.npy, row 7: {bad} in column 2', logits, labels)


def test_what_float32_cannot_hold():
  logits, labels = good()
  refused(ValueError, 'A.npy, row 0', logits.astype(np.float64) * 1e300, labels)
  refused(TypeError, 'A.npy is of >f4: the byte', logits.astype('>f4'), labels)
  refused(TypeError, 'Y.npy is of >i8: the byte', logits, labels.astype('>i8'))
  refused(TypeError, 'A.npy is of <f16', logits.astype(np.longdouble), labels)


def test_large_logits_are_finite():
  logits, labels = good()
  inputs.check({'t': logits * np.float32(1e38)}, labels)


def test_probabilities_are_no_logits():
  logits, labels = good()
  probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  for dtype in (np.float32, np.float16):
    refused(ValueError, 'A.npy.*row 0.*probab', probs.astype(dtype), labels)


def test_one_row_that_is_none_makes_them_logits(monkeypatch):
  """Also where it is in the first piece, and the last holds none."""
  logits, labels = good()
  probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  probs[1] += 0.5
  monkeypatch.setattr(pieces, '_PIECE', 6)
  inputs.check({'t': probs}, labels)


@pytest.mark.parametrize('bad', [-1, 3])
def test_a_label_that_is_no_class(bad):
  logits, labels = good()
  labels[4] = bad
  refused(ValueError, rf'Y.npy, row 4: {bad} is no class.*0..2', logits, labels)


def test_one_class_only():
  logits, labels = good()
  refused(
    ValueError, 'Y.npy: all 6 rows are of class 2', logits, labels * 0 + 2
  )


def test_pieces_cover_all_rows(monkeypatch):
  monkeypatch.setattr(pieces, '_PIECE', 70)
  found = list(pieces.pieces(17, 10))
  assert [s.start for s in found] == [0, 7, 14]
  rows = np.concatenate([np.arange(17)[s] for s in found])
  np.testing.assert_array_equal(rows, np.arange(17))


def test_a_fold_is_what_the_whole_gives(monkeypatch):
  values = np.random.default_rng(0).normal(size=(17, 10))
  told = []

  def function(part):
    return {'first': part[:, 0]}, {'sum': part.sum(0)}

  monkeypatch.setattr(pieces, '_PIECE', 40)
  rows, sums = pieces.fold(function, (values,), told.append)
  np.testing.assert_array_equal(rows['first'], values[:, 0])
  np.testing.assert_allclose(sums['sum'], values.sum(0))
  assert sum(told) == 17
  assert len(told) == 5


def test_a_sample_is_spread_over_all_rows():
  assert len(np.arange(10)[pieces.spread(10, 10)]) == 10
  assert list(np.arange(10)[pieces.spread(10, 3)]) == [0, 4, 8]
