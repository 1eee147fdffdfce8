"""Trains a population of students, and says how each came out."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from kdjax import data
from kdjax.study import groups, scores
from kdjax.study.arms import Trial
from kdjax.study.crews import Crew, Crews
from kdjax.study.members import Members, Totals, Varied
from kdjax.study.scene import Scene
from kdjax.train import pace
from kdjax.train.watchdog import Watchdog

_PERCENTILES = (5, 25, 50, 75, 95)


class Outcome(NamedTuple):
  """How a student came out.

  Attributes:
    trial: its setting.
    seed: of its initialisation and its batches.
    num_params: of its network.
    metrics: scores, cross-entropies, curve; plain data.
    diverged_at: the step whose update was not finite, or None.
    wall_seconds: its share of the time that its chunk took.
  """

  trial: Trial
  seed: int
  num_params: int
  metrics: dict[str, Any]
  diverged_at: int | None
  wall_seconds: float


class Trainer:
  """Trains populations, and keeps the programs that it has compiled."""

  def __init__(self, mesh: Mesh, watchdog: Watchdog) -> None:
    """Takes what outlasts a population.

    Args:
      mesh: what `scene.make_mesh` returns.
      watchdog: hears of the progress.
    """
    self._crews, self._watchdog = Crews(mesh), watchdog

  def train(
    self,
    where: Scene,
    trials: Sequence[Trial],
    seeds: Sequence[int],
    *,
    report: bool,
    progress: Callable[[float], None],
  ) -> Iterator[list[Outcome]]:
    """Trains every trial with every seed, as many at once as memory holds.

    Args:
      where: data and teacher.
      trials: `H` settings.
      seeds: `S` of them.
      report: whether to score on test and to find the rescaling factors;
        else nothing but dev is looked at.
      progress: is told how many students' trainings were done since it was
        told last, a fraction.

    Yields:
      The outcomes of those that were trained at once.

    Raises:
      ValueError: something does not fit the data.
    """
    num_classes = where.dataset.num_classes
    for group in groups.split(where.config, trials, num_classes=num_classes):
      with self._watchdog.paused():
        crew = self._crews.make(where, group, tuple(seeds))
      for first in range(0, len(group.trials), crew.size):
        begin = time.monotonic()
        results = self._train_chunk(crew, first, report, progress)
        chunk = group.trials[first : first + crew.size]
        seconds = (time.monotonic() - begin) / len(chunk) / len(seeds)
        yield [
          _outcome(crew, results, (row, column), trial, seed, seconds)
          for column, trial in enumerate(chunk)
          for row, seed in enumerate(seeds)
        ]

  def _train_chunk(
    self,
    crew: Crew,
    first: int,
    report: bool,
    progress: Callable[[float], None],
  ) -> '_Results':
    """Trains settings from the first on."""
    program, dev = crew.program, crew.where.dev
    fixed = self._crews.fixed(crew, first)
    with self._watchdog.paused():
      run = self._crews.compile(crew)
      members = program.start(crew.seeds, num_settings=crew.size)
    num_students = len(crew.seeds) * len(crew.group.trials[first:][: crew.size])
    at, curve, clock = 0, [], pace.Clock(crew.group.config.batch_size)
    while at < program.num_steps:
      boundary = (at // program.eval_every + 1) * program.eval_every
      boundary = min(boundary, program.num_steps)
      stop = min(boundary, at + clock.num_steps)
      clock.restart()
      members = run(members, *fixed, *self._crews.steps(at, stop))
      jax.block_until_ready(members)
      clock.tick(stop - at)
      self._watchdog.pet()
      progress((stop - at) / program.num_steps * num_students)
      at = stop
      if at == boundary:
        with self._watchdog.paused():
          totals = program.evaluate(members.state.evaluated, *dev)
          members = program.note_best(members, totals)
          curve.append((at, jax.device_get(totals)))
    with self._watchdog.paused():
      tests = self._report(crew, members, fixed[0]) if report else None
      kept = members.best_dev, members.best_step, members.state.step
      return _Results(curve, *jax.device_get((*kept, tests)))

  def _report(self, crew: Crew, members: Members, varied: Varied) -> '_Tests':
    """What is looked at once, after training."""
    program, where = crew.program, crew.where
    last = members.state.evaluated
    return _Tests(
      last=program.evaluate(last, *where.test),
      best=program.evaluate(members.best, *where.test),
      factors=program.factors(
        last,
        varied,
        where.teacher_weights,
        where.dev[0],
        where.dev_labels,
        where.dev_logits,
      ),
    )


class _Tests(NamedTuple):
  """Of the students of a chunk, `[S, H, ...]`."""

  last: Totals
  best: Totals
  factors: jax.Array


class _Results(NamedTuple):
  """Of the students of a chunk, `[S, H]`, on the host."""

  curve: list[tuple[int, Totals]]
  best_dev: Totals
  best_step: np.ndarray
  step: np.ndarray
  tests: _Tests | None


def _outcome(
  crew: Crew,
  results: _Results,
  place: tuple[int, int],
  trial: Trial,
  seed: int,
  seconds: float,
) -> Outcome:
  dataset = crew.where.dataset
  score = scores.of_data(dataset)

  def found(split: str, totals: Totals) -> dict[str, float]:
    asked = np.count_nonzero(getattr(dataset, split).labels != data.PADDING)
    correct, nats = int(totals.correct[place]), totals.cross_entropy[place]
    return score.found(split, correct, float(nats), asked)

  metrics = found('dev', results.curve[-1][1])
  if results.tests:
    on_dev, on_test = f'dev_{score.name}', f'test_{score.name}'
    metrics |= found('test', results.tests.last) | {
      'best': {
        'step': int(results.best_step[place]),
        on_dev: found('dev', results.best_dev)[on_dev],
        on_test: found('test', results.tests.best)[on_test],
      },
      'curve': {
        'step': [at for at, _ in results.curve],
        on_dev: [found('dev', totals)[on_dev] for _, totals in results.curve],
      },
      'rescaling_factor': _percentiles(results.tests.factors[place]),
    }
  reached = int(results.step[place])
  return Outcome(
    trial=trial,
    seed=seed,
    num_params=crew.program.num_params,
    metrics=metrics,
    diverged_at=reached if reached < crew.program.num_steps else None,
    wall_seconds=round(seconds, 4),
  )


def _percentiles(factors: np.ndarray) -> dict[str, float] | None:
  """Percentiles over the examples whose factor is a number."""
  finite = factors[np.isfinite(factors)]
  if not len(finite):
    return None
  values = np.percentile(finite, _PERCENTILES)
  return {
    str(percent): float(value)
    for percent, value in zip(_PERCENTILES, values, strict=True)
  }
