"""A population of students beside a PyTorch loop that trains one at a time.

  pip install -e '.[bench]'
  python benchmarks/population.py [--quick] [--threads=2] [--rounds=N]
    [--alone]

Students of one seed that differ in their settings (learning rate, T and λ of
KD) are trained by one program of `kdjax.study`, side by side ('vmap') or one
after the other ('scan') on each of the devices that they are split over. The
PyTorch loop trains the same students one after another, as `versus_torch` says:
equal weights, batch size, loss and optimiser, a constant learning rate, as many
threads. All take turns, and a time is that of one step of one student.

The MLPs of `study_synthetic` see fixed inputs, so that kdjax has the teacher's
logits from before the training; PyTorch runs the teacher in every step, as such
loops do, or, in a row that favours it, has them from before, too. The ResNets
are a ResNet-20 and ResNet-8 students on the images of `study_cifar100`, random
ones where these are not prepared. kdjax crops and flips them, and runs the
teacher once a step for all students; nothing is augmented in PyTorch, which
runs the teacher for each of them, in its default layout and with channels last.

The difference is the largest one between the parameters of any student and
those of the same one in PyTorch after five steps on the same batches, nothing
augmented. Operations are those of the matrix products in three passes.

The second table is of the memory that the compiled program needs, by XLA's own
account, against what has to be kept of each student: parameters, momentum and
the best weights. On a GPU, or with --alone, populations are compared to one
student of kdjax at a time in place of PyTorch.
"""

import argparse
import os
import statistics

import _students
import _timing
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import cli
from kdjax.study import memory
from kdjax.study.config import override
from kdjax.train import resident


def measure_of(population):
  """Returns a function: seconds a step of a student, over so many steps."""
  initial, train = population.start(), population.trainer()
  count = len(population.trials)

  def measure(num_steps):
    members = jax.tree.map(jnp.copy, initial)
    steps = population.steps(num_steps)
    return _timing.seconds(train, members, steps) / num_steps / count

  return measure


def configs_of(study, population):
  """Returns the configuration of each student."""
  return [override(study.config, t.overrides) for t in population.trials]


def differences(study, loops, shape, *, num_steps=5):
  """Returns the largest one to each loop, with nothing augmented."""
  config = override(study.config, {'dataset.augment': 'none'})
  study = study._replace(config=config)
  population = _students.populate(study, *shape)
  steps = population.steps(num_steps)
  params = population.trainer()(population.start(), steps).state.params
  job = _timing.prepare(config, study.dataset, study.mentor)
  batches = [
    np.array(resident.batch_at(job.task, job.examples, job.key, at)[1])
    for at in range(num_steps)
  ]
  found = {name: 0.0 for name in loops}
  for column, own in enumerate(configs_of(study, population)):
    member = jax.tree.map(lambda a, column=column: a[0, column], params)
    for name, loop in loops.items():
      loop.restart(own)
      for rows in batches:
        loop.step(rows)
      found[name] = max(found[name], loop.difference(member))
  return found


def compare(study, shapes, loops, *, rounds):
  """Measures populations, and loops that train the first of them.

  Args:
    study: what is trained.
    shapes: of the populations: students, mode and devices.
    loops: in PyTorch, by name; without any, the first population stands for
      them.
    rounds: how often.

  Returns:
    A table.
  """
  populations = {
    _named(*shape): _students.populate(study, *shape) for shape in shapes
  }
  first = next(iter(populations.values()))
  gaps = differences(study, loops, shapes[0]) if loops else {}
  configs = configs_of(study, first)
  found = _timing.alternate(
    {name: loop.in_turn(configs) for name, loop in loops.items()}
    | {name: measure_of(each) for name, each in populations.items()},
    rounds=rounds,
    num_steps=study.num_steps,
  )
  others = list(loops) or list(populations)[:1]
  operations = _operations(first, study.config)
  rows = []
  for name, seconds in found.items():
    row = [name, _timing.spread(seconds, scale=1e6)]
    if operations:
      row.append(f'{operations / statistics.median(seconds) / 1e9:,.0f}')
    is_ours = name in populations
    row += [_ratio(found[o], seconds) if is_ours else '' for o in others]
    row += [f'{gaps[name]:.0e}' if name in gaps else ''] * bool(loops)
    rows.append(row)
  header = [
    study.title,
    'µs a step of a student',
    *(['GFLOP/s'] if operations else []),
    *(f'beside {name}' for name in others),
    *(['difference of parameters'] if loops else []),
  ]
  return _timing.table(header, rows)


