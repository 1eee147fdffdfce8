"""Each row of the table against its definition, in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.test_util import check_grads

from kdjax import config as configuration
from kdjax import methods
from kdjax.models import Outputs

B, K, D = 6, 7, 4
RNG = np.random.default_rng(0)
STUDENT = RNG.normal(0, 2, (B, K)).astype(np.float32)
TEACHER = RNG.normal(0, 3, (B, K)).astype(np.float32)
CLASS_WEIGHTS = RNG.normal(0, 1, (K, D)).astype(np.float32)
LABELS = np.array([0, 6, 3, 3, 1, 5], np.int32)


def settings(**changes):
  """None of them is a default, so that each has to be read."""
  config = configuration.default()
  config.update(
    {
      'weight': 0.7,
      'temperature': 3.0,
      'smoothing': 0.2,
      'topk': 3,
      'num_samples': 5,
      'similarity_power': 0.5,
      'similarity_temperature': 0.4,
      'mix': 0.3,
      'target_weight': 1.5,
      'nontarget_weight': 2.5,
      'inter_weight': 1.25,
      'intra_weight': 0.75,
      **changes,
    }
  )
  return config


def exchange(
  student=STUDENT, teacher=TEACHER, class_weights=CLASS_WEIGHTS, epoch=5.0
):
  return methods.Exchange(
    student=Outputs(jnp.asarray(student), {}),
    teacher=None if teacher is None else Outputs(jnp.asarray(teacher), {}),
    class_weights=None if class_weights is None else jnp.asarray(class_weights),
    labels=jnp.asarray(LABELS),
    epoch=jnp.asarray(epoch),
    key=jax.random.key(0),
  )


def loss(name, config=None, **given):
  return methods.get(name).loss(exchange(**given), config or settings())


def gradient(name, config=None, **given):
  """Of the mean over the batch, as training takes it."""

  def mean(student):
    return loss(name, config, student=student, **given).mean()

  return jax.grad(mean)(jnp.asarray(STUDENT))


def rho(name, c):
  """The teacher distribution of a row, by its formula."""
  full = reference.softmax(TEACHER, c.temperature)
  sim = reference.sim(
    CLASS_WEIGHTS.astype(np.float64),
    LABELS,
    c.similarity_power,
    c.similarity_temperature,
  )
  return {
    'kd': full,
    'kd_pt': reference.pt(full, LABELS),
    'kd_sim': sim,
    'kd_pt_sim': (1 - c.mix) * reference.pt(full, LABELS) + c.mix * sim,
    'kd_pt_sim_conditional': reference.pt_sim_conditional(full, sim, LABELS),
    'kd_topk': reference.topk(full, c.topk),
  }[name]


FEW = ('kd_topk_bucket', 'kd_topk_renormalised', 'kd_sampled')
PARTIAL = (
  'kd',
  'kd_pt',
  'kd_sim',
  'kd_pt_sim',
  'kd_pt_sim_conditional',
  'kd_topk',
)


def close(value, wanted):
  np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', methods.METHODS)
def test_a_loss_has_a_finite_value_per_example_and_gradient(name):
  value = jax.jit(lambda x: methods.get(name).loss(x, settings()))(exchange())
  assert value.shape == (B,)
  assert value.dtype == jnp.float32
  assert np.isfinite(value).all()
  slope = gradient(name)
  assert np.isfinite(slope).all()
  assert np.abs(slope).max() > 0
  close(value, loss(name))


@pytest.mark.parametrize('name', methods.METHODS)
def test_the_gradient_is_that_of_the_value(name):
  check_grads(
    lambda s: loss(name, student=s).mean(),
    (STUDENT,),
    order=1,
    modes=['rev'],
    atol=0.01,
    rtol=0.01,
    eps=0.01,
  )


def test_ce():
  close(loss('ce'), reference.cross_entropy(STUDENT, LABELS))
  close(gradient('ce'), reference.d_cross_entropy(STUDENT, LABELS) / B)


def smoothed(smoothing):
  return (1 - smoothing) * reference.one_hot(LABELS, K) + smoothing / K


@pytest.mark.parametrize('smoothing', [0.0, 0.2, 1.0])
def test_ls_is_cross_entropy_with_smoothed_labels(smoothing):
  config = settings(smoothing=smoothing)
  target = smoothed(smoothing)
  close(
    gradient('ls', config),
    (reference.softmax(STUDENT) - target) / B,
  )
  crossed = -(target * reference.log_softmax(STUDENT)).sum(-1)
  entropy = reference.kl(target, np.zeros_like(target))
  close(loss('ls', config), crossed + entropy)


def test_ls_ignores_weight_and_temperature():
  close(loss('ls', settings(weight=0.1, temperature=9.0)), loss('ls'))


@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('name', PARTIAL)
def test_a_teacher_distribution_enters_the_distillation_loss(name, power):
  c = settings(temperature_power=power)
  args = STUDENT, rho(name, c), LABELS, c.weight, c.temperature, power
  close(loss(name, c), reference.distillation(*args))
  close(gradient(name, c), reference.d_distillation(*args) / B)


@pytest.mark.parametrize('name', [*PARTIAL, *FEW, 'kd_standardised'])
def test_without_weight_a_teacher_changes_nothing(name):
  close(loss(name, settings(weight=0.0)), loss('ce'))


@pytest.mark.parametrize(
  'name', ['kd_topk', 'kd_topk_bucket', 'kd_topk_renormalised']
)
def test_topk_of_all_classes_is_kd(name):
  close(loss(name, settings(topk=K)), loss('kd'))


def divergence(name, student, c):
  """The teacher's term of a row that looks at few classes, in float64."""
  p = reference.softmax(TEACHER, c.temperature)
  log_q = reference.log_softmax(student.astype(np.float64), c.temperature)
  kept = np.argsort(-p, axis=-1, kind='stable')[:, : c.topk]
  p_kept, log_kept = (np.take_along_axis(a, kept, -1) for a in (p, log_q))
  if name == 'kd_topk_bucket':
    rest = [1 - a.sum(-1, keepdims=True) for a in (p_kept, np.exp(log_kept))]
    p_kept = np.concatenate([p_kept, rest[0]], -1)
    log_kept = np.concatenate([log_kept, np.log(rest[1])], -1)
  else:
    p_kept = p_kept / p_kept.sum(-1, keepdims=True)
    log_kept = log_kept - np.log(np.exp(log_kept).sum(-1, keepdims=True))
  return c.temperature**c.temperature_power * reference.kl(p_kept, log_kept)


