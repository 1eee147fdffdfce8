"""How every command starts and ends."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from kdjax import checks, config

# A user's mistake, as the house style raises it, and a machine's refusal.
MISTAKES = (ValueError, TypeError, OSError)


def run(main: Callable[[], None]) -> None:
  """Runs a command; a mistake ends it with one line on stderr and status 2.

  Set `KDJAX_TRACEBACK=1` to see where an error came from.

  Args:
    main: the command, without arguments.
  """
  try:
    main()
  except KeyboardInterrupt:
    print('interrupted: the same command goes on', file=sys.stderr)
    sys.exit(130)
  except MISTAKES as error:
    if os.environ.get('KDJAX_TRACEBACK'):
      traceback.print_exc()
    sys.stdout.flush()
    print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
    sys.exit(2)


def parse_config(argv: list[str], usage: str) -> tuple[ConfigDict, Path]:
  """Reads `--config=FILE`, `--config.key=value` and `--workdir=DIR`.

  The config file is Python and is executed.

  Args:
    argv: the command line, the program first.
    usage: printed for `--help`.

  Returns:
    The configuration, and the workdir: `runs/NAME` for `NAME.py` if none is
    given.

  Raises:
    ValueError: no config, an unknown file, key or flag, or a wrong value.
  """
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values)
  flags.DEFINE_string('workdir', '', 'folder of the run', flag_values=values)
  if any(argument in ('--help', '-h') for argument in argv[1:]):
    print(usage)
    sys.exit(0)
  argv = _joined(argv)
  _check_file(argv)
  _check_keys(argv)
  try:
    rest = values(argv)
  except flags.Error as error:  # a traceback in it ends with the reason
    raise ValueError(str(error).strip().splitlines()[-1]) from error
  except (AttributeError, KeyError) as error:  # of a locked ConfigDict
    reason = error.args[0]
    reason = reason.args[0] if isinstance(reason, KeyError) else reason
    text = re.sub(
      r'Other fields.*?(?=Did you mean|$)', '', reason, flags=re.DOTALL
    )
    raise ValueError(f'in the experiment file: {text}') from error
  if rest[1:]:
    raise ValueError(f'unexpected arguments: {" ".join(rest[1:])}')
  name = config_flags.get_config_filename(values['config'])
  workdir = values['workdir'].value or f'runs/{Path(name).stem}'
  return values['config'].value, Path(workdir)


def _joined(argv: list[str]) -> list[str]:
  """Writes `--config FILE` as `--config=FILE`."""
  argv = list(argv)
  if '--config' in argv[:-1]:
    at = argv.index('--config')
    argv[at : at + 2] = [f'--config={argv[at + 1]}']
  return argv


def _check_file(argv: list[str]) -> None:
  """Raises `ValueError` unless `--config` names an experiment file."""
  prefix = '--config='
  paths = [a.removeprefix(prefix) for a in argv if a.startswith(prefix)]
  if not paths:
    raise ValueError('give an experiment: --config=experiments/NAME.py')
  path = Path(paths[-1])
  if not path.is_file():
    known = sorted(p.name for p in path.parent.glob('*.py'))
    hint = f'; {path.parent} has {", ".join(known)}' if known else ''
    raise ValueError(f'no experiment file {path}{hint}')


def _check_keys(argv: list[str]) -> None:
  """Raises `ValueError` for `--config.key` with a key that is not there."""
  prefix = '--config.'
  known = config.keys(config.default())
  for argument in argv:
    if argument.startswith(prefix):
      key = argument.removeprefix(prefix).split('=')[0]
      checks.check_known('key', f'config.{key}', known)