def memory_rows(study, sizes, mode):
  """Yields rows: what programs of ever more settings hold."""
  crews, crew, _ = _students.populate(study, max(sizes), mode)
  state = crew.program.shapes(1, num_settings=1)
  own = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(state))
  before = None
  for size in sizes:
    used = memory.used_by(crews.compile(crew._replace(size=size)))
    further = before and (used - before[1]) / (size - before[0])
    yield [
      f'{study.title}, {mode}',
      str(size),
      f'{used / 1e6:,.1f}',
      f'{used / size / 1e3:,.0f}',
      f'{further / 1e3:,.0f}' if further else '',
      f'{own / 1e3:,.0f}',
    ]
    before = size, used


def _named(count, mode, num_devices=1):
  students = '1 student' if count == 1 else f'{count} students, {mode}'
  return f'kdjax, {students}, {num_devices} device' + 's' * (num_devices > 1)


def _operations(population, config):
  """Of a step of a student, where it has no convolutions."""
  program = population.crew.program
  if program.has_convolutions:
    return None
  params = program.shapes(1, num_settings=1).state.params
  kernels = sum(a.size for a in jax.tree.leaves(params) if a.ndim > 3)
  return 2 * 3 * config.batch_size * kernels


def _ratio(others, ours):
  pairs = zip(others, ours, strict=True)
  return _timing.spread([b / a for b, a in pairs], digits=2)


def beside_torch(torch_loop, *, quick, rounds, num_devices):
  """Yields the tables of a CPU."""
  some, many = (4, 8) if quick else (35, 140)
  shapes = [
    (some, 'vmap', num_devices),
    (some, 'vmap', 1),
    (some, 'scan', num_devices),
    (many, 'vmap', num_devices),
    (1, 'vmap', 1),
  ]
  study = _students.mlps(quick=quick)
  yield compare(study, shapes, loops_of(torch_loop, study), rounds=rounds)
  few, more = (2, 4) if quick else (8, 16)
  shapes = [
    (few, 'scan', num_devices),
    (more, 'scan', num_devices),
    (few, 'scan', 1),
    (few, 'vmap', num_devices),
    (few, 'vmap', 1),
  ]
  study, rounds = _students.resnets(quick=quick), min(rounds, 5)
  shapes = shapes[:1] if quick else shapes
  yield compare(study, shapes, loops_of(torch_loop, study), rounds=rounds)


def beside_one(*, quick, rounds):
  """Yields tables without PyTorch."""
  some = (1, 4) if quick else (1, 35, 140)
  few = (2,) if quick else (1, 8, 32)
  for study, counts in ((_students.mlps, some), (_students.resnets, few)):
    shapes = [(count, 'vmap', 1) for count in counts]
    yield compare(study(quick=quick), shapes, {}, rounds=rounds)


def of_memory(*, quick):
  """Returns the table of memory."""
  sizes = (2, 4) if quick else (8, 16, 32, 64)
  rows = [*memory_rows(_students.mlps(quick=quick), sizes, 'vmap')]
  if not quick:
    rows += memory_rows(_students.resnets(quick=quick), sizes, 'scan')
  header = [
    'program',
    'students',
    'MB',
    'kB a student',
    'kB each further student',
    'kB kept of each',
  ]
  return _timing.table(header, rows)


def loops_of(torch_loop, study):
  """Returns the PyTorch loops, by name."""
  job = _timing.prepare(study.config, study.dataset, study.mentor)
  return torch_loop.variants(study.config, job)


def main():
  """Prints the tables."""
  style = argparse.RawDescriptionHelpFormatter
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
  add = parser.add_argument
  add('--quick', action='store_true', help='seconds only; rough figures')
  add('--rounds', type=int, help='how often all are measured')
  add('--threads', type=int, default=2, help='for each library')
  add('--alone', action='store_true', help='without PyTorch')
  flags = parser.parse_args()
  # XLA has as many threads as the process may use cores; before JAX starts.
  cores = sorted(os.sched_getaffinity(0))[: flags.threads]
  os.sched_setaffinity(0, cores)
  jax.config.update('jax_num_cpu_devices', flags.threads)
  size = {'quick': flags.quick}
  size['rounds'] = flags.rounds or (3 if flags.quick else 9)
  if jax.devices()[0].platform == 'cpu' and not flags.alone:
    torch_loop = _import_torch()
    torch_loop.torch.set_num_threads(flags.threads)
    versions = {'PyTorch': torch_loop.torch.__version__}
    tables = beside_torch(torch_loop, **size, num_devices=flags.threads)
  else:
    tables, versions = beside_one(**size), {}
  for table in tables:
    print(table + '\n', flush=True)
  print(of_memory(quick=flags.quick) + '\n')
  print(f'{_timing.surroundings(**versions)} {len(cores)} threads.')


def _import_torch():
  try:
    import _torch_loop
  except ImportError as error:
    raise ValueError("PyTorch is missing: pip install -e '.[bench]'") from error
  return _torch_loop


if __name__ == '__main__':
  cli.run(main)
