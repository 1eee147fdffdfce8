import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import methods, models
from kdjax.config import default
from kdjax.train import answers, given, resident, sharding, step
from kdjax.train.state import Snapshot, Weights, create

SHAPE = (8, 8, 3)
NUM_CLASSES = 5


def _task(
  name='mlp',
  *,
  batch_size=4,
  num_examples=12,
  place=None,
  parts=1,
  mixup=0.0,
  skip_nonfinite=False,
  **changes,
):
  """A student and its task; SGD with rate 0.1 and nothing else."""
  settings = default()
  settings.update({'method': 'kd', 'temperature': 2.0, 'weight': 0.7})
  settings.update(changes)
  options = {'widths': (6,), 'dropout': 0.2} if name == 'mlp' else {}
  build = functools.partial(
    models.build, input_shape=SHAPE, num_classes=NUM_CLASSES
  )
  graphdef, params, rest = models.split(build(name, seed=0, **options))
  teacher_def, *teacher = models.split(build('mlp', seed=1, widths=(9,)))
  optimizer = optax.sgd(0.1)
  task = given.Task(
    student=graphdef,
    teacher=teacher_def,
    loss=methods.get(settings.method).loss,
    settings=settings,
    optimizer=optimizer,
    augment=lambda key, inputs: inputs,
    normalise=lambda inputs: inputs / 2.0,
    steps_per_epoch=num_examples // batch_size,
    batch_size=batch_size,
    place=place or (lambda batch: batch),
    parts=parts,
    mixup=mixup,
    skip_nonfinite=skip_nonfinite,
  )
  state = create(params, rest, optimizer, ema_decay=settings.ema_decay)
  return task, state, Weights(*teacher)


def _data(num_examples=12):
  key = jax.random.key(3)
  return given.Batch(
    jax.random.normal(key, (num_examples, *SHAPE)),
    jnp.arange(num_examples, dtype=jnp.int32) % NUM_CLASSES,
  )


def _close(a, b, rtol=1e-5, atol=1e-6):
  chex.assert_trees_all_close(a, b, rtol=rtol, atol=atol)


def _run(task, state, teacher, data, stop, key=None):
  run = jax.jit(functools.partial(resident.run_steps, task))
  key = jax.random.key(0) if key is None else key
  order, start = resident.no_order(task), Snapshot(state, step.zero_sums())
  (state, sums), _ = run(start, teacher, data, order, key, jnp.int32(stop))
  return state, sums


def test_a_step_descends_the_mean_of_the_loss():
  task, state, teacher = _task(student={'dropout': 0.0})
  student, _, _ = models.split(
    models.build(
      'mlp', input_shape=SHAPE, num_classes=NUM_CLASSES, seed=0, widths=(6,)
    )
  )
  task = dataclasses.replace(task, student=student)
  batch = _data(4)

  def loss(params):
    def logits(graphdef, params, rest):
      outputs, _ = models.apply(
        graphdef, params, rest, batch.inputs / 2, train=False
      )
      return outputs.logits

    s = logits(student, params, state.rest)
    t = logits(task.teacher, *teacher)
    ce = -jax.nn.log_softmax(s)[jnp.arange(4), batch.labels]
    p = jax.nn.softmax(t / 2)
    kl = jnp.sum(p * (jnp.log(p) - jax.nn.log_softmax(s / 2)), -1)
    return jnp.mean(0.3 * ce + 0.7 * 2**2 * kl)

  value, gradient = jax.value_and_grad(loss)(state.params)
  expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradient)
  found, metrics = step.train_step(
    task, state, teacher, batch, jax.random.key(0)
  )
  _close(found.params, expected)
  assert int(found.step) == 1
  np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['gradient_norm'], optax.tree.norm(gradient), rtol=1e-5
  )


def test_logits_computed_beforehand_change_nothing():
  task, state, teacher = _task()
  batch = _data(4)
  outputs, _ = models.apply(
    task.teacher, *teacher, batch.inputs / 2, train=False
  )
  key = jax.random.key(0)
  fresh = step.train_step(task, state, teacher, batch, key)
  cached = batch._replace(teacher=models.Outputs(outputs.logits, {}))
  _close(step.train_step(task, state, teacher, cached, key), fresh)


