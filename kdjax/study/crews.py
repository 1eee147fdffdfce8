"""Groups of students with the program that trains them."""

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.study import memory, scene
from kdjax.study.groups import Group
from kdjax.study.members import AXIS, Stream, Varied
from kdjax.study.program import Program
from kdjax.study.scene import Scene
from kdjax.train import feeds, networks, sharding
from kdjax.train.given import Batch
from kdjax.train.state import Weights

# Settings for each device when programs are tried against each other.
_TRIED = 4


class Crew(NamedTuple):
  """A group, ready to be trained.

  Attributes:
    where: data and teacher.
    group: its settings.
    seeds: `S` of them.
    stream: what the students of each seed see.
    program: what trains them.
    size: settings at once.
  """

  where: Scene
  group: Group
  seeds: tuple[int, ...]
  stream: Stream
  program: Program | None
  size: int


class Crews:
  """Makes crews, and keeps the programs that it has compiled."""

  def __init__(self, mesh: Mesh) -> None:
    """Takes the devices, as `scene.make_mesh` returns them."""
    self._mesh = mesh
    self._programs: dict[Any, Program] = {}
    self._compiled: dict[Any, Callable] = {}

  def make(self, where: Scene, group: Group, seeds: tuple[int, ...]) -> Crew:
    """Returns a group with its program, and how many settings fit at once.

    Args:
      where: data and teacher.
      group: what is to be trained.
      seeds: `S` of them.

    Returns:
      The crew.
    """
    stream = scene.stream(group.config, where.dataset, seeds, self._mesh)
    if not group.needs_teacher:
      where = where.alone()
    elif (
      group.looks_inside
      or not feeds.precomputes(group.config)
      or _reads_otherwise(group, where)
    ):
      # An arm may crop or mix, or compare what is not computed beforehand.
      where = where.unanswered()
    crew = Crew(where, group, seeds, stream, None, 0)
    crew = crew._replace(program=self._choose(crew))
    return crew._replace(size=self._fitting(crew))

  def _choose(self, crew: Crew) -> Program:
    """The program that works on students side by side, or in turn."""
    asked = crew.group.config.study.over_members
    if asked != 'auto':
      return self._program(crew, scans=asked == 'scan')
    side_by_side = self._program(crew, scans=False)
    if not (side_by_side.has_convolutions or crew.where.dataset.text):
      return side_by_side
    in_turn = self._program(crew, scans=True)
    some = crew._replace(
      seeds=crew.seeds[:1],
      stream=jax.tree.map(lambda a: a[:1], crew.stream),
      size=self._mesh.size * _TRIED,
    )
    seconds = [
      self._measure(some._replace(program=program))
      for program in (side_by_side, in_turn)
    ]
    return in_turn if seconds[1] < seconds[0] else side_by_side

  def _measure(self, crew: Crew) -> float:
    """Seconds of a few steps of a few students."""
    run, fixed = self.compile(crew), self.fixed(crew, 0)
    members = crew.program.start(crew.seeds, num_settings=crew.size)
    members = jax.block_until_ready(run(members, *fixed, *self.steps(0, 1)))
    begin = time.monotonic()
    jax.block_until_ready(run(members, *fixed, *self.steps(1, 3)))
    return time.monotonic() - begin

  def _program(self, crew: Crew, *, scans: bool) -> Program:
    """One for all groups that need the same."""
    where, group = crew.where, crew.group
    graphdef = where.teacher and where.teacher.graphdef
    num_examples = crew.stream.rows.shape[1]
    key = (
      _identity(group, where),
      graphdef,
      num_examples,
      scans,
    )
    if key not in self._programs:
      self._programs[key] = Program(
        group.config,
        where.dataset,
        teacher=where.teacher,
        loss=group.loss,
        num_examples=num_examples,
        mesh=self._mesh,
        scans=scans,
      )
    return self._programs[key]

  def _fitting(self, crew: Crew) -> int:
    """How many settings to train at once, a multiple of the devices."""
    c, devices = crew.group.config.study, self._mesh.size
    count = len(crew.group.trials)
    size = -(-min(count, c.max_settings or count) // devices) * devices
    limit = c.memory_fraction * memory.of_device(self._mesh)
    while True:
      used = memory.used_by(self.compile(crew._replace(size=size)))
      if used <= limit or size == devices:
        return size
      size = max(int(size * limit / used) // devices, 1) * devices

  def compile(self, crew: Crew) -> Callable:
    """Returns the compiled steps of so many settings; compiles once."""
    members = crew.program.shapes(len(crew.seeds), num_settings=crew.size)
    arguments = (members, *self.fixed(crew, 0), *self.steps(0, 0))
    key = (
      id(crew.program),
      *((a.shape, a.dtype) for a in jax.tree.leaves(arguments)),
    )
    if key not in self._compiled:
      lowered = crew.program.advance.lower(*arguments)
      self._compiled[key] = lowered.compile()
    return self._compiled[key]

  def fixed(
    self, crew: Crew, first: int
  ) -> tuple[Varied, Weights | None, Batch, Stream]:
    """Returns what does not change in the training of a chunk.

    Args:
      crew: whose.
      first: the chunk's first setting.

    Returns:
      Arguments of `Program.advance`.
    """
    varied = {
      key: _padded(values[first:], crew.size)
      for key, values in crew.group.varied.items()
    }
    by_setting = NamedSharding(self._mesh, PartitionSpec(AXIS))
    where = crew.where
    return (
      jax.device_put(varied, by_setting),
      where.teacher_weights,
      where.examples,
      crew.stream,
    )

  def steps(self, start: int, stop: int) -> tuple[jax.Array, jax.Array]:
    """Returns the last arguments of `Program.advance`."""
    everywhere = sharding.replicated(self._mesh)
    return sharding.place((np.int32(start), np.int32(stop)), everywhere)


def _reads_otherwise(group: Group, where: Scene) -> bool:
  """Whether the teacher read a text in other streams than the group does."""
  in_order = networks.reads_in_order(where.dataset)
  return in_order and group.config.batch_size != where.config.batch_size


def _padded(values: np.ndarray, size: int) -> np.ndarray:
  """The first `size` values; what is missing repeats the last."""
  found = values[:size]
  return np.pad(found, (0, size - len(found)), mode='edge')


def _identity(group: Group, where: Scene) -> str:
  """What a program depends on, of what it is given."""
  values = json.loads(group.config.to_json())
  dataset = values.pop('dataset')
  numbers = {key for key in values if key in group.unread}
  for key in ('teacher', 'study', 'quick', 'seed', *numbers):
    del values[key]
  data = where.dataset
  seen = None
  if group.looks_inside:  # a memory knows the class of each example
    rows = [dataset[key] for key in ('num_labels', 'exclude_classes')]
    seen = [rows, data.fingerprint()]
  return json.dumps(
    [
      values,
      seen,
      [dataset[key] for key in ('augment', 'mixup')],
      [data.input_shape, data.num_classes, data.mean, data.std],
      data.text and [data.text.batching, data.text.boundary],
      [group.kind, sorted(group.varied)],
    ],
    sort_keys=True,
  )
