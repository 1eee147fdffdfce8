"""What every method costs beside KD: the time of a step.

  python benchmarks/method_cost.py [--config=experiments/NAME.py ...]
    [--methods=hint,at] [--rounds=7] [--steps=3] [--batch_size=64] [--quick]

Training steps as `step_cost.py` measures them, the teacher in every step. A
few methods at a time take turns with KD; the ratio to KD's step is formed
within each round. `ce` has no teacher. Where CIFAR is not prepared, its images
are random ones; CRD then remembers 4,096 of them, not a whole training set.
"""

import statistics

import _synthetic
import _timing

from kdjax import cli, methods
from kdjax.checks import check_known

# By name, configuration keys and their values.
ROWS = {
  name: {'method': name, 'also': ()}
  for name in (
    'ce',
    'kd',
    'kd_standardised',
    'dkd',
    'dist',
    'hint',
    'at',
    'nst',
    'vid',
    'cosine',
    'l2',
    'rkd',
    'sp',
    'pkt',
    'cc',
    'crd',
    'irg',
    'attention_relation',
  )
} | {'kd + crd': {'method': 'kd', 'also': ('crd',)}}
QUICK = ('ce', 'kd', 'crd')
# So many are measured with KD at a time: each has a program and arrays.
_GROUP = 4


def add_methods(parser):
  """Adds the flag that chooses rows of the table."""
  parser.add_argument('--methods', help='of the table, such as kd,hint')


def chosen(flags):
  """Returns the rows that the flags ask for, by name.

  Raises:
    ValueError: there is no such row.
  """
  names = QUICK if flags.quick else tuple(ROWS)
  if flags.methods:
    names = tuple(name.strip() for name in flags.methods.split(','))
  for name in names:
    check_known('method', name, ROWS)
  return {name: ROWS[name] for name in names}


def having(config, delta):
  """Returns a copy of a configuration with other values."""
  own = config.copy_and_resolve_references()
  for key, value in delta.items():
    own[key] = value
  return own


def against_kd(config, dataset, mentor, rows, *, rounds, num_steps):
  """Returns by name the seconds of a step, and its ratio to KD's, by round."""

  def loop(delta):
    own = having(config, delta)
    teacher = mentor if methods.needs_teacher(own) else None
    return _timing.training_loop(_timing.prepare(own, dataset, teacher))

  kd, found = loop(ROWS['kd']), {}
  names = [name for name in rows if name != 'kd']
  for start in range(0, max(len(names), 1), _GROUP):
    group = {name: loop(rows[name]) for name in names[start : start + _GROUP]}
    times = _timing.alternate(
      {'kd': kd, **group}, rounds=rounds, num_steps=num_steps
    )
    for name, seconds in times.items():
      ratios = [a / b for a, b in zip(seconds, times['kd'], strict=True)]
      found[name] = seconds, ratios
  return {name: found[name] for name in rows}


def table_rows(path, flags):
  """Measures one experiment's pair by all methods."""
  config, dataset, note = _synthetic.load(path, batch_size=flags.batch_size)
  config.teacher.precompute_logits = False
  found = against_kd(
    config,
    dataset,
    _timing.untrained_teacher(config, dataset),
    chosen(flags),
    rounds=flags.rounds or (2 if flags.quick else 7),
    num_steps=flags.steps or _synthetic.steps_of(config, quick=flags.quick),
  )
  return [
    [
      path.stem + note,
      str(config.batch_size),
      name,
      f'{1e3 * statistics.median(seconds):,.2f}',
      _timing.spread(ratios, digits=3),
    ]
    for name, (seconds, ratios) in found.items()
  ]


def main():
  """Prints the table."""
  parser = _timing.parser(__doc__, default=('cifar100_kd',))
  add_methods(parser)
  parser.add_argument('--steps', type=int, help='steps in one measurement')
  parser.add_argument(
    '--batch_size', type=int, help="in place of the experiment's"
  )
  flags = parser.parse_args()
  rows = [
    row
    for path in flags.config or flags.defaults
    for row in table_rows(path, flags)
  ]
  header = ['experiment', 'batch', 'method', 'step, ms', 'step / KD step']
  print(_timing.table(header, rows))
  print(f'\n{_timing.surroundings()}')


if __name__ == '__main__':
  cli.run(main)
