"""What an import brings along, and which way imports point."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported_by(code, **keywords):
  """The top-level modules that are there after `code`, in a new process."""
  end = 'import sys; print("\\n" + " ".join({m.split(".")[0] for m in '
  done = subprocess.run(
    [sys.executable, '-c', f'{code}\n{end}sys.modules}}))'],
    capture_output=True,
    text=True,
    check=False,
    **keywords,
  )
  assert done.returncode == 0, done.stderr
  return set(done.stdout.splitlines()[-1].split())


def test_kdjax_alone_imports_nothing():
  found = imported_by('import kdjax; print(kdjax.__version__)')
  assert 'kdjax' in found
  assert not found & {'flax', 'tensorflow_datasets', 'jax', 'numpy'}


def test_losses_and_targets_know_no_framework():
  found = imported_by('import kdjax.losses, kdjax.targets')
  assert 'jax' in found
  assert not found & {'flax', 'optax', 'absl', 'grain', 'ml_collections'}


def test_methods_and_models_bring_no_data_library():
  found = imported_by('import kdjax.methods, kdjax.models')
  assert 'flax' in found
  assert not found & {'tensorflow_datasets', 'tensorflow', 'orbax', 'grain'}


def test_a_mistake_on_the_command_line_is_told_without_jax():
  code = """
import sys
from kdjax import cli, main
sys.argv = ['main', '--config=nowhere.py']
try:
  main.main()
except ValueError:
  pass
"""
  assert not imported_by(code) & {'flax', 'optax', 'tensorflow_datasets'}


def test_no_tensorflow_anywhere(tmp_path):
  code = f"""
import kdjax.train.experiment, kdjax.train.progress, kdjax.prepare
from kdjax import data
assert not data.prepare('digits', data_dir={str(tmp_path)!r}).was_prepared
data.load('digits', data_dir={str(tmp_path)!r})
"""
  found = imported_by(code, cwd=tmp_path)
  assert {'tensorflow_datasets', 'orbax', 'tensorboardX'} <= found
  assert not found & {'tensorflow', 'keras', 'torch'}


def test_the_import_contracts_hold():
  lint = Path(sys.executable).with_name('lint-imports')
  done = subprocess.run(
    [lint, '--no-cache', f'--config={ROOT / "setup.cfg"}'],
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert '0 broken' in done.stdout
  assert '0 kept' not in done.stdout


@pytest.mark.parametrize('folder', ['kdjax', 'experiments'])
def test_no_module_changes_jax_by_being_imported(folder):
  for path in (ROOT / folder).rglob('*.py'):
    for statement in ast.parse(path.read_text()).body:
      if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        assert 'jax.config.update' not in ast.unparse(statement), path
