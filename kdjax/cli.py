"""How every command starts and ends."""

import argparse
import contextlib
import io
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from kdjax import checks, config
from kdjax.train import interrupts

# A user's mistake, as the house style raises it, and a machine's refusal.
MISTAKES = (ValueError, TypeError, OSError, FloatingPointError)


def _exit(text: str, status: int) -> NoReturn:
  del text
  sys.exit(status)


def _tell(text: str) -> None:
  """Writes the last line; nobody may be there to read it."""
  with contextlib.suppress(OSError):
    sys.stdout.flush()
  with contextlib.suppress(OSError):
    print(text, file=sys.stderr, flush=True)


def run(
  main: Callable[[], None],
  *,
  end: Callable[[str, int], NoReturn] = _exit,
) -> None:
  """Runs a command; a mistake ends it with one line on stderr and status 2.

  A signal ends it with 128 + its number: 130 for SIGINT, 143 for SIGTERM.
  Set `KDJAX_TRACEBACK=1` to see where an error came from.

  Args:
    main: the command, without arguments.
    end: ends the process after a mistake or a signal, given what was said and
      the status.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='replace')  # a terminal without our characters
  tell_all = bool(os.environ.get('KDJAX_TRACEBACK'))
  if not tell_all:
    # What is wrong is told below; libraries would print tracebacks, too, from
    # their log and from threads outside Python.
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = lambda *_: None
  try:
    main()
  except (KeyboardInterrupt, interrupts.Interrupted) as error:
    text = str(error) or 'stopped: run the same command to go on'
    _tell(text)
    end(text, getattr(error, 'status', 130))
  except MISTAKES as error:
    if tell_all:
      traceback.print_exc()
    text = ' '.join(str(error).split())
    _tell(f'error: {text}')
    end(text, 2)
  except Exception as error:  # ours: with its traceback
    traceback.print_exc()
    end(repr(error), 1)


def parse_config(argv: list[str], usage: str) -> tuple[ConfigDict, Path]:
  """Reads `--config=FILE`, `--config.key=value` and `--workdir=DIR`.

  Args:
    argv: the command line, the program first.
    usage: printed for `--help`.

  Returns:
    The configuration, and the workdir: `runs/NAME` for `NAME.py` if none is
    given.

  Raises:
    ValueError: no config, an unknown file, key or flag, or a wrong value.
  """
  if any(argument in ('--help', '-h') for argument in argv[1:]):
    print(usage)
    sys.exit(0)
  parser = argparse.ArgumentParser(allow_abbrev=False)
  parser.add_argument('--config', nargs='?')
  parser.add_argument('--workdir', nargs='?')
  given, overrides = parser.parse_known_args(argv[1:])
  if not given.config:
    raise ValueError(
      f'give an experiment: --config=experiments/NAME.py, not {overrides}'
      if overrides
      else 'give an experiment: --config=experiments/NAME.py'
    )
  path = Path(given.config)
  found = _override(load_config(path), overrides)
  return found, Path(given.workdir or f'runs/{path.stem}')


def load_config(path: Path) -> ConfigDict:
  """Returns the configuration of an experiment file, which is executed.

  Args:
    path: a Python file with a function `get_config()`.

  Returns:
    Its configuration.

  Raises:
    ValueError: there is no such file, it fails, or its keys are not those of
      `kdjax.config.default()`.
  """
  if not path.is_file():
    known = sorted(p.name for p in path.parent.glob('*.py'))
    hint = f'; {path.parent} has {", ".join(known)}' if known else ''
    raise ValueError(f'no experiment file {path}{hint}')
  try:
    found = runpy.run_path(str(path))['get_config']()
    keys = set(config.keys(found))
  except Exception as error:  # whatever a person's file may raise
    lines = [
      frame.lineno
      for frame in traceback.extract_tb(error.__traceback__)
      if frame.filename == str(path)
    ]
    where = f'{path}, line {lines[-1]}' if lines else str(path)
    raise ValueError(f'{where}: {_reason(error)}') from error
  missing = sorted(set(config.keys(config.default())) - keys)
  if missing:
    raise ValueError(
      f'{path}: get_config() must start from kdjax.config.default(); its '
      f'result lacks {", ".join(missing[:3])}'
    )
  return found


def _override(found: ConfigDict, overrides: list[str]) -> ConfigDict:
  """Sets the keys that `--config.key=value` names."""
  known = config.keys(found)
  for argument in overrides:
    key = argument.removeprefix('--').split('=')[0]
    if argument.startswith('--config.'):
      checks.check_known('key', key, known)
    elif argument.startswith('-'):
      checks.check_known('flag', key, ['config', 'workdir'])
  values = flags.FlagValues()
  argv = ['kdjax', *overrides]
  config_flags.DEFINE_config_dict(
    'config', found, flag_values=values, sys_argv=argv
  )
  try:
    rest = values(argv)
  except flags.Error as error:  # a traceback in it ends with the reason
    raise ValueError(str(error).strip().splitlines()[-1]) from error
  if rest[1:]:
    raise ValueError(f'unexpected arguments: {" ".join(rest[1:])}')
  return values['config'].value


def _reason(error: Exception) -> str:
  """What went wrong, without the listing of a locked ConfigDict."""
  text = str(error.args[0] if isinstance(error, KeyError) else error)
  text = re.sub(r'Other fields.*?(?=Did you mean|$)', '', text, flags=re.DOTALL)
  return f'{type(error).__name__}: {text}'
