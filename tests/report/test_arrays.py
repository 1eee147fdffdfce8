"""Files that anyone may have written: read, or refused by name and row."""

import pickle

import numpy as np
import pytest

from kdjax.report import arrays


@pytest.fixture
def files(tmp_path):
  """Writes good logits and labels; a test breaks one of them."""
  rng = np.random.default_rng(0)
  paths = {
    name: tmp_path / f'{name}.npy' for name in ('teacher_logits', 'labels')
  }
  np.save(paths['teacher_logits'], rng.normal(size=(6, 3)).astype(np.float32))
  np.save(paths['labels'], np.arange(6) % 3)
  return paths


def test_arrays_are_mapped_into_memory(files):
  found = arrays.read_answers(files)
  assert isinstance(found.teacher_logits, np.memmap)
  assert found.teacher_logits.shape == (6, 3)
  assert found.student_logits is None
  with pytest.raises(ValueError, match='read-only'):
    found.teacher_logits[0] = 0


class Bomb:
  """What leaves a file where it is opened."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), 'w')


@pytest.mark.parametrize('form', ['object array', 'bare pickle'])
def test_a_pickle_is_never_opened(files, tmp_path, form):
  path, mark = files['teacher_logits'], tmp_path / 'mark'
  if form == 'object array':
    np.save(path, np.array([Bomb(mark)], object), allow_pickle=True)
  else:
    path.write_bytes(pickle.dumps(Bomb(mark)))
  with pytest.raises(ValueError, match=f'{path}.*(pickle|no .npy file)'):
    arrays.read_answers(files)
  assert not mark.exists()


def test_files_that_are_no_arrays(files, tmp_path):
  path = files['labels']
  whole = path.read_bytes()
  for content, text in (
    (b'', 'is empty'),
    (b'0,1,2\n', 'is no .npy file'),
    (whole[:-8], 'is damaged'),
    (whole[:20], 'is damaged'),
  ):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'{path} {text}'):
      arrays.read_answers(files)
  with pytest.raises(FileNotFoundError, match=r'nowhere\.npy'):
    arrays.read_answers(files | {'labels': tmp_path / 'nowhere.npy'})
  with pytest.raises(OSError, match=str(tmp_path)):
    arrays.read(tmp_path)


def test_the_file_and_the_row_are_named(files):
  logits = np.load(files['teacher_logits'])
  logits[4, 1] = np.nan
  np.save(files['teacher_logits'], logits)
  with pytest.raises(
    ValueError, match=f'{files["teacher_logits"]}, row 4: nan in column 1'
  ):
    arrays.read_answers(files)


def test_class_weights(tmp_path):
  path = tmp_path / 'weights.npy'
  weights = np.ones((3, 5), np.float32)
  np.save(path, weights)
  np.testing.assert_array_equal(arrays.read_weights(path, 3), weights)
  with pytest.raises(ValueError, match=f'{path} has 3 rows for 4 classes'):
    arrays.read_weights(path, 4)
  weights[2, 0] = np.inf
  np.save(path, weights)
  with pytest.raises(ValueError, match=f'{path}, row 2'):
    arrays.read_weights(path, 3)