@pytest.mark.parametrize('power', [0, 2])
@pytest.mark.parametrize('name', ['kd_topk_bucket', 'kd_topk_renormalised'])
def test_few_classes_are_compared_as_they_are_kept(name, power):
  c = settings(temperature_power=power)
  wanted = (1 - c.weight) * reference.cross_entropy(STUDENT, LABELS)
  close(loss(name, c), wanted + c.weight * divergence(name, STUDENT, c))


def test_samples_teach_all_of_the_teacher_on_average():
  """The mean gradient over keys is that of KD, within 5 standard errors."""
  c = settings(num_samples=3)

  def slope(key):
    x = exchange()._replace(key=key)

    def mean(student):
      said = x._replace(student=Outputs(student, {}))
      return methods.get('kd_sampled').loss(said, c).mean()

    return jax.grad(mean)(jnp.asarray(STUDENT))

  found = jax.vmap(slope)(jax.random.split(jax.random.key(1), 2000))
  error = found.std(0) / np.sqrt(len(found))
  gap = np.abs(found.mean(0) - gradient('kd', c))
  assert (gap < 5 * error + 1e-6).all()
  assert found.std(0).max() > 0.01


@pytest.mark.parametrize('name', ['kd_topk', *FEW])
def test_what_was_kept_of_a_teacher_is_enough(name):
  """Made beforehand from the logits, which are not there any more."""
  c, x = settings(), exchange()
  few = methods.get(name).sparse(x.key, x.teacher.logits, c)
  kept = x._replace(teacher=Outputs(None, {'sparse': few}))
  close(methods.get(name).loss(kept, c), loss(name, c))


def test_methods_that_need_a_few_classes_say_so():
  rows = {name for name, row in methods.METHODS.items() if row.sparse}
  assert rows == {'kd_topk', *FEW}


def test_kd_standardised_compares_z_scores():
  c = settings()
  z, of_teacher = map(reference.standardise, (STUDENT, TEACHER))
  wanted = (1 - c.weight) * reference.cross_entropy(STUDENT, LABELS)
  wanted += c.weight * reference.kd(z, of_teacher, c.temperature)
  close(loss('kd_standardised'), wanted)
  slope = (1 - c.weight) * reference.d_cross_entropy(STUDENT, LABELS)
  slope += c.weight * reference.d_standardise(
    STUDENT.astype(np.float64), reference.d_kd(z, of_teacher, c.temperature)
  )
  close(gradient('kd_standardised'), slope / B)


