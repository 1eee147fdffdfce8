"""One loss with numbers for switches against the row of each method."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config as configuration
from kdjax import methods
from kdjax.models import Outputs
from kdjax.study import family

B, K, D = 6, 7, 4
MOST = K - 1
RNG = np.random.default_rng(0)
TEACHER = RNG.normal(0, 3, (B, K)).astype(np.float32)
# Ties everywhere: a row is a few whole numbers.
TIED = RNG.integers(0, 3, (B, K)).astype(np.float32)
CLASS_WEIGHTS = RNG.normal(0, 1, (K, D)).astype(np.float32)
LABELS = np.array([0, 6, 3, 3, 1, 5], np.int32)
# Two students answer all that the teacher does.
STUDENT = RNG.normal(0, 2, (2 * B, K)).astype(np.float32)


def twice(rows):
  return jnp.concatenate([rows, rows])


NAMES = sorted(family.METHODS)
WITH_SIM = {'kd_sim', 'kd_pt_sim', 'kd_pt_sim_conditional'}


def settings(method, **changes):
  """None of them is a default, so that each has to be read."""
  config = configuration.default()
  config.update(
    {
      'method': method,
      'weight': 0.7,
      'temperature': 3.0,
      'smoothing': 0.2,
      'topk': 3,
      'similarity_power': 0.5,
      'similarity_temperature': 0.4,
      'mix': 0.3,
      **changes,
    }
  )
  return config


def numbers(config):
  """What a population varies, as groups hand it over."""
  kept = ('temperature_power', 'similarity_power', 'similarity_temperature')
  return {
    **{key: config[key] for key in kept},
    **family.switches(config, num_classes=K),
  }


def exchange(student, teacher=TEACHER):
  return methods.Exchange(
    student=Outputs(jnp.asarray(student), {}),
    teacher=None if teacher is None else Outputs(twice(teacher), {}),
    class_weights=None if teacher is None else jnp.asarray(CLASS_WEIGHTS),
    labels=twice(LABELS),
    epoch=jnp.asarray(5.0),
  )


@functools.partial(jax.jit, static_argnames=('relates', 'most'))
def compiled(student, teacher, c, relates, most=MOST):
  x = exchange(student, teacher)
  return family.loss(x, types.SimpleNamespace(**c), relates=relates, most=most)


def both(config, *, student=STUDENT, teacher=TEACHER, relates=True):
  """Losses and their gradients: of the family's, and of the table's."""
  c, row = numbers(config), methods.get(config.method)
  ours = lambda s: compiled(s, teacher, c, relates)
  theirs = lambda s: row.loss(exchange(s, teacher), config)
  student = jnp.asarray(student)
  return [
    (loss(student), jax.grad(lambda s, loss=loss: loss(s).sum())(student))
    for loss in (ours, theirs)
  ]


def assert_equal_losses(config, **given):
  """Up to what does not depend on the student."""
  (ours, slope), (theirs, wanted) = both(config, **given)
  shift = np.reshape(ours - theirs, (2, B))
  np.testing.assert_allclose(shift[0], shift[1], atol=3e-5)
  np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=2e-6)
  assert np.isfinite(slope).all()
  if numbers(config)['weight'] == 0:
    np.testing.assert_allclose(shift, 0, atol=1e-6)


@pytest.mark.parametrize('teacher', [TEACHER, TIED], ids=['plain', 'tied'])
@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('name', NAMES)
def test_the_loss_is_that_of_the_method(name, power, teacher):
  config = settings(name, temperature_power=power)
  assert_equal_losses(config, teacher=teacher)


@pytest.mark.parametrize('name', NAMES)
def test_methods_without_similarity_do_not_need_it(name):
  if name not in WITH_SIM:
    assert_equal_losses(settings(name), relates=False)


@pytest.mark.parametrize('teacher', [TEACHER, TIED], ids=['plain', 'tied'])
@pytest.mark.parametrize('k', [1, 2, K - 1, K])
def test_topk_keeps_so_many(k, teacher):
  assert_equal_losses(settings('kd_topk', topk=k), teacher=teacher)


def test_topk_of_all_classes_is_kd():
  (all_of_them, _), _ = both(settings('kd_topk', topk=K))
  (kd, _), _ = both(settings('kd'))
  np.testing.assert_array_equal(all_of_them, kd)


@pytest.mark.parametrize('smoothing', [0.0, 0.5, 1.0])
def test_ls_weighs_by_its_smoothing(smoothing):
  assert_equal_losses(settings('ls', smoothing=smoothing))


@pytest.mark.parametrize('mix', [0.0, 1.0])
def test_mixtures_go_from_pt_to_sim(mix):
  assert_equal_losses(settings('kd_pt_sim', mix=mix))


@pytest.mark.parametrize('weight', [0.0, 1.0])
@pytest.mark.parametrize('name', NAMES)
def test_a_term_of_weight_zero_is_left_out(name, weight):
  assert_equal_losses(settings(name, weight=weight))


def test_ce_does_not_mind_a_teacher_who_is_infinitely_far_away():
  masked = STUDENT.copy()
  masked[0, 4] = -np.inf  # the teacher, and ρ_sim, have mass there
  assert_equal_losses(settings('ce'), student=masked)
  (kd, _), _ = both(settings('kd'), student=masked)
  assert np.isinf(kd[0])


@pytest.mark.parametrize('name', ['ce', 'ls'])
def test_there_may_be_no_teacher(name):
  assert_equal_losses(settings(name), teacher=None, relates=False)


CASES = [
  settings('ce'),
  settings('ls', smoothing=0.3),
  settings('ls', smoothing=0.05),
  settings('kd', weight=1.0),
  settings('kd', temperature=1.0),
  settings('kd_pt', temperature=8.0),
  settings('kd_sim', similarity_power=0.9),
  settings('kd_sim', similarity_temperature=0.1),
  settings('kd_pt_sim', mix=0.9, weight=0.2),
  settings('kd_pt_sim_conditional', temperature=2.0),
  *(settings('kd_topk', topk=k) for k in (1, 4, K)),
]


@pytest.mark.parametrize('teacher', [TEACHER, TIED], ids=['plain', 'tied'])
def test_eager_jit_and_vmap_over_settings_agree(teacher):
  rows = [numbers(config) for config in CASES]
  power = rows[0].pop('temperature_power')
  table = {key: jnp.asarray([r[key] for r in rows], float) for key in rows[0]}

  def one(c):
    return compiled(
      STUDENT, teacher, {**c, 'temperature_power': power}, relates=True
    )

  at_once = jax.vmap(one)(table)
  for config, row in zip(CASES, at_once, strict=True):
    c = types.SimpleNamespace(**numbers(config))
    eager = family.loss(exchange(STUDENT, teacher), c, relates=True, most=MOST)
    jitted = compiled(STUDENT, teacher, vars(c), relates=True)
    np.testing.assert_allclose(jitted, eager, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(row, eager, rtol=1e-5, atol=1e-6)


OFF = {'kept': 0, 'keeps_label': 0, 'spreads_as_sim': 0, 'sim_share': 0.0}
ON = {'weight': 0.7, 'temperature': 3.0}


@pytest.mark.parametrize(
  ('name', 'wanted'),
  [
    ('ce', {'weight': 0.0, 'temperature': 1.0}),
    ('ls', {'weight': 0.2, 'temperature': 1.0}),
    ('kd', ON | {'kept': K}),
    ('kd_pt', ON | {'keeps_label': 1}),
    ('kd_sim', ON | {'sim_share': 1.0}),
    ('kd_pt_sim', ON | {'keeps_label': 1, 'sim_share': 0.3}),
    ('kd_pt_sim_conditional', ON | {'keeps_label': 1, 'spreads_as_sim': 1}),
    ('kd_topk', ON | {'kept': 3}),
  ],
)
def test_switches(name, wanted):
  found = family.switches(settings(name), num_classes=K)
  assert found == OFF | wanted


def test_the_family_is_what_one_distribution_can_say():
  of_logits = {n for n, row in methods.METHODS.items() if not row.terms}
  few = {name for name, row in methods.METHODS.items() if row.sparse}
  others = {'kd_standardised', 'dkd', 'dist'} | few - {'kd_topk'}
  assert set(NAMES) == of_logits - others


@pytest.mark.parametrize('most', [1, 3, 5])
def test_no_more_places_are_told_apart_than_any_student_keeps(most):
  c = numbers(settings('kd_topk', topk=most))
  found = compiled(STUDENT, TIED, c, relates=False, most=most)
  wanted = compiled(STUDENT, TIED, c, relates=False)
  np.testing.assert_array_equal(found, wanted)
  all_of_them = numbers(settings('kd'))
  np.testing.assert_array_equal(
    compiled(STUDENT, TIED, all_of_them, relates=False, most=most),
    compiled(STUDENT, TIED, all_of_them, relates=False, most=0),
  )
  with pytest.raises(KeyError):
    family.switches(settings('dkd'), num_classes=K)
