"""Many students at once: what one compiled program does.

Students stand in a table `[S, H]`, a row a seed and a column a setting. Those
of one seed share the stream of batches, its augmentation, and the teacher's
forward pass; every step of each is `kdjax.train.step.update`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from kdjax import data, losses, methods, models
from kdjax.analysis import rescaling
from kdjax.exchange import Exchange
from kdjax.study.members import (
  AXIS,
  Members,
  Stream,
  Totals,
  Varied,
  note_best,
)
from kdjax.study.settings import namespace, overlaid
from kdjax.train import (
  answers,
  experiment,
  feeds,
  lesson,
  optimizer,
  resident,
  state,
  step,
  task,
)
from kdjax.train.answers import Batch
from kdjax.train.state import Network, State, Weights


class Program:
  """Functions of students that differ in numbers alone."""

  def __init__(
    self,
    config: ConfigDict,
    dataset: data.Dataset,
    *,
    teacher: Network | None,
    loss: methods.Loss,
    num_examples: int,
    mesh: Mesh,
    scans: bool,
  ) -> None:
    """Takes what the students share.

    Args:
      config: what is not varied of it holds for all.
      dataset: decides shapes and normalisation.
      teacher: the network, or None for students without one.
      loss: of every student, which reads the varied numbers as settings.
      num_examples: that a student trains on.
      mesh: one axis, `AXIS`.
      scans: students are worked on one after the other, not side by side.
    """
    self.mesh, self._config, self._dataset = mesh, config, dataset
    self._teacher = teacher
    self._over = _one_after_the_other if scans else jax.vmap
    self._settings = namespace(config.to_dict())
    self._task = answers.Task(
      student=self._shapes.graphdef,
      teacher=teacher and teacher.graphdef,
      loss=loss,
      settings=self._settings,
      optimizer=None,  # each student's own
      augment=feeds.AUGMENT[config.dataset.augment].apply,
      normalise=feeds.normaliser(dataset),
      steps_per_epoch=num_examples // config.batch_size,
      batch_size=config.batch_size,
      parts=config.accumulate_steps,
      mixup=config.dataset.mixup,
      lesson=self._outline(config.seed).lesson,
    )
    self.num_steps = config.num_epochs * self._task.steps_per_epoch
    self.eval_every = config.eval_every_epochs * self._task.steps_per_epoch
    columns, settings = PartitionSpec(None, AXIS), PartitionSpec(AXIS)
    whole = PartitionSpec()
    self.advance = self._jit(
      self._advance,
      (columns, settings, whole, whole, whole, whole, whole),
      columns,
      donate_argnums=0,
    )
    self.evaluate = self._jit(self._evaluate, (columns, whole, whole), columns)
    self.factors = self._jit(
      self._factors, (columns, settings, whole, whole, whole, whole), columns
    )
    self.note_best = jax.jit(note_best, donate_argnums=0)

  def start(self, seeds: tuple[int, ...], *, num_settings: int) -> Members:
    """Returns the students before their first step.

    Args:
      seeds: `S` of them; the students of one start from the same weights.
      num_settings: H, a multiple of the devices.

    Returns:
      The members.
    """
    first = [self._initial(seed) for seed in seeds]
    make = functools.partial(self._table, num_settings)
    return jax.jit(make, out_shardings=self._columns)(*first)

  def shapes(self, num_seeds: int, *, num_settings: int) -> Members:
    """Returns shapes, types and places of what `start` would return."""
    first = jax.eval_shape(lambda: self._initial(0))
    make = functools.partial(self._table, num_settings)
    return jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=self._columns),
      jax.eval_shape(make, *[first] * num_seeds),
    )

  @functools.cached_property
  def num_params(self) -> int:
    """Of one student."""
    return models.num_params(self._shapes.params)

  @property
  def has_convolutions(self) -> bool:
    """Whether the student has any."""
    return any(a.ndim > 2 for a in jax.tree.leaves(self._shapes.params))

  @functools.cached_property
  def _shapes(self) -> Network:
    return task.shapes(self._config, self._dataset)

  @property
  def _columns(self) -> NamedSharding:
    return NamedSharding(self.mesh, PartitionSpec(None, AXIS))

  def _table(self, num_settings: int, *first: tuple) -> Members:
    """Rows of what each seed begins with, in which all columns are equal."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *first)
    initial = jax.vmap(self._members)(stacked)
    return jax.tree.map(
      lambda a: jnp.repeat(a[:, None], num_settings, axis=1), initial
    )

  def _initial(self, seed: int) -> tuple[Weights, Weights]:
    """The student of a seed, and what is trained beside it."""
    config = self._config.copy_and_resolve_references()
    config.seed = seed
    _, params, rest = models.split(task.build(config, self._dataset))
    return Weights(params, rest), self._outline(seed).aids(seed)

  def _outline(self, seed: int) -> lesson.Outline:
    """What the loss compares beside logits, in what a seed's students see."""
    config = self._config.copy_and_resolve_references()
    config.seed = seed
    labels = self._dataset.train.labels
    whole = dataclasses.replace(
      self._dataset, train=data.Split(np.arange(len(labels)), labels)
    )
    seen = experiment.transfer_set(config, whole)
    return task.outlined(config, self._dataset, self._teacher, seen.labels)

  def _members(self, first: tuple[Weights, Weights]) -> Members:
    weights, aids = first
    update = optimizer.make(
      self._settings, steps_per_epoch=self._task.steps_per_epoch
    )
    created = state.create(
      *weights, update, ema_decay=self._settings.ema_decay, aids=aids
    )
    return Members(
      created, weights, jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.int32)
    )

  def _advance(
    self,
    members: Members,
    varied: Varied,
    teacher: Weights | None,
    examples: Batch,
    stream: Stream,
    start: jax.Array,
    stop: jax.Array,
  ) -> Members:
    """Trains from step `start` until step `stop`; `members` are given up."""
    order_keys, step_keys = jax.vmap(jax.random.split, out_axes=1)(stream.key)
    num_examples = stream.rows.shape[1]

    def orders_of(epoch: jax.Array) -> resident.Order:
      return jax.vmap(
        lambda key: resident.order_of(self._task, key, epoch, num_examples)
      )(order_keys)

    def body(carry: tuple) -> tuple:
      states, order, at = carry
      epoch, position = jnp.divmod(at, self._task.steps_per_epoch)
      order = jax.lax.cond(
        order.epoch[0] == epoch, lambda: order, lambda: orders_of(epoch)
      )
      states = self._over(
        lambda *seed: self._step(varied, teacher, examples, at, *seed)
      )(states, stream.rows, order.rows[:, position], step_keys)
      return states, order, at + 1

    first = orders_of(start // self._task.steps_per_epoch)
    states, _, _ = jax.lax.while_loop(
      lambda carry: carry[2] < stop, body, (members.state, first, start)
    )
    return members._replace(state=states)

  def _step(
    self,
    varied: Varied,
    teacher: Weights | None,
    examples: Batch,
    at: jax.Array,
    states: State,
    rows: jax.Array,
    chosen: jax.Array,
    key: jax.Array,
  ) -> State:
    """One step of the students of one seed."""
    batch = resident.take(examples, rows[chosen])._replace(positions=chosen)
    ready, dropout_key = answers.prepare(self._task, batch, key, at)
    ready = answers.ask_teacher(self._task, teacher, ready)

    def one(before: State, varied: Varied) -> State:
      own = self._task_of(varied)
      # A student whose update was not finite stays as it was before it.
      going = before.step == at
      after, _ = step.update(
        own, before, teacher, ready, dropout_key, going=going
      )
      return after

    return self._over(one)(states, varied)

  def _task_of(self, varied: Varied) -> answers.Task:
    settings = overlaid(self._settings, varied)
    update = optimizer.make(
      settings, steps_per_epoch=self._task.steps_per_epoch
    )
    return dataclasses.replace(self._task, settings=settings, optimizer=update)

  def _evaluate(
    self, weights: Weights, inputs: jax.Array, labels: jax.Array
  ) -> Totals:
    """Counts batches of inputs `[n, B, ...]` and labels `[n, B]`."""

    def of_batch(batch: tuple) -> Totals:
      inputs, labels = batch
      inputs = self._task.normalise(inputs)
      is_example = labels != data.PADDING
      safe = jnp.where(is_example, labels, 0)

      def one(weights: Weights) -> Totals:
        logits = self._logits(weights, inputs)
        correct = is_example & (jnp.argmax(logits, -1) == labels)
        nats = jnp.where(is_example, losses.cross_entropy(logits, safe), 0.0)
        return Totals(jnp.sum(correct), jnp.sum(nats))

      return self._over(self._over(one))(weights)

    counted = jax.lax.map(of_batch, (inputs, labels))
    return jax.tree.map(lambda t: jnp.sum(t, 0), counted)

  def _factors(
    self,
    weights: Weights,
    varied: Varied,
    teacher: Weights | None,
    inputs: jax.Array,
    labels: jax.Array,
    teacher_logits: jax.Array | None,
  ) -> jax.Array:
    """Rescaling factors `[S, H, N]` of each student's loss on `N` examples."""
    class_weights = mentor = None
    if teacher is not None:
      class_weights = answers.class_weights(self._task, teacher)
      mentor = models.Outputs(teacher_logits, {})
    epoch = jnp.asarray(self._settings.num_epochs, jnp.float32)

    def one(weights: Weights, varied: Varied) -> jax.Array:
      settings = overlaid(self._settings, varied)
      logits = jax.lax.map(
        lambda x: self._logits(weights, self._task.normalise(x)), inputs
      )
      logits = logits.reshape(-1, logits.shape[-1])[: len(labels)]

      def total(logits: jax.Array) -> jax.Array:
        student = models.Outputs(logits, {})
        exchange = Exchange(student, mentor, class_weights, labels, epoch)
        return jnp.sum(self._task.loss(exchange, settings))

      gradient = jax.grad(total)(logits)
      return rescaling.rescaling_factor_from(gradient, logits, labels)

    def of_seed(weights: Weights) -> jax.Array:
      return jax.lax.map(lambda pair: one(*pair), (weights, varied))

    return jax.lax.map(of_seed, weights)

  def _logits(self, weights: Weights, inputs: jax.Array) -> jax.Array:
    outputs, _ = models.apply(self._task.student, *weights, inputs, train=False)
    return outputs.logits

  def _jit(
    self,
    function: Callable,
    in_specs: tuple,
    out_specs: PartitionSpec,
    **options: Any,  # noqa: ANN401
  ) -> Callable:
    """Every device works on its own settings, without a word to the others."""
    mapped = jax.shard_map(
      function,
      mesh=self.mesh,
      in_specs=in_specs,
      out_specs=out_specs,
      check_vma=False,
    )
    return jax.jit(mapped, **options)


def _one_after_the_other(function: Callable) -> Callable:
  """As `jax.vmap`, but one compiled body that runs for each in turn."""
  return lambda *args: jax.lax.map(lambda row: function(*row), args)
