"""Says what a teacher transfers, and why that does or does not help.

python -m kdjax.diagnose --workdir=RUN [--compare=RUN ...] [--out=DIR]
python -m kdjax.diagnose --teacher_logits=A.npy --labels=Y.npy
  [--student_logits=S.npy] [--baseline_logits=B.npy] --out=DIR
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import Progress

from kdjax import cli

_ARRAYS = {
  'teacher_logits': 'of the teacher, [N, K], or of a text [N, T, K]',
  'labels': '[N], in 0..K-1, or of a text [N, T], -1 for padding',
  'student_logits': 'of the student, [N, K]',
  'baseline_logits': 'of the student trained without a teacher, [N, K]',
  'class_weights': "rows of the teacher's last layer, [K, D]",
}
_SETTINGS = {'weight': 0.9, 'temperature': 4.0, 'temperature_power': 2.0}


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m kdjax.diagnose',
    description='Says what a teacher transfers, and why that does or does not '
    'help: from a finished run, or from logits of any framework.',
    allow_abbrev=False,
  )
  run = parser.add_argument_group('a finished run')
  run.add_argument('--workdir', metavar='RUN', type=Path)
  run.add_argument(
    '--compare',
    metavar='RUN',
    type=Path,
    action='append',
    help='another run, whose student is set beside; may be repeated',
  )
  run.add_argument('--data_dir', metavar='DIR', help='where the data is now')
  files = parser.add_argument_group('.npy files')
  for name, text in _ARRAYS.items():
    files.add_argument(f'--{name}', metavar='FILE', type=Path, help=text)
  for name, value in _SETTINGS.items():
    files.add_argument(
      f'--{name}',
      type=type(value),
      help=f'of the loss to be judged; {value:g} if not given',
    )
  files.add_argument('--class_names', help='K names, with commas between them')
  parser.add_argument('--out', metavar='DIR', type=Path, help='for the report')
  return parser.parse_args()


def main() -> None:
  """Parses the command line, diagnoses, writes a report, prints findings."""
  arguments = _arguments()
  _check(arguments)
  from kdjax import report

  if arguments.workdir:
    case = report.of_run(
      arguments.workdir,
      compare=arguments.compare or (),
      data_dir=arguments.data_dir or '',
    )
  else:
    case = report.of_files(
      _given(arguments, _ARRAYS),
      settings=_SETTINGS | _given(arguments, _SETTINGS),
      class_names=_names(arguments.class_names),
    )
  out = arguments.out or arguments.workdir / 'diagnosis'
  out.mkdir(parents=True, exist_ok=True)  # before any work
  with _bar() as progress:
    diagnosis = case.diagnose(progress)
  report.write(
    diagnosis,
    out,
    title=case.title,
    source=case.source,
    class_names=case.class_names,
    groups=case.groups,
    class_weights=case.class_weights,
  )
  for finding in diagnosis.findings:
    print(f'{finding.code}: {finding.explanation} {finding.remedy}')
  print(f'in {out}: report.html, report.md, report.json, figures/')


def _names(text: str | None) -> list[str] | None:
  return None if text is None else text.split(',')


def _given(arguments: argparse.Namespace, names: Iterable[str]) -> dict:
  values = {name: getattr(arguments, name) for name in names}
  return {name: value for name, value in values.items() if value is not None}


def _check(arguments: argparse.Namespace) -> None:
  """Raises `ValueError` unless the flags go together."""
  of_files = _given(arguments, [*_ARRAYS, *_SETTINGS, 'class_names'])
  of_run = _given(arguments, ('workdir', 'compare', 'data_dir'))
  if not arguments.workdir and 'teacher_logits' not in of_files:
    raise ValueError(
      'give --workdir=RUN, or --teacher_logits=A.npy and --labels=Y.npy'
    )
  if of_run and of_files:
    raise ValueError(
      f'--{next(iter(of_files))} goes with files, --{next(iter(of_run))} with '
      f'a run: give one kind'
    )
  if not arguments.workdir and not arguments.out:
    raise ValueError('give --out=DIR, a folder for the report')


@contextmanager
def _bar() -> Iterator[Callable[[float], None]]:
  """A progress bar in a terminal."""
  with Progress(
    *Progress.get_default_columns(), disable=not sys.stdout.isatty()
  ) as bar:
    task = bar.add_task('diagnose', total=1.0)
    yield lambda done: bar.update(task, completed=done)


if __name__ == '__main__':
  cli.run(main)
