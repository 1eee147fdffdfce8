"""A whole study: every scenario searched, selected, and trained afresh."""

import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from kdjax import data
from kdjax.config import of_run
from kdjax.study import (
  arms,
  figures,
  records,
  scenarios,
  scene,
  summary,
  tables,
)
from kdjax.study import config as configuration
from kdjax.study.arms import Arm, Trial
from kdjax.study.population import Trainer
from kdjax.study.records import Records
from kdjax.study.scenarios import Scenario
from kdjax.study.scene import Scene
from kdjax.train import (
  experiment,
  rendezvous,
  sharding,
  teacher,
  workdirs,
)
from kdjax.train.files import write_whole
from kdjax.train.interrupts import Interrupts
from kdjax.train.progress import Reporter
from kdjax.train.session import Session
from kdjax.train.state import Network
from kdjax.train.watchdog import Watchdog


def run(
  config: ConfigDict, workdir: Path, reporter: Reporter
) -> list[summary.Row]:
  """Carries a study out, or goes on with it; writes what came of it.

  Args:
    config: a study's configuration.
    workdir: takes every file. Students that it has already are not trained
      again.
    reporter: shows the progress.

  Returns:
    A row per scenario and arm.

  Raises:
    ValueError: something in the config is not allowed, or the workdir is of
      another study.
    Interrupted: a signal came; the students trained so far are saved.
    OSError: something cannot be read or written, or another process is in the
      workdir.
  """
  _check_one_host()
  config = configuration.quick(config)
  configuration.validate(config)
  places, compared = scenarios.of(config), arms.of(config)
  with (
    Interrupts() as interrupts,
    Watchdog(config.watchdog_seconds) as watchdog,
  ):
    session = Session(sharding.make_mesh(), reporter, interrupts, watchdog)
    with watchdog.paused():
      workdirs.check(workdir, config)
      _check_comparable(places)
      contents = [_content(scenarios.check(x, compared)) for x in places]
    with workdirs.claimed(workdir, config):
      study = _Study(config, places, compared, workdir, session)
      study.check(contents)
      for place in places:
        study.carry_out(place)
        rows = study.write()
      with watchdog.paused():
        figures.draw(study.records.rows, rows, workdir / 'figures')
  return rows


