"""Trains a teacher and a student.

python -m kdjax.main --config=experiments/NAME.py [--workdir=DIR]
  [--config.key=value ...]

The file of a study will do, too: it trains one student of it.
On several hosts, start the same command on each: docs/scale.md says how.
"""

import sys
from typing import NoReturn

from kdjax import cli
from kdjax import config as configuration


def main() -> None:
  """Parses the flags, runs the experiment, prints the results."""
  config, workdir = cli.parse_config(sys.argv, __doc__)
  from kdjax.train import experiment, hosts, progress

  config = configuration.of_run(config)
  configuration.validate(config)
  hosts.connect(heartbeat_seconds=config.heartbeat_seconds)
  hosts.check_same('the config', config.to_json())
  reporter = progress.Reporter(quiet=not hosts.is_primary())
  results = experiment.run(config, workdir, reporter)
  progress.show_results(reporter, results)
  reporter.say(f'in {workdir}: results.json, curves.png, metrics.jsonl')
  hosts.leave()


def _end(text: str, status: int) -> NoReturn:
  """Ends this process and, where there are several, the other hosts'."""
  from kdjax.train import hosts

  hosts.abandon(text, status)


if __name__ == '__main__':
  cli.run(main, end=_end)
