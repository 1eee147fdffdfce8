"""CRD and its banks: references, gradients, draws, extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import relation_reference as plain

from kdjax import losses

wave = reference.wave
STUDENT = plain.unit(wave((4, 3), 1.3, 0.2))
TEACHER = plain.unit(wave((4, 3), 0.55, 0.6))
STUDENT_BANK = plain.unit(wave((10, 3), 0.8, 0.1))
TEACHER_BANK = plain.unit(wave((10, 3), 0.45, 0.9))
CANDIDATES = np.array([[1, 0, 2, 4], [3, 8, 9, 0], [5, 6, 2, 1], [7, 4, 0, 9]])
BANKS = STUDENT_BANK, TEACHER_BANK
LOG_Z = (3.7, 4.1)


def _float32(*arrays):
  return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


def _loss(s, t, bank_s, bank_t, candidates=CANDIDATES, **setting):
  setting = {'temperature': 0.2, 'log_partition': LOG_Z} | setting
  return losses.crd(s, t, bank_s, bank_t, jnp.asarray(candidates), **setting)


def _plain(s, t, bank_s, bank_t, candidates=CANDIDATES):
  return plain.crd(s, t, bank_s, bank_t, candidates, LOG_Z, 0.2)


def _published(s, t, bank_s, bank_t, candidates):
  """Z of this very batch, as in the first step of the published code."""
  log_z = (
    losses.crd_log_partition(s, bank_t, candidates),
    losses.crd_log_partition(t, bank_s, candidates),
  )
  return losses.crd(s, t, bank_s, bank_t, candidates, log_partition=log_z)


@functools.cache
def _value_and_grads(loss, argnums=(0, 1)):
  return jax.jit(jax.value_and_grad(loss, argnums=argnums))


def _assert_close(actual, expected):
  scale = 1e-5 * np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=scale)


# The five checks.


@pytest.mark.parametrize('mode', [lambda f: f, jax.jit], ids=['eager', 'jit'])
def test_golden(mode):
  arrays = _float32(STUDENT, TEACHER, *BANKS)
  actual = mode(_published)(*arrays, jnp.asarray(CANDIDATES))
  np.testing.assert_allclose(actual, 20.955901783280, rtol=1e-5)


def test_value():
  arrays = STUDENT, TEACHER, *BANKS
  actual, _ = _value_and_grads(_loss)(*_float32(*arrays))
  assert actual.shape == ()
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, _plain(*arrays), rtol=1e-5)


@pytest.mark.parametrize('which', range(4))
def test_gradients(which):
  """Of the embeddings, and of the banks, which nobody trains."""
  arrays = STUDENT, TEACHER, *BANKS

  def along(x):
    return _plain(*arrays[:which], x, *arrays[which + 1 :])

  _, gradients = _value_and_grads(_loss, (0, 1, 2, 3))(*_float32(*arrays))
  _assert_close(gradients[which], plain.gradient(along, arrays[which]))


def test_jit():
  arrays = _float32(STUDENT, TEACHER, *BANKS)
  eager = jax.value_and_grad(_loss)(*arrays)
  (value, (gradient, _)) = _value_and_grads(_loss)(*arrays)
  np.testing.assert_allclose(eager[0], value, rtol=1e-5)
  _assert_close(gradient, eager[1])


def test_vmap():
  arrays = _float32(STUDENT, TEACHER, *BANKS)
  flipped = [x[::-1] for x in arrays]
  stacked = [jnp.stack(pair) for pair in zip(arrays, flipped, strict=True)]
  mapped = jax.jit(jax.vmap(_loss))(*stacked)
  each = [_loss(*arrays), _loss(*flipped)]
  np.testing.assert_allclose(mapped, each, rtol=1e-5)


BAD = {
  'batch': lambda s, t, a, b: _loss(s, t[1:], a, b),
  'sizes': lambda s, t, a, b: _loss(s, t[:, 1:], a, b[:, 1:]),
  'banks': lambda s, t, a, b: _loss(s, t, a[1:], b),
  'candidates': lambda s, t, a, b: _loss(s, t, a, b, CANDIDATES[1:]),
  'no_integers': lambda s, t, a, b: _loss(s, t, a, b, CANDIDATES * 1.0),
  'no_partition': lambda s, t, a, b: losses.crd(s, t, a, b, CANDIDATES),
  'one_partition': lambda s, t, a, b: _loss(s, t, a, b, log_partition=1.0),
  'three': lambda s, t, a, b: _loss(s, t, a, b, log_partition=(1.0,) * 3),
  'partition': lambda s, t, a, b: losses.crd_log_partition(
    s, b, CANDIDATES[1:]
  ),
  'moved': lambda s, t, a, b: losses.moved_bank(a, s, np.arange(3)),
  'moved_sizes': lambda s, t, a, b: losses.moved_bank(
    a, s[:, 1:], np.arange(4)
  ),
}


@pytest.mark.parametrize('call', BAD.values(), ids=BAD)
def test_wrong_shape_or_type(call):
  with pytest.raises(TypeError):
    call(*_float32(STUDENT, TEACHER, *BANKS))


WRONG = {
  'temperature=0.0': lambda s, t, a, b: _loss(s, t, a, b, temperature=0.0),
  'temperature=-1.0': lambda s, t, a, b: losses.crd_log_partition(
    s, b, CANDIDATES, temperature=-1.0
  ),
  r'shape \(4, 1\) hold no negatives': lambda s, t, a, b: _loss(
    s, t, a, b, CANDIDATES[:, :1]
  ),
  'momentum=1.5': lambda s, t, a, b: losses.moved_bank(
    a, s, np.arange(4), momentum=1.5
  ),
}


@pytest.mark.parametrize('message', WRONG)
def test_wrong_values(message):
  with pytest.raises(ValueError, match=message):
    WRONG[message](*_float32(STUDENT, TEACHER, *BANKS))


# Z, and extremes.


def test_log_partition():
  arrays = _float32(STUDENT, TEACHER_BANK)
  call = functools.partial(losses.crd_log_partition, temperature=0.07)
  expected = plain.log_partition(STUDENT, TEACHER_BANK, CANDIDATES, 0.07)
  for function in (call, jax.jit(call)):
    actual = function(*arrays, jnp.asarray(CANDIDATES))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_partition_is_a_value():
  """Traced or not, and without a gradient unless the caller asks for one."""
  arrays = _float32(STUDENT, TEACHER, *BANKS)
  loss = lambda *z: _loss(*arrays, log_partition=z)
  np.testing.assert_allclose(jax.jit(loss)(*LOG_Z), loss(*LOG_Z), rtol=1e-5)


EXTREMES = {
  'zero': (np.zeros((4, 3)), np.zeros((4, 3)), *BANKS),
  'zero_banks': (STUDENT, TEACHER, 0 * STUDENT_BANK, 0 * TEACHER_BANK),
  'identical': (STUDENT[[0] * 4], TEACHER[[0] * 4], *BANKS),
  'equal': (STUDENT, STUDENT, TEACHER_BANK, TEACHER_BANK),
}


@pytest.mark.parametrize('arrays', EXTREMES.values(), ids=EXTREMES)
def test_extremes(arrays):
  value, gradients = _value_and_grads(_loss)(*_float32(*arrays))
  np.testing.assert_allclose(value, _plain(*arrays), rtol=1e-5)
  assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize('log_z', [-200.0, 200.0])
@pytest.mark.parametrize('temperature', [0.001, 100.0])
def test_far_from_the_middle_it_stays_finite(log_z, temperature):
  """There h is 0 or 1 in float32, and its logarithm is not."""
  loss = lambda s, t, a, b: _loss(
    s, t, a, b, temperature=temperature, log_partition=(log_z, log_z)
  )
  found = jax.jit(jax.value_and_grad(loss))(*_float32(STUDENT, TEACHER, *BANKS))
  assert all(np.all(np.isfinite(x)) for x in found)
  assert found[0] > 10


def test_batch_of_one():
  arrays = STUDENT[:1], TEACHER[:1], *BANKS
  actual = _loss(*_float32(*arrays), CANDIDATES[:1])
  expected = _plain(*arrays, CANDIDATES[:1])
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_is_scored_in_float32(dtype):
  arrays = [jnp.asarray(x, dtype) for x in (STUDENT, TEACHER, *BANKS)]
  actual = _loss(*arrays)
  assert actual.dtype == jnp.float32
  wide = [np.asarray(x, np.float64) for x in arrays]
  np.testing.assert_allclose(actual, _plain(*wide), rtol=1e-5)


@pytest.mark.parametrize('column', [0, 2])
def test_a_position_beyond_the_bank_gives_nan(column):
  candidates = CANDIDATES.copy()
  candidates[1, column] = 10
  assert jnp.isnan(_loss(*_float32(STUDENT, TEACHER, *BANKS), candidates))


# Candidates.

LABELS = np.array([2, 0, 1, 2, 2, 0, 3, 2, 1, 2, 2])
SORTED = losses.by_class(LABELS, 5)  # class 4 has no example


def _draw(key, positions, num_negatives=500):
  order, starts = SORTED
  return losses.draw_candidates(
    key,
    positions,
    jnp.asarray(LABELS)[positions],
    order=order,
    starts=starts,
    num_negatives=num_negatives,
  )


def test_by_class():
  order, starts = SORTED
  assert order.dtype == starts.dtype == np.int32
  assert starts.tolist() == [0, 2, 4, 10, 11, 11]
  for label in range(5):
    own = order[starts[label] : starts[label + 1]]
    np.testing.assert_array_equal(own, np.flatnonzero(label == LABELS))


@pytest.mark.parametrize(
  ('labels', 'message'),
  [
    (np.array([0, 5]), r'label 5 is not in 0\.\.4'),
    (np.array([0, -1]), r'label -1 is not in 0\.\.4'),
    (np.array([[0]]), r'int64\[1, 1\]'),
    (np.array([0.5]), r'float64\[1\]'),
  ],
)
def test_by_class_wrong_labels(labels, message):
  with pytest.raises(ValueError, match=message):
    losses.by_class(labels, 5)


def test_candidates_are_of_other_classes():
  positions = jnp.arange(11)
  found = jax.jit(_draw)(jax.random.key(1), positions)
  assert found.shape == (11, 501)
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found[:, 0], positions)
  assert not np.any(LABELS[found[:, 1:]] == LABELS[:, None])
  for row, label in zip(found, LABELS, strict=True):  # and all of those
    others = np.flatnonzero(label != LABELS)
    np.testing.assert_array_equal(np.unique(row[1:]), others)


@pytest.mark.parametrize('position', [0, 1, 6])
def test_candidates_are_uniform(position):
  """χ² of 100,000 draws; it exceeds 30 once in more than a thousand keys."""
  found = _draw(jax.random.key(2), jnp.array([position]), 100_000)[0, 1:]
  others = np.flatnonzero(LABELS[position] != LABELS)
  counts = np.bincount(found, minlength=11)[others]
  expected = 100_000 / len(others)
  assert np.sum((counts - expected) ** 2 / expected) < 30


def test_candidates_are_those_of_the_key():
  positions = jnp.arange(4)
  draws = [_draw(jax.random.key(seed), positions) for seed in (3, 3, 4)]
  np.testing.assert_array_equal(draws[0], draws[1])
  assert np.any(draws[0] != draws[2])
  assert np.any(draws[0][0, 1:] != draws[0][3, 1:])  # rows of one class, too


def test_candidates_by_vmap():
  keys = jax.random.split(jax.random.key(5), 3)
  positions = jnp.arange(6).reshape(3, 2)
  mapped = jax.jit(jax.vmap(lambda *x: _draw(*x, 7)))(keys, positions)
  for i in range(3):
    np.testing.assert_array_equal(mapped[i], _draw(keys[i], positions[i], 7))


def test_candidates_of_narrow_labels():
  labels = np.arange(256, dtype=np.uint8)
  order, starts = losses.by_class(labels, 256)
  found = losses.draw_candidates(
    jax.random.key(6),
    jnp.array([255]),
    jnp.asarray(labels[255:]),
    order=order,
    starts=starts,
    num_negatives=2_000,
  )
  assert found[0, 0] == 255
  assert np.all(found[0, 1:] < 255)


def test_candidates_need_a_number():
  with pytest.raises(ValueError, match='num_negatives=0'):
    _draw(jax.random.key(0), jnp.arange(2), 0)


# Banks.


@pytest.mark.parametrize('mode', [lambda f: f, jax.jit], ids=['eager', 'jit'])
def test_moved_bank(mode):
  positions = np.array([7, 0, 3, 9])
  expected = STUDENT_BANK.copy()
  for v, p in zip(STUDENT, positions, strict=True):
    row = 0.3 * STUDENT_BANK[p] + 0.7 * v
    expected[p] = row / np.linalg.norm(row)
  move = mode(functools.partial(losses.moved_bank, momentum=0.3))
  bank, v = _float32(STUDENT_BANK, STUDENT)
  actual = move(bank, v, positions)
  np.testing.assert_allclose(actual, expected, atol=1e-6)
  others = np.setdiff1d(np.arange(10), positions)
  np.testing.assert_array_equal(actual[others], bank[others])


def test_moved_bank_by_half():
  bank, v = _float32(STUDENT_BANK, STUDENT)
  expected = losses.moved_bank(bank, v, np.arange(4), momentum=0.5)
  actual = losses.moved_bank(bank, v, np.arange(4))
  np.testing.assert_array_equal(actual, expected)


def test_moved_bank_at_its_ends():
  bank, v = _float32(STUDENT_BANK, STUDENT)
  positions = np.arange(4)
  at = lambda m, v: losses.moved_bank(bank, v, positions, momentum=m)
  np.testing.assert_allclose(at(1.0, v), bank, atol=1e-6)
  np.testing.assert_allclose(at(0.0, v)[:4], v, atol=1e-6)
  opposite = at(0.5, -bank[:4])  # nothing is left of either
  np.testing.assert_array_equal(opposite[:4], 0)


def test_moved_bank_leaves_a_position_beyond_it_out():
  bank, v = _float32(STUDENT_BANK, STUDENT)
  positions = np.array([10, 2, 10, 10])
  actual = losses.moved_bank(bank, v, positions)
  expected = losses.moved_bank(bank, v[1:2], np.array([2]))
  np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_moved_bank_keeps_its_dtype():
  bank = jnp.asarray(STUDENT_BANK, jnp.bfloat16)
  actual = losses.moved_bank(bank, jnp.asarray(STUDENT), np.arange(4))
  assert actual.dtype == jnp.bfloat16
