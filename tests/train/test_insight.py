"""What is seen of examples, against the formulas in float64 NumPy."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from scipy import stats

from kdjax import analysis, methods
from kdjax import config as configuration
from kdjax.analysis import rescaling
from kdjax.models import Outputs
from kdjax.train import insight

B, K, D = 9, 7, 4
RNG = np.random.default_rng(0)
STUDENT = RNG.normal(0, 2, (B, K)).astype(np.float32)
TEACHER = RNG.normal(0, 3, (B, K)).astype(np.float32)
CLASS_WEIGHTS = RNG.normal(0, 1, (K, D)).astype(np.float32)
LABELS = np.array([0, 6, 3, 3, 1, 5, 2, 4, 0], np.int32)
EPOCH = 5.0


def settings():
  """None of them is a default, so that each has to be read."""
  config = configuration.default()
  config.update(
    {
      'weight': 0.7,
      'temperature': 3.0,
      'temperature_power': 0,
      'topk': 3,
      'target_weight': 1.5,
      'nontarget_weight': 2.5,
      'inter_weight': 1.25,
      'intra_weight': 0.75,
    }
  )
  return config


C = settings()
TEACHERS = [n for n, row in methods.METHODS.items() if row.needs_teacher]


def exchange(student=STUDENT, teacher=TEACHER, labels=LABELS):
  return methods.Exchange(
    student=Outputs(jnp.asarray(student), {}),
    teacher=Outputs(jnp.asarray(teacher), {}),
    class_weights=jnp.asarray(CLASS_WEIGHTS),
    labels=jnp.asarray(labels),
    epoch=jnp.asarray(EPOCH),
    key=jax.random.key(0),
  )


def taught(name):
  see = functools.partial(insight.taught, method=methods.get(name), settings=C)
  return jax.jit(see)(exchange())


class Wanted(NamedTuple):
  """A gradient in float64, and what cross-entropy weighs in it."""

  gradient: np.ndarray
  label_weight: float


def _toward(rho):
  return Wanted(
    reference.d_distillation(STUDENT, rho, LABELS, C.weight, C.temperature, 0),
    1 - C.weight,
  )


def _of_label():
  return reference.d_cross_entropy(STUDENT, LABELS)


def _dkd():
  args = STUDENT, TEACHER, LABELS, C.temperature
  term = C.target_weight * reference.d_tckd(*args)
  term += C.nontarget_weight * reference.d_nckd(*args)
  return Wanted(_of_label() + EPOCH / C.loss_warmup_epochs * term, 1.0)


def _dist():
  """The relation enters the loss of each of the B examples."""
  term = reference.d_dist(
    STUDENT, TEACHER, C.inter_weight, C.intra_weight, C.temperature
  )
  return Wanted(_of_label() + B * term, 1.0)


def _standardised():
  z, of_teacher = map(reference.standardise, (STUDENT, TEACHER))
  term = reference.d_standardise(
    STUDENT.astype(np.float64), reference.d_kd(z, of_teacher, C.temperature)
  )
  label_weight = 1 - C.weight
  return Wanted(label_weight * _of_label() + C.weight * term, label_weight)


SOFT = reference.softmax(TEACHER, C.temperature)
WANTED = {
  'kd': _toward(SOFT),
  'kd_pt': _toward(reference.pt(SOFT, LABELS)),
  'kd_topk': _toward(reference.topk(SOFT, C.topk)),
  'kd_standardised': _standardised(),
  'dkd': _dkd(),
  'dist': _dist(),
}


def _factor(gradient):
  at_label = reference.one_hot(LABELS, K).astype(bool)
  others = lambda x: np.where(at_label, 0.0, x).sum(-1)
  return others(gradient) / others(reference.softmax(STUDENT))


def _share(gradient, label_weight):
  ours = label_weight * _of_label()
  norms = [np.linalg.norm(x, axis=-1) for x in (ours, gradient - ours)]
  return norms[1] / sum(norms)


def close(value, wanted):
  np.testing.assert_allclose(value, wanted, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize('name', WANTED)
def test_factor_and_share_are_of_the_loss_that_trains(name):
  found = taught(name)
  close(found.rescaling, _factor(WANTED[name].gradient))
  close(found.share, _share(*WANTED[name]))


def test_the_factor_and_share_of_kd_are_those_of_the_analysis():
  found = taught('kd')
  args = jnp.asarray(STUDENT), jnp.asarray(TEACHER), jnp.asarray(LABELS)
  setting = {'weight': 0.7, 'temperature': 3.0, 'temperature_power': 0}
  close(found.rescaling, analysis.rescaling_factor(*args, **setting))
  close(found.share, analysis.teacher_share(*args, **setting))


# `dist` relates examples, `kd_sampled` draws for all of them at once.
@pytest.mark.parametrize(
  'name', [n for n in TEACHERS if n not in ('dist', 'kd_sampled')]
)
def test_each_example_is_seen_by_itself(name):
  """What relates no examples has a gradient for each."""

  def loss(logits, label, teacher_logits):
    one = exchange(logits[None], teacher_logits[None], label[None])
    return methods.get(name).loss(one, C)[0]

  wanted = rescaling.rescaling_factor_of(loss, STUDENT, LABELS, TEACHER)
  close(taught(name).rescaling, wanted)


@pytest.mark.parametrize('name', TEACHERS)
def test_what_the_loss_does_not_change(name):
  found = taught(name)
  close(found.teacher_confidence, SOFT[np.arange(B), LABELS])
  close(found.agreement, STUDENT.argmax(-1) == TEACHER.argmax(-1))
  wanted = reference.kl(
    reference.softmax(TEACHER), reference.log_softmax(STUDENT)
  )
  close(found.divergence, wanted)


def _seen(num_examples):
  """With ties, as two networks that are very sure have them."""
  x = lambda: RNG.integers(0, num_examples, num_examples) / num_examples
  return insight.Seen(
    confidence=x().astype(np.float32),
    correct=x() < 0.5,
    taught=insight.Taught(*(x().astype(np.float32) - 0.5 for _ in range(5))),
  )


@pytest.mark.parametrize('num_examples', [10, 50])
def test_summary(num_examples):
  seen = _seen(num_examples)
  of, found = seen.taught, insight.summary(seen)
  probs = np.stack([seen.confidence, np.zeros(num_examples, np.float32)], -1)
  wanted = {
    'ece': analysis.expected_calibration_error(
      probs, np.where(seen.correct, 0, 1)
    ),
    'rescaling_p10': np.quantile(of.rescaling, 0.1, method='nearest'),
    'rescaling_p50': np.quantile(of.rescaling, 0.5, method='nearest'),
    'rescaling_p90': np.quantile(of.rescaling, 0.9, method='nearest'),
    'rescaling_negative': (of.rescaling < 0).mean(),
    'rescaling_confidence_correlation': stats.spearmanr(
      of.rescaling, of.teacher_confidence
    ).statistic,
    'teacher_gradient_share': of.share.mean(),
    'agreement': of.agreement.mean(),
    'teacher_kl': of.divergence.mean(),
  }
  assert found.keys() == wanted.keys()
  for name, value in wanted.items():
    assert type(found[name]) is float
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_without_a_teacher_there_is_only_the_calibration():
  seen = _seen(20)
  alone = insight.summary(seen._replace(taught=None))
  assert alone == {'ece': insight.summary(seen)['ece']}


@pytest.mark.parametrize('name', ['rescaling', 'teacher_confidence'])
def test_what_is_constant_has_no_correlation(name):
  seen = _seen(20)
  constant = seen.taught._replace(**{name: np.ones(20, np.float32)})
  found = insight.summary(seen._replace(taught=constant))
  assert np.isnan(found['rescaling_confidence_correlation'])


def test_what_is_not_finite_is_no_error():
  """The training that made it says more."""
  seen = _seen(20)
  broken = jax.tree.map(lambda x: np.full_like(x, np.nan, float), seen)
  found = insight.summary(broken._replace(correct=seen.correct))
  assert np.isnan(found['rescaling_p50'])
  assert np.isnan(found['ece'])
