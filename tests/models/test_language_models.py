"""What holds for every language model: rows, segments, dropout, rejections."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from kdjax import models

K, T, EOS = 11, 7, 0
SMALL = {
  'lstm': functools.partial(models.LSTM, widths=(6, 6)),
  'transformer': functools.partial(
    models.Transformer, width=8, depth=2, num_heads=2
  ),
}
NAMES = [*SMALL]

apply = jax.jit(models.apply, static_argnames=('graphdef', 'train'))


def triple(name, **options):
  """A model with parameters far from 0, taken apart; nothing is compiled."""
  model = nnx.eval_shape(
    lambda: SMALL[name](
      input_shape=(T,), num_classes=K, rngs=nnx.Rngs(0), **options
    )
  )
  graphdef, params, rest = models.split(model)
  rng = np.random.default_rng(0)
  fill = lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), x.dtype)
  return graphdef, jax.tree.map(fill, params), rest


def tokens(*shape, seed=0):
  """Words only: no boundary."""
  return np.random.default_rng(seed).integers(1, K, shape).astype(np.int32)


def logits_of(weights, inputs, **arguments):
  return apply(*weights, inputs, train=False, **arguments)[0].logits


def assert_close(actual, desired, **tolerances):
  tolerances = {'rtol': 1e-4, 'atol': 1e-5} | tolerances
  jax.tree.map(
    lambda a, d: np.testing.assert_allclose(a, d, **tolerances), actual, desired
  )


def test_rows_that_read_tokens_are_known():
  read = {name for name in models.MODELS if models.reads_tokens(name)}
  assert read == {
    'lstm',
    'lstm_small',
    'lstm_medium',
    'lstm_large',
    'transformer_tiny',
    'transformer_small',
  }
  with pytest.raises(ValueError, match="'lstm_smal'; did you mean 'lstm_small"):
    models.reads_tokens('lstm_smal')


def test_a_row_of_functions_reads_no_tokens(monkeypatch):
  monkeypatch.setitem(models.MODELS, 'own', lambda **options: None)
  assert not models.reads_tokens('own')


@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('name', NAMES)
def test_logits_are_those_of_class_weights(name, tied):
  weights = triple(name, tied=tied, dropout=0.5)
  model = models.merge(*weights)
  outputs, _ = apply(*weights, tokens(3, T), train=True, key=jax.random.key(0))
  pooled = outputs.features['pooled']
  assert outputs.logits.shape == (3, T, K)
  assert model.class_weights.shape == (K, pooled.shape[-1])
  assert model.class_biases.shape == (K,)
  assert jnp.any(model.class_biases != 0)
  assert_close(
    outputs.logits,
    pooled @ model.class_weights.T + model.class_biases[None, None],
  )
  own = {'bias'} if tied else {'bias', 'kernel'}
  assert set(weights[1]['head']) == own


@pytest.mark.parametrize('name', NAMES)
def test_a_tied_embedding_learns_as_last_layer_as_well(name):
  graphdef, params, rest = triple(name, tied=True)
  inputs = jnp.ones((2, T), jnp.int32)
  loss = lambda p: jnp.sum(logits_of((graphdef, p, rest), inputs) ** 2)
  gradient = jax.jit(jax.grad(loss))(params)['embedding']['embedding']
  # A word that no row holds is still one that is expected or not.
  assert jnp.all(jnp.any(gradient != 0, axis=1))


@pytest.mark.parametrize('name', NAMES)
def test_rows_may_have_any_number_of_tokens(name):
  weights = triple(name)
  inputs = tokens(2, 3 * T)
  whole = logits_of(weights, inputs)
  for number in (1, T, 2 * T):
    assert_close(logits_of(weights, inputs[:, :number]), whole[:, :number])


@pytest.mark.parametrize('name', NAMES)
def test_no_token_sees_a_later_one(name):
  weights = triple(name)
  inputs = tokens(1, T)
  place = 3
  changed = inputs.copy()
  changed[:, place] = inputs[:, place] % (K - 1) + 1
  one, other = (logits_of(weights, x) for x in (inputs, changed))
  np.testing.assert_array_equal(one[:, :place], other[:, :place])
  moved = jnp.any(one[:, place:] != other[:, place:], axis=-1)
  assert jnp.all(moved)


@pytest.mark.parametrize('name', NAMES)
def test_a_packed_row_is_its_sentences_alone(name):
  """Token for token, and in the gradient of every parameter."""
  graphdef, params, rest = triple(name, boundary=EOS)
  lengths = (5, 2, 7)
  real = np.arange(T)[None] < np.array(lengths)[:, None]
  alone = np.where(real, tokens(3, T), EOS)
  alone[:, 0] = EOS
  packed = np.append(alone[real], [EOS, EOS])[None]
  factors = np.random.default_rng(0).normal(size=(real.sum(), K))

  @functools.partial(jax.jit, static_argnums=0)
  def run(graphdef, params, inputs, real):
    def total(params):
      logits = logits_of((graphdef, params, rest), inputs)
      logits = logits[jnp.nonzero(real, size=len(factors))]
      return jnp.sum(jnp.sin(logits) * factors), logits

    return jax.value_and_grad(total, has_aux=True)(params)

  all_but_padding = np.arange(packed.size)[None] < real.sum()
  found = run(graphdef, params, packed, all_but_padding)
  assert_close(found, run(graphdef, params, alone, real), rtol=1e-3, atol=1e-4)
  # Nothing of the kind without a boundary.
  through = run(triple(name)[0], params, packed, all_but_padding)[0][1]
  moved = jnp.max(jnp.abs(through - found[0][1]), axis=-1) > 1e-3
  assert moved.tolist() == [False] * lengths[0] + [True] * sum(lengths[1:])


@pytest.mark.parametrize('name', NAMES)
def test_what_precedes_the_first_boundary_is_a_segment(name):
  inputs = tokens(2, T)
  assert_close(
    logits_of(triple(name, boundary=EOS), inputs),
    logits_of(triple(name), inputs),
  )


@pytest.mark.parametrize('name', NAMES)
def test_dropout_is_off_in_eval_and_determined_by_its_key(name):
  dropping, plain = triple(name, dropout=0.5), triple(name)
  inputs = tokens(3, T)
  run = lambda weights, train, seed: apply(
    *weights, inputs, train=train, key=jax.random.key(seed)
  )
  assert dropping[2] == {}, 'no random state is stored'
  np.testing.assert_array_equal(
    run(dropping, False, 0)[0].logits, run(plain, True, 1)[0].logits
  )
  first, same, other = (run(dropping, True, s)[0].logits for s in (0, 0, 1))
  np.testing.assert_array_equal(first, same)
  assert jnp.any(first != other)
  with pytest.raises(ValueError, match=r'dropout=0\.5 needs a key'):
    apply(*dropping, inputs, train=True)


@pytest.mark.parametrize('name', NAMES)
def test_jit_equals_eager(name):
  graphdef, params, rest = triple(name, boundary=EOS)
  inputs = tokens(3, T)
  inputs[:, 2] = EOS

  eager, _ = models.apply(graphdef, params, rest, inputs, train=False)
  assert_close(apply(graphdef, params, rest, inputs, train=False)[0], eager)


@pytest.mark.parametrize('name', NAMES)
def test_students_side_by_side_are_each_alone(name):
  """`vmap` over parameters, carries and keys, with gradients."""
  graphdef, params, rest = triple(name, dropout=0.3, boundary=EOS)
  other = jax.tree.map(lambda x: x * 0.7 + 0.01, params)
  inputs = tokens(3, T)
  inputs[1, 3] = EOS
  keys = jax.random.split(jax.random.key(0), 2)
  carry = models.initial_carry(graphdef, params, rest, batch_size=3)

  def run(params, key, carry):
    def loss(params):
      outputs, _ = models.apply(
        graphdef, params, rest, inputs, train=True, key=key, carry=carry
      )
      return jnp.mean(outputs.logits**2), (outputs.logits, outputs.carry)

    return jax.value_and_grad(loss, has_aux=True)(params)

  pair = lambda *trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)
  later = jax.tree.map(lambda x: x + 0.5, carry)
  found = jax.jit(jax.vmap(run))(pair(params, other), keys, pair(carry, later))
  one = jax.jit(run)
  wanted = pair(one(params, keys[0], carry), one(other, keys[1], later))
  assert_close(found, wanted)


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_is_near_and_stores_float32(name):
  inputs = tokens(3, T)

  def run(dtype):
    graphdef, params, rest = triple(name, dtype=dtype)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
      outputs, _ = models.apply(graphdef, params, rest, inputs, train=True)
      return jnp.mean((outputs.logits - 1) ** 2), outputs

    (_, outputs), gradient = jax.jit(loss)(params)
    return params, outputs, gradient

  params, outputs, gradient = run('bfloat16')
  _, exact, exact_gradient = run('float32')
  stored = (params, gradient, outputs.logits, outputs.carry)
  assert {x.dtype for x in jax.tree.leaves(stored)} == {jnp.dtype('float32')}
  for key, feature in outputs.features.items():
    expected = jnp.float32 if key == 'pooled' else jnp.bfloat16
    assert feature.dtype == expected, key
    scale = np.abs(exact.features[key]).max()
    np.testing.assert_allclose(
      np.float32(feature), exact.features[key], rtol=0, atol=0.03 * scale
    )
  assert jnp.any(outputs.logits != exact.logits)
  error = jax.tree.map(jnp.subtract, gradient, exact_gradient)
  assert optax.tree.norm(error) < 0.1 * optax.tree.norm(exact_gradient)


@pytest.mark.parametrize('dtype', [np.uint8, np.int64])
@pytest.mark.parametrize('name', NAMES)
def test_tokens_are_integers_of_any_size(name, dtype):
  weights, inputs = triple(name, boundary=EOS), tokens(2, T)
  assert_close(
    logits_of(weights, inputs.astype(dtype)), logits_of(weights, inputs)
  )


@pytest.mark.parametrize('name', NAMES)
def test_other_inputs_are_refused(name):
  model = models.merge(*triple(name))
  for wrong in [(T,), (2, T, 1), (2, 0)]:
    with pytest.raises(ValueError, match=r'inputs of shape .* \[B, T\]'):
      model(np.zeros(wrong, np.int32), train=False)
  for dtype in (np.float32, bool):
    with pytest.raises(TypeError, match='inputs'):
      model(np.zeros((2, T), dtype), train=False)


@pytest.mark.parametrize('name', NAMES)
def test_a_token_outside_the_vocabulary_shows(name):
  inputs = tokens(2, T)
  inputs[0, 3] = K
  lost = jnp.isnan(logits_of(triple(name), inputs)).all(-1)
  assert lost[0, 3:].all()
  assert not lost[1].any()


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('lstm', {'input_shape': (8, 8, 1)}, r'reads rows of tokens, \(tokens,\)'),
    ('lstm', {'input_shape': (0,)}, 'must hold positive'),
    ('lstm', {'num_classes': 0}, 'num_classes=0 must be a positive'),
    ('lstm', {'dropout': 1.0}, r'dropout=1.0 must lie in \[0, 1\)'),
    ('lstm', {'dtype': 'float16'}, "dtype 'float16'; did you mean 'bfloat"),
    ('lstm', {'widths': ()}, r'widths=\(\) must hold positive'),
    ('lstm', {'init_scale': 0.0}, 'init_scale=0.0 must be positive'),
    (
      'lstm',
      {'widths': (4, 5), 'tied': True},
      r'widths=\(4, 5\) with tied=True: the last must be as wide',
    ),
    ('lstm', {'tied': 1}, 'tied=1 must be True or False'),
    ('lstm', {'boundary': K}, r'boundary=11 must be None or a token.*0\.\.10'),
    ('lstm', {'boundary': -1}, 'boundary=-1 must be None or a token'),
    ('lstm', {'boundary': True}, 'boundary=True must be None or a token'),
    ('lstm', {'depth': 2}, "option of lstm 'depth'; known are widths, init_sc"),
    ('lstm_small', {'widths': (3,)}, "option of lstm_small 'widths'"),
    ('transformer_tiny', {'width': 8}, "option of transformer_tiny 'width'"),
    ('transformer_tiny', {'input_shape': (8, 8)}, 'reads rows of tokens'),
    ('transformer_tiny', {'boundary': 2.0}, r'boundary=2.0 must be None'),
  ],
)
def test_build_rejects(name, options, message):
  arguments = {'input_shape': (T,), 'num_classes': K, 'seed': 0} | options
  with pytest.raises(ValueError, match=message):
    models.build(name, **arguments)
