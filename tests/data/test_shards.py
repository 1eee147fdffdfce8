import numpy as np
import pytest
import tensorflow_datasets as tfds

from kdjax.data import shards
from kdjax.data.builders import digits


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Digits in three files."""
  builder = digits.Digits(data_dir=tmp_path_factory.mktemp('shards'))
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(num_shards=3),
    file_format='array_record',
  )
  return builder.data_path


def test_records_of_several_files_are_one_sequence(folder):
  records = shards.Shards(folder, 'test')
  assert (len(records), len(records.paths)) == (500, 3)
  one_by_one = [records[index] for index in range(len(records))]
  assert list(records) == one_by_one
  assert np.bincount([x['label'] for x in one_by_one]).tolist() == [50] * 10
  assert isinstance(one_by_one[0]['image'], bytes)


def test_the_file_and_the_index_there_are_named(folder):
  records = shards.Shards(folder, 'train')
  ends = np.cumsum(
    tfds.builder_from_directory(folder).info.splits['train'].shard_lengths
  )
  for index, shard, inside in (
    (0, 0, 0),
    (ends[0] - 1, 0, ends[0] - 1),
    (ends[0], 1, 0),
    (ends[1] + 5, 2, 5),
  ):
    assert records.where(index) == f'record {inside} of {records.paths[shard]}'


def test_damage_in_one_file_leaves_the_others(folder):
  expected = list(shards.Shards(folder, 'train'))
  path = shards.Shards(folder, 'train').paths[1]
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  try:
    records = shards.Shards(folder, 'train')
    assert [records[index] for index in (0, 1296)] == expected[::1296]
    message = rf'record 7 of {path} \(example 439 of train\) is damaged'
    with pytest.raises(OSError, match=message):
      records[439]
    with pytest.raises(OSError, match=rf'record \d+ of {path} '):
      list(records)
  finally:
    path.write_bytes(whole)


def test_no_such_split(folder):
  with pytest.raises(ValueError, match='validation'):
    len(shards.Shards(folder, 'validation'))
