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
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from kdjax import data, methods, models
from kdjax.study import scores
from kdjax.study.examiner import Examiner
from kdjax.study.members import (
  AXIS,
  NOTHING,
  Members,
  Stream,
  Varied,
  note_best,
)
from kdjax.study.settings import namespace, overlaid
from kdjax.train import (
  answers,
  experiment,
  feeds,
  given,
  lesson,
  networks,
  optimizer,
  reading,
  resident,
  state,
  step,
  task,
)
from kdjax.train.given import Batch
from kdjax.train.state import Carries, Network, PyTree, State, Weights


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
    self._task = given.Task(
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
      in_order=networks.reads_in_order(dataset),
    )
    self.num_steps = config.num_epochs * self._task.steps_per_epoch
    self.eval_every = config.eval_every_epochs * self._task.steps_per_epoch
    columns, settings = PartitionSpec(None, AXIS), PartitionSpec(AXIS)
    whole = PartitionSpec()
    members = _of_members(columns, whole)
    self.advance = self._jit(
      self._advance,
      (members, settings, whole, whole, whole, whole, whole),
      members,
      donate_argnums=0,
    )
    examiner = Examiner(self._task, over=self._over)
    self.evaluate = self._jit(
      examiner.evaluate, (columns, whole, whole), columns
    )
    self.factors = self._jit(
      examiner.factors,
      (columns, settings, whole, whole, whole, whole),
      columns,
    )
    self.note_best = jax.jit(
      functools.partial(note_best, merit=scores.of_data(dataset).merit_of),
      donate_argnums=0,
    )

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
    return jax.jit(make, out_shardings=self._places)(*first)

  def shapes(self, num_seeds: int, *, num_settings: int) -> Members:
    """Returns shapes, types and places of what `start` would return."""
    first = jax.eval_shape(lambda: self._initial(0))
    make = functools.partial(self._table, num_settings)
    found = jax.eval_shape(make, *[first] * num_seeds)
    return jax.tree.map(
      lambda place, part: jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), part
      ),
      self._places,
      found,
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
    return networks.shapes(self._config, self._dataset)

  @property
  def _places(self) -> Members:
    specs = PartitionSpec(None, AXIS), PartitionSpec()
    return _of_members(*(NamedSharding(self.mesh, spec) for spec in specs))

  def _table(self, num_settings: int, *first: tuple) -> Members:
    """Rows of what each seed begins with, in which all columns are equal."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *first)
    initial = jax.vmap(self._members)(stacked)
    table = jax.tree.map(
      lambda a: jnp.repeat(a[:, None], num_settings, axis=1), initial
    )
    return table._replace(heard=self._unheard())

  def _initial(self, seed: int) -> tuple[Weights, Weights]:
    """The student of a seed, and what is trained beside it."""
    config = self._config.copy_and_resolve_references()
    config.seed = seed
    _, params, rest = models.split(networks.build(config, self._dataset))
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
      *weights,
      update,
      ema_decay=self._settings.ema_decay,
      aids=aids,
      carries=Carries(self._begin(self._task.student, weights)),
    )
    return Members(
      created,
      weights,
      jax.tree.map(jnp.asarray, NOTHING),
      jnp.zeros((), jnp.int32),
    )

  def _unheard(self) -> PyTree:
    """What the teacher remembers before the first step."""
    if self._teacher is None:
      return ()
    graphdef, *weights = self._teacher
    return self._begin(graphdef, Weights(*weights))

  def _begin(self, graphdef: nnx.GraphDef, weights: Weights) -> PyTree:
    reader = reading.Reader(graphdef, self._task.in_order)
    return reader.begin(weights, self._task.batch_size)

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
      (states, heard), order, at = carry
      epoch, position = jnp.divmod(at, self._task.steps_per_epoch)
      order = jax.lax.cond(
        order.epoch[0] == epoch, lambda: order, lambda: orders_of(epoch)
      )
      rows = order.rows[:, position]
      said, heard = self._hear(teacher, examples, at, rows[0], heard)
      states = self._over(
        lambda *seed: self._step(varied, teacher, examples, said, at, *seed)
      )(states, stream.rows, rows, step_keys)
      return (states, heard), order, at + 1

    first = orders_of(start // self._task.steps_per_epoch)
    begin = (members.state, members.heard), first, start
    (states, heard), _, _ = jax.lax.while_loop(
      lambda carry: carry[2] < stop, body, begin
    )
    return members._replace(state=states, heard=heard)

  def _hear(
    self,
    teacher: Weights | None,
    examples: Batch,
    at: jax.Array,
    rows: jax.Array,
    heard: PyTree,
  ) -> tuple[models.Outputs | None, PyTree]:
    """What a teacher says of a text in order, and what it remembers then.

    All seeds read the same, so it is asked once for them. None where it is not
    asked, or where it remembers nothing from step to step.
    """
    is_asked = teacher is not None and examples.teacher is None
    if not (self._task.in_order and is_asked):
      return None, heard
    begins = at % self._task.steps_per_epoch == 0
    heard = jax.tree.map(lambda a: jnp.where(begins, 0, a), heard)
    ready = given.Examples(*resident.take(examples, rows)[:3])
    said = answers.ask_teacher(self._task, teacher, ready, heard).teacher
    return said._replace(carry=()), said.carry

  def _step(
    self,
    varied: Varied,
    teacher: Weights | None,
    examples: Batch,
    said: models.Outputs | None,
    at: jax.Array,
    states: State,
    rows: jax.Array,
    chosen: jax.Array,
    key: jax.Array,
  ) -> State:
    """One step of the students of one seed."""
    batch = resident.take(examples, rows[chosen])._replace(positions=chosen)
    ready, dropout_key = given.prepare(self._task, batch, key, at)
    ready = ready._replace(teacher=said or ready.teacher)
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

  def _task_of(self, varied: Varied) -> given.Task:
    settings = overlaid(self._settings, varied)
    update = optimizer.make(
      settings, steps_per_epoch=self._task.steps_per_epoch
    )
    return dataclasses.replace(self._task, settings=settings, optimizer=update)

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


def _of_members(columns: Any, whole: Any) -> Members:  # noqa: ANN401
  """Members with one thing for all that has columns, and one for the rest."""
  return Members(columns, columns, columns, columns, whole)


def _one_after_the_other(function: Callable) -> Callable:
  """As `jax.vmap`, but one compiled body that runs for each in turn."""
  return lambda *args: jax.lax.map(lambda row: function(*row), args)
