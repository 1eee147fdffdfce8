"""The decoder: sizes, positions, attention, and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sizes
from flax import nnx

from kdjax import models
from kdjax.models import transformer

K, T, B, EOS = 11, 6, 2, 0
WIDTH, HEADS = 8, 2

# By width and depth.
ROWS = {'transformer_tiny': (128, 2), 'transformer_small': (256, 4)}


def triple(**options):
  """A small model with parameters far from 0, taken apart."""
  sizes = {'width': WIDTH, 'depth': 2, 'num_heads': HEADS}
  model = nnx.eval_shape(
    lambda: models.Transformer(
      input_shape=(T,), num_classes=K, rngs=nnx.Rngs(0), **sizes, **options
    )
  )
  graphdef, params, rest = models.split(model)
  rng = np.random.default_rng(0)
  fill = lambda x: jnp.asarray(rng.normal(0.1, 0.4, x.shape), x.dtype)
  return graphdef, jax.tree.map(fill, params), rest


def tokens(*shape):
  return np.random.default_rng(0).integers(1, K, shape).astype(np.int32)


@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('name', ROWS)
def test_sizes(name, tied):
  """Embedding and head, and of a block two norms and 12 D² with biases."""
  width, depth = ROWS[name]
  num_params, macs, outputs = sizes.sizes(
    name, input_shape=(35,), num_classes=1000, tied=tied
  )
  block = 2 * 2 * width + 12 * width**2 + 9 * width
  ends = 1000 * width * (1 if tied else 2) + 1000
  assert num_params == ends + depth * block + 2 * width
  products = 12 * width**2 + 2 * 35 * width
  assert macs == 35 * (depth * products + 1000 * width)
  wanted = {f'block{i + 1}': (1, 35, width) for i in range(depth)}
  shapes = {k: v.shape for k, v in outputs.features.items()}
  assert shapes == wanted | {'pooled': (1, 35, width)}
  assert outputs.logits.shape == (1, 35, 1000)
  assert outputs.carry == ()


def test_it_has_no_memory():
  weights = triple()
  assert models.initial_carry(*weights, batch_size=3) == ()
  run = lambda carry: models.merge(*weights)(
    tokens(B, T), train=False, carry=carry
  )
  np.testing.assert_array_equal(run(()).logits, run(None).logits)
  with pytest.raises(ValueError, match=r'carry .* does not fit'):
    run((np.zeros((B, 3)),))


def normed(x, layer):
  mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
  return (x - mean) / np.sqrt(var + 1e-6) * layer['scale'] + layer['bias']


def linear(x, layer):
  return x @ layer['kernel'] + layer['bias']


def turned(x):
  """RoPE, `[B, T, H]`, as a product of complex numbers."""
  half = x.shape[-1] // 2
  speeds = 10_000.0 ** (-np.arange(half) / half)
  turns = np.exp(1j * np.arange(x.shape[1])[:, None] * speeds)
  y = (x[..., :half] + 1j * x[..., half:]) * turns
  return np.concatenate([y.real, y.imag], axis=-1)


def attended(x, params):
  reads = np.split(linear(x, params['reads']), 3, axis=-1)
  heads = []
  for i in range(HEADS):
    own = slice(i * WIDTH // HEADS, (i + 1) * WIDTH // HEADS)
    query, key, value = (part[..., own] for part in reads)
    scores = turned(query) @ turned(key).swapaxes(1, 2)
    scores = np.exp(scores / np.sqrt(WIDTH / HEADS))
    scores *= np.tri(x.shape[1])  # a token reads itself and those before it
    heads.append(scores / scores.sum(-1, keepdims=True) @ value)
  return linear(np.concatenate(heads, axis=-1), params['writes'])


def gelu(x):
  return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_matches_numpy():
  graphdef, params, rest = triple()
  inputs = tokens(B, T)
  outputs, _ = models.apply(graphdef, params, rest, inputs, train=True)
  params = jax.tree.map(np.float64, params)
  x = params['embedding']['embedding'][inputs]
  features = {}
  for name in ('block1', 'block2'):
    block = params[name]
    x = x + attended(normed(x, block['norm1']), block['attention'])
    hidden = gelu(linear(normed(x, block['norm2']), block['widen']))
    x = features[name] = x + linear(hidden, block['narrow'])
  features['pooled'] = normed(x, params['last_norm'])
  logits = linear(features['pooled'], params['head'])
  assert list(outputs.features) == [*features]
  for name, value in features.items():
    np.testing.assert_allclose(
      outputs.features[name], value, rtol=1e-4, atol=1e-4, err_msg=name
    )
  np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-4)


def test_scores_depend_on_the_distance_only():
  rng = np.random.default_rng(0)
  query, key = rng.normal(size=(2, 8)).astype(np.float32)
  everywhere = lambda x: jnp.broadcast_to(x, (1, 9, 1, 8))
  queries, keys = (
    transformer.rotate(everywhere(x))[0, :, 0] for x in (query, key)
  )
  scores = np.asarray(queries @ keys.T)
  for distance in range(-8, 9):
    line = np.diagonal(scores, distance)
    np.testing.assert_allclose(line, line[0], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(scores[3, 3], query @ key, rtol=1e-5)
  assert np.ptp(scores[0]) > 0.1


def test_turning_keeps_lengths_and_types():
  rng = np.random.default_rng(0)
  heads = jnp.asarray(rng.normal(size=(2, 5, 3, 4)), jnp.float32)
  np.testing.assert_allclose(
    jnp.linalg.norm(transformer.rotate(heads), axis=-1),
    jnp.linalg.norm(heads, axis=-1),
    rtol=1e-5,
  )
  half = transformer.rotate(heads.astype(jnp.bfloat16))
  assert half.dtype == jnp.bfloat16


def test_units_are_dropped_on_the_embedding_and_on_what_blocks_add():
  model = models.merge(*triple())
  shapes = []

  class Dropout:
    rate = 0.5

    def __call__(self, x, *, deterministic, rngs):
      assert not deterministic
      shapes.append(x.shape)
      return jnp.zeros_like(x)

  vars(model)['dropout'] = Dropout()
  outputs = model(tokens(B, T), train=True, key=jax.random.key(0))
  assert shapes == [(B, T, WIDTH)] * 5
  # All is dropped: the last norm reads zeros.
  bias = np.broadcast_to(model.last_norm.bias[...], (B, T, WIDTH))
  np.testing.assert_allclose(outputs.features['pooled'], bias, rtol=1e-6)


def test_masks_differ_from_place_to_place():
  model = models.merge(*triple(dropout=0.5))
  seen = []
  inner = model.dropout

  class Dropout:
    rate = 0.5

    def __call__(self, x, **arguments):
      seen.append(np.asarray(inner(jnp.ones_like(x), **arguments)))
      return x

  vars(model)['dropout'] = Dropout()
  model(tokens(B, T), train=True, key=jax.random.key(0))
  assert len(seen) == 5
  assert len({mask.tobytes() for mask in seen}) == 5


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'num_heads': 3}, 'width=8 must be a multiple of twice num_heads=3'),
    ({'width': 6}, 'width=6 must be a multiple of twice num_heads=2'),
    ({'depth': 0}, 'depth=0 must be'),
    ({'width': 8.0}, 'width=8.0 must be a positive integer'),
  ],
)
def test_rejects(options, message):
  arguments = {'width': 8, 'depth': 1, 'num_heads': 2} | options
  with pytest.raises(ValueError, match=message):
    models.Transformer(
      input_shape=(T,), num_classes=K, rngs=nnx.Rngs(0), **arguments
    )
