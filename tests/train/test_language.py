"""Training language models: masks, carried state, blocks, few classes."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_text

from kdjax import data, losses, models
from kdjax.analysis import rescaling_factor
from kdjax.losses import Head
from kdjax.train import answers, given, reading, step, task, verdict
from kdjax.train.state import Weights

# With a number of tokens that differs from row to row.
LABELS = np.array(
  [
    [1, 2, 0, -1, -1],
    [3, 4, 5, 6, 0],
    [7, -1, -1, -1, -1],
    [8, 9, 10, 0, -1],
  ],
  np.int32,
)
INPUTS = np.where(LABELS < 0, 0, np.roll(np.maximum(LABELS, 0), 1, axis=1))
PER_TOKEN = (
  'ce',
  'ls',
  'kd',
  'kd_pt',
  'kd_sim',
  'kd_pt_sim',
  'kd_pt_sim_conditional',
  'kd_topk',
  'kd_topk_bucket',
  'kd_topk_renormalised',
  'kd_standardised',
  'dkd',
)
METHODS = (*PER_TOKEN, 'dist')
# One of each way to look at a teacher.
SOME = ('ce', 'kd_pt_sim', 'kd_topk_bucket', 'dkd')


def prepared(config, dataset, *, num_devices=1, teacher=None):
  if teacher is None and config.method not in ('ce', 'ls'):
    teacher = small_text.network(dataset)
  return task.prepare(config, dataset, teacher, small_text.mesh(num_devices))


def step_of(job, batch, key=0):
  """Loss and gradient of a batch, from the first weights."""
  state = job.initialise().state
  examples, dropout_key = given.prepare(
    job.task, batch, jax.random.key(key), state.step
  )

  def loss(trained):
    found = answers.answer(
      job.task, trained, state, job.teacher, examples, dropout_key
    )
    return found.loss, found.said

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, said), gradient = run(state.trained)
  return value, said, gradient.params


def batch_of(inputs=INPUTS, labels=LABELS):
  return given.Batch(jnp.asarray(inputs), jnp.asarray(labels))


def settle(a, b, rtol=2e-5, atol=1e-6):
  chex.assert_trees_all_close(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize('method', METHODS)
def test_padding_changes_nothing(method):
  """Longer rows of padding, which hold anything, with answers of anything."""
  config = small_text.declare(method)
  dataset = small_text.dataset('padded')
  job = prepared(config, dataset)
  value, said, gradient = step_of(job, batch_of())
  wide = np.pad(INPUTS, ((0, 0), (0, 3)), constant_values=11)
  wide = np.where(
    np.pad(LABELS, ((0, 0), (0, 3)), constant_values=-1) < 0, 11, wide
  )
  labels = np.pad(LABELS, ((0, 0), (0, 3)), constant_values=-1)
  other, wider, others = step_of(job, batch_of(wide, labels))
  settle(value, other)
  settle(gradient, others)
  settle(said.losses, wider.losses[:, :5])
  assert not np.any(np.asarray(said.losses)[LABELS < 0])


@pytest.mark.parametrize('filling', [jnp.nan, 1e30])
@pytest.mark.parametrize('method', ['kd', 'dist'])
def test_what_a_teacher_says_of_padding_is_not_heard(method, filling):
  config = small_text.declare(method)
  job = prepared(config, small_text.dataset('padded'))
  said = jax.random.normal(jax.random.key(1), (4, 5, small_text.K))
  spoilt = jnp.where((LABELS < 0)[..., None], filling, said)
  found = [
    step_of(job, batch_of()._replace(teacher=models.Outputs(logits, {})))
    for logits in (said, spoilt)
  ]
  settle(found[0][0], found[1][0])
  settle(found[0][2], found[1][2])


@pytest.mark.parametrize('method', SOME)
def test_a_padded_batch_is_the_sum_of_its_sentences(method):
  config = small_text.declare(method)
  job = prepared(config, small_text.dataset('padded'))
  value, said, gradient = step_of(job, batch_of())
  total, sums = 0.0, jax.tree.map(jnp.zeros_like, gradient)
  num_tokens = np.sum(LABELS >= 0)
  for inputs, labels, row in zip(INPUTS, LABELS, said.losses, strict=True):
    size = np.sum(labels >= 0)
    alone = batch_of(inputs[None, :size], labels[None, :size])
    mean, one, slope = step_of(job, alone)
    settle(one.losses[0], row[:size])
    total += size * mean
    sums = jax.tree.map(lambda a, b, n=size: a + n * b, sums, slope)
  settle(value, total / num_tokens)
  settle(gradient, jax.tree.map(lambda a: a / num_tokens, sums))


@pytest.mark.parametrize('name', ['lstm', 'transformer_tiny'])
def test_a_packed_row_is_its_sentences(name):
  """Both networks forget at a boundary, token for token."""
  config = small_text.declare('kd')
  config.student.update(
    {'name': name, 'widths': (6, 6) if name == 'lstm' else ()}
  )
  dataset = small_text.dataset('packed', length=8)
  job = prepared(config, dataset)
  sentences = [[1, 2, 0], [3, 0], [4, 5, 0]]
  labels = np.concatenate(sentences)[None]
  inputs = np.concatenate([[0, *s[:-1]] for s in sentences])[None]
  value, said, gradient = step_of(job, batch_of(inputs, labels))
  alone = [
    step_of(job, batch_of(np.array([[0, *s[:-1]]]), np.array([s])))
    for s in sentences
  ]
  row = np.concatenate([one.losses[0] for _, one, _ in alone])
  settle(said.losses[0], row, rtol=1e-4)
  sizes = [len(s) / 8 for s in sentences]
  settle(value, sum(n * v for n, (v, _, _) in zip(sizes, alone, strict=True)))
  means = jax.tree.map(
    lambda *g: sum(n * a for n, a in zip(sizes, g, strict=True)),
    *(g for _, _, g in alone),
  )
  settle(gradient, means, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
  ('method', 'size'),
  [*((name, 3) for name in SOME), ('kd_topk', 64), ('kd_sampled', 3)],
)
def test_blocks_are_the_whole(method, size):
  config = small_text.declare(method)
  dataset = small_text.dataset('padded')
  value, said, gradient = step_of(prepared(config, dataset), batch_of())
  config.loss_block_tokens = size
  blocks = step_of(prepared(config, dataset), batch_of())
  assert blocks[1].logits is None
  if method == 'kd_sampled':  # every block draws for itself
    assert np.isfinite(blocks[0])
    return
  settle(value, blocks[0])
  settle(said.losses, blocks[1].losses)
  np.testing.assert_array_equal(said.correct, blocks[1].correct)
  settle(gradient, blocks[2])


def test_blocks_never_hold_the_logits():
  """The compiled step has no array of all tokens by all classes."""
  config = small_text.declare('kd', loss_block_tokens=4)
  dataset = small_text.dataset('padded')
  job = prepared(config, dataset)
  state = job.initialise().state

  def lowered(job):
    run = jax.jit(
      lambda s, b, k: step.train_step(job.task, s, job.teacher, b, k)
    )
    compiled = run.lower(state, batch_of(), jax.random.key(0)).compile()
    return compiled.as_text()

  whole = f'f32[4,5,{small_text.K}]'
  rows = f'f32[20,{small_text.K}]'
  text = lowered(job)
  assert whole not in text
  assert rows not in text
  config.loss_block_tokens = 0
  plain = lowered(prepared(config, dataset))
  assert whole in plain or rows in plain


@pytest.mark.parametrize('method', ['kd', 'dist'])
def test_devices_with_unequal_counts(method):
  """The second device has 1 + 4 tokens of 13; the mean is over all."""
  config = small_text.declare(method)
  dataset = small_text.dataset('padded')
  one = step_of(prepared(config, dataset), batch_of())
  job = prepared(config, dataset, num_devices=2)
  two = step_of(job, job.task.place(batch_of()))
  settle(one[0], two[0])
  settle(one[2], two[2])


def test_parts_carry_their_own_state():
  config = small_text.declare('kd')
  dataset = small_text.dataset('contiguous')
  whole = run_steps(prepared(config, dataset), 7)
  config.accumulate_steps = 2
  parts = run_steps(prepared(config, dataset), 7)
  chex.assert_trees_all_close(
    whole.state.params, parts.state.params, rtol=1e-4, atol=1e-6
  )
  settle(whole.state.carries, parts.state.carries, rtol=1e-4, atol=1e-5)
  settle(whole.sums, parts.sums, rtol=1e-4)


def test_parts_of_unequal_counts():
  config = small_text.declare('ce')
  dataset = small_text.dataset('padded')
  batches = batch_of()
  found = []
  for parts in (1, 2):
    config.accumulate_steps = parts
    job = prepared(config, dataset)
    state = job.initialise().state
    key = jax.random.key(0)
    run = jax.jit(lambda s, b, k, t=job.task: step.train_step(t, s, None, b, k))
    after, metrics = run(state, batches, key)
    found.append((after.params, metrics))
  settle(found[0], found[1])


def run_steps(job, num_steps):
  snapshot = job.initialise()
  job.feed.compile(snapshot)
  return job.feed.advance(snapshot, 0, num_steps)


def test_state_is_carried_from_step_to_step():
  """Rows of 5 and of 10 tokens: the network has read the same before each."""
  config = small_text.declare('ce', learning_rate=1e-12)
  carries = []
  for length, num_steps in ((5, 4), (10, 2)):
    dataset = small_text.dataset(length=length)
    job = prepared(config, dataset)
    carries.append(run_steps(job, num_steps).state.carries.student)
  settle(*carries, rtol=1e-4)
  assert max(jnp.max(jnp.abs(a)) for a in jax.tree.leaves(carries[0])) > 1e-3


def test_an_epoch_begins_with_nothing():
  config = small_text.declare('ce', learning_rate=1e-12)
  job = prepared(config, small_text.dataset())
  first = run_steps(job, 1).state.carries
  again = run_steps(job, job.task.steps_per_epoch + 1).state.carries
  settle(first, again, rtol=1e-4)


def test_each_stream_reads_on():
  job = prepared(small_text.declare('ce'), small_text.dataset())
  rows = [np.asarray(job.feed.batch(p)[0].positions) for p in range(3)]
  steps = job.task.steps_per_epoch
  np.testing.assert_array_equal(rows[0], np.arange(4) * steps)
  np.testing.assert_array_equal(rows[1], rows[0] + 1)
  np.testing.assert_array_equal(rows[2], rows[0] + 2)


@pytest.mark.parametrize('batching', ['contiguous', 'padded'])
@pytest.mark.parametrize('method', ['kd', 'kd_topk'])
def test_answers_kept_are_answers_asked(method, batching):
  """Logits or few classes computed once train as the teacher in each step."""
  config = small_text.declare(method)
  dataset = small_text.dataset(batching, length=7)
  kept = prepared(config, dataset)
  config.teacher.precompute_megabytes = 0
  asked = prepared(config, dataset)
  said = kept.feed.examples.teacher
  assert asked.feed.examples.teacher is None
  assert (said.logits is None) == (method != 'kd')
  a, b = run_steps(kept, 6), run_steps(asked, 6)
  settle(a.state.params, b.state.params, rtol=1e-4)
  settle(a.sums, b.sums, rtol=1e-4)


@pytest.mark.parametrize('batching', ['contiguous', 'packed'])
def test_kept_answers_are_of_all_rows_that_are_trained_on(batching):
  """Rows in order leave the last ones out, shuffled ones none."""
  num_tokens = 240 if batching == 'contiguous' else 250
  dataset = small_text.dataset(batching, length=7, num_tokens=num_tokens)
  teacher = small_text.network(dataset)
  in_order = batching == 'contiguous'
  inputs = jnp.asarray(dataset.train.inputs)
  found = reading.answers(
    reading.Reader(teacher.graphdef, in_order),
    Weights(teacher.params, teacher.rest),
    inputs,
    batch_size=4,
    keep=lambda outputs, _: models.Outputs(outputs.logits, {}),
  ).logits
  assert len(inputs) % 4
  said = np.abs(np.asarray(found)).max((1, 2)) > 0
  if in_order:
    whole = len(inputs) // 4 * 4
    assert said[:whole].all()
    assert not said[whole:].any()
  else:
    alone, _ = models.apply(*teacher, inputs, train=False)
    settle(found, alone.logits, rtol=1e-4, atol=1e-5)


def test_few_classes_and_all_are_one_method():
  config = small_text.declare('kd_topk', topk=small_text.K)
  dataset = small_text.dataset()
  few = run_steps(prepared(config, dataset), 6)
  config.method = 'kd'
  whole = run_steps(prepared(config, dataset), 6)
  settle(few.state.params, whole.state.params, rtol=1e-4)


def test_reading_does_not_depend_on_rows_or_streams():
  """With one stream a token's context is all that was before it."""
  scores = []
  for length in (5, 8, 240):
    dataset = small_text.dataset(length=length)
    config = small_text.declare('kd', eval_batch_size=1, batch_size=1)
    job = prepared(config, dataset)
    scores.append(job.dev(job.initialise().state))
  for name in ('cross_entropy', 'accuracy', 'teacher_kl', 'agreement'):
    settle(scores[0][name], scores[1][name], rtol=1e-5)
    settle(scores[0][name], scores[2][name], rtol=1e-5)
  assert scores[0]['perplexity'] == pytest.approx(
    np.exp(scores[0]['cross_entropy'])
  )
  assert scores[0]['bits_per_character'] == pytest.approx(
    scores[0]['cross_entropy'] / np.log(2) * 240 / 482
  )