def test_the_teacher_matters():
  task, state, teacher = _task()
  key, batch = jax.random.key(0), _data(4)
  other = jax.tree.map(lambda a: a + 1.0, teacher)
  first, _ = step.train_step(task, state, teacher, batch, key)
  second, _ = step.train_step(task, state, other, batch, key)
  assert not np.allclose(
    first.params['head']['kernel'], second.params['head']['kernel']
  )


def test_a_loop_is_its_steps_bit_for_bit_wherever_it_is_cut():
  task, state, teacher = _task('resnet8')
  data = _data()
  whole = _run(task, state, teacher, data, 7)
  part, _ = _run(task, state, teacher, data, 2)
  part, _ = _run(task, part, teacher, data, 3)
  part, _ = _run(task, part, teacher, data, 7)
  chex.assert_trees_all_equal(part, whole[0])


def test_an_order_is_carried_through_an_epoch_and_no_further():
  task, state, teacher = _task()
  data, key = _data(), jax.random.key(0)
  run = jax.jit(functools.partial(resident.run_steps, task))
  whole, _ = _run(task, state, teacher, data, 7)
  order, epochs = resident.no_order(task), []
  snapshot = Snapshot(state, step.zero_sums())
  for stop in (2, 3, 5, 7):
    args = teacher, data, order, key, jnp.int32(stop)
    snapshot, order = run(snapshot, *args)
    epochs.append(int(order.epoch))
  assert epochs == [0, 0, 1, 2]
  chex.assert_trees_all_equal(snapshot.state, whole)


def test_every_example_comes_once_an_epoch_in_another_order_each_time():
  task, state, teacher = _task(num_examples=12, batch_size=4)
  seen = []

  def spy(rows):
    seen.append(np.asarray(rows))

  def place(batch):
    jax.debug.callback(spy, batch.labels, ordered=True)
    return batch

  task = dataclasses.replace(task, place=place)
  data = _data()._replace(labels=jnp.arange(12, dtype=jnp.int32) % 5)
  data = data._replace(labels=jnp.arange(12, dtype=jnp.int32))
  task = dataclasses.replace(
    task, loss=lambda x, c: jnp.sum(x.student.logits, -1)
  )
  jax.block_until_ready(_run(task, state, teacher, data, 6))
  jax.effects_barrier()
  first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:])
  assert sorted(first) == sorted(second) == list(range(12))
  assert list(first) != list(second)


def test_every_step_draws_anew():
  """The same batch at another step is cropped and dropped otherwise."""
  task, state, teacher = _task()
  keys = []

  def augment(key, inputs):
    keys.append(tuple(jax.random.key_data(key).tolist()))
    return inputs

  task = dataclasses.replace(task, augment=augment)
  batch, key = _data(4), jax.random.key(0)
  frozen = dataclasses.replace(task, optimizer=optax.set_to_zero())
  state = dataclasses.replace(state, opt_state=optax.EmptyState())
  losses = []
  for _ in range(3):
    state, metrics = step.train_step(frozen, state, teacher, batch, key)
    losses.append(float(metrics['loss']))
  assert len(set(keys)) == 3
  assert len(set(losses)) == 3  # by dropout alone: the weights stand still


def test_the_seed_decides_everything():
  task, state, teacher = _task()
  data = _data()
  one = _run(task, state, teacher, data, 5, jax.random.key(1))
  chex.assert_trees_all_equal(
    _run(task, state, teacher, data, 5, jax.random.key(1)), one
  )
  other, _ = _run(task, state, teacher, data, 5, jax.random.key(2))
  assert not np.array_equal(
    other.params['head']['kernel'], one[0].params['head']['kernel']
  )


def test_the_average_follows_parameters_and_batch_statistics():
  task, state, teacher = _task('resnet8', ema_decay=0.25)
  for _ in range(4):
    before = state
    state, _ = step.train_step(
      task, state, teacher, _data(4), jax.random.key(0)
    )
    decay = min(0.25, (1 + int(before.step)) / (10 + int(before.step)))
    expected = jax.tree.map(
      lambda a, b, d=decay: d * a + (1 - d) * b,
      before.ema,
      Weights(state.params, state.rest),
    )
    _close(state.ema, expected)
  assert state.evaluated is state.ema


def test_without_an_average_the_weights_are_evaluated():
  _, state, _ = _task()
  assert state.evaluated == Weights(state.params, state.rest)


