"""What CONTRIBUTING.md says a method takes is what it takes."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Where the rows go: the line behind which each is put, by the file's name.
TABLES = {
  'terms.py': 'TERMS = {',
  'config.py': "      'terms': {",
  'methods.py': 'METHODS = {',
}


def example():
  """The code blocks of the section, by the file that each is for."""
  text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
  (section,) = re.findall(
    r'## Add a feature or relation method\n(.*?)\n## ', text, re.DOTALL
  )
  pattern = r'`kdjax/([\w/]+\.py)`(?:(?!```).)*```python\n(.*?)```'
  return {
    name: textwrap.dedent(code)
    for name, code in re.findall(pattern, section, re.DOTALL)
  }


def insert(path, line, text):
  source = path.read_text(encoding='utf-8')
  assert source.count(f'\n{line}\n') == 1
  path.write_text(
    source.replace(f'\n{line}\n', f'\n{line}\n{text}'), encoding='utf-8'
  )


def test_the_example_of_a_term_trains_a_student(tmp_path):
  shutil.copytree(ROOT / 'kdjax', tmp_path / 'kdjax')
  blocks = example()
  (of_loss,) = set(blocks) - set(TABLES)
  assert sum(len(code.splitlines()) for code in blocks.values()) < 40
  with (tmp_path / 'kdjax' / of_loss).open('a', encoding='utf-8') as file:
    file.write('\n\n' + blocks[of_loss])
  for name, line in TABLES.items():
    insert(tmp_path / 'kdjax' / name, line, blocks[name])
  with (tmp_path / 'kdjax/losses/__init__.py').open('a') as file:
    file.write('\nfrom kdjax.losses.features import l1  # noqa\n')
  command = [
    *(sys.executable, '-m', 'kdjax.main', '--config.method=l1'),
    f'--config={ROOT / "experiments/digits_kd.py"}',
    f'--workdir={tmp_path / "run"}',
    *('--config.num_epochs=1', '--config.teacher.num_epochs=1'),
    *('--config.teacher.cache_dir=off', '--config.eval_every_epochs=1'),
    *('--config.log_every_steps=1', '--config.baseline=False'),
  ]
  done = subprocess.run(
    command,
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  rows = (tmp_path / 'run/metrics.jsonl').read_text().splitlines()
  losses = [json.loads(row).get('train_loss_l1') for row in rows]
  assert any(losses)
