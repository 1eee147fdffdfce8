"""What the evaluations of a training log, and that it changes no training."""

import dataclasses
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import reference

from kdjax import analysis, data, models
from kdjax.train import evaluate, loop, networks, predictions, sharding, task
from kdjax.train.state import Network, Weights
from kdjax.train.writers import read_metrics

# Small archives with real JPEGs.
sys.path.append(str(Path(__file__).parents[1] / 'data'))
import photos

OF_PARTS = {
  f'batch_{of}_{part}'
  for of in ('loss', 'gradient_norm')
  for part in ('label', 'teacher')
}
SCORES = {'dev_accuracy', 'dev_cross_entropy'}
OF_TEACHER = {
  'dev_rescaling_p10',
  'dev_rescaling_p50',
  'dev_rescaling_p90',
  'dev_rescaling_negative',
  'dev_rescaling_confidence_correlation',
  'dev_teacher_gradient_share',
  'dev_agreement',
  'dev_teacher_kl',
}


def _mentor(dataset, num_classes=10):
  """A teacher that is sure of itself."""
  model = models.build(
    'mlp',
    input_shape=dataset.input_shape,
    num_classes=num_classes,
    seed=3,
    widths=(8,),
  )
  graphdef, params, rest = models.split(model)
  return Network(graphdef, jax.tree.map(lambda a: 3 * a, params), rest)


def _logits(network, inputs, dataset):
  inputs = data.normalise(inputs, mean=dataset.mean, std=dataset.std)
  outputs, _ = models.apply(*network, inputs, train=False)
  return np.asarray(outputs.logits)


def _fit(config, dataset, teacher, folder, session):
  return loop.fit(
    config,
    dataset,
    teacher=teacher,
    name='student',
    directory=folder,
    session=session,
  )


def _rows(folder):
  """Of the evaluations."""
  rows = read_metrics(folder / 'metrics.jsonl')
  return [row for row in rows if 'dev_accuracy' in row]


def _evaluate(config, dataset, teacher, mesh):
  """What is said of the student before its training."""
  job = task.prepare(config, dataset, teacher, mesh)
  state = job.initialise().state
  job.dev.compile(state)
  return job.dev(state)


def _close(found, wanted):
  assert found.keys() == wanted.keys()
  for name, value in wanted.items():
    np.testing.assert_allclose(
      found[name], value, rtol=1e-3, atol=1e-5, err_msg=name
    )


# Against NumPy.


def _gradients(config, s, t, y):
  """Of every loss, and of cross-entropy, as it weighs in the loss."""
  rho = reference.softmax(t, config.temperature)
  rho = {'kd': rho, 'kd_topk': reference.topk(rho, config.topk)}
  of_label = reference.d_cross_entropy(s, y)
  if config.method in rho:
    given = config.weight, config.temperature, config.temperature_power
    gradient = reference.d_distillation(s, rho[config.method], y, *given)
    return gradient, (1 - config.weight) * of_label
  args = s, t, y, config.temperature
  ramp = config.num_epochs / config.loss_warmup_epochs
  term = config.target_weight * reference.d_tckd(*args)
  term += config.nontarget_weight * reference.d_nckd(*args)
  return of_label + ramp * term, of_label


