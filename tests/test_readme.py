"""The README's commands are run, its Python is executed, its links exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
COMMANDS = [
  line
  for block in re.findall(r'```sh\n(.*?)```', README, re.DOTALL)
  for line in block.splitlines()
]
INSTALL = re.compile(r'^pip install -e \S+( && )?')
# What a command takes besides, so that it ends in seconds.
SHORTER = {
  'benchmarks/seeds.py': ['--quick', '--config.num_epochs=20'],
  '--config=experiments/study_synthetic.py': ['--config.quick=True'],
  '--config=experiments/python_docs_lm_kd.py': [
    '--config.num_epochs=1',
    '--config.teacher.num_epochs=1',
    '--config.teacher.widths=(20,20)',
  ],
}


def _parts():
  """Every command without its installation, as words."""
  commands = [INSTALL.sub('', line) for line in COMMANDS]
  return [shlex.split(c) for c in commands if c not in ('', 'pytest')]


def test_the_first_two_commands_do_all_the_set_up():
  assert COMMANDS[0].startswith('pip install -e . && python -m kdjax.main ')
  assert COMMANDS[1] == "pip install -e '.[test]' && pytest"


def _run(words, folder):
  program, *arguments = words
  assert program == 'python'
  for argument in list(arguments):
    arguments += SHORTER.get(argument, [])
  return subprocess.run(
    [sys.executable, *arguments],
    cwd=folder,
    env=os.environ | {'XDG_CACHE_HOME': str(folder / 'cache')},
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize('words', _parts(), ids=' '.join)
def test_a_command_runs_as_printed(words, tmp_path):
  for name in ('experiments', 'benchmarks'):
    (tmp_path / name).symlink_to(ROOT / name)
  if 'kdjax.diagnose' in words:  # of the run that the first command made
    assert _run(_parts()[0], tmp_path).returncode == 0
  found = _run(words, tmp_path)
  folder = Path('/usr/share/datasets/fashion-mnist')
  if any(str(folder) in word for word in words) and not folder.exists():
    assert found.returncode == 2
    assert str(folder) in found.stderr.splitlines()[-1]
  else:
    assert found.returncode == 0, found.stderr


def test_the_python_runs():
  for block in re.findall(r'```python\n(.*?)```', README, re.DOTALL):
    exec(block, {})


def test_what_is_linked_is_there():
  for target in re.findall(r'\]\((?!http)([^)#]+)\)', README):
    assert (ROOT / target).exists(), target
