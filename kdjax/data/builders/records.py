"""What the builders share: images as bytes, so that no TensorFlow is needed."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image


def png(image: np.ndarray) -> bytes:
  """Encodes an image [H, W, 1] or [H, W, 3] of uint8 without loss."""
  pixels = image[..., 0] if image.shape[-1] == 1 else image
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, format='png', compress_level=1)
  return buffer.getvalue()


def image_examples(
  images: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[int, dict]]:
  """Yields position and record of each image [N, H, W, C] and label [N]."""
  for position, image in enumerate(images):
    label = int(labels[position])
    yield position, {'image': png(image), 'label': label}
