"""From the bytes of an image file to a square of RGB pixels."""

import io
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# What Szegedy et al. cut out of an image: share of its area, width / height.
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_NUM_TRIES = 10

# A short side of 256 pixels for a centre of 224, as is usual.
_MARGIN = 256 / 224

# Left, top, right and bottom, in pixels.
_Box = tuple[float, float, float, float]


def random_resized_crop(
  encoded: bytes, rng: np.random.Generator, size: int
) -> UInt8[np.ndarray, 'size size 3']:
  """Cuts a random window out of an image and resizes it to a square.

  The window has 0.08 to 1 of the image's area and a ratio of 3:4 to 4:3,
  uniform in its logarithm; where ten tries don't fit, it is the largest window
  of such a ratio in the centre.

  Args:
    encoded: an image file, such as a JPEG of RGB, grey or CMYK.
    rng: which window; ten times four uniform numbers are drawn.
    size: pixels of a side of the result.

  Returns:
    The pixels, which depend on the arguments alone.

  Raises:
    ValueError: the image is damaged.

  Reference: Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, section 6.
  """
  draws = rng.random((_NUM_TRIES, 4))
  return _decode(encoded, lambda image: _window(*image.size, draws), size)


def centre_crop(encoded: bytes, size: int) -> UInt8[np.ndarray, 'size size 3']:
  """Resizes the short side to `size · 256 / 224` and cuts out the centre.

  Args:
    encoded: an image file.
    size: pixels of a side of the result.

  Returns:
    The pixels.

  Raises:
    ValueError: the image is damaged.
  """
  return _decode(encoded, lambda image: _centre(*image.size), size)


def _window(width: int, height: int, draws: np.ndarray) -> _Box:
  """The window that ten times four numbers in [0, 1) choose."""
  low, high = np.log(_ASPECT)
  for area, aspect, x, y in draws.tolist():
    area = (_AREA[0] + area * (_AREA[1] - _AREA[0])) * width * height
    ratio = math.exp(low + aspect * (high - low))
    w = round(math.sqrt(area * ratio))
    h = round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
      return left, top, left + w, top + h
  w = min(width, height * _ASPECT[1])
  h = min(height, width / _ASPECT[0])
  return _around_centre(width, height, w, h)


def _centre(width: int, height: int) -> _Box:
  side = min(width, height) / _MARGIN
  return _around_centre(width, height, side, side)


def _around_centre(width: int, height: int, w: float, h: float) -> _Box:
  left, top = (width - w) / 2, (height - h) / 2
  return left, top, left + w, top + h


def _decode(
  encoded: bytes, choose: Callable[[Image.Image], _Box], size: int
) -> np.ndarray:
  """Decodes the part of an image that `choose` finds in it."""
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      width, height = image.size
      box = choose(image)
      # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is enough.
      shrunk = image.draft(
        'RGB',
        (
          math.ceil(width * size / (box[2] - box[0])),
          math.ceil(height * size / (box[3] - box[1])),
        ),
      )
      if shrunk:
        scale = shrunk[1][2] / width
        box = tuple(scale * edge for edge in box)
      rgb = image if image.mode == 'RGB' else image.convert('RGB')
      pixels = rgb.resize((size, size), Image.Resampling.BILINEAR, box=box)
  except Exception as error:  # Whatever a decoder makes of damage.
    raise ValueError(f'no image can be decoded: {error}') from error
  return np.asarray(pixels)
