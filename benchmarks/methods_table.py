"""Every logit method on one teacher and student: select on dev, then repeat.

  python benchmarks/methods_table.py --config=experiments/fashion_mnist_kd.py \
    --workdir=runs/fashion_mnist_methods [--config.key=value ...]

Each method first runs its grid of λ and T (or ε) with one seed; the setting
with the best dev accuracy is run again with three fresh seeds. The grid of CE
is the learning rate, which all others then use. The table is test accuracy
after the last step, mean ± standard deviation (n - 1). Finished runs are not
repeated. `--quick` tries two methods, one setting and two seeds.
"""

import itertools
import statistics
import sys
from pathlib import Path

from kdjax import cli
from kdjax.train import experiment, progress

_TOWARD = [
  {'weight': weight, 'temperature': temperature}
  for weight, temperature in itertools.product((0.3, 0.6, 0.9), (1.0, 2.0, 4.0))
]
_RATES = [{'learning_rate': rate} for rate in (0.01, 0.02, 0.05, 0.1, 0.2)]
_SMOOTHINGS = [
  {'smoothing': smoothing}
  for smoothing in (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
]
_GRIDS = {
  'ce': _RATES,
  'ls': _SMOOTHINGS,
  'kd': _TOWARD,
  'kd_pt': _TOWARD,
  'kd_sim': _TOWARD,
  'kd_pt_sim': _TOWARD,
  'kd_pt_sim_conditional': _TOWARD,
  'kd_topk': _TOWARD,
}
_SELECTION_SEED = 100
_SEEDS = (0, 1, 2)


def main():
  """Runs the grids and prints the table as Markdown."""
  quick = '--quick' in sys.argv
  argv = [argument for argument in sys.argv if argument != '--quick']
  config, workdir = cli.parse_config(argv, __doc__)
  workdir.mkdir(parents=True, exist_ok=True)
  reporter = progress.Reporter()
  shared = {}

  def run(name, method, seed, setting):
    own = config.copy_and_resolve_references()
    own.update({**shared, **setting, 'method': method, 'seed': seed})
    return experiment.run(own, workdir / name, reporter)['student']

  lines = []
  grids = {m: _GRIDS[m][:1] for m in ('ce', 'kd')} if quick else _GRIDS
  for method, grid in grids.items():
    trials = [
      run(f'{method}-trial{index}', method, _SELECTION_SEED, setting)
      for index, setting in enumerate(grid)
    ]
    dev, chosen = max(
      zip((t['dev_accuracy'] for t in trials), range(len(grid)), strict=True)
    )
    setting = grid[chosen]
    if method == 'ce':
      shared = setting  # the learning rate that suits CE best, for all
    tests = [
      100 * run(f'{method}-seed{s}', method, s, setting)['test_accuracy']
      for s in _SEEDS[: 2 if quick else None]
    ]
    lines.append(
      f'| {method} | {_write(setting)} | {100 * dev:.2f} | '
      f'{statistics.mean(tests):.2f} ± {statistics.stdev(tests):.2f} |'
    )
  header = [
    '| method | chosen on dev | dev, % | test, % |',
    '|---|---|---|---|',
  ]
  table = '\n'.join(header + lines) + '\n'
  Path(workdir / 'table.md').write_text(table)
  reporter.say(table)


def _write(setting):
  names = {
    'weight': 'λ',
    'temperature': 'T',
    'smoothing': 'ε',
    'learning_rate': 'rate',
  }
  return ', '.join(f'{names[k]} = {v:g}' for k, v in setting.items())


if __name__ == '__main__':
  cli.run(main)
