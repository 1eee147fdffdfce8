"""Populations of students to be measured: MLPs and ResNets."""

from pathlib import Path
from typing import NamedTuple

import _synthetic
import _timing
import jax
from jax.sharding import AxisType

from kdjax.study import arms, groups, scene
from kdjax.study.config import override
from kdjax.study.crews import Crews
from kdjax.study.members import AXIS

_EXPERIMENTS = Path(__file__).parents[1] / 'experiments'


class Study(NamedTuple):
  """What students are trained on, and from which teacher."""

  title: str
  config: object
  dataset: object
  mentor: object
  num_steps: int


class Population(NamedTuple):
  """Students with the program that trains them."""

  crews: Crews
  crew: object
  trials: list

  def start(self):
    """Returns the students before the first step."""
    crew = self.crew
    return crew.program.start(crew.seeds, num_settings=crew.size)

  def trainer(self):
    """Returns what maps students, which are given up, and a step to stop at."""
    run = self.crews.compile(self.crew)
    fixed = self.crews.fixed(self.crew, 0)
    return lambda members, steps: run(members, *fixed, *steps)

  def steps(self, count):
    """Returns from which to which step to train: the first so many."""
    return self.crews.steps(0, count)


def mlps(*, quick):
  """Returns the study of MLPs."""
  return _study('study_synthetic', {}, 20 if quick else 78)


def resnets(*, quick):
  """Returns the study of ResNets; rounding grows at the rates of the study."""
  changes = {
    'student.name': 'resnet8',
    'teacher.name': 'resnet8' if quick else 'resnet20',
    'teacher.precompute_logits': False,
    'study.search.learning_rate': (1e-4, 1e-3),
  }
  on_cpu = jax.devices()[0].platform == 'cpu'
  num_steps = 2 if on_cpu else 100
  return _study('study_cifar100', changes, 1 if quick else num_steps)


def _study(name, changes, num_steps):
  path = _EXPERIMENTS / f'{name}.py'
  config, dataset, note = _synthetic.load(path)
  config = override(config, {'schedule.name': 'constant', **changes})
  mentor = _timing.untrained_teacher(config, dataset)
  pair = f'{_network(config.teacher)} → {_network(config.student)}{note}'
  return Study(pair, config, dataset, mentor, num_steps)


def _network(options):
  return '-'.join([options.name, *map(str, options.widths)])


def populate(study, count, mode, num_devices=1):
  """Returns so many students of one seed, on so many devices."""
  config = override(
    study.config, {'study.num_trials': count, 'study.over_members': mode}
  )
  mesh = jax.make_mesh(
    (num_devices,),
    (AXIS,),
    axis_types=(AxisType.Auto,),
    devices=jax.devices()[:num_devices],
  )
  crews, trials = Crews(mesh), arms.trials(config, arms.parse('kd'))
  num_classes = study.dataset.num_classes
  (group,) = groups.split(config, trials, num_classes=num_classes)
  where = scene.make(config, study.dataset, study.mentor, mesh)
  crew = crews.make(where, group, (config.seed,))
  if crew.size < count:
    raise ValueError(f'memory holds {crew.size} of {count} students')
  return Population(crews, crew, trials)
