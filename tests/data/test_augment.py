import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kdjax.data import augment

# Compiled once per shape: eager operations compile one by one.
augmented = jax.jit(augment.pad_crop_flip, static_argnames=('padding', 'flip'))
flipped = jax.jit(augment.flip)
mixed = jax.jit(augment.mixup, static_argnames='alpha')


@pytest.fixture
def images():
  rng = np.random.default_rng(0)
  return rng.integers(1, 256, (64, 5, 6, 3), np.uint8)


def draws(key, position, padding):
  """The shift and the flip that an example should get."""
  shift, flip = jax.random.split(jax.random.fold_in(key, position))
  y, x = jax.random.randint(shift, (2,), 0, 2 * padding + 1)
  return int(y), int(x), bool(jax.random.bernoulli(flip))


def reference(key, images, *, padding, flip):
  result = np.zeros_like(images)
  _, height, width, _ = images.shape
  for i, image in enumerate(images):
    y, x, mirrored = draws(key, i, padding)
    big = np.zeros((height + 2 * padding, width + 2 * padding, 3), images.dtype)
    big[padding : padding + height, padding : padding + width] = image
    window = big[y : y + height, x : x + width]
    result[i] = window[:, ::-1] if flip and mirrored else window
  return result


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize(
  ('padding', 'flip'), [(4, True), (1, False), (0, True)]
)
def test_pad_crop_flip_matches_numpy(images, dtype, padding, flip):
  key = jax.random.key(3)
  images = images[:16].astype(dtype)
  result = augmented(key, images, padding=padding, flip=flip)
  assert result.dtype == dtype
  np.testing.assert_array_equal(
    result, reference(key, images, padding=padding, flip=flip)
  )


def test_an_example_does_not_depend_on_the_batch(images):
  key = jax.random.key(5)
  # One of the two is eager, so that this compares eager with jit as well.
  np.testing.assert_array_equal(
    augment.pad_crop_flip(key, images[:7]), augmented(key, images)[:7]
  )


def test_each_example_has_its_own_randomness():
  image = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1)
  same = np.broadcast_to(image, (400, 8, 8, 1))
  result = np.asarray(augmented(jax.random.key(0), same))
  variants = {image.tobytes() for image in result}
  # 81 shifts, mirrored or not.
  assert 140 < len(variants) <= 162
  # Increasing numbers in a row tell that it was not mirrored.
  rising = (np.diff(result[..., 0].max(axis=1).astype(int)) > 0).mean()
  assert 0.3 < rising < 0.7
  other = np.asarray(augmented(jax.random.key(1), same))
  assert (other != result).any(axis=(1, 2, 3)).mean() > 0.9


def test_padding_is_zero():
  ones = np.ones((200, 4, 4, 1), np.float32)
  result = np.asarray(augmented(jax.random.key(0), ones))
  assert set(np.unique(result)) == {0.0, 1.0}
  # A shift by 4 of 4 pixels leaves nothing of the image.
  assert result.sum(axis=(1, 2, 3)).min() == 0


def test_two_devices_give_the_same_and_exchange_nothing(images):
  mesh = jax.make_mesh((2,), ('data',), axis_types=(AxisType.Auto,))
  spread = jax.device_put(images, NamedSharding(mesh, PartitionSpec('data')))
  key = jax.random.key(0)
  result = augmented(key, spread)
  np.testing.assert_array_equal(result, augmented(key, images))
  assert result.sharding.spec[0] == 'data'
  program = augmented.lower(key, spread).compile().as_text()
  assert 'all-gather' not in program
  assert 'all-reduce' not in program


@pytest.mark.parametrize(
  'wrong', [np.zeros((4, 8), np.uint8), np.zeros((4, 8, 8, 1), np.int32)]
)
def test_pad_crop_flip_rejects_what_is_no_batch_of_images(wrong):
  with pytest.raises(TypeError, match='inputs'):
    augment.pad_crop_flip(jax.random.key(0), wrong)


def test_pad_crop_flip_rejects_negative_padding(images):
  with pytest.raises(ValueError, match='padding=-1'):
    augment.pad_crop_flip(jax.random.key(0), images, padding=-1)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_flip_is_that_of_pad_crop_flip(images, dtype):
  key = jax.random.key(3)
  images = images.astype(dtype)
  result = flipped(key, images)
  assert result.dtype == dtype
  np.testing.assert_array_equal(
    result, reference(key, images, padding=0, flip=True)
  )
  is_mirrored = (np.asarray(result) != images).any(axis=(1, 2, 3))
  assert 16 < is_mirrored.sum() < 48
  np.testing.assert_array_equal(augment.flip(key, images[:7]), result[:7])


@pytest.mark.parametrize(
  'wrong', [np.zeros((4, 8), np.uint8), np.zeros((4, 8, 8, 1), np.int32)]
)
def test_flip_rejects_what_is_no_batch_of_images(wrong):
  with pytest.raises(TypeError, match='inputs'):
    augment.flip(jax.random.key(0), wrong)


