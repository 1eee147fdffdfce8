import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kdjax import data
from kdjax.data import images, shards, streaming

NUM = 23


@pytest.fixture
def split():
  """Images of one colour, their position, and labels beside it."""
  colours = np.arange(NUM, dtype=np.uint8).reshape(-1, 1, 1, 1)
  inputs = np.broadcast_to(colours, (NUM, 2, 2, 3)).copy()
  return data.Split(inputs, np.arange(NUM, dtype=np.int32) + 100)


@pytest.fixture
def encoded(imagenet_root):
  records = shards.Shards(imagenet_root / 'imagenet2012/5.1.0', 'train')
  part = images.Images(records, np.arange(30)[::-1], size=16)
  return data.Split(part, np.arange(30, dtype=np.int32))


def train(split, *, num_threads=0, **keywords):
  settings = {'batch_size': 6, 'seed': 0, 'num_epochs': 3, **keywords}
  return list(
    data.batches(split, train=True, num_threads=num_threads, **settings)
  )


def evaluate(split, *, batch_size=6, **keywords):
  return list(
    data.batches(split, batch_size=batch_size, seed=0, train=False, **keywords)
  )


def same(batches, others):
  for batch, other in zip(batches, others, strict=True):
    for array, another in zip(batch, other, strict=True):
      np.testing.assert_array_equal(array, another)
      assert array.dtype == another.dtype


def positions(batches):
  return [batch.positions.tolist() for batch in batches]


def test_batches_hold_the_examples_they_name(split):
  found = train(split)
  assert len(found) == 3 * 3
  for batch in found:
    np.testing.assert_array_equal(batch.inputs, split.inputs[batch.positions])
    np.testing.assert_array_equal(batch.labels, split.labels[batch.positions])
    assert [array.dtype for array in batch] == [np.uint8, np.int32, np.int64]
    assert batch.inputs.shape == (6, 2, 2, 3)


def test_every_epoch_has_each_example_once_and_its_own_order(split):
  found = positions(train(split, num_epochs=8))
  epochs = np.reshape(found, (8, 18)).tolist()
  for epoch in epochs:
    assert len(set(epoch)) == 18
    assert set(epoch) <= set(range(NUM))
  assert len({tuple(epoch) for epoch in epochs}) == 8
  # What an epoch drops, others show.
  assert set(np.unique(found)) == set(range(NUM))


def test_the_order_is_of_the_seed(split):
  first = positions(train(split, seed=0))
  assert first == positions(train(split, seed=0))
  assert first != positions(train(split, seed=1))
  # No seed is another one an epoch later.
  assert first[3:] != positions(train(split, seed=1))[:-3]


def test_the_order_never_changes(split):
  # What a training that is resumed rests on.
  assert positions(train(split))[:2] == [
    [21, 2, 13, 14, 9, 7],
    [17, 6, 18, 3, 20, 15],
  ]


@pytest.mark.parametrize('start', [0, 1, 2, 3, 5, 8, 9])
@pytest.mark.parametrize('is_encoded', [False, True])
def test_starting_later_is_going_on(split, encoded, start, is_encoded):
  if is_encoded:
    found = train(encoded, batch_size=10, num_threads=2)
    same(train(encoded, batch_size=10, start=start), found[start:])
  else:
    same(train(split, start=start), train(split)[start:])


@pytest.mark.parametrize('num_hosts', [2, 3, 6])
def test_hosts_share_the_batch_of_one_host(split, encoded, num_hosts):
  for part in (split, encoded):
    whole = train(part, start=1)
    shares = [
      train(part, start=1, host=host, num_hosts=num_hosts)
      for host in range(num_hosts)
    ]
    joined = [
      streaming.Streamed(*map(np.concatenate, zip(*step, strict=True)))
      for step in zip(*shares, strict=True)
    ]
    same(joined, whole)


def test_crops_are_random_and_anew_every_epoch(encoded):
  found = train(encoded, batch_size=30, num_epochs=2)
  first, second = (batch.inputs[np.argsort(batch.positions)] for batch in found)
  centres = np.stack([encoded.inputs[i] for i in range(30)])
  assert (first != second).any(axis=(1, 2, 3)).all()
  assert (first != centres).any(axis=(1, 2, 3)).all()
  # Near enough, and of the right image.
  error = np.abs(first.astype(int) - centres).mean(axis=(1, 2, 3))
  shuffled = np.abs(first.astype(int) - np.roll(centres, 1, 0))
  assert (error < shuffled.mean(axis=(1, 2, 3))).mean() > 0.8
  other = train(encoded, batch_size=30, num_epochs=1, seed=1)[0]
  assert (other.inputs[np.argsort(other.positions)] != first).any()


@pytest.mark.parametrize('num_threads', [1, 2, None])
def test_threads_change_nothing(encoded, num_threads):
  same(train(encoded, num_threads=num_threads), train(encoded))
  same(
    evaluate(encoded, num_threads=num_threads), evaluate(encoded, num_threads=0)
  )


def test_processes_change_nothing(encoded):
  same(
    train(encoded, num_workers=2, num_threads=1, start=2), train(encoded)[2:]
  )