@pytest.mark.parametrize('method', ['kd', 'kd_topk', 'dkd'])
def test_the_last_row_is_of_the_last_network(
  method, config, forty, tmp_path, session
):
  """By its logits on the held-out images, of which 60 are answered at once."""
  config.method, config.topk, config.eval_batch_size = method, 3, 60
  config.temperature, config.temperature_power = 2.0, 0
  mentor = _mentor(forty)
  fitted = _fit(config, forty, mentor, tmp_path, session)
  row = _rows(tmp_path)[-1]
  assert row.keys() == SCORES | OF_TEACHER | OF_PARTS | {'step', 'dev_ece'}
  s, t = (
    _logits(net, forty.dev.inputs, forty).astype(np.float64)
    for net in (fitted.last, mentor)
  )
  y = forty.dev.labels
  gradient, of_label = _gradients(config, s, t, y)
  hot = reference.one_hot(y, 10)
  off = (1 - hot) * reference.softmax(s)
  factor = ((1 - hot) * gradient).sum(-1) / off.sum(-1)
  norms = [np.linalg.norm(x, axis=-1) for x in (of_label, gradient - of_label)]
  soft = (hot * reference.softmax(t, 2.0)).sum(-1)
  ranks = [x.argsort().argsort() for x in (factor, soft)]
  ece = analysis.expected_calibration_error(
    reference.softmax(s).astype(np.float32), y
  )
  wanted = {
    'step': 16,
    'dev_accuracy': (s.argmax(-1) == y).mean(),
    'dev_cross_entropy': reference.cross_entropy(s, y).mean(),
    'dev_ece': ece,
    'dev_rescaling_negative': (factor < 0).mean(),
    'dev_rescaling_confidence_correlation': np.corrcoef(ranks)[0, 1],
    'dev_teacher_gradient_share': (norms[1] / sum(norms)).mean(),
    'dev_agreement': (s.argmax(-1) == t.argmax(-1)).mean(),
    'dev_teacher_kl': reference.kl(
      reference.softmax(t), reference.log_softmax(s)
    ).mean(),
  }
  for percent in (10, 50, 90):
    wanted[f'dev_rescaling_p{percent}'] = np.percentile(
      factor, percent, method='nearest'
    )
  _close({name: row[name] for name in wanted}, wanted)
  if method == 'kd':
    setting = {'weight': 0.9, 'temperature': 2.0, 'temperature_power': 0}
    given = (np.asarray(x, np.float32) for x in (s, t))
    pure = analysis.rescaling_factor(*given, y, **setting)
    np.testing.assert_allclose(
      row['dev_rescaling_p50'],
      np.percentile(pure, 50, method='nearest'),
      rtol=1e-3,
    )


# In every arrangement.


@pytest.mark.parametrize('method', ['kd_sim', 'dist'])
def test_padding_and_devices_change_nothing(method, config, forty, mesh):
  config.method = method
  mentor = _mentor(forty)
  wanted = _evaluate(config, forty, mentor, mesh)
  config.eval_batch_size = 60
  _close(_evaluate(config, forty, mentor, mesh), wanted)
  both = sharding.make_mesh(devices=jax.devices()[:2])
  _close(_evaluate(config, forty, mentor, both), wanted)
  shared = sharding.make_mesh(model_devices=2, devices=jax.devices()[:2])
  _close(_evaluate(config, forty, mentor, shared), wanted)


@pytest.fixture(scope='module')
def few(tmp_path_factory):
  """Thirty encoded images of six classes, three of them held out."""
  folder = tmp_path_factory.mktemp('imagenet')
  photos.prepare_imagenet(folder)
  return data.load('imagenet2012', data_dir=str(folder), image_size=16)


def _as_arrays(dataset):
  def read(split):
    inputs = np.stack([split.inputs[i] for i in range(len(split.labels))])
    return data.Split(inputs, split.labels)

  splits = {name: read(getattr(dataset, name)) for name in ('train', 'dev')}
  return dataclasses.replace(dataset, **splits)


@pytest.mark.parametrize(
  ('method', 'batch_size'), [('kd', 2), ('dkd', 1), ('dist', 4)]
)
def test_a_stream_gives_what_arrays_give(method, batch_size, config, few):
  """A relation of examples too, if they are answered at once."""
  config.dataset.name = 'imagenet2012'
  config.method, config.eval_batch_size = method, batch_size
  mentor = _mentor(few, num_classes=1000)
  both = sharding.make_mesh(devices=jax.devices()[:2])
  found = _evaluate(config, few, mentor, both)
  assert len(found) == 11
  _close(found, _evaluate(config, _as_arrays(few), mentor, both))


@pytest.mark.parametrize('is_streamed', [False, True])
def test_the_teacher_is_asked_anew_only_if_images_are(
  is_streamed, config, few, mesh, monkeypatch
):
  config.eval_batch_size = 2
  asked, make_predict = [], predictions.make_predict

  def counted(*args, **given):
    predict = make_predict(*args, **given)
    return lambda *of: asked.append(len(of[1])) or predict(*of)

  monkeypatch.setattr(predictions, 'make_predict', counted)
  dataset = few if is_streamed else _as_arrays(few)
  config.teacher.precompute_logits = False
  job = task.prepare(config, dataset, _mentor(few, num_classes=1000), mesh)
  state = job.initialise().state
  job.dev.compile(state)
  asked.clear() if is_streamed else None
  first = job.dev(state)
  chex.assert_trees_all_equal(job.dev(state), first)
  assert asked == ([2, 2, 2, 2] if is_streamed else [3])


