"""Several teachers: which there are, what they say together, and mistakes."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks

from kdjax import config as configuration
from kdjax import models
from kdjax.train import experiment, finished, step, teacher
from kdjax.train.state import Network


def whole(config):
  return experiment.load(config)


@pytest.fixture
def two(config):
  config.teacher.num_seeds = 2
  config.teacher.batch_size = 50
  config.analysis = False
  config.num_epochs = 1
  config.eval_every_epochs = 1
  return config


def obtain(config, tmp_path, session):
  return teacher.obtain(
    config, whole(config), workdir=tmp_path / 'run', session=session
  )


def member(network, i):
  return models.split(models.merge(*network).members[i])


def test_seeds_are_teachers_of_their_own(two, tmp_path, session, silent):
  both = obtain(two, tmp_path, session)
  assert [name for name, *_ in silent.phases] == ['teacher', 'teacher2']
  folders = {p.name for p in (tmp_path / 'run').iterdir()}
  assert folders == {'teacher', 'teacher2'}
  two.teacher.num_seeds = 1
  for i in range(2):
    two.teacher.seed = i
    alone = obtain(two, tmp_path / f'{i}', session)
    chex.assert_trees_all_equal(member(both, i)[1:], tuple(alone[1:]))
  assert len(silent.phases) == 2  # all from the cache
  assert teacher.shapes(two, whole(two)).graphdef == alone.graphdef


@pytest.mark.parametrize('average', ['logits', 'probs', 'losses'])
def test_a_run_with_each_average(average, two, tmp_path, silent):
  two.teacher.update(
    {'average': average, 'shares': (1.0, 3.0), 'features_from': 1}
  )
  two.method, two.also = 'kd', ('l2', 'irg')
  results = experiment.run(two, tmp_path / 'run', silent)
  one = 64 * 12 + 12 + 12 * 10 + 10
  assert results['teacher']['num_params'] == 2 * one
  assert results['student']['num_params'] == 64 * 6 + 6 + 6 * 10 + 10
  run = finished.read(tmp_path / 'run')
  mentor = models.merge(*run.networks['teacher'])
  assert mentor.shares == (0.25, 0.75)
  assert mentor.average == average
  np.testing.assert_array_equal(
    mentor.class_weights, mentor.members[1].class_weights
  )
  said = run.logits('teacher', run.dataset.test).argmax(-1)
  assert np.mean(said == run.dataset.test.labels) == pytest.approx(
    results['teacher']['test_accuracy']
  )
  assert set(finished.student(tmp_path / 'run').params) == {'hidden', 'head'}


def test_published_pairs_are_those_of_the_chosen(two):
  """What all say is a feature of the ensemble, and no stage of a network."""
  two.method, two.student.widths, two.teacher.widths = 'sp', (6, 6), (12, 12)
  mentor = teacher.shapes(two, whole(two))
  for name, pairs in (
    ('sp', [('hidden2', 'hidden2')]),
    ('irg', [('hidden1', 'hidden1'), ('hidden2', 'hidden2')]),
  ):
    two.method = name
    outline = experiment.task.outlined(two, whole(two), mentor)
    assert list(outline.lesson.plan[0].pairs) == pairs


def test_folders_of_other_networks(two, tmp_path, session, silent):
  """Also of one that learned itself with the help of projectors."""
  two.teacher.num_seeds = 1
  given = two.copy_and_resolve_references()
  given.dataset.num_labels = 0
  given.batch_size, given.method = 50, 'l2'
  experiment.run(given, tmp_path / 'born', silent)
  trained = finished.student(tmp_path / 'born')
  two.teacher.others = (str(tmp_path / 'born'),)
  both = obtain(two, tmp_path, session)
  chex.assert_trees_all_equal(member(both, 1)[1:], tuple(trained[1:]))


def test_a_folder_beside_seeds_and_a_checkpoint(two, tmp_path, session, silent):
  """The kinds of teachers, in their order, each of its own width."""
  wide = two.copy_and_resolve_references()
  wide.teacher.update({'num_seeds': 1, 'widths': (15,)})
  obtain(wide, tmp_path / 'wide', session)
  folder = str(tmp_path / 'wide' / 'run' / 'teacher')
  two.teacher.update(
    {'others': (folder,), 'shares': (1, 0, 1), 'features_from': 2}
  )
  three = obtain(two, tmp_path, session)
  sizes = [models.num_params(member(three, i)[1]) for i in range(3)]
  assert sizes == [910, 910, 1135]
  assert models.merge(*three).class_weights.shape == (10, 15)
  assert models.merge(*three).shares == (0.5, 0.0, 0.5)
  two.teacher.update(
    {
      'num_seeds': 1,
      'checkpoint': str(tmp_path / 'run' / 'teacher2'),
      'seed': 1,
      'shares': (1, 2),
      'features_from': 0,
    }
  )
  pair = obtain(two, tmp_path / 'pair', session)
  chex.assert_trees_all_equal(member(pair, 0)[1:], member(three, 1)[1:])
  chex.assert_trees_all_equal(member(pair, 1)[1:], member(three, 2)[1:])


# --- the mean of losses

DATA = small_networks.data()
KEY = jax.random.key(0)


def gradient(method, average, shares=(0.3, 0.7), also=()):
  """Of a step, by the change of the student's parameters."""
  config = small_networks.declare(method, also, loss_warmup_epochs=0)
  config.terms.kd.weight = config.terms.dkd.weight = 1.0
  config.terms.dkd.warmup_epochs = 0
  config.teacher.average = average
  kind = functools.partial(small_networks.network, kind='mlp')
  student = kind(0, 6)
  members = [models.merge(*kind(seed, 9)) for seed in (1, 2)]
  # Teachers that disagree.
  for one in members:
    one.head.kernel[...] *= 8.0
  mentor = models.Ensemble(
    members,
    shares=shares,
    average=average,
    temperature=config.temperature,
    features_from=0,
  )
  task, state, weights = small_networks.set_up(
    config, student, Network(*models.split(mentor)), DATA
  )
  run = jax.jit(functools.partial(step.train_step, task))
  batch = jax.tree.map(lambda a: a[:6], DATA)
  after, metrics = run(state, weights, batch, KEY)
  change = jax.tree.map(lambda a, b: 1e3 * (a - b), state.params, after.params)
  return change, metrics


