"""Repeats an experiment with several seeds and says what the spread is.

  python benchmarks/seeds.py --config=experiments/digits_kd.py \
    --workdir=runs/digits_kd_seeds [--config.key=value ...]

Prints test accuracy after the last step, mean ± standard deviation (n - 1)
over seeds 0 to 4, of the student and, where the experiment trains one, of the
plain baseline, and the paired difference. Finished runs are not repeated.
`--quick` runs two seeds.
"""

import statistics
import sys

from kdjax import cli
from kdjax.train import experiment, progress

_SEEDS = range(5)
_KEYS = ('test_accuracy', 'test_accuracy_excluded_classes')


def main():
  """Runs the experiment with every seed and prints the figures."""
  quick = '--quick' in sys.argv
  argv = [argument for argument in sys.argv if argument != '--quick']
  config, workdir = cli.parse_config(argv, __doc__)
  reporter = progress.Reporter()
  runs = []
  for seed in _SEEDS[: 2 if quick else None]:
    own = config.copy_and_resolve_references()
    own.seed = seed
    runs.append(experiment.run(own, workdir / f'seed{seed}', reporter))
  seconds = [run['wall_seconds'] for run in runs]
  reporter.say(f'seconds a run: {min(seconds):.0f} to {max(seconds):.0f}')
  for key in _KEYS:
    if key not in runs[0]['student']:
      continue
    columns = {
      name: [100 * run[name][key] for run in runs]
      for name in ('teacher', 'baseline', 'student')
      if runs[0].get(name)
    }
    if 'baseline' in columns:
      pairs = zip(columns['student'], columns['baseline'], strict=True)
      columns['student - baseline'] = [s - b for s, b in pairs]
    for name, values in columns.items():
      mean, spread = statistics.mean(values), statistics.stdev(values)
      listed = ', '.join(f'{v:.1f}' for v in values)
      reporter.say(f'{key} {name}: {mean:.2f} ± {spread:.2f} % ({listed})')


if __name__ == '__main__':
  cli.run(main)
