"""Files that anyone may have written: arrays, or refused by name."""

import contextlib
import io
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

from kdjax.data import npz

GOOD = {
  'inputs': np.random.default_rng(0).integers(0, 256, (20, 4, 5), np.uint8),
  'labels': np.arange(20) % 3,
  'names': np.array(['a', 'bée', 'c']),
}


@pytest.fixture
def path(tmp_path):
  """A good file; a test breaks it."""
  np.savez(tmp_path / 'mine.npz', **GOOD)
  return tmp_path / 'mine.npz'


def read(path):
  return npz.read(path, required=['inputs', 'labels'], optional=['names'])


def refused(path):
  """What is said instead of the arrays."""
  with pytest.raises(ValueError, match=f'{path}') as error:
    read(path)
  return str(error.value)


def are_good(arrays):
  return arrays.keys() == GOOD.keys() and all(
    np.array_equal(arrays[name], GOOD[name]) for name in GOOD
  )


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_arrays_come_back(path, save):
  save(path, **GOOD)
  assert are_good(read(path))
  np.savez(path, inputs=GOOD['inputs'].T, labels=np.array(3))
  found = read(path)
  assert found.keys() == {'inputs', 'labels'}
  np.testing.assert_array_equal(found['inputs'], GOOD['inputs'].T)
  assert found['labels'] == 3


def npy(descr, shape, payload=b''):
  """A `.npy` file whose header says anything."""
  header = repr({'descr': descr, 'fortran_order': False, 'shape': shape})
  header = header.encode() + b'\n'
  return b'\x93NUMPY\1\0' + struct.pack('<H', len(header)) + header + payload


def put(path, name, content, method=zipfile.ZIP_STORED):
  """Puts anything in the place of an array."""
  with zipfile.ZipFile(path, 'w') as archive:
    for key, array in GOOD.items():
      file = io.BytesIO()
      np.save(file, array)
      if key != name:
        archive.writestr(f'{key}.npy', file.getvalue())
    archive.writestr(f'{name}.npy', content, method)


@pytest.mark.parametrize(
  'content',
  [
    npy('|u1', (2**40, 4, 5)),
    npy('|u1', (2**70, 4, 5)),
    npy('|u1', (-20, 4, 5)),
    npy('|u1', (3, 4, 5), bytes(400)),
    npy('<f8', (20, 4, 5), bytes(400)),
  ],
)
def test_a_header_is_not_believed(path, content):
  put(path, 'inputs', content)
  assert 'inputs is damaged: its header promises' in refused(path)


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'0,1,2\n',
    npy('nonsense', (20, 4, 5)),
    b'\x93NUMPY\1\0\xff\xff' + b'(' * 65535,
    b'\x93NUMPY\1\0\xff\x0f' + b'(' * 4095,
    b'\x93NUMPY\2\0\0\0\0\x7f' + b' ' * 99,
    b'\x93NUMPY\3\0' + bytes(99),
  ],
)
def test_what_is_no_array(path, content):
  put(path, 'inputs', content)
  assert f'{path}: inputs cannot be read: it is damaged' in refused(path)


def test_a_bomb_is_not_unpacked(path, monkeypatch):
  zeros = np.zeros((20, 64, 64), np.uint8)
  np.savez_compressed(path, inputs=zeros, labels=0)
  assert not read(path)['inputs'].any()  # harmless as it is small
  monkeypatch.setattr(npz, '_HARMLESS', 2**12)
  message = refused(path)
  assert 'inputs would unpack from' in message
  assert 'write it by numpy.savez, uncompressed' in message
  np.savez(path, inputs=zeros, labels=0)
  assert not read(path)['inputs'].any()
  # A list of arrays that promises more than the file has.
  content = bytearray(path.read_bytes())
  start = content.index(b'PK\1\2')
  content[start + 20 : start + 28] = struct.pack('<II', 2**31, 2**31)
  path.write_bytes(content)
  assert f'to {2**31} bytes' in refused(path)


def test_other_compression_is_refused(path):
  content = npy('|u1', (20, 4, 5), bytes(400))
  put(path, 'inputs', content, zipfile.ZIP_LZMA)
  assert 'inputs is compressed, but not as numpy.savez' in refused(path)


class Bomb:
  """Leaves a file behind if it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize('name', GOOD)
def test_a_pickle_is_never_opened(path, name):
  mark = path.parent / 'executed'
  np.savez(path, **GOOD | {name: np.array([Bomb(mark)])})
  assert f'{name} holds Python objects, a pickle' in refused(path)
  put(path, name, pickle.dumps(Bomb(mark)))
  assert f'{path}: {name} cannot be read' in refused(path)
  path.write_bytes(pickle.dumps(Bomb(mark)))
  assert f'{path} cannot be read' in refused(path)
  assert not mark.exists()


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_no_flipped_bit_is_silent(path, save):
  save(path, **GOOD)
  whole = path.read_bytes()
  # More of the list of arrays than of themselves, who have a checksum.
  start = 8 * whole.index(b'PK\1\2')
  for bit in [*range(0, start, 83), *range(start, 8 * len(whole), 3)]:
    content = bytearray(whole)
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    found = None
    with contextlib.suppress(ValueError):
      found = read(path)
    assert found is None or are_good(found)


def test_a_truncated_file(path):
  whole = path.read_bytes()
  for size in range(0, len(whole), 50):
    path.write_bytes(whole[:size])
    assert f'{path} cannot be read: it is damaged' in refused(path)
  path.write_bytes(whole[50:])
  assert f'{path}: inputs cannot be read' in refused(path)


def test_names_of_arrays(path):
  np.savez(path, GOOD['inputs'], GOOD['labels'])
  message = refused(path)
  assert f"{path} has no array 'inputs'; it has 'arr_0', 'arr_1'" in message
  np.savez(path, inputs=GOOD['inputs'])
  assert f"{path} has no array 'labels'; it has 'inputs'" in refused(path)
  np.savez(path, **GOOD, name=0)
  assert f"array of {path} 'name'; did you mean 'names'?" in refused(path)
  zipfile.ZipFile(path, 'w').close()
  assert f"{path} has no array 'inputs'; it has none" in refused(path)


def test_no_file(tmp_path):
  for path in (tmp_path, tmp_path / 'nowhere.npz'):
    with pytest.raises(OSError, match=str(path)):
      read(path)