def test_the_sums_add_up_over_the_steps():
  task, state, teacher = _task()
  data = _data()
  total = step.zero_sums()
  current = state
  for stop in (1, 2, 3):
    current, sums = _run(task, current, teacher, data, stop)
    total = jax.tree.map(jnp.add, total, sums)
  _, whole = _run(task, state, teacher, data, 3)
  _close(whole, total)


@pytest.mark.parametrize('name', ['mlp', 'resnet8'])
def test_two_devices_give_what_one_gives(name):
  """Batch statistics and dropout included."""
  results = []
  for devices in (jax.devices()[:1], jax.devices()[:2]):
    mesh = sharding.make_mesh(devices=devices)
    by_example = sharding.by_example(mesh)
    task, state, teacher = _task(
      name,
      place=lambda b, s=by_example: jax.lax.with_sharding_constraint(b, s),
    )
    everything = jax.device_put(
      (state, teacher, _data()), sharding.replicated(mesh)
    )
    results.append(jax.device_get(_run(task, *everything, 4)))
  _close(*results, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('parts', [2, 4])
def test_a_batch_in_parts_is_the_batch(parts):
  """Without batch norm and dropout, which see a part at a time."""
  task, state, teacher = _task(parts=parts)
  student, params, rest = models.split(
    models.build(
      'mlp', input_shape=SHAPE, num_classes=NUM_CLASSES, seed=0, widths=(6,)
    )
  )
  task = dataclasses.replace(task, student=student)
  whole = dataclasses.replace(task, parts=1)
  state = create(params, rest, task.optimizer, ema_decay=0.0)
  arguments = state, teacher, _data(8), jax.random.key(0)
  _close(step.train_step(task, *arguments), step.train_step(whole, *arguments))


def test_parts_take_turns_with_the_batch_statistics():
  """As if each part were a step whose update waits."""
  task, state, teacher = _task('resnet8', parts=2)
  batch, key = _data(8), jax.random.key(0)
  after, _ = step.train_step(task, state, teacher, batch, key)
  examples, _ = given.prepare(task, batch, key, state.step)
  rest = state.rest
  for part in range(2):
    _, rest = models.apply(
      task.student, state.params, rest, examples.inputs[part::2], train=True
    )
  _close(after.rest, rest)


def test_mixup_mixes_inputs_and_losses():
  task, state, teacher = _task(mixup=0.5, student={'dropout': 0.0})
  batch, key = _data(6), jax.random.key(1)
  examples, dropout_key = given.prepare(task, batch, key, state.step)
  share = np.asarray(examples.shares)
  assert share.shape == (6,)
  assert np.ptp(share) > 0
  inputs = np.asarray(batch.inputs) / 2
  wide = share.reshape(-1, 1, 1, 1)
  np.testing.assert_allclose(
    examples.inputs,
    wide * inputs + (1 - wide) * np.roll(inputs, 1, axis=0),
    rtol=1e-5,
    atol=1e-6,
  )
  found = answers.answer(
    task, state.trained, state, teacher, examples, dropout_key
  )
  losses = []
  for labels in (batch.labels, jnp.roll(batch.labels, 1)):
    plain = examples._replace(labels=labels, shares=None, partners=None)
    losses.append(
      answers.answer(
        task, state.trained, state, teacher, plain, dropout_key
      ).said.losses
    )
  np.testing.assert_allclose(
    found.said.losses, share * losses[0] + (1 - share) * losses[1], rtol=1e-5
  )


@pytest.mark.parametrize('skip', [False, True])
@pytest.mark.parametrize('where', ['inputs', 'teacher', 'statistics'])
def test_what_is_not_finite_updates_nothing(where, skip):
  name = 'resnet8' if where == 'statistics' else 'mlp'
  task, state, teacher = _task(name, skip_nonfinite=skip, ema_decay=0.5)
  batch = _data(4)
  if where == 'inputs':
    batch = batch._replace(inputs=batch.inputs.at[1, 2, 3, 0].set(jnp.nan))
  elif where == 'teacher':
    teacher = jax.tree.map(lambda a: a * jnp.inf, teacher)
  else:  # overflows the variance, and nothing else
    batch = batch._replace(inputs=batch.inputs.at[1, 2, 3, 0].set(1e25))
  after, metrics = step.train_step(
    task, state, teacher, batch, jax.random.key(0)
  )
  expected = dataclasses.replace(state, step=state.step + skip)
  chex.assert_trees_all_equal(after, expected)
  assert metrics.pop('skipped') == 1
  assert all(value == 0 for value in metrics.values())