@pytest.mark.parametrize('batch_size', [3, 48])
def test_every_token_is_counted_once(batch_size):
  config = small_text.declare('ce', eval_batch_size=batch_size)
  dataset = small_text.dataset()
  job = prepared(config, dataset)
  totals = job.dev._reader(job.initialise().state.evaluated)
  labels = dataset.dev.labels
  np.testing.assert_array_equal(
    totals.examples, np.bincount(labels[labels >= 0], minlength=small_text.K)
  )


def test_what_is_seen_is_of_real_tokens_alone():
  config = small_text.declare('kd', eval_batch_size=8)
  job = prepared(config, small_text.dataset('padded'))
  found = job.dev(job.initialise().state)
  wide = dataclasses.replace(
    small_text.dataset('padded'),
    dev=_widened(small_text.dataset('padded').dev),
  )
  wider = prepared(config, wide).dev(job.initialise().state)
  assert found.keys() == wider.keys()
  for name, value in found.items():
    settle(value, wider[name], rtol=1e-4)
  assert 'rescaling_frequency_1' in found


def test_the_rescaling_factor_by_frequency_is_that_of_the_tokens():
  """By hand, from both networks' answers; rows stand alone, in their order."""
  config = small_text.declare('kd', eval_batch_size=1)
  dataset = small_text.dataset('padded')
  job = prepared(config, dataset)
  state = job.initialise().state
  found = job.dev(state)
  labels = dataset.dev.labels
  mask = labels >= 0
  inputs = jnp.asarray(dataset.dev.inputs)
  said = [
    np.asarray(models.apply(*triple, inputs, train=False)[0].logits)[mask]
    for triple in (
      (job.task.student, state.params, state.rest),
      (job.task.teacher, job.teacher.params, job.teacher.rest),
    )
  ]
  factors = rescaling_factor(
    *said, labels[mask], weight=0.7, temperature=2.0, temperature_power=2
  )
  order = np.argsort(dataset.text.token_counts[labels[mask]], kind='stable')
  for i, part in enumerate(np.array_split(np.asarray(factors)[order], 5)):
    # Of two in the middle either will do.
    name = f'rescaling_frequency_{i + 1}'
    assert found[name] == pytest.approx(np.median(part), rel=1e-3)
  assert found['rescaling_frequency_1'] != found['rescaling_frequency_5']


