"""Blocks of tokens: the same value and gradient as from all logits at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kdjax import losses
from kdjax.losses import Head

TOKENS, CLASSES = 10, 7
LABELS = np.arange(TOKENS) * 3 % CLASSES
WEIGHTS = np.linspace(-0.5, 2.0, TOKENS)


def _head(seed, width, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  shapes = (TOKENS, width), (CLASSES, width), (CLASSES,)
  return Head(*(jnp.asarray(rng.standard_normal(s), dtype) for s in shapes))


def _logits(head):
  return head.hidden @ head.kernel.T + head.bias[None]


LOSSES = {
  'cross_entropy': lambda s, t, y: losses.cross_entropy(s, y),
  'kd': lambda s, t, y: losses.kd(s, t, temperature=2.0),
  'dkd': losses.dkd,
}
EACH_LOSS = pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)


def _as_weights(weights, head):
  dtype = jnp.promote_types(head.bias.dtype, jnp.float32)
  return jnp.asarray(weights, dtype)


def _blockwise(loss, student, teacher, *, weights=WEIGHTS, block_size=4):
  def of_block(s, t, y, scale):
    return scale * loss(s, t, y), {'most': s.argmax(-1), 'logits': t}

  return losses.blockwise(
    of_block,
    student,
    LABELS,
    teacher=teacher,
    shared=2.0,
    weights=_as_weights(weights, student),
    block_size=block_size,
  )


def _plain(loss, student, teacher, weights=WEIGHTS):
  found = loss(_logits(student), _logits(teacher), LABELS)
  return 2.0 * jnp.sum(jnp.asarray(weights, found.dtype) * found)


def _assert_close(actual, expected, rtol):
  def compare(a, b):
    assert a.dtype == b.dtype
    a, b = (
      np.asarray(x.astype(jnp.promote_types(x.dtype, 'float32')))
      for x in (a, b)
    )
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())

  jax.tree.map(compare, actual, expected)


def _value_and_grad(loss, **setting):
  return jax.value_and_grad(
    functools.partial(_blockwise, loss, **setting), has_aux=True
  )


@EACH_LOSS
@pytest.mark.parametrize('block_size', [1, 4, 5, 99])
def test_equals_plain(loss, block_size):
  student, teacher = _head(0, 3), _head(1, 5)
  call = jax.jit(_value_and_grad(loss, block_size=block_size))
  (value, aux), gradient = call(student, teacher)
  expected = jax.jit(jax.value_and_grad(functools.partial(_plain, loss)))(
    student, teacher
  )
  _assert_close((value, gradient), expected, 2e-6)
  # What else the loss returns is in the order of the tokens.
  np.testing.assert_array_equal(aux['most'], _logits(student).argmax(-1))
  np.testing.assert_allclose(aux['logits'], _logits(teacher), rtol=1e-5)
  # Without differentiation too.
  value, undifferentiated = _blockwise(loss, student, teacher)
  np.testing.assert_allclose(value, expected[0], rtol=1e-5)
  np.testing.assert_array_equal(undifferentiated['most'], aux['most'])


@EACH_LOSS
def test_equals_plain_in_float64(loss):
  with jax.enable_x64(True):
    heads = _head(0, 3, jnp.float64), _head(1, 5, jnp.float64)
    (value, _), gradient = jax.jit(_value_and_grad(loss))(*heads)
    assert value.dtype == jnp.float64
    plain = jax.value_and_grad(functools.partial(_plain, loss))
    expected = jax.jit(plain)(*heads)
    _assert_close((value, gradient), expected, 1e-13)


def test_half_precision_is_computed_in_float32():
  heads = _head(0, 3, jnp.bfloat16), _head(1, 5, jnp.bfloat16)
  loss = LOSSES['kd']
  (value, _), gradient = jax.jit(_value_and_grad(loss))(*heads)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), heads)
  plain = jax.value_and_grad(functools.partial(_plain, loss))
  expected, slope = jax.jit(plain)(*wide)
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  # Rounded once, at the end.
  _assert_close(
    gradient, jax.tree.map(lambda x: x.astype(jnp.bfloat16), slope), 2**-8
  )


def test_only_the_student_is_differentiated():
  student, teacher = _head(0, 3), _head(1, 5)
  rows = jnp.ones(TOKENS)

  def value(student, teacher, rows, shared, weights):
    loss = lambda s, t, r, c: (c * r * losses.kd(s, t, temperature=2.0), s)
    found, aux = losses.blockwise(
      loss,
      student,
      rows,
      teacher=teacher,
      shared=shared,
      weights=weights,
      block_size=3,
    )
    return found + aux.sum()  # no gradient from what else is returned

  gradients = jax.grad(value, argnums=(0, 1, 2, 3, 4))(
    student, teacher, rows, 2.0, jnp.asarray(WEIGHTS, jnp.float32)
  )
  expected = jax.grad(functools.partial(_plain, LOSSES['kd']))(student, teacher)
  _assert_close(gradients[0], expected, 2e-6)
  for constant in jax.tree.leaves(gradients[1:]):
    np.testing.assert_array_equal(constant, 0.0)


def test_what_a_loss_closes_over_is_traced_but_not_differentiated():
  student, teacher = _head(0, 3), _head(1, 5)

  def value(temperature):
    loss = lambda s, t, y: losses.kd(s, t, temperature=temperature)
    return _blockwise(loss, student, teacher)[0]

  mapped = jax.jit(jax.vmap(value))(jnp.array([1.0, 2.0]))
  expected = _plain(LOSSES['kd'], student, teacher)
  np.testing.assert_allclose(mapped[1], expected, rtol=1e-5)
  with pytest.raises(jax.errors.UnexpectedTracerError):
    jax.grad(value)(2.0)


@pytest.mark.parametrize('junk', [np.nan, np.inf])
@EACH_LOSS
def test_a_token_of_weight_zero_changes_nothing(loss, junk):
  real = np.arange(TOKENS) % 3 != 1
  weights = real / real.sum()
  student, teacher = (
    h._replace(hidden=jnp.where(real[:, None], h.hidden, junk))
    for h in (_head(0, 3), _head(1, 5))
  )

  def value(student, rows):
    of_block = lambda s, t, r, _: (loss(s, t, r[0]) * r[1], None)
    return losses.blockwise(
      of_block,
      student,
      rows,
      teacher=teacher,
      weights=jnp.asarray(weights, jnp.float32),
      block_size=4,
    )[0]

  rows = np.where(real, LABELS, -1), jnp.where(real, 1.0, junk)
  found, gradient = jax.jit(jax.value_and_grad(value))(student, rows)
  hidden = [h.hidden[real] for h in (student, teacher)]
  student, teacher = (
    h._replace(hidden=x)
    for h, x in zip((student, teacher), hidden, strict=True)
  )
  plain = lambda s: loss(_logits(s), _logits(teacher), LABELS[real]).mean()
  expected, slope = jax.jit(jax.value_and_grad(plain))(student)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  np.testing.assert_array_equal(gradient.hidden[~real], 0.0)
  found = gradient._replace(hidden=gradient.hidden[real])
  _assert_close(found, slope, 2e-6)


def test_no_weight_and_no_token():
  student, teacher = _head(0, 3), _head(1, 5)
  call = _value_and_grad(LOSSES['kd'], weights=np.zeros(TOKENS))
  (value, _), gradient = call(student, teacher)
  np.testing.assert_array_equal(value, 0.0)
  for found in gradient:
    np.testing.assert_array_equal(found, 0.0)
  nobody = student._replace(hidden=jnp.zeros((0, 3)))
  value, aux = losses.blockwise(
    lambda s, t, y, _: (losses.cross_entropy(s, y), y),
    nobody,
    jnp.zeros(0, jnp.int32),
    weights=jnp.zeros(0),
  )
  np.testing.assert_array_equal(value, 0.0)
  assert aux.shape == (0,)


def test_tied_embedding():
  """The gradient of a kernel adds to what it gets elsewhere."""
  head, teacher = _head(0, 5), _head(1, 5)

  def value(total, kernel):
    hidden = jnp.tanh(kernel[LABELS])  # reads the embedding too
    return total(Head(hidden, kernel, head.bias), teacher)

  tied = jax.grad(
    functools.partial(value, lambda *h: _blockwise(LOSSES['kd'], *h)[0])
  )(head.kernel)
  plain = functools.partial(_plain, LOSSES['kd'])
  expected = jax.grad(functools.partial(value, plain))(head.kernel)
  _assert_close(tied, expected, 2e-6)


def test_vmap():
  students = jax.tree.map(lambda *x: jnp.stack(x), _head(0, 3), _head(2, 3))
  teacher = _head(1, 5)
  call = _value_and_grad(LOSSES['kd'])
  mapped = jax.jit(jax.vmap(call, in_axes=(0, None)))(students, teacher)
  pick = lambda tree, index: jax.tree.map(lambda x: x[index], tree)
  for index in range(2):
    expected = jax.jit(call)(pick(students, index), teacher)
    _assert_close(pick(mapped, index), expected, 2e-6)


def test_scale_of_the_gradient():
  heads, loss = (_head(0, 3), _head(1, 5)), LOSSES['kd']
  total = lambda *heads: jnp.exp(_blockwise(loss, *heads)[0] / 9)
  expected = lambda *heads: jnp.exp(_plain(loss, *heads) / 9)
  found, expected = (jax.jit(jax.grad(f))(*heads) for f in (total, expected))
  _assert_close(found, expected, 2e-5)


@pytest.mark.parametrize('classes', [None, 'model'])
def test_tokens_or_classes_shared_by_devices(classes):
  shape = (1, 2) if classes else (2, 1)
  mesh = jax.make_mesh(
    shape, ('data', 'model'), axis_types=(AxisType.Auto,) * 2
  )
  place = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))
  rng = np.random.default_rng(3)

  def head(width):
    return Head(
      *(
        jnp.asarray(rng.standard_normal(s), jnp.float32)
        for s in ((8, width), (6, width), (6,))
      )
    )

  student, teacher, labels = head(3), head(4), jnp.arange(8) % 6

  def value(student, teacher, labels):
    return losses.blockwise(
      lambda s, t, y, _: (losses.dkd(s, t, y), s.argmax(-1)),
      student,
      labels,
      teacher=teacher,
      weights=jnp.full(8, 1 / 8),
      block_size=4,
    )

  call = jax.jit(jax.value_and_grad(value, has_aux=True))
  expected = call(student, teacher, labels)
  places = Head(place('data', None), place(classes, None), place(classes))
  student, teacher = jax.device_put((student, teacher), (places, places))
  found = call(student, teacher, jax.device_put(labels, place('data')))
  _assert_close(found, expected, 2e-6)


def test_never_holds_all_logits():
  tokens, classes = 4096, 512
  student = jax.eval_shape(
    lambda: Head(
      jnp.zeros((tokens, 4)), jnp.zeros((classes, 4)), jnp.zeros(classes)
    )
  )
  labels = jax.ShapeDtypeStruct((tokens,), jnp.int32)
  weights = jax.ShapeDtypeStruct((tokens,), jnp.float32)

  def value(student, teacher, labels, weights):
    return losses.blockwise(
      lambda s, t, y, _: (losses.kd(s, t, temperature=2.0), None),
      student,
      labels,
      teacher=teacher,
      weights=weights,
      block_size=64,
    )[0]

  program = jax.jit(jax.value_and_grad(value))
  held = program.lower(student, student, labels, weights).compile()
  bytes_of_logits = 4 * tokens * classes
  assert held.memory_analysis().temp_size_in_bytes < bytes_of_logits / 4


BAD = {
  'width': lambda s, w: s._replace(kernel=s.kernel[:, 1:]),
  'bias': lambda s, w: s._replace(bias=s.bias[1:]),
  'rank': lambda s, w: s._replace(hidden=s.hidden[None]),
  'tokens': lambda s, w: s._replace(hidden=s.hidden[1:]),
  'integers': lambda s, w: s._replace(kernel=s.kernel.astype(jnp.int32)),
}


@pytest.mark.parametrize('change', BAD.values(), ids=BAD)
@pytest.mark.parametrize('whose', ['student', 'teacher'])
def test_wrong_shape_or_type(change, whose):
  heads = {'student': _head(0, 3), 'teacher': _head(1, 5)}
  heads[whose] = change(heads[whose], WEIGHTS)
  with pytest.raises(TypeError):
    _blockwise(LOSSES['kd'], **heads)


def test_other_mistakes():
  student, teacher = _head(0, 3), _head(1, 5)
  call = functools.partial(
    losses.blockwise, student=student, weights=jnp.ones(TOKENS)
  )
  loss = lambda s, t, y, _: (losses.cross_entropy(s, y), None)
  with pytest.raises(ValueError, match='block_size=0 must be positive'):
    call(loss, rows=LABELS, block_size=0)
  with pytest.raises(ValueError, match=r'one is \[9\]'):
    call(loss, rows=(LABELS, LABELS[1:]))
  with pytest.raises(ValueError, match=r'is \[\], not \[10\]'):
    call(lambda *x: (loss(*x)[0].sum(), None), rows=LABELS)
  with pytest.raises(TypeError):
    call(loss, rows=LABELS, weights=jnp.ones(TOKENS, bool))
  fewer = Head(teacher.hidden, teacher.kernel[1:], teacher.bias[1:])
  with pytest.raises(TypeError, match='teacher_logits'):
    _blockwise(LOSSES['kd'], student, fewer)
