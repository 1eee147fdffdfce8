"""Sparse teachers: the likeliest classes, and unbiased draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kdjax import losses, targets
from kdjax.targets_sparse import Sparse, sparse_sample, sparse_topk

LOGITS = reference.wave((4, 6), 0.7, 0.5, 3.0)
STUDENT = reference.wave((4, 6), 1.0, 0.0, 3.0)
T = 2.0


def _float32(x):
  return jnp.asarray(x, jnp.float32)


def _dense(sparse, num_classes):
  """ρ of KD-topk."""
  others = num_classes - sparse.indices.shape[-1]
  share = np.asarray(sparse.tail)[..., None] / max(others, 1)
  out = np.repeat(share, num_classes, -1)
  np.put_along_axis(out, np.asarray(sparse.indices), sparse.probs, -1)
  return out


def _check_equal(actual, expected):
  for found, wanted in zip(actual, expected, strict=True):
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize('k', [1, 3, 6])
@pytest.mark.parametrize('batch', [(4,), (2, 2)])
def test_topk(k, batch):
  logits = LOGITS.reshape(*batch, 6)
  sparse = sparse_topk(_float32(logits), k=k, temperature=T)
  assert sparse.indices.shape == sparse.probs.shape == (*batch, k)
  assert sparse.tail.shape == batch
  dtypes = [x.dtype for x in sparse]
  assert dtypes == [jnp.int32, jnp.float32, jnp.float32]
  probs = reference.softmax(logits, T)
  order = np.argsort(-probs, -1, kind='stable')[..., :k]
  np.testing.assert_array_equal(sparse.indices, order)
  np.testing.assert_allclose(
    _dense(sparse, 6), reference.topk(probs, k), rtol=1e-5
  )


def test_topk_jit_vmap_and_dtypes():
  make = functools.partial(sparse_topk, k=2, temperature=T)
  logits = _float32(LOGITS)
  _check_equal(jax.jit(make)(logits), make(logits))
  _check_equal(jax.jit(jax.vmap(make))(logits), make(logits))
  assert make(logits.astype(jnp.bfloat16)).probs.dtype == jnp.float32
  with jax.enable_x64(True):
    assert make(jnp.asarray(LOGITS)).probs.dtype == jnp.float64


def test_topk_ties_go_to_the_lower_class():
  logits = jnp.zeros((1, 300)).at[0, 7].set(1.0)
  sparse = sparse_topk(logits, k=4, temperature=1.0)
  np.testing.assert_array_equal(sparse.indices, [[7, 0, 1, 2]])
  dense = targets.topk(targets.full(logits, temperature=1.0), k=4)
  np.testing.assert_allclose(_dense(sparse, 300), dense, rtol=1e-6)


def test_topk_of_a_sure_teacher_keeps_its_rest():
  logits = np.array([[30.0, 1.0, -4.0, 2.0]])
  sparse = sparse_topk(_float32(logits), k=1, temperature=1.0)
  expected = reference.softmax(logits)[:, 1:].sum(-1)
  np.testing.assert_allclose(sparse.tail, expected, rtol=1e-5)


@pytest.mark.parametrize(
  ('logits', 'probs', 'tail'),
  [
    ([0.0, -np.inf, 0.0], [0.5, 0.5], 0.0),
    ([-np.inf, 7.0, -np.inf], [1.0, 0.0], 0.0),
    ([1e4, -1e4, 0.0], [1.0, 0.0], 0.0),
  ],
)
def test_topk_at_extremes(logits, probs, tail):
  sparse = sparse_topk(jnp.array([logits]), k=2, temperature=T)
  np.testing.assert_array_equal(sparse.probs, [probs])
  np.testing.assert_array_equal(sparse.tail, [tail])


def _sample(key, logits=LOGITS, **setting):
  setting = {'num_samples': 5, 'temperature': T, **setting}
  return sparse_sample(key, _float32(logits), **setting)


@pytest.mark.parametrize('batch', [(4,), (2, 2)])
def test_sample(batch):
  logits = LOGITS.reshape(*batch, 6)
  sparse = _sample(jax.random.key(0), logits)
  assert sparse.indices.shape == sparse.probs.shape == (*batch, 5)
  assert sparse.indices.dtype == jnp.int32
  np.testing.assert_allclose(sparse.probs, 0.2, rtol=1e-5)
  np.testing.assert_array_equal(sparse.tail, np.zeros(batch))
  assert np.unique(sparse.indices).size > 2
  jitted = jax.jit(_sample)(jax.random.key(0), logits)
  np.testing.assert_array_equal(jitted.indices, sparse.indices)


def test_sample_vmap():
  keys = jax.random.split(jax.random.key(0), 4)
  mapped = jax.jit(jax.vmap(_sample))(keys, LOGITS)
  for index, key in enumerate(keys):
    one = jax.jit(_sample)(key, LOGITS[index])
    np.testing.assert_array_equal(mapped.indices[index], one.indices)


@pytest.mark.parametrize('power', [1.0, 0.5, 0.0])
def test_samples_are_unbiased(power):
  """The mean gradient of many draws is KD's, within 5 standard errors."""
  num_draws = 20_000
  s, t = _float32(STUDENT[:1]), LOGITS[:1]
  make = functools.partial(_sample, num_samples=3, proposal_power=power)

  @jax.jit
  def gradients(keys):
    loss = lambda s, key: losses.kl_samples(s, *make(key, t), temperature=T)[0]
    return jax.vmap(jax.grad(loss), in_axes=(None, 0))(s, keys)

  found = gradients(jax.random.split(jax.random.key(1), num_draws))[:, 0]
  expected = jax.grad(lambda s: losses.kd(s, _float32(t), temperature=T).sum())(
    s
  )[0]
  error = found.std(0) / np.sqrt(num_draws)
  assert jnp.all(error > 0)
  deviations = np.abs(found.mean(0) - expected) / error
  np.testing.assert_array_less(deviations, 5.0)