class _Study:
  """A study that runs."""

  def __init__(
    self,
    config: ConfigDict,
    places: Sequence[Scenario],
    compared: Sequence[Arm],
    workdir: Path,
    session: Session,
  ) -> None:
    self.records = Records(workdir)
    self._places, self._arms = places, compared
    self._workdir, self._session = workdir, session
    self._mesh = scene.make_mesh()
    self._trainer = Trainer(self._mesh, session.watchdog)
    c = config.study
    pairs = c.when_quick if config.quick else ()
    self._quick = {k: v for k, v in pairs if not k.startswith('study.')}
    fresh = config.seed + c.num_search_seeds
    self._seeds = {
      'search': range(config.seed, fresh),
      'final': range(fresh, fresh + c.num_seeds),
    }
    students = c.num_trials * c.num_search_seeds + c.num_seeds
    self._num_students = len(places) * len(self._arms) * students

  def check(self, contents: Sequence[str]) -> None:
    """Raises `ValueError` if there are students of other data already."""
    for place, content in zip(self._places, contents, strict=True):
      here = records.plain(place.name)
      for row in self.records.rows:
        if row['scenario'] == here and row['data'] != content:
          raise ValueError(
            f'--workdir={self._workdir} holds students of other data: the '
            f'content of {place.config.dataset.name!r} has changed; give a '
            f'new workdir'
          )

  def carry_out(self, place: Scenario) -> None:
    """Searches a scenario, selects, and trains what is selected afresh."""
    stage = functools.cache(functools.partial(self._stage, place))
    trials = self._trials(place)
    self._train('search', place, trials, stage)
    found = self.records.of('search', place.name)
    self._train('final', place, records.best_trials(found, trials), stage)

  def write(self) -> list[summary.Row]:
    """Writes the tables of what there is so far."""
    rows = summary.summarise(self.records.rows)
    text = tables.markdown(rows, title=self._workdir.resolve().name)
    write_whole(self._workdir / 'table.md', text)
    write_whole(self._workdir / 'table.csv', tables.csv(rows))
    return rows

  def _trials(self, place: Scenario) -> list[Trial]:
    return [t for arm in self._arms for t in arms.trials(place.config, arm)]

  def _train(
    self,
    phase: str,
    place: Scenario,
    trials: Sequence[Trial],
    stage: Callable[[], '_Stage'],
  ) -> None:
    """Trains what is missing of a phase."""
    seeds = self._seeds[phase]
    rows = self.records.of(phase, place.name)
    left = records.missing(rows, trials, seeds)
    if not left:
      return
    where, sets, teacher_scores, content = stage()
    first = len(self.records.rows)
    new = 0.0
    where_text = summary.describe(place.name, summary.short_keys(place.name))
    with self._session.reporter.phase(
      phase, num_steps=self._num_students, start=first, unit='students'
    ) as shown:
      begin = time.monotonic()

      def progress(students: float) -> None:
        nonlocal new
        new += students
        rate = new / (time.monotonic() - begin)
        shown.update(first + new, rate, where_text)

      for outcomes in self._trainer.train(
        where, left, seeds, report=phase == 'final', progress=progress
      ):
        self.records.add(
          records.make(
            outcome,
            phase=phase,
            scenario=place.name,
            sets=sets,
            content=content,
            teacher=teacher_scores,
          )
          for outcome in outcomes
        )

  def _stage(self, place: Scenario) -> '_Stage':
    """Loads the data, and obtains the teacher if any arm needs one."""
    with self._session.watchdog.paused():
      dataset = experiment.load(place.config)
    mentor, sets = None, self._quick | place.sets
    if any(arms.needs_teacher(place.config, arm) for arm in self._arms):
      mentor, folders = self._teacher(place.config, dataset)
      # A trial may set what its teacher was not trained with: weight decay.
      sets = sets | {'teacher.checkpoint': folders[0]}
      if len(folders) > 1:
        others = (*folders[1:], *place.config.teacher.others)
        sets |= {'teacher.num_seeds': 1, 'teacher.others': others}
    with self._session.watchdog.paused():
      where = scene.make(place.config, dataset, mentor, self._mesh)
      scores = mentor and scene.teacher_scores(where)
    return _Stage(where, sets, scores, _content(dataset))

  def _teacher(
    self, config: ConfigDict, dataset: data.Dataset
  ) -> tuple[Network, list[str]]:
    """The teacher and its folders; scenarios with the same one share it."""
    config = of_run(config)
    name = teacher.fingerprint(teacher.config_of(config), dataset)
    folder = self._workdir / 'teachers' / name
    network = teacher.obtain(
      config, dataset, workdir=folder, session=self._session
    )
    if config.teacher.checkpoint:
      return network, [config.teacher.checkpoint]
    count = len(teacher.configs(config))
    names = ['teacher', *(f'teacher{i}' for i in range(2, count + 1))]
    return network, [str(folder / name) for name in names]


class _Stage(NamedTuple):
  """A scenario with its data, its teacher, and what a single run needs."""

  where: Scene
  sets: dict[str, Any]
  teacher_scores: dict[str, Any] | None
  content: str


def _content(dataset: data.Dataset) -> str:
  return dataset.fingerprint()[:16]


def _check_comparable(places: Sequence[Scenario]) -> None:
  """Raises `ValueError` for texts beside other data."""
  names = list(dict.fromkeys(place.config.dataset.name for place in places))
  if len({data.is_text(name) for name in names}) > 1:
    raise ValueError(
      f'config.study.scenarios has the data sets {", ".join(names)}: '
      f'perplexities and accuracies do not go into one table'
    )


def _check_one_host() -> None:
  if rendezvous.read(os.environ) or rendezvous.launched(os.environ):
    raise ValueError(
      'a study runs on one host, on all its devices: start it once, without '
      'JAX_NUM_PROCESSES, srun or mpirun'
    )