@pytest.mark.parametrize('shape', [(8,), (8, 3), (8, 4, 5, 3)])
def test_mixup_matches_float64(shape):
  inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  result, shares = mixed(jax.random.key(1), inputs, alpha=0.7)
  assert (result.dtype, shares.dtype) == (np.float32, np.float32)
  assert shares.shape == (8,)
  for i in range(8):
    own = float(shares[i])
    expected = own * inputs[i].astype(np.float64) + (1 - own) * inputs[i - 1]
    np.testing.assert_allclose(result[i], expected, rtol=1e-5, atol=1e-6)
  # The partners of inputs are those of labels that are rolled by one.
  labels = jnp.arange(8.0)
  partners = jnp.roll(labels, 1)
  np.testing.assert_allclose(
    mixed(jax.random.key(1), labels, alpha=0.7)[0],
    shares * labels + (1 - shares) * partners,
    rtol=1e-5,
  )


@pytest.mark.parametrize('alpha', [0.2, 1.0, 4.0])
def test_the_shares_of_mixup_have_the_moments_of_beta(alpha):
  _, shares = mixed(jax.random.key(0), np.zeros(4000, np.float32), alpha=alpha)
  assert 0 <= shares.min() <= shares.max() <= 1
  assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
  variance = 1 / (4 * (2 * alpha + 1))
  assert float(shares.var()) == pytest.approx(variance, rel=0.1)


def test_the_shares_of_mixup_are_of_key_and_position():
  inputs = np.zeros((64, 2), np.float32)
  _, shares = mixed(jax.random.key(0), inputs, alpha=0.5)
  assert len(set(shares.tolist())) == 64
  # One of the two is eager, so that this compares eager with jit as well.
  _, fewer = augment.mixup(jax.random.key(0), inputs[:7], alpha=0.5)
  np.testing.assert_allclose(fewer, shares[:7], rtol=1e-6)
  _, others = mixed(jax.random.key(1), inputs, alpha=0.5)
  assert (others != shares).mean() > 0.9


def test_mixup_on_two_devices_gives_the_same(images):
  mesh = jax.make_mesh((2,), ('data',), axis_types=(AxisType.Auto,))
  inputs = images.astype(np.float32)
  spread = jax.device_put(inputs, NamedSharding(mesh, PartitionSpec('data')))
  key = jax.random.key(0)
  result, shares = mixed(key, spread, alpha=0.3)
  expected, expected_shares = mixed(key, inputs, alpha=0.3)
  np.testing.assert_array_equal(result, expected)
  np.testing.assert_array_equal(shares, expected_shares)
  assert result.sharding.spec[0] == 'data'


def test_mixup_rejects():
  inputs = np.zeros((2, 3), np.float32)
  with pytest.raises(ValueError, match=r'alpha=0\.0 must be positive'):
    augment.mixup(jax.random.key(0), inputs, alpha=0.0)
  with pytest.raises(TypeError, match='inputs'):
    augment.mixup(jax.random.key(0), inputs.astype(np.uint8), alpha=0.5)


MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)


def test_normalise_images_matches_float64(images):
  expected = (images.astype(np.float64) / 255 - MEAN) / STD
  result = augment.normalise(images, MEAN, STD)
  assert result.dtype == jnp.float32
  np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
  jitted = jax.jit(augment.normalise, static_argnums=(1, 2))
  np.testing.assert_allclose(
    jitted(images, MEAN, STD), expected, rtol=1e-5, atol=1e-5
  )


def test_normalise_leaves_the_scale_of_floats():
  vectors = np.array([[0.0, 3.0, 255.0]], np.float32)
  np.testing.assert_allclose(
    augment.normalise(vectors, (1.0,), (2.0,)), [[-0.5, 1.0, 127.0]]
  )
  np.testing.assert_allclose(
    augment.normalise(vectors, MEAN, STD), (vectors - MEAN) / STD, rtol=1e-6
  )


@pytest.mark.parametrize(
  ('mean', 'std', 'message'),
  [
    ((0.5, 0.5), (1.0,), 'mean has 2 numbers, the inputs 3 channels'),
    ((0.5,), (1.0,) * 4, 'std has 4 numbers'),
    ((), (1.0,), 'mean has 0 numbers'),
    ((0.5,), (0.0,), 'std=0.0 must be positive'),
  ],
)
def test_normalise_rejects(images, mean, std, message):
  with pytest.raises(ValueError, match=message):
    augment.normalise(images, mean, std)


def test_normalise_rejects_integers_that_are_no_pixels():
  with pytest.raises(TypeError, match='inputs'):
    augment.normalise(np.zeros((2, 3), np.int32), (0.0,), (1.0,))
