"""What each part of a loss is worth, against the formulas by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import losses, models
from kdjax.train import answers, given, networks, parts, task, teacher
from kdjax.train.state import Network


@pytest.fixture
def job(config, digits, mesh):
  """KD with a relation beside it, by a method's own warm-up."""
  config.method, config.also = 'kd', ('pkt',)
  config.terms.pkt.weight = 500.0
  config.terms.pkt.warmup_epochs = 4
  config.student.dropout = 0.0
  own = teacher.config_of(config)
  mentor = Network(*models.split(networks.build(own, digits)))
  return task.prepare(config, digits, mentor, mesh)


def wanted(job, batch):
  """Each part as a function of the student's parameters."""
  c, x = job.task.settings, job.task.normalise(batch.inputs)
  state = job.initialise().state

  def ask(graphdef, weights):
    return models.apply(graphdef, *weights, x, train=False)[0]

  t = ask(job.task.teacher, job.teacher)

  def label(params):
    s = ask(job.task.student, (params, state.rest)).logits
    return (1 - c.weight) * losses.cross_entropy(s, batch.labels).mean()

  def of_teacher(params):
    s = ask(job.task.student, (params, state.rest)).logits
    kd = losses.kd(s, t.logits, temperature=c.temperature)
    return c.weight * kd.mean()

  def pkt(params):
    s = ask(job.task.student, (params, state.rest))
    of = losses.pkt(s.features['pooled'], t.features['pooled'])
    return 0.5 * 500.0 * of  # after two of four epochs

  return {'label': label, 'teacher': of_teacher, 'pkt': pkt}


def test_values_and_gradient_norms_are_those_of_each_part(job):
  batch, key = job.feed.batch(0)
  state = job.initialise().state
  at = jnp.int32(2 * job.task.steps_per_epoch)
  state = type(state)(**{**vars(state), 'step': at})
  measure = jax.jit(functools.partial(parts.measure, job.task))
  found = measure(state, job.teacher, batch, key)
  assert len(found) == 6
  for name, part in wanted(job, batch).items():
    value, gradient = jax.value_and_grad(part)(state.params)
    np.testing.assert_allclose(found[f'loss_{name}'], value, rtol=1e-4)
    np.testing.assert_allclose(
      found[f'gradient_norm_{name}'], optax.tree.norm(gradient), rtol=1e-4
    )
  examples, dropout_key = given.prepare(job.task, batch, key, at)
  said = answers.answer(
    job.task, state.trained, state, job.teacher, examples, dropout_key
  )
  values = sum(found[f'loss_{name}'] for name in wanted(job, batch))
  np.testing.assert_allclose(values, said.loss, rtol=1e-5)


def test_without_a_teacher_there_is_nothing_to_tell_apart(config, digits, mesh):
  config.method = 'ce'
  job = task.prepare(config, digits, None, mesh)
  state = job.initialise().state
  job.parts.compile(state)
  assert job.parts(state, 5) == {}