def test_the_value_of_samples_is_kl_and_entropy_in_expectation():
  sparse = _sample(jax.random.key(2), LOGITS[:1], num_samples=100_000)
  found = losses.kl_samples(_float32(STUDENT[:1]), *sparse, temperature=T)
  p = reference.softmax(LOGITS[:1], T)
  entropy = -(p * np.log(p)).sum(-1)
  expected = reference.kd(STUDENT[:1], LOGITS[:1], T) + T**2 * entropy
  np.testing.assert_allclose(found, expected, rtol=1e-2)


def test_rare_classes_are_drawn_more_often_and_weigh_less():
  logits = np.log(np.array([[0.9, 0.1]]))
  make = functools.partial(
    _sample, jax.random.key(0), logits, num_samples=10_000, temperature=1.0
  )
  sparse = make(proposal_power=0.0)  # uniform
  rare = np.asarray(sparse.indices) == 1
  np.testing.assert_allclose(rare.mean(), 0.5, atol=0.025)
  expected = np.where(rare, 0.2, 1.8) / 10_000
  np.testing.assert_allclose(sparse.probs, expected, rtol=1e-5)
  rare = np.asarray(make().indices) == 1
  np.testing.assert_allclose(rare.mean(), 0.1, atol=0.015)


def test_what_has_no_mass_is_never_taught():
  logits = np.full((8, 500), -np.inf)
  logits[:, 100:200] = reference.wave((8, 100), 0.3, 0.1)
  for power in (0.0, 0.5, 1.0):
    sparse = _sample(
      jax.random.key(0), logits, num_samples=300, proposal_power=power
    )
    drawn = np.isin(sparse.indices, np.arange(100, 200))
    np.testing.assert_array_equal(np.asarray(sparse.probs)[~drawn], 0.0)
    assert drawn.mean() > 0.999
    student = jnp.where(np.isneginf(logits), -jnp.inf, 0.0)
    loss = losses.kl_samples(student, *sparse, temperature=1.0)
    assert jnp.all(jnp.isfinite(loss))


def test_a_one_hot_teacher_is_always_drawn():
  logits = np.array([[-np.inf, 3.0, -np.inf], [1e4, 0.0, -1e4]])
  sparse = _sample(jax.random.key(0), logits)
  np.testing.assert_array_equal(sparse.indices, [[1] * 5, [0] * 5])
  np.testing.assert_allclose(sparse.probs, 0.2, rtol=1e-6)


BAD = {
  'integers': lambda t, key: sparse_topk(
    LOGITS.astype(int), k=1, temperature=1
  ),
  'traced_k': lambda t, key: sparse_topk(t, k=jnp.array(1), temperature=1.0),
  'fraction': lambda t, key: sparse_topk(t, k=1.5, temperature=1.0),
  'positional': lambda t, key: sparse_topk(t, 2, 1.0),
  'per_row': lambda t, key: sparse_topk(t, k=2, temperature=jnp.ones(4)),
  'samples': lambda t, key: sparse_sample(
    key, t, num_samples=1.5, temperature=1.0
  ),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call(_float32(LOGITS), jax.random.key(0))


OUT_OF_RANGE = {
  'k=7 must lie in 1..6': lambda t, key: sparse_topk(t, k=7, temperature=1.0),
  'k=0 must lie in 1..6': lambda t, key: sparse_topk(t, k=0, temperature=1.0),
  'temperature=0': lambda t, key: sparse_topk(t, k=1, temperature=0),
  'num_samples=0': lambda t, key: sparse_sample(
    key, t, num_samples=0, temperature=1.0
  ),
  'temperature=-1': lambda t, key: sparse_sample(
    key, t, num_samples=1, temperature=-1
  ),
  'proposal_power=-0.5': lambda t, key: sparse_sample(
    key, t, num_samples=1, temperature=1.0, proposal_power=-0.5
  ),
}


@pytest.mark.parametrize(
  ('match', 'call'), OUT_OF_RANGE.items(), ids=OUT_OF_RANGE
)
def test_out_of_range(match, call):
  with pytest.raises(ValueError, match=match):
    call(_float32(LOGITS), jax.random.key(0))


def test_a_sparse_teacher_is_a_tree():
  """It is stored, sent and cut into blocks as one."""
  sparse = sparse_topk(_float32(LOGITS), k=2, temperature=T)
  half = jax.tree.map(lambda x: x[:2], sparse)
  assert isinstance(half, Sparse)
  assert half.probs.shape == (2, 2)


def test_every_token_draws_for_itself():
  same = jnp.zeros((64, 50))
  few = sparse_sample(jax.random.key(0), same, num_samples=4, temperature=1.0)
  assert len(np.unique(few.indices, axis=0)) > 60
