"""A step whose loss compares more than logits, and what is trained for it."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_networks

from kdjax import losses, models, terms
from kdjax.train import answers, given, resident, step
from kdjax.train.state import Snapshot, Trained, Weights

DATA = small_networks.data()
POSITIONS = jnp.array([7, 2, 11, 0, 5, 4], jnp.int32)
BATCH = resident.take(DATA, POSITIONS)
KEY = jax.random.key(0)
STUDENT, TEACHER = (
  small_networks.network(seed, width) for seed, width in ((0, 3), (1, 5))
)


def set_up(config, **kwargs):
  return small_networks.set_up(config, STUDENT, TEACHER, DATA, **kwargs)


def take(task, state, teacher, batch=BATCH):
  return jax.jit(functools.partial(step.train_step, task))(
    state, teacher, batch, KEY
  )


def say(task, state, teacher, batch=BATCH):
  """What the networks say in a step."""

  @jax.jit
  def run(state, teacher, batch):
    examples, key = given.prepare(task, batch, KEY, state.step)
    found = answers.answer(task, state.trained, state, teacher, examples, key)
    return found, examples

  return run(state, teacher, batch)


def leaves(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def moved(before, after):
  before, after = leaves(before), leaves(after)
  assert before.keys() == after.keys()
  return {name for name in before if (before[name] != after[name]).any()}


def close(a, b, rtol=1e-4, atol=1e-6):
  chex.assert_trees_all_close(a, b, rtol=rtol, atol=atol)


# Every kind of aid at once, each term in a step of its own being the same.
EVERY = ('hint', 'vid', 'l2', 'cosine', 'cc', 'crd')


@pytest.fixture(scope='module')
def everything():
  """One step of all terms with aids, and of two without."""
  config = small_networks.declare('at', (*EVERY, 'rkd_angle'), ema_decay=0.5)
  config.terms.l2.projector = 'mlp'
  task, state, teacher = set_up(config)
  return task, state, teacher, *take(task, state, teacher)


def test_a_step_trains_the_student_and_every_aid(everything):
  _, before, _, after, _ = everything
  assert int(after.step) == 1
  assert moved(before.params, after.params) == set(leaves(before.params))
  assert moved(before.rest, after.rest) == set(leaves(before.rest))
  found = moved(before.aids.params, after.aids.params)
  # Batch norm takes away what the bias before it adds.
  still = {'hint/pair1/linear/bias'}
  assert found | still == set(leaves(before.aids.params))
  assert {name.split('/')[0] for name in found} == set(EVERY)
  assert {'vid/pair1/raw_variance', 'vid/pair2/raw_variance'} <= found


def test_memories_and_statistics_move_and_indices_do_not(everything):
  _, before, _, after, _ = everything
  assert moved(before.aids.rest, after.aids.rest) == {
    'hint/pair1/norm/mean',
    'hint/pair1/norm/var',
    'crd/pair1/bank/student',
    'crd/pair1/bank/teacher',
    'crd/pair1/bank/log_partition',
    'crd/pair1/bank/has_partition',
  }
  for side in ('student', 'teacher'):
    banks = (s.aids.rest['crd']['pair1']['bank'][side] for s in (before, after))
    rows = np.flatnonzero((np.subtract(*banks) != 0).any(1))
    np.testing.assert_array_equal(rows, np.sort(POSITIONS))


def test_the_moving_average_is_of_the_student_alone(everything):
  _, before, _, after, _ = everything
  own = Weights(after.params, after.rest)
  assert jax.tree.structure(after.ema) == jax.tree.structure(own)
  assert moved(before.ema, after.ema) == set(leaves(before.ema))
  assert after.evaluated is after.ema


def test_every_term_is_logged_and_the_loss_is_their_sum(everything):
  task, state, teacher, _, metrics = everything
  named = {f'loss_{name}' for name in ('at', *EVERY, 'rkd_angle')}
  assert set(metrics) == {*step.METRICS, *named, 'steps', 'skipped'}
  assert set(step.zero_sums(task.lesson.plan)) == set(metrics)
  found, _ = say(task, state, teacher)
  of_logits = losses.cross_entropy(found.said.logits, BATCH.labels)
  close(found.said.losses, of_logits)
  total = jnp.mean(of_logits) + sum(metrics[name] for name in named)
  np.testing.assert_allclose(metrics['loss'], total, rtol=1e-5)


def test_the_lesson_is_read_from_the_plan(everything):
  task, *_ = everything
  assert task.lesson.teacher_features == ('stage1', 'stage2', 'pooled')
  assert task.lesson.student_taps == task.lesson.teacher_taps == ()


def run(network, params, rest, inputs, **given):
  return models.apply(network.graphdef, params, rest, inputs, **given)[0]


def test_a_step_descends_cross_entropy_and_a_weighted_term():
  """Without an aid, of paths inside both networks, and by hand."""
  config = small_networks.declare('at')
  pairs = ('stage1/conv', 'stage2/norm'), ('stage2', 'stage1')
  config.terms.at.update({'weight': 70.0, 'pairs': pairs})
  task, state, teacher = set_up(config)
  assert task.lesson.student_taps == ('stage1/conv',)
  assert task.lesson.teacher_taps == ('stage2/norm',)
  assert task.lesson.teacher_features == ('stage2/norm', 'stage1')
  assert state.aids == Weights({}, {})

  def loss(params):
    student = run(
      STUDENT,
      params,
      STUDENT.rest,
      BATCH.inputs,
      train=True,
      taps=('stage1/conv',),
    )
    mentor = run(
      TEACHER, *teacher, BATCH.inputs, train=False, taps=('stage2/norm',)
    )
    ce = jnp.mean(losses.cross_entropy(student.logits, BATCH.labels))
    at = sum(
      losses.at(student.features[s], mentor.features[t]) for s, t in pairs
    )
    return ce + 70.0 * at

  value, gradient = jax.jit(jax.value_and_grad(loss))(state.params)
  after, metrics = take(task, state, teacher)
  wanted = jax.tree.map(lambda p, g: p - 1e-3 * g, state.params, gradient)
  close(after.params, wanted, atol=1e-7)
  np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['gradient_norm'], optax.tree.norm(gradient), rtol=1e-4
  )
  assert moved(state.params, after.params) == set(leaves(state.params))


def test_a_step_descends_in_the_projector_too():
  config = small_networks.declare('l2')
  config.terms.l2.weight = 40.0
  task, state, teacher = set_up(config)

  def loss(trained):
    student = run(
      STUDENT, trained.params, STUDENT.rest, BATCH.inputs, train=True
    )
    mentor = run(TEACHER, *teacher, BATCH.inputs, train=False)
    layer = trained.aids['l2']['pair1']['linear']
    bias = jnp.broadcast_to(layer['bias'], mentor.features['pooled'].shape)
    mapped = student.features['pooled'] @ layer['kernel'] + bias
    gap = mapped - mentor.features['pooled']
    ce = jnp.mean(losses.cross_entropy(student.logits, BATCH.labels))
    return ce + 40.0 * jnp.mean(gap**2)

  value, gradient = jax.jit(jax.value_and_grad(loss))(state.trained)
  after, metrics = take(task, state, teacher)
  wanted = jax.tree.map(lambda p, g: p - 1e-3 * g, state.trained, gradient)
  close(after.trained, wanted, atol=1e-7)
  np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)


def test_terms_on_logits_are_added_to_another_method():
  config = small_networks.declare('ce', ('kd', 'dkd'))
  config.terms.kd.weight, config.terms.dkd.warmup_epochs = 3.0, 4
  task, state, teacher = set_up(config)
  state = dataclasses.replace(state, step=jnp.int32(2))  # the second epoch
  after, metrics = take(task, state, teacher)
  found, _ = say(task, state, teacher)
  s, t = found.said.logits, found.teacher_logits
  kd = 3.0 * jnp.mean(losses.kd(s, t, temperature=2.0))
  dkd = losses.dkd(s, t, BATCH.labels, temperature=2.0).mean() / 4
  ce = losses.cross_entropy(s, BATCH.labels).mean()
  np.testing.assert_allclose(metrics['loss_kd'], kd, rtol=1e-4)
  np.testing.assert_allclose(metrics['loss_dkd'], dkd, rtol=1e-4)
  np.testing.assert_allclose(metrics['loss'], ce + kd + dkd, rtol=1e-4)
  assert moved(state.params, after.params) == set(leaves(state.params))


def test_mixup_weighs_terms_on_logits_by_both_labels():
  config = small_networks.declare('ce', ('dkd',))
  task, state, teacher = set_up(config, mixup=0.5)
  state = dataclasses.replace(state, step=jnp.int32(40))
  found, examples = say(task, state, teacher)
  s, t = found.said.logits, found.teacher_logits
  one, other = (
    losses.dkd(s, t, labels, temperature=2.0)
    for labels in (examples.labels, examples.partners)
  )
  wanted = jnp.mean(examples.shares * one + (1 - examples.shares) * other)
  np.testing.assert_allclose(found.terms['dkd'], wanted, rtol=1e-5)


def test_identity_projectors_alone_train_nothing():
  config = small_networks.declare('l2')
  config.terms.l2.update({'projector': 'identity', 'weight': 5.0})
  teacher = small_networks.network(1, 3)
  task, state, weights = small_networks.set_up(config, STUDENT, teacher, DATA)
  after, metrics = take(task, state, weights)
  s = run(STUDENT, *STUDENT[1:], BATCH.inputs, train=True)
  t = run(teacher, *weights, BATCH.inputs, train=False)
  wanted = losses.l2(s.features['pooled'], t.features['pooled'])
  np.testing.assert_allclose(metrics['loss_l2'], 5 * wanted, rtol=1e-4)
  assert jax.tree.leaves(after.aids) == []


def test_parts_of_a_batch_with_a_projector_are_the_batch():
  """Networks without batch norm, which sees a part at a time."""
  student, teacher = (
    small_networks.network(seed, width, kind='mlp')
    for seed, width in ((0, 6), (1, 9))
  )
  config = small_networks.declare('l2', ('cosine',))
  found = []
  for parts in (1, 3):
    task, state, weights = small_networks.set_up(
      config, student, teacher, DATA, parts=parts
    )
    found.append(take(task, state, weights))
  close(*found, rtol=1e-4, atol=1e-6)


def test_parts_of_a_batch_take_turns_with_the_memory():
  """Every part draws its own and moves its rows; Z is of the first."""
  config = small_networks.declare('crd')
  task, state, teacher = set_up(config, parts=2)
  after, _ = take(task, state, teacher)
  examples, key = given.prepare(task, BATCH, KEY, state.step)

  @jax.jit
  def rests(state, part, index):
    key_of_part = given.part_key(task, key, index)
    found = answers.answer(
      task, state.trained, state, teacher, part, key_of_part
    )
    return found.rest, found.aids

  now = state
  for i in range(2):
    part = jax.tree.map(lambda a, i=i: a[i::2], examples)
    rest, aids = rests(now, part, i)
    aids = state.aids._replace(rest=aids)
    now = dataclasses.replace(now, rest=rest, aids=aids)
  close(after.aids.rest, now.aids.rest)
  changed = moved(state.aids.rest, after.aids.rest)
  assert 'crd/pair1/bank/log_partition' in changed


def test_what_is_not_finite_leaves_the_aids_as_they_are():
  config = small_networks.declare('crd', ('hint',))
  task, state, teacher = set_up(config, skip_nonfinite=True)
  bad = BATCH._replace(inputs=BATCH.inputs.at[1, 2, 3, 0].set(jnp.nan))
  after, metrics = take(task, state, teacher, bad)
  expected = dataclasses.replace(state, step=state.step + 1)
  chex.assert_trees_all_equal(after, expected)
  assert metrics['skipped'] == 1


def test_answers_with_features_computed_beforehand_change_nothing():
  config = small_networks.declare('at', ('kd', 'l2'))
  config.terms.at.pairs = (('stage1', 'stage2/conv'),)
  task, state, teacher = set_up(config)
  fresh = take(task, state, teacher)
  examples, _ = given.prepare(task, BATCH, KEY, state.step)
  said = answers.ask_teacher(task, teacher, examples).teacher
  assert set(said.features) == {'stage2/conv', 'pooled'}
  wrong = jax.tree.map(jnp.zeros_like, teacher)  # is not asked again
  again = take(task, state, wrong, BATCH._replace(teacher=said))
  close(again, fresh)


def test_a_loop_is_its_steps_wherever_it_is_cut():
  config = small_networks.declare('crd', ('hint',))
  task, state, teacher = set_up(config)
  run_to = jax.jit(functools.partial(resident.run_steps, task))
  sums = step.zero_sums(task.lesson.plan)
  arguments = teacher, DATA, resident.no_order(task), KEY

  def advance(snapshot, stop):
    return run_to(snapshot, *arguments, jnp.int32(stop))[0]

  whole = advance(Snapshot(state, sums), 5)
  cut = Snapshot(state, sums)
  for stop in (1, 3, 5):
    cut = advance(cut, stop)
  chex.assert_trees_all_equal(cut.state, whole.state)
  close(cut.sums, whole.sums, rtol=1e-5)


def test_the_seed_decides_how_aids_begin():
  config = small_networks.declare('crd')
  one, again = (set_up(config)[1].aids for _ in range(2))
  chex.assert_trees_all_equal(one, again)
  config.seed = 1
  other = set_up(config)[1].aids
  assert moved(one.params, other.params) == {
    f'crd/pair1/maps/{side}/kernel' for side in ('student', 'teacher')
  }
  assert moved(one.rest, other.rest) == {
    f'crd/pair1/bank/{side}' for side in ('student', 'teacher')
  }


@pytest.mark.parametrize(
  ('pairs', 'message'),
  [
    ((('stage3', 'stage2'),), r"the student: 'stage3': .*mean 'stage"),
    ((('stage1', 'stgae2'),), r"the teacher: 'stgae2': .*mean 'stage2'\?"),
    ((('stage1/cnov', 'stage2'),), "the student: .*'cnov'; .*mean 'conv'"),
    ((('stage1', 'head/kernel'),), "the teacher: .*module 'kernel'"),
    ((('head', 'stage1'),), r"'head' of the student, \(2, 10\), .* \(2, 8, 8"),
  ],
)
def test_features_that_there_are_not(pairs, message):
  config = small_networks.declare('at')
  config.terms.at.pairs = pairs
  with pytest.raises(ValueError, match=message):
    set_up(config)


def test_a_loss_without_a_teacher_compares_nothing():
  config = small_networks.declare('ce')
  student, data = STUDENT, terms.DataSet(np.arange(3), 3)
  outline = small_networks.lesson.Outline(
    config, student, None, input_shape=small_networks.SHAPE, data=data
  )
  assert outline.lesson == small_networks.lesson.NO_LESSON
  assert jax.tree.leaves(outline.aids(0)) == []


def test_the_optimiser_sees_both():
  _, state, _ = set_up(small_networks.declare('hint'))
  assert isinstance(state.trained, Trained)
  assert state.trained.aids is state.aids.params
  assert set(state.trained.aids) == {'hint'}