@pytest.mark.parametrize(
  ('epoch', 'ramp'), [(0, 0.0), (10, 0.5), (20, 1.0), (30, 1.0)]
)
def test_dkd_ramps_up_over_twenty_epochs(epoch, ramp):
  c = settings()
  assert c.loss_warmup_epochs == 20
  args = STUDENT, TEACHER, LABELS, c.temperature
  term = c.target_weight * reference.tckd(*args)
  term += c.nontarget_weight * reference.nckd(*args)
  wanted = reference.cross_entropy(STUDENT, LABELS) + ramp * term
  close(loss('dkd', epoch=epoch), wanted)
  slope = c.target_weight * reference.d_tckd(*args)
  slope += c.nontarget_weight * reference.d_nckd(*args)
  slope = reference.d_cross_entropy(STUDENT, LABELS) + ramp * slope
  close(gradient('dkd', epoch=epoch), slope / B)


def test_dkd_without_warmup_is_whole_from_the_first_step():
  config = settings(loss_warmup_epochs=0)
  close(loss('dkd', config, epoch=0), loss('dkd', epoch=20))


def test_dkd_does_not_ramp_its_cross_entropy_by_the_weight():
  close(loss('dkd', settings(weight=0.0)), loss('dkd'))


def test_dist_adds_a_relation_of_the_batch_to_every_example():
  c = settings()
  args = STUDENT, TEACHER, c.inter_weight, c.intra_weight, c.temperature
  close(
    loss('dist'),
    reference.cross_entropy(STUDENT, LABELS) + reference.dist(*args),
  )
  slope = reference.d_cross_entropy(STUDENT, LABELS) / B
  close(gradient('dist'), slope + reference.d_dist(*args))


@pytest.mark.parametrize(
  'name', [n for n, row in methods.METHODS.items() if not row.needs_teacher]
)
def test_a_row_without_a_teacher_works_without_one(name):
  value = loss(name, teacher=None, class_weights=None)
  close(value, loss(name))
  close(gradient(name, teacher=None, class_weights=None), gradient(name))


def looks_at(name, **changed):
  return np.abs(loss(name) - loss(name, **changed)).max() > 1e-3


@pytest.mark.parametrize(
  'name',
  [n for n, r in methods.METHODS.items() if r.needs_teacher and not r.terms],
)
def test_a_row_with_a_teacher_looks_at_it(name):
  by_logits = looks_at(name, teacher=TEACHER[:, ::-1])
  by_weights = looks_at(name, class_weights=CLASS_WEIGHTS[::-1])
  assert by_logits == (name != 'kd_sim')
  assert by_weights == ('sim' in name)


LABEL_WEIGHTS = {
  'ce': 1.0,
  'ls': 0.8,
  **dict.fromkeys((*PARTIAL, *FEW, 'kd_standardised'), 0.3),
  'dkd': 1.0,
  'dist': 1.0,
  **{n: 1.0 for n, row in methods.METHODS.items() if row.terms},
}


def test_what_cross_entropy_weighs_in_each_loss():
  c = settings()
  found = {n: row.label_weight(c) for n, row in methods.METHODS.items()}
  assert found == pytest.approx(LABEL_WEIGHTS)


@pytest.mark.parametrize(
  'name', ['ce', 'ls', 'kd', 'kd_topk', 'kd_standardised', 'dist']
)
def test_the_rest_of_the_loss_does_not_know_the_label(name):
  weight = methods.get(name).label_weight(settings())

  def rest(labels):
    x = exchange()._replace(labels=jnp.asarray(labels))
    both = methods.get(name).loss(x, settings()), methods.get('ce').loss(x, {})
    return both[0] - weight * both[1]

  close(rest(LABELS), rest((LABELS + 1) % K))


def test_the_fixed_names_are_there():
  fixed = 'ce ls kd kd_pt kd_sim kd_pt_sim kd_topk dkd'
  assert methods.METHODS.keys() >= set(fixed.split())
  no_teacher = {n for n, r in methods.METHODS.items() if not r.needs_teacher}
  assert no_teacher == {'ce', 'ls'}


def test_get_returns_the_row():
  for name, row in methods.METHODS.items():
    assert methods.get(name) is row


@pytest.mark.parametrize(
  ('name', 'hint'),
  [('kd_tpok', "did you mean 'kd_topk'"), ('zzz', 'ce, ls, kd, kd_pt')],
)
def test_an_unknown_name_is_refused(name, hint):
  with pytest.raises(ValueError, match=f"unknown method '{name}'.*{hint}"):
    methods.get(name)


class Noting:
  """Settings that note which of their keys are read."""

  def __init__(self):
    self.read, self._settings = set(), settings()

  def __getattr__(self, key):
    self.read.add(key)
    return self._settings[key]


@pytest.mark.parametrize('name', methods.METHODS)
def test_a_row_names_the_keys_that_its_loss_reads(name):
  row, noting = methods.get(name), Noting()
  row.loss(exchange(), noting)
  assert sorted(row.reads) == sorted(noting.read)