def test_a_skipped_update_has_read_its_text():
  """Both networks remember what they would, had nothing been skipped."""
  config = small_text.declare('kd', learning_rate=1e-12, nonfinite='skip')
  config.teacher.precompute_megabytes = 0
  job = prepared(config, small_text.dataset())
  steps = job.task.steps_per_epoch
  state = job.initialise().state
  broken = dataclasses.replace(
    job.task, loss=lambda x, c: jnp.nan * x.student.logits[..., 0]
  )
  good, bad = (
    jax.jit(lambda s, b, k, t=t: step.train_step(t, s, job.teacher, b, k)[0])
    for t in (job.task, broken)
  )
  carries = []
  for bad_step in (-1, steps):
    now = state
    for at in range(steps - 1, steps + 2):
      now = dataclasses.replace(now, step=jnp.int32(at))
      batch, key = job.feed.batch(at)
      now = (bad if at == bad_step else good)(now, batch, key)
    carries.append(now.carries)
  settle(*carries, rtol=1e-4)


def test_parts_are_measured_of_a_text_in_order():
  config = small_text.declare('kd', accumulate_steps=2)
  job = prepared(config, small_text.dataset())
  snapshot = job.initialise()
  job.parts.compile(snapshot.state)
  found = job.parts(snapshot.state, 1)
  assert {'loss_label', 'loss_teacher'} < found.keys()
  assert np.isfinite(list(found.values())).all()


