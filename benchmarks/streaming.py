"""How many photos a second are decoded, alone and as batches.

  python benchmarks/streaming.py [--quick] [--threads=N ...] [--workers=N ...]

`kdjax.data.streaming.batches` end to end, from records on a real disk to
batches of 224×224 pixels, against what the cores can do at most: the same
decoding and cropping alone, of bytes in memory, in a plain pool with a thread
per core. The photos are made up: 500×375 pixels with the texture of several
scales, as JPEGs of quality 90. All take turns; every measurement counts from
nothing to the last batch, with the start of its threads. Processes start before
it, with the first batch. Shares are of the plain pool's rate, formed within
each round.

The last two rows are a training that is slower than decoding, a ResNet-8 on
these pixels: its step on a batch that lies on the device, and the same with
batches from the stream. Their shares are of the former: what is missing to 100
is what the device waits, and on a CPU, where decoding takes the cores of the
training, what it loses to that.
"""

import argparse
import contextlib
import functools
import io
import itertools
import os
import tempfile
import time
from concurrent import futures
from importlib import metadata

import _timing
import jax
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from kdjax import cli, data
from kdjax import config as configuration
from kdjax.data import crops, images, shards, streaming
from kdjax.data.dataset import Split
from kdjax.train import task

_SIZE, _WIDTH, _HEIGHT, _QUALITY = 224, 500, 375, 90
_NUM_CLASSES = 10
_NUM_EXAMPLES = 2**16