def gap(a, b):
  return max(
    float(jnp.abs(x - y).max())
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def test_the_mean_of_kd_is_kd_to_the_mean_of_probabilities():
  """KL is linear in its target, up to what does not depend on the student."""
  losses, probs = gradient('kd', 'losses'), gradient('kd', 'probs')
  assert gap(losses[0], probs[0]) < 1e-3
  assert losses[1]['loss'] > probs[1]['loss'] + 1e-3
  assert gap(losses[0], gradient('kd', 'logits')[0]) > 1e-2


def test_the_mean_of_another_loss_is_not():
  losses, probs = gradient('dkd', 'losses'), gradient('dkd', 'probs')
  assert gap(losses[0], probs[0]) > 1e-2


@pytest.mark.parametrize('method', ['dkd', 'kd_sim'])
def test_the_mean_of_losses_is_the_mean_over_the_teachers(method):
  """Each with its own logits and its own last layer."""
  both = gradient(method, 'losses')[0]
  one, other = (
    gradient(method, 'losses', shares)[0] for shares in ((1, 0), (0, 1))
  )
  assert gap(one, other) > 1e-3
  mean = jax.tree.map(lambda a, b: 0.3 * a + 0.7 * b, one, other)
  assert gap(both, mean) < 1e-3


def test_terms_on_logits_are_averaged_too():
  by_method = gradient('dkd', 'losses')[0]
  config = configuration.default()
  assert config.terms.dkd.weight == 1.0  # α and β are those of the method
  by_term = gradient('ce', 'losses', also=('dkd',))[0]
  assert gap(by_method, by_term) < 1e-3


# --- mistakes


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      {'num_seeds': 2, 'checkpoint': '/no/where'},
      r'num_seeds=2 trains teachers, .*checkpoint gives one.*others',
    ),
    ({'num_seeds': 2, 'shares': (1.0,)}, r'shares=\(1.0,\): .* 2 numbers'),
    ({'shares': (1.0, 2.0)}, r'shares=.* 1 numbers'),
    ({'num_seeds': 2, 'shares': (0.0, 0.0)}, 'not all 0'),
    ({'num_seeds': 2, 'shares': (1.0, -1.0)}, r'shares='),
    ({'num_seeds': 2, 'shares': (1.0, float('inf'))}, r'shares='),
    ({'num_seeds': 2, 'features_from': 2}, 'features_from=2: .* 0 to 1'),
    ({'features_from': -1}, 'features_from=-1'),
    ({'average': 'mean'}, "average='mean'"),
    ({'others': ('/no/where',)}, r"others='/no/where' is not a trained"),
  ],
)
def test_mistakes_are_found_before_anything_trains(
  change, message, config, tmp_path, silent
):
  config.teacher.update(change)
  with pytest.raises(ValueError, match=message):
    experiment.run(config, tmp_path / 'run', silent)
  assert not silent.phases
  assert not (tmp_path / 'run').exists()


def pretended(folder, saved):
  (folder / 'checkpoints').mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps(saved))
  return str(folder)


def test_a_folder_of_other_data_is_refused(config, tmp_path, silent):
  saved = json.loads(teacher.config_of(config).to_json())
  saved['dataset']['dev_fraction'] = 0.3
  config.teacher.others = (pretended(tmp_path / 'other', saved),)
  with pytest.raises(ValueError, match=r'others=.*config\.dataset\.dev_frac'):
    experiment.run(config, tmp_path / 'run', silent)
  assert not silent.phases


@pytest.mark.parametrize('ending', ['', '/', '/.'])
def test_a_checkpoint_of_another_network_is_refused_however_it_is_written(
  ending, config, tmp_path, silent
):
  saved = json.loads(teacher.config_of(config).to_json())
  saved['student']['widths'] = [99]
  folder = pretended(tmp_path / 'other', saved)
  config.teacher.checkpoint = folder + ending
  with pytest.raises(
    ValueError, match=r'teacher\.checkpoint=.*config\.teacher\.widths'
  ):
    experiment.run(config, tmp_path / 'run', silent)


def test_the_same_folder_twice_is_two_teachers(config, tmp_path, silent):
  config.num_epochs = 1
  experiment.run(config, tmp_path / 'first', silent)
  folder = str(tmp_path / 'first' / 'teacher')
  config.teacher.update({'others': (folder, folder), 'shares': (1, 1, 2)})
  mentor = teacher.shapes(config, whole(config))
  assert len(models.merge(*mentor).members) == 3
