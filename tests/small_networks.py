"""A network with maps that compiles in no time, and steps with its features."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from kdjax import config as configuration
from kdjax import methods, models, terms
from kdjax.models.layers import Norm, relu
from kdjax.train import given, lesson
from kdjax.train.state import Network, Weights, create

SHAPE, K = (8, 8, 3), 10


class Stage(nnx.Module):
  """A 1×1 convolution and batch norm."""

  def __init__(self, num_inputs, num_outputs, rngs):
    self.conv = nnx.Linear(num_inputs, num_outputs, use_bias=False, rngs=rngs)
    self.norm = Norm(num_outputs, rngs=rngs)

  def __call__(self, x, *, train):
    return self.norm(self.conv(x), train=train)


class Maps(nnx.Module):
  """Two stages, 8×8 and 4×4."""

  def __init__(self, *, input_shape, num_classes, width, dtype, rngs):
    del dtype
    self.width = width
    self.stage1 = Stage(input_shape[-1], width, rngs)
    # Four neighbours are one, with four times the channels.
    self.stage2 = Stage(4 * width, 2 * width, rngs)
    self.head = nnx.Linear(2 * width, num_classes, rngs=rngs)

  @property
  def class_weights(self):
    return self.head.kernel[...].T

  def __call__(self, inputs, *, train, key=None):
    features = {'stage1': relu(self.stage1(inputs, train=train))}
    quarters = features['stage1'].reshape(-1, 4, 2, 4, 2, self.width)
    quarters = quarters.swapaxes(2, 3).reshape(-1, 4, 4, 4 * self.width)
    features['stage2'] = relu(self.stage2(quarters, train=train))
    features['pooled'] = jnp.mean(features['stage2'], axis=(1, 2))
    return models.Outputs(self.head(features['pooled']), features)


def network(seed, width, kind=Maps):
  if kind is Maps:
    model = Maps(
      input_shape=SHAPE,
      num_classes=K,
      width=width,
      dtype='float32',
      rngs=nnx.Rngs(seed),
    )
  else:
    model = models.build(
      'mlp', input_shape=SHAPE, num_classes=K, seed=seed, widths=(width,)
    )
  return Network(*models.split(model))


def data(num_examples=12, seed=0):
  keys = jax.random.split(jax.random.key(seed), 2)
  return given.Batch(
    jax.random.normal(keys[0], (num_examples, *SHAPE)),
    jax.random.randint(keys[1], (num_examples,), 0, K)
    .at[:2]
    .set(jnp.arange(2)),
  )


def declare(method, also=(), **changes):
  c = configuration.default()
  c.update({'method': method, 'also': tuple(also), 'temperature': 2.0})
  c.terms.crd.update({'num_negatives': 7, 'dim': 8})
  c.terms.cc.dim = 8
  c.update(changes)
  return c


def set_up(config, student, teacher, examples, *, parts=1, **task):
  """A task of plain gradient descent, the first state, and the teacher."""
  outline = lesson.Outline(
    config,
    student,
    teacher,
    input_shape=SHAPE,
    data=terms.DataSet(jax.device_get(examples.labels), K),
  )
  rate = optax.sgd(1e-3)
  job = given.Task(
    student=student.graphdef,
    teacher=teacher.graphdef,
    loss=methods.get(config.method).loss,
    settings=config,
    optimizer=rate,
    augment=lambda key, inputs: inputs,
    normalise=lambda inputs: inputs,
    steps_per_epoch=2,
    batch_size=6,
    parts=parts,
    lesson=outline.lesson,
    **task,
  )
  state = create(
    student.params,
    student.rest,
    rate,
    ema_decay=config.ema_decay,
    aids=outline.aids(config.seed),
  )
  return job, state, Weights(*teacher[1:])
