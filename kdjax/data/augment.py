"""What happens to a batch in the jitted step: normalise, crop, flip, mix."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key, UInt8

from kdjax import checks
from kdjax.checks import Array, Scalar


@checks.typed
def normalise(
  inputs: UInt8[Array, 'B *D C'] | Float[Array, 'B *D C'],
  mean: tuple[float | int, ...],
  std: tuple[float | int, ...],
) -> Float[jax.Array, 'B *D C']:
  """Shifts and scales inputs: `(x − mean) / std`, per channel.

  Args:
    inputs: images of uint8, first scaled to [0, 1], or floats as they are;
      the last axis is the channel.
    mean: one number per channel, or one for all.
    std: ditto, positive.

  Returns:
    Normalised inputs, float32, of the same shape.

  Raises:
    ValueError: `mean` or `std` has neither 1 nor C numbers, or `std` one
      that is not positive.
    TypeError: `inputs` are of another type.

  >>> normalise(jnp.array([[0, 255]], jnp.uint8), (0.5,), (0.25,)).tolist()
  [[-2.0, 2.0]]
  """
  num_channels = inputs.shape[-1]
  for name, values in (('mean', mean), ('std', std)):
    if len(values) not in (1, num_channels):
      raise ValueError(
        f'{name} has {len(values)} numbers, the inputs {num_channels} channels'
      )
  for value in std:
    checks.check_positive('std', value)
  scale = 255.0 if inputs.dtype == jnp.uint8 else 1.0
  axes = (1,) * (inputs.ndim - 1) + (-1,)
  shift = jnp.asarray(mean, jnp.float32).reshape(axes)
  width = jnp.asarray(std, jnp.float32).reshape(axes)
  return (jnp.asarray(inputs, jnp.float32) / scale - shift) / width


@checks.typed
def pad_crop_flip(
  key: Key[Array, ''],
  inputs: UInt8[Array, 'B H W C'] | Float[Array, 'B H W C'],
  *,
  padding: int = 4,
  flip: bool = True,
) -> UInt8[jax.Array, 'B H W C'] | Float[jax.Array, 'B H W C']:
  """Shifts each image by up to `padding` pixels; mirrors half of them.

  Every image is padded with zeros on all sides and a window of its first
  size is cut at a place uniform among the `(2 · padding + 1)²`; with
  probability 1/2 it is then mirrored left to right.

  Args:
    key: where the randomness comes from. That of an example is of the key and
      of its position alone: it does not depend on the size of the batch.
    inputs: images of uint8 or floats.
    padding: the largest shift in pixels, at least 0.
    flip: whether images are mirrored.

  Returns:
    Images of the same shape and type.

  Raises:
    ValueError: `padding` is negative.
    TypeError: `inputs` are not a batch of images.
  """
  if padding < 0:
    raise ValueError(f'padding={padding} must be at least 0')
  shape = inputs.shape[1:]
  around = ((padding, padding), (padding, padding), (0, 0))

  def one(position: jax.Array, image: jax.Array) -> jax.Array:
    shift_key, flip_key = jax.random.split(jax.random.fold_in(key, position))
    y, x = jax.random.randint(shift_key, (2,), 0, 2 * padding + 1)
    image = jax.lax.dynamic_slice(jnp.pad(image, around), (y, x, 0), shape)
    return _mirror(flip_key, image) if flip else image

  return jax.vmap(one)(jnp.arange(inputs.shape[0]), jnp.asarray(inputs))


def _mirror(key: jax.Array, image: jax.Array) -> jax.Array:
  """Mirrors an image left to right with probability 1/2."""
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


@checks.typed
def flip(
  key: Key[Array, ''],
  inputs: UInt8[Array, 'B H W C'] | Float[Array, 'B H W C'],
) -> UInt8[jax.Array, 'B H W C'] | Float[jax.Array, 'B H W C']:
  """Mirrors half of the images, as `pad_crop_flip` does, without a shift.

  Args:
    key: where the randomness comes from. That of an example is of the key and
      of its position alone: it does not depend on the size of the batch.
    inputs: images of uint8 or floats.

  Returns:
    Images of the same shape and type.

  Raises:
    TypeError: `inputs` are not a batch of images.
  """

  def one(position: jax.Array, image: jax.Array) -> jax.Array:
    _, flip_key = jax.random.split(jax.random.fold_in(key, position))
    return _mirror(flip_key, image)

  return jax.vmap(one)(jnp.arange(inputs.shape[0]), jnp.asarray(inputs))


@checks.typed
def mixup(
  key: Key[Array, ''], inputs: Float[Array, 'B *D'], *, alpha: Scalar
) -> tuple[Float[jax.Array, 'B *D'], Float[jax.Array, ' B']]:
  """Mixes each example with its neighbour, the first with the last of all.

  `x̃_i = λ_i x_i + (1 − λ_i) x_{i−1}` with `λ_i ~ Beta(α, α)`. The loss is to be
  mixed in the same shares, `λ · loss(labels) + (1 − λ) · loss(partners)`, where
  the partners' labels are `jnp.roll(labels, 1)`.

  Args:
    key: where the randomness comes from. A share is of the key and of the
      position of the example alone.
    inputs: normalised inputs [B, ...].
    alpha: α, positive; the smaller, the nearer are shares to 0 or 1.

  Returns:
    The mixed inputs [B, ...], and the share λ of each example itself [B].

  Raises:
    ValueError: `alpha` is not positive.
    TypeError: `inputs` are not floats.

  Reference: Zhang et al. 2018, https://arxiv.org/abs/1710.09412, section 2.
  """
  checks.check_positive('alpha', alpha)
  positions = jnp.arange(inputs.shape[0])
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, positions)
  draw = lambda key: jax.random.beta(key, alpha, alpha, dtype=inputs.dtype)
  shares = jax.vmap(draw)(keys)
  own = shares.reshape(-1, *[1] * (inputs.ndim - 1))
  return own * inputs + (1 - own) * jnp.roll(inputs, 1, axis=0), shares
