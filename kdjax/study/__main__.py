"""Compares methods by populations of students, with error bars.

python -m kdjax.study --config=experiments/NAME.py [--workdir=DIR]
  [--config.quick=True] [--config.key=value ...]

Writes runs.jsonl, table.md, table.csv and figures/ into the workdir.
"""

import sys

from kdjax import cli


def main() -> None:
  """Parses the flags, carries the study out, says where its results are."""
  config, workdir = cli.parse_config(sys.argv, __doc__)
  if 'study' not in config:
    raise ValueError(
      'the config has no keys of a study: start it from '
      'kdjax.study.config.default(), or run it by kdjax.main'
    )
  from kdjax.study import run, summary
  from kdjax.train import progress

  reporter = progress.Reporter()
  rows = run.run(config, workdir, reporter)
  arms = list(dict.fromkeys(row.arm for row in rows))
  keys = summary.short_keys(rows[0].scenario)
  score = rows[0].score
  reporter.table(
    score.titled(f'test {score.name} after the last step'),
    ['scenario', *arms],
    [
      [
        summary.describe(group[0].scenario, keys) or 'all',
        *(f'{score.shown(row.test.mean):.1f}' for row in group),
      ]
      for group in summary.group(
        rows, lambda row: summary.identity(row.scenario)
      )
    ],
  )
  reporter.say(f'in {workdir}: table.md, table.csv, runs.jsonl, figures/')


if __name__ == '__main__':
  cli.run(main)
