"""Small JPEGs with texture, and the archives of ImageNet made of them."""

import io
import tarfile

import numpy as np
import published
import pytest
from PIL import Image

from kdjax.data.builders import imagenet

SYNSETS = (
  'n01440764',
  'n01443537',
  'n01484850',
  'n02119789',
  'n07565083',
  'n15075141',
)
TRAIN, VALIDATION = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'


def photo(seed, *, width=60, height=45):
  """Smooth colours [H, W, 3], some edges, some noise."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
  image = Image.fromarray(coarse).resize((width, height))
  pixels = np.asarray(image, np.int16) + rng.integers(-9, 9, (height, width, 1))
  pixels[height // 3 :, width // 2 :] //= 2
  return np.clip(pixels, 0, 255).astype(np.uint8)


def encode(pixels, *, mode='RGB', kind='jpeg', quality=90):
  buffer = io.BytesIO()
  image = Image.fromarray(pixels).convert(mode)
  image.save(buffer, format=kind, quality=quality)
  return buffer.getvalue()


def jpeg(seed, **shape):
  return encode(photo(seed, **shape))


def tar(members):
  """A plain .tar of (name, content); a `TarInfo` may lie about its content."""
  blocks = []
  for name, content in members:
    info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
    info.size = info.size or len(content)
    blocks += [info.tobuf(), content, b'\0' * (-len(content) % 512)]
  return b''.join(blocks) + b'\0' * 1024


def train_members(*, per_class=5):
  """By synset, the names and contents of its images."""
  return {
    synset: [
      (f'{synset}_{i}.JPEG', jpeg(10 * k + i, width=50 + 5 * i))
      for i in range(per_class)
    ]
    for k, synset in enumerate(SYNSETS)
  }


def train_tar(classes):
  return tar(
    (f'{synset}.tar', tar(images)) for synset, images in classes.items()
  )


def validation_members(*, size=6):
  return [
    (f'ILSVRC2012_val_{i + 1:08d}.JPEG', jpeg(1000 + i)) for i in range(size)
  ]


def write_imagenet(archives, *, classes=None, validation=None):
  """Writes both archives, and makes them what the builder expects."""
  classes = classes or train_members()
  validation = validation or validation_members()
  archives.write(TRAIN, train_tar(classes))
  archives.write(VALIDATION, tar(validation))
  labels = [SYNSETS[-1 - i % len(SYNSETS)] for i in range(len(validation))]
  sizes = {
    'train': sum(map(len, classes.values())),
    'validation': len(validation),
  }
  patch, builder = archives.monkeypatch.setattr, archives.builder
  patch(builder, 'SIZES', sizes)
  patch(builder, 'validation_labels', classmethod(lambda cls: labels))
  return classes, validation, labels


def prepare_imagenet(folder):
  """Prepares thirty images of six classes, and six to test on, in a folder."""
  with pytest.MonkeyPatch.context() as patch:
    archives = published.Archives(
      folder / 'files', imagenet.Imagenet2012, patch
    )
    write_imagenet(archives)
    archives.prepare(folder)
