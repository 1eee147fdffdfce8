"""Batches that Grain reads and decodes ahead of training, in a fixed order."""

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from kdjax import checks
from kdjax.data.dataset import Split
from kdjax.data.images import Images

# Label and position of what fills up the last batch of an evaluation.
PADDING = -1


class Streamed(NamedTuple):
  """A batch on the host.

  Attributes:
    inputs: images [B, H, W, C] of uint8, or what the split holds.
    labels: classes [B] of int32; −1 is padding.
    positions: where in the split each example is, [B] of int64; −1 is padding.
  """

  inputs: Shaped[np.ndarray, 'B ...']
  labels: Int[np.ndarray, ' B']
  positions: Int[np.ndarray, ' B']


def steps_per_epoch(split: Split, *, batch_size: int, train: bool) -> int:
  """How many batches an epoch has: whole ones to train, else all.

  >>> split = Split(np.zeros((10, 2)), np.zeros(10, np.int32))
  >>> steps_per_epoch(split, batch_size=4, train=True)
  2
  >>> steps_per_epoch(split, batch_size=4, train=False)
  3
  """
  size = len(split.labels)
  return size // batch_size if train else -(-size // batch_size)


def batches(
  split: Split,
  *,
  batch_size: int,
  seed: int,
  train: bool,
  random_crop: bool = True,
  num_epochs: int = 1,
  start: int = 0,
  host: int = 0,
  num_hosts: int = 1,
  num_threads: int | None = None,
  num_workers: int = 0,
) -> Iterator[Streamed]:
  """Yields the batches of a training or of an evaluation.

  To train: every epoch has another order, drawn over the whole split; what is
  left over after its last whole batch is dropped. Encoded images are cropped
  at random, unless asked otherwise. To evaluate: the order of the split, the
  centre of encoded images, and padding in the last batch, so that all have one
  shape.

  Nothing depends on the number of hosts, threads or workers: the batches of
  the hosts of a step, one after the other, are the batch of one host. Nor is
  there a state to keep beside the step: `start=k` yields what `start=0` yields
  after its first k batches.

  Args:
    split: examples, encoded or in arrays.
    batch_size: examples a step, of all hosts together.
    seed: which orders and which crops, from 0.
    train: whether to train.
    random_crop: whether encoded images are cropped at random to train; else
      their centre is taken.
    num_epochs: how often all is seen; 1 to evaluate.
    start: the step to begin at.
    host: which host this is, from 0.
    num_hosts: how many there are; a divisor of `batch_size`.
    num_threads: how many decode in each process; 0 decodes when a batch is
      asked for, None takes a thread for each core.
    num_workers: processes that decode; 0 stays in this one. They are spawned,
      so the program needs its `if __name__ == '__main__'`.

  Returns:
    An iterator of batches of `batch_size / num_hosts` examples.

  Raises:
    ValueError: an argument is outside its range; or, from the iterator, an
      image cannot be decoded, whose record is named.
    OSError: from the iterator, a record is damaged, which is named.
  """
  _check(split, batch_size, seed, train, num_epochs, host, num_hosts)
  num_steps = num_epochs * steps_per_epoch(
    split, batch_size=batch_size, train=train
  )
  checks.check_between('start', start, 0, num_steps)
  for name, count in (('threads', num_threads or 0), ('workers', num_workers)):
    checks.check_not_negative(f'num_{name}', count)
  import grain

  if train:
    examples = _shuffled(split, batch_size, seed, random_crop)
  else:
    examples = _in_order(split, batch_size)
  # A host takes every num_hosts-th of the small batches.
  local = examples.batch(batch_size // num_hosts)[host::num_hosts]
  steps = local.repeat(num_epochs)[start:]
  if num_threads is None:
    num_threads = _num_cores()
  # Each thread makes a whole batch; two wait for who asks.
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=num_threads + 2
  )
  stream = steps.to_iter_dataset(options)
  if num_workers:
    _parse_no_flags()
    stream = stream.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers),
      worker_init_fn=_follow_the_parent,
    )
  return iter(stream)


def _check(
  split: Split,
  batch_size: int,
  seed: int,
  train: bool,
  num_epochs: int,
  host: int,
  num_hosts: int,
) -> None:
  """Raises `ValueError` unless the arguments of `batches` go together."""
  size = len(split.labels)
  if train:
    checks.check_between('batch_size', batch_size, 1, size)
  elif num_epochs != 1:
    raise ValueError(f'num_epochs={num_epochs} must be 1 to evaluate')
  checks.check_positive('batch_size', batch_size)
  checks.check_positive('num_epochs', num_epochs)
  checks.check_not_negative('seed', seed)
  checks.check_positive('num_hosts', num_hosts)
  checks.check_between('host', host, 0, num_hosts - 1)
  if batch_size % num_hosts:
    raise ValueError(
      f'batch_size={batch_size} must be a multiple of num_hosts={num_hosts}'
    )


def _shuffled(
  split: Split, batch_size: int, seed: int, random_crop: bool
) -> Any:  # noqa: ANN401
  """The examples of whole batches, anew every epoch."""
  import grain

  order = grain.MapDataset.range(len(split.labels)).seed(seed).shuffle()
  # Before anything is sliced, so that a crop is of the seed, the epoch and
  # the place in the epoch's order.
  if random_crop:
    cropped = order.random_map(functools.partial(_cropped, split))
  else:
    cropped = order.map(functools.partial(_centred, split))
  num_steps = steps_per_epoch(split, batch_size=batch_size, train=True)
  return cropped[: num_steps * batch_size]


def _in_order(split: Split, batch_size: int) -> Any:  # noqa: ANN401
  """The examples once, and padding up to whole batches."""
  import grain

  num_steps = steps_per_epoch(split, batch_size=batch_size, train=False)
  order = grain.MapDataset.range(num_steps * batch_size)
  return order.map(functools.partial(_centred, split))


def _cropped(split: Split, position: int, rng: np.random.Generator) -> Streamed:
  inputs = split.inputs
  if isinstance(inputs, Images):
    return _streamed(split, inputs.random_resized_crop(position, rng), position)
  return _streamed(split, inputs[position], position)


def _centred(split: Split, position: int) -> Streamed:
  if position < len(split.labels):
    return _streamed(split, split.inputs[position], position)
  blank = np.zeros(split.inputs.shape[1:], split.inputs.dtype)
  return Streamed(blank, np.int32(PADDING), np.int64(PADDING))


def _streamed(split: Split, pixels: np.ndarray, position: int) -> Streamed:
  label = np.int32(split.labels[position])
  return Streamed(pixels, label, np.int64(position))


def _num_cores() -> int:
  """Those that this process may use, where the system tells."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _follow_the_parent(index: int, count: int) -> None:
  """A worker ends with the run, and not before it.

  Ctrl-C reaches all processes of a terminal: it is the run's to answer. And a
  run that is killed cannot end its workers.
  """
  del index, count
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = os.getppid()

  def watch() -> None:
    while os.getppid() == parent:
      time.sleep(1.0)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _parse_no_flags() -> None:
  """Grain hands absl's flags to its workers, parsed or not at all."""
  from absl import flags

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
