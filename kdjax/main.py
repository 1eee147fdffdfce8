"""Trains a teacher and a student.

python -m kdjax.main --config=experiments/NAME.py [--workdir=DIR]
  [--config.key=value ...]
"""

import sys

from kdjax import cli


def main() -> None:
  """Parses the flags, runs the experiment, prints the results."""
  config, workdir = cli.parse_config(sys.argv, __doc__)
  from kdjax.train import experiment, progress

  reporter = progress.Reporter()
  results = experiment.run(config, workdir, reporter)
  progress.show_results(reporter, results)
  reporter.say(f'in {workdir}: results.json, curves.png, metrics.jsonl')


if __name__ == '__main__':
  cli.run(main)