def test_a_stream_compiles_for_every_shape_to_come(config, few):
  """With and without padding."""
  config.eval_batch_size = 2
  mentor = _mentor(few, num_classes=1000)
  mesh = sharding.make_mesh(devices=jax.devices()[:2])
  count = networks.evaluator(mentor.graphdef, few.dev, config, few, mesh)

  def shapes(call):
    seen = []
    call(Weights(mentor.params, mentor.rest), visit=seen.append)
    return {
      (*((a.shape, a.dtype, a.sharding) for a in x[:3]), x.num_examples)
      for x in seen
    }

  before = shapes(count.compile)
  assert len(before) == 2
  assert shapes(count) == before


# What is logged, and what is not.


@pytest.mark.parametrize('method', ['ce', 'ls'])
def test_without_a_teacher_calibration_is_logged(
  method, config, forty, tmp_path, session
):
  config.method = method
  fitted = _fit(config, forty, None, tmp_path, session)
  row = _rows(tmp_path)[-1]
  assert row.keys() == SCORES | {'step', 'dev_ece'}
  logits = _logits(fitted.last, forty.dev.inputs, forty)
  probs = reference.softmax(logits).astype(np.float32)
  wanted = analysis.expected_calibration_error(probs, forty.dev.labels)
  np.testing.assert_allclose(row['dev_ece'], wanted, rtol=1e-4)


def test_it_changes_nothing_else(config, forty, tmp_path, session):
  mentor, found, logged = _mentor(forty), {}, {}
  for asked in (True, False):
    config.analysis = asked
    folder = tmp_path / str(asked)
    found[asked] = _fit(config, forty, mentor, folder, session)
    logged[asked] = _rows(folder)
    (events,) = folder.glob('events.out.tfevents.*')
    seen = events.read_bytes()
    names = OF_TEACHER | OF_PARTS | {'dev_ece'}
    assert {name.encode() in seen for name in names} == {asked}
  for with_, without in zip(logged[True], logged[False], strict=True):
    assert without.keys() == SCORES | {'step'}
    assert with_.keys() == SCORES | {'step'} | names
    assert without == {name: with_[name] for name in without}
  chex.assert_trees_all_equal(found[True].last[1:], found[False].last[1:])
  chex.assert_trees_all_equal(found[True].best[1:], found[False].best[1:])


@pytest.mark.parametrize('then', [True, False])
def test_a_run_goes_on_with_it_or_without(
  then, config, forty, tmp_path, session, interrupted
):
  config.ema_decay = 0.9
  config.eval_every_epochs = 1
  mentor = _mentor(forty)
  whole = _fit(config, forty, mentor, tmp_path / 'whole', session)
  stopping = session._replace(reporter=interrupted(9))
  with pytest.raises(KeyboardInterrupt):
    _fit(config, forty, mentor, tmp_path / 'cut', stopping)
  config.analysis = then
  cut = _fit(config, forty, mentor, tmp_path / 'cut', session)
  chex.assert_trees_all_equal(cut.last[1:], whole.last[1:])
  wanted = _rows(tmp_path / 'whole')
  if not then:
    for row in wanted[2:]:
      for name in OF_TEACHER | OF_PARTS | {'dev_ece'}:
        del row[name]
  assert _rows(tmp_path / 'cut') == wanted


def test_plain_scores_ask_nobody_else(config, forty, mesh):
  """As the results of a run are counted."""
  mentor = _mentor(forty)
  count = networks.evaluator(mentor.graphdef, forty.dev, config, forty, mesh)
  totals = count(Weights(mentor.params, mentor.rest))
  assert isinstance(totals, evaluate.Totals)
  assert evaluate.scores(totals).keys() == {'accuracy', 'cross_entropy'}