def photo(seed):
  """Returns a JPEG: noise of ever finer scale and ever less height."""
  rng = np.random.default_rng(seed)
  pixels = np.zeros((_HEIGHT, _WIDTH, 3))
  for scale in (2, 4, 8, 16, 32, 64, 128, 256):
    shape = (-(-_HEIGHT // (512 // scale)), -(-_WIDTH // (512 // scale)), 3)
    noise = rng.integers(0, 256, shape, np.uint8)
    layer = Image.fromarray(noise).resize((_WIDTH, _HEIGHT))
    pixels += (np.asarray(layer, float) - 127.5) / scale**0.25
  pixels = np.clip(127.5 + pixels, 0, 255).astype(np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, format='jpeg', quality=_QUALITY)
  return buffer.getvalue()


class Photos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """As many made-up photos as `count` says."""

  VERSION = tfds.core.Version('1.0.0')
  count = 0

  def _info(self):
    image = tfds.features.Image(encoding_format='jpeg')
    label = tfds.features.ClassLabel(num_classes=_NUM_CLASSES)
    features = tfds.features.FeaturesDict({'image': image, 'label': label})
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing to download.
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for seed in range(self.count):
      yield seed, {'image': photo(seed), 'label': seed % _NUM_CLASSES}


def write(folder, count):
  """Writes photos as records, and returns the split they make.

  Each is in it many times: Grain shuffles a few hundred examples slower than
  as many as a streamed data set has.
  """
  Photos.count = count
  builder = Photos(data_dir=folder)
  tfds.display_progress_bar(False)
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(file_format='array_record')
  records = shards.Shards(builder.data_path, 'train')
  return Split(
    images.Images(records, np.arange(_NUM_EXAMPLES) % count, size=_SIZE),
    np.zeros(_NUM_EXAMPLES, np.int32),
  )


def plain_pool(split, *, count, batch_size):
  """Returns a function: seconds a step of decoding alone, on all cores."""
  encoded = [split.inputs.encoded(i) for i in range(count)]
  generators = [np.random.default_rng(i) for i in range(len(encoded))]

  def crop(i):
    return crops.random_resized_crop(encoded[i], generators[i], _SIZE)

  def measure(num_steps):
    order = [i % len(encoded) for i in range(num_steps * batch_size)]
    begin = time.perf_counter()
    with futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
      for start in range(0, len(order), 512):  # what is done need not be kept
        list(pool.map(crop, order[start : start + 512]))
    return (time.perf_counter() - begin) / num_steps

  return measure


def stream(split, *, batch_size, num_threads, num_workers):
  """Returns a function: seconds a step of `batches`."""

  def measure(num_steps):
    # An iterator of workers is warm after its first batch.
    warm = num_workers > 0
    num_epochs = -(-(num_steps + 1) * batch_size // len(split.labels)) + 1
    begin = time.perf_counter()
    found = streaming.batches(
      split,
      batch_size=batch_size,
      seed=0,
      train=True,
      num_epochs=num_epochs,
      num_threads=num_threads,
      num_workers=num_workers,
    )
    if warm:
      next(found)
      begin = time.perf_counter()
    for _ in itertools.islice(found, num_steps):
      pass
    seconds = (time.perf_counter() - begin) / num_steps
    found.close()
    return seconds

  return measure


def rows(split, flags, *, count, rounds, num_steps):
  """Measures all, and yields a row for each."""
  batch_size = flags.batch_size
  name = 'decode and crop alone'
  measures = {name: plain_pool(split, count=count, batch_size=batch_size)}
  bound = functools.partial(stream, split, batch_size=batch_size)
  for threads, workers in itertools.product(flags.threads, flags.workers):
    found = f'`batches`, {threads or "default"} threads, {workers} workers'
    measures[found] = bound(num_threads=threads, num_workers=workers)
  found = _timing.alternate(measures, rounds=rounds, num_steps=num_steps)
  for own, seconds in found.items():
    rates = [batch_size / s for s in seconds]
    shares = [100 * a / b for a, b in zip(found[name], seconds, strict=True)]
    yield [own, _timing.spread(rates, digits=0), _timing.spread(shares)]


def trainings(split):
  """Returns two trainings: on one batch, and from the stream."""
  config = configuration.default()
  config.dataset.name, config.dataset.augment = 'photos', 'resized_crop_flip'
  config.method, config.student.name = 'ce', 'resnet8'
  config.batch_size, config.num_epochs = 16, 1000
  dataset = data.Dataset(
    name='photos',
    train=split,
    dev=split,
    test=split,
    num_classes=_NUM_CLASSES,
    mean=(0.5,),
    std=(0.25,),
    class_names=tuple(map(str, range(_NUM_CLASSES))),
  )
  job = task.prepare(config, dataset, None, _timing.one_device())
  job.feed.compile(job.initialise())
  batch, *_ = job.feed.batch(0)

  def fixed(num_steps):
    snapshot = jax.block_until_ready(job.initialise())
    begin = time.perf_counter()
    for index in range(num_steps):
      snapshot, _ = job.feed.take(snapshot, batch, index)
    jax.block_until_ready(snapshot)
    return (time.perf_counter() - begin) / num_steps

  def streamed(num_steps):
    snapshot = jax.block_until_ready(job.initialise())
    begin = time.perf_counter()
    jax.block_until_ready(job.feed.advance(snapshot, 0, num_steps))
    return (time.perf_counter() - begin) / num_steps

  return {
    'training on one batch': fixed,
    'training from the stream': streamed,
  }, config.batch_size


def training_rows(split, *, rounds, num_steps):
  """Measures both, and yields a row for each."""
  measures, batch_size = trainings(split)
  found = _timing.alternate(measures, rounds=rounds, num_steps=num_steps)
  bare = found['training on one batch']
  for name, seconds in found.items():
    rates = [batch_size / s for s in seconds]
    shares = [100 * a / b for a, b in zip(bare, seconds, strict=True)]
    yield [name, _timing.spread(rates, digits=0), _timing.spread(shares)]


def main():
  """Prints the table."""
  style = argparse.RawDescriptionHelpFormatter
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
  add = parser.add_argument
  add('--quick', action='store_true', help='seconds only; rough figures')
  add('--rounds', type=int, help='how often all are measured')
  add('--batch_size', type=int, default=64, help='photos a step')
  add('--threads', type=int, nargs='*', default=[None], help='to compare')
  add('--workers', type=int, nargs='*', default=[0], help='to compare')
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    count = 64 if flags.quick else 512
    split = write(folder, count)
    size = np.mean([len(split.inputs.encoded(i)) for i in range(64)])
    found = list(
      rows(
        split,
        flags,
        count=count,
        rounds=flags.rounds or (2 if flags.quick else 9),
        num_steps=12 if flags.quick else 32,
      )
    )
    found += training_rows(
      split,
      rounds=flags.rounds or (2 if flags.quick else 9),
      num_steps=3 if flags.quick else 12,
    )
  print(_timing.table(['pipeline', 'images/s', 'share, %'], found))
  versions = {name: metadata.version(name) for name in ('grain', 'pillow')}
  print(
    f'\n{_timing.surroundings(**versions)} Batches of {flags.batch_size},'
    f' {size / 1000:.0f} kB a photo.'
  )


if __name__ == '__main__':
  cli.run(main)
