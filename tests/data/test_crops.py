import io
import math

import numpy as np
import photos
import pytest
from PIL import Image

from kdjax.data import crops


class Draws:
  """A generator that returns what it is given."""

  def __init__(self, *rows):
    self.rows = rows

  def random(self, shape):
    rows = [self.rows[min(i, len(self.rows) - 1)] for i in range(shape[0])]
    assert shape == (10, 4)
    return np.array(rows, float)


def window_of(encoded, box, size):
  """The reference: all pixels, cut out, then resized."""
  image = Image.open(io.BytesIO(encoded)).convert('RGB')
  return np.asarray(image.resize((size, size), Image.BILINEAR, box=box))


def far(a, b):
  return np.abs(a.astype(int) - b.astype(int)).mean()


def test_a_window_is_where_the_numbers_say():
  encoded = photos.jpeg(0, width=100, height=80)
  # Half of the way between 0.08 and 1 of the area, ratio 1: 65.7 × 65.7.
  result = crops.random_resized_crop(encoded, Draws((0.5, 0.5, 0.5, 0.0)), 48)
  expected = window_of(encoded, (17, 0, 83, 66), 48)
  np.testing.assert_array_equal(result, expected)
  assert (result.shape, result.dtype) == ((48, 48, 3), np.uint8)
  # The last place that is left, and the least and the widest window.
  result = crops.random_resized_crop(encoded, Draws((0, 1, 0.999, 0.999)), 48)
  w, h = round(math.sqrt(640 * 4 / 3)), round(math.sqrt(640 * 3 / 4))
  expected = window_of(encoded, (100 - w, 80 - h, 100, 80), 48)
  np.testing.assert_array_equal(result, expected)


def test_what_does_not_fit_is_drawn_again():
  encoded = photos.jpeg(0, width=100, height=80)
  # All of the area fits at no ratio but 5:4.
  misfits = [(1.0, 0.0, 0.3, 0.3)] * 9
  result = crops.random_resized_crop(
    encoded, Draws(*misfits, (0.5, 0.5, 0.5, 0.0)), 48
  )
  expected = window_of(encoded, (17, 0, 83, 66), 48)
  np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
  ('width', 'height', 'box'),
  [
    (200, 20, (100 - 40 / 3, 0, 100 + 40 / 3, 20)),
    (20, 200, (0, 100 - 40 / 3, 20, 100 + 40 / 3)),
    (100, 80, (0, 0, 100, 80)),
  ],
)
def test_after_ten_tries_it_is_the_centre(width, height, box):
  encoded = photos.jpeg(3, width=width, height=height)
  result = crops.random_resized_crop(encoded, Draws((1.0, 1.0, 0.0, 0.0)), 48)
  np.testing.assert_array_equal(result, window_of(encoded, box, 48))


def test_windows_have_the_published_areas_and_ratios():
  rng = np.random.default_rng(0)
  boxes = np.array(
    [crops._window(400, 400, rng.random((10, 4))) for _ in range(2000)]
  )
  width, height = (boxes[:, 2:] - boxes[:, :2]).T
  assert boxes.min() >= 0
  assert boxes.max() <= 400
  area, ratio = width * height / 400**2, np.log(width / height)
  assert 0.078 < area.min() < 0.09
  assert 0.9 < area.max() <= 1
  assert np.abs(ratio).max() < np.log(4 / 3) + 0.02
  assert abs(ratio.mean()) < 0.02
  # Small windows always fit: there, both are uniform.
  assert area[area < 0.5].mean() == pytest.approx(0.29, abs=0.01)
  free = 400 - width
  assert (boxes[:, 0] / np.maximum(free, 1)).mean() == pytest.approx(0.5, 0.04)


def test_the_same_numbers_give_the_same_crop():
  encoded = photos.jpeg(1)
  first, again, other = (
    crops.random_resized_crop(encoded, np.random.default_rng(seed), 32)
    for seed in (5, 5, 6)
  )
  np.testing.assert_array_equal(first, again)
  assert far(first, other) > 1


@pytest.mark.parametrize(('width', 'height'), [(100, 80), (80, 100), (90, 90)])
def test_centre_crop_resizes_then_cuts(width, height):
  encoded = photos.jpeg(2, width=width, height=height)
  image = Image.open(io.BytesIO(encoded))
  scale = 32 / min(width, height)
  shape = round(width * scale), round(height * scale)
  resized = np.asarray(image.resize(shape, Image.BILINEAR))
  top, left = (shape[1] - 28) // 2, (shape[0] - 28) // 2
  expected = resized[top : top + 28, left : left + 28]
  result = crops.centre_crop(encoded, 28)
  assert (result.shape, result.dtype) == ((28, 28, 3), np.uint8)
  assert far(result, expected) < 2
  assert far(result, expected[:, ::-1]) > 5


def test_a_large_image_is_shrunk_while_it_is_decoded():
  pixels = photos.photo(4, width=400, height=300)
  small, large = (
    crops.centre_crop(photos.encode(pixels, kind=kind), 24)
    for kind in ('jpeg', 'png')
  )
  assert far(small, large) < 3


@pytest.mark.parametrize(
  ('mode', 'kind', 'error'),
  [
    ('RGB', 'png', 0),
    ('L', 'jpeg', 2),
    ('L', 'png', 0),
    ('P', 'png', 20),
    ('RGBA', 'png', 0),
    ('CMYK', 'jpeg', 3),
  ],
)
def test_whatever_the_colours_it_is_rgb(mode, kind, error):
  pixels = photos.photo(5)
  expected = Image.fromarray(pixels).convert('L' if mode == 'L' else 'RGB')
  encoded = photos.encode(np.asarray(expected), mode=mode, kind=kind)
  buffer = io.BytesIO()
  expected.convert('RGB').save(buffer, format='png')
  reference = crops.centre_crop(buffer.getvalue(), 28)
  result = crops.centre_crop(encoded, 28)
  assert result.shape == (28, 28, 3)
  assert far(result, reference) <= error
  if mode == 'L':
    assert (result == result[..., :1]).all()


@pytest.mark.parametrize('shape', [(1, 1), (1, 40), (40, 1), (3, 2)])
def test_tiny_images(shape):
  encoded = photos.encode(np.full((*shape, 3), 100, np.uint8), kind='png')
  rng = np.random.default_rng(0)
  for result in (
    crops.centre_crop(encoded, 16),
    crops.random_resized_crop(encoded, rng, 16),
  ):
    np.testing.assert_array_equal(result, np.full((16, 16, 3), 100, np.uint8))


@pytest.mark.parametrize(
  'damage',
  [
    lambda encoded: encoded[:-200],
    lambda encoded: encoded[:100],
    lambda encoded: b'',
    lambda encoded: b'no image',
    lambda encoded: photos.encode(photos.photo(0), kind='png')[:-500],
  ],
)
def test_a_damaged_image(damage):
  encoded = damage(photos.jpeg(6))
  with pytest.raises(ValueError, match='no image can be decoded'):
    crops.centre_crop(encoded, 28)
  with pytest.raises(ValueError, match='no image can be decoded'):
    crops.random_resized_crop(encoded, np.random.default_rng(0), 28)


def test_a_bomb_is_not_decoded(monkeypatch):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
  with pytest.raises(ValueError, match='decompression bomb'):
    crops.centre_crop(photos.jpeg(7), 28)