def _widened(split):
  return data.Split(
    np.pad(split.inputs, ((0, 2), (0, 3)), constant_values=1),
    np.pad(split.labels, ((0, 2), (0, 3)), constant_values=-1),
    None,
  )


def test_heads_are_the_logits():
  dataset = small_text.dataset()
  network = small_text.network(dataset)
  outputs, _ = models.apply(*network, jnp.asarray(INPUTS), train=False)
  head = verdict.head(models.merge(*network), outputs)
  assert isinstance(head, Head)
  settle(
    head.hidden @ head.kernel.T + head.bias[None],
    outputs.logits.reshape(-1, small_text.K),
    rtol=1e-4,
  )


def test_methods_with_features_are_refused():
  config = small_text.declare('hint')
  with pytest.raises(ValueError, match='hint cannot be used on a text'):
    prepared(config, small_text.dataset())
  config = small_text.declare('kd')
  config.also = ('crd',)
  with pytest.raises(ValueError, match='crd cannot be used on a text'):
    prepared(config, small_text.dataset())


@pytest.mark.parametrize(
  ('key', 'value', 'reason'),
  [
    ('dataset.mixup', 0.2, 'tokens cannot be mixed'),
    ('loss_block_tokens', 4, 'dist relates all tokens'),
    ('teacher.num_seeds', 2, 'one teacher'),
  ],
)
def test_what_cannot_be_done_with_a_text_is_refused(key, value, reason):
  config = small_text.declare('dist')
  config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=reason):
    prepared(config, small_text.dataset())