@pytest.mark.parametrize(('size', 'steps'), [(6, 4), (23, 1), (40, 1), (1, 23)])
def test_evaluation_counts_every_example_once(split, size, steps):
  found = evaluate(split, batch_size=size)
  assert len(found) == steps
  joined = np.concatenate([batch.positions for batch in found])
  assert joined.tolist() == [*range(NUM), *[-1] * (size * steps - NUM)]
  for batch in found:
    real = batch.positions >= 0
    assert batch.inputs.shape == (size, 2, 2, 3)
    np.testing.assert_array_equal(batch.labels == -1, ~real)
    assert not batch.inputs[~real].any()
    np.testing.assert_array_equal(
      batch.inputs[real], split.inputs[batch.positions[real]]
    )


@pytest.mark.parametrize('num_hosts', [2, 4])
def test_evaluating_hosts_have_as_many_batches(split, num_hosts):
  shares = [
    evaluate(split, batch_size=16, host=host, num_hosts=num_hosts)
    for host in range(num_hosts)
  ]
  assert {len(share) for share in shares} == {2}
  joined = np.concatenate(
    [b.positions for b in itertools.chain.from_iterable(shares)]
  )
  assert sorted(joined[joined >= 0].tolist()) == list(range(NUM))
  # A host may have nothing but padding at the end.
  assert positions(shares[-1])[-1] == [-1] * (16 // num_hosts)


def test_evaluation_crops_the_centre(encoded):
  found = evaluate(encoded, batch_size=20)
  pixels = np.concatenate([batch.inputs for batch in found])
  expected = np.stack([encoded.inputs[i] for i in range(30)])
  np.testing.assert_array_equal(pixels[:30], expected)
  assert pixels.shape == (40, 16, 16, 3)
  same(evaluate(encoded, batch_size=20, start=1), found[1:])


def test_vectors(split):
  vectors = split._replace(inputs=np.eye(NUM, dtype=np.float32))
  (batch,) = evaluate(vectors, batch_size=NUM)
  np.testing.assert_array_equal(batch.inputs, np.eye(NUM))
  assert batch.inputs.dtype == np.float32


def test_steps_per_epoch(split):
  for size in (1, 4, 23):
    for is_train in (True, False):
      found = data.batches(
        split, batch_size=size, seed=0, train=is_train, num_threads=0
      )
      assert len(list(found)) == streaming.steps_per_epoch(
        split, batch_size=size, train=is_train
      )


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({'batch_size': 0}, r'batch_size=0 must lie in 1\.\.23'),
    ({'batch_size': 24}, r'batch_size=24 must lie in 1\.\.23'),
    ({'batch_size': 0, 'train': False}, 'batch_size=0 must be positive'),
    ({'num_epochs': 0}, 'num_epochs=0 must be positive'),
    ({'num_epochs': 2, 'train': False}, 'num_epochs=2 must be 1 to evaluate'),
    ({'seed': -1}, 'seed=-1 must not be negative'),
    ({'start': -1}, r'start=-1 must lie in 0\.\.3'),
    ({'start': 4}, r'start=4 must lie in 0\.\.3'),
    ({'num_hosts': 0}, 'num_hosts=0 must be positive'),
    ({'num_hosts': 4}, 'batch_size=6 must be a multiple of num_hosts=4'),
    ({'num_hosts': 2, 'host': 2}, r'host=2 must lie in 0\.\.1'),
    ({'num_threads': -1}, 'num_threads=-1 must not be negative'),
    ({'num_workers': -1}, 'num_workers=-1 must not be negative'),
  ],
)
def test_wrong_arguments(split, wrong, message):
  with pytest.raises(ValueError, match=message):
    data.batches(split, **{'batch_size': 6, 'seed': 0, 'train': True, **wrong})


@pytest.mark.parametrize('num_threads', [0, 2])
def test_an_image_that_is_none_is_named(encoded, monkeypatch, num_threads):
  real = shards.Shards.__getitem__

  def spoiled(self, index):
    return {'image': b'none'} if index == 4 else real(self, index)

  monkeypatch.setattr(shards.Shards, '__getitem__', spoiled)
  with pytest.raises(
    ValueError, match=r'record 4 of .*array_record.* no image'
  ):
    train(encoded, batch_size=30, num_threads=num_threads)


def test_a_worker_names_what_it_cannot_read(tmp_path):
  nowhere = shards.Shards(tmp_path, 'train')
  split = data.Split(
    images.Images(nowhere, np.arange(4), size=8), np.zeros(4, np.int32)
  )
  with pytest.raises(OSError, match=str(tmp_path)):
    train(split, batch_size=2, num_workers=1)


WITH_WORKERS = """
import multiprocessing, os, sys, time
import numpy as np
from kdjax import data

if __name__ == '__main__':
  split = data.Split(np.zeros((64, 3), np.float32), np.zeros(64, np.int32))
  stream = data.batches(
    split, batch_size=4, seed=0, train=True, num_epochs=9, num_workers=1
  )
  next(stream)
  print(*(p.pid for p in multiprocessing.active_children()), flush=True)
  time.sleep(60)
"""


def _lives(pid):
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except FileNotFoundError:
    return False
  return state.rsplit(')', 1)[1].split()[0] != 'Z'


def test_workers_ignore_ctrl_c_and_do_not_outlive_a_killed_run(tmp_path):
  program = tmp_path / 'program.py'
  program.write_text(WITH_WORKERS)
  with subprocess.Popen(
    [sys.executable, program], stdout=subprocess.PIPE, text=True
  ) as process:
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert workers
    for pid in workers:
      os.kill(pid, signal.SIGINT)
    time.sleep(0.5)
    assert all(map(_lives, workers))
    process.kill()
  end = time.monotonic() + 30
  while any(map(_lives, workers)):
    assert time.monotonic() < end
    time.sleep(0.1)