def test_networks_read_what_they_can():
  config = small_text.declare('ce')
  config.student.update({'name': 'mlp', 'widths': (3,)})
  with pytest.raises(ValueError, match=r"'mlp' does not read .* lstm"):
    prepared(config, small_text.dataset())


def test_terms_on_logits_are_masked_too():
  config = small_text.declare('ce')
  config.also = ('kd',)
  job = prepared(
    config,
    small_text.dataset('padded'),
    teacher=small_text.network(small_text.dataset('padded')),
  )
  said = jax.random.normal(jax.random.key(1), (4, 5, small_text.K))
  batch = batch_of()._replace(teacher=models.Outputs(said, {}))
  value, found, _ = step_of(job, batch)
  mask = LABELS >= 0
  kd = losses.kd(found.logits, said, temperature=2.0)
  expected = found.mean + 0.9 * losses.masked_mean(kd, jnp.asarray(mask))
  settle(value, expected)


def test_a_transformer_learns_from_an_lstm():
  config = small_text.declare('kd', learning_rate=0.1)
  config.student.update({'name': 'transformer_tiny', 'widths': ()})
  dataset = small_text.dataset()
  job = prepared(config, dataset)
  snapshot = job.initialise()
  before = job.dev(snapshot.state)['teacher_kl']
  job.feed.compile(snapshot)
  after = job.dev(job.feed.advance(snapshot, 0, 24).state)['teacher_kl']
  assert after < 0.9 * before
  assert snapshot.state.carries.student == ()
