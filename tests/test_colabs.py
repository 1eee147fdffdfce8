"""Every notebook is committed without outputs, and runs to its last figure."""

import re
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient

FILES = sorted((Path(__file__).parents[1] / 'colabs').glob('*.ipynb'))
EACH_NOTEBOOK = pytest.mark.parametrize('path', FILES, ids=lambda p: p.stem)
HOMES = ('HOME', 'IPYTHONDIR', 'JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR')
SECONDS = 300  # a cell, on a busy machine


def _read(path):
  return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def _code(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A folder to run in; nothing is written outside `tmp_path`."""
  # JUPYTER_PATH goes first: whatever kernels there are, it is this Python.
  kernel = tmp_path / 'jupyter' / 'kernels' / 'python3'
  write_kernel_spec(path=str(kernel))
  monkeypatch.setenv('JUPYTER_PATH', str(tmp_path / 'jupyter'))
  for name in HOMES:
    monkeypatch.setenv(name, str(tmp_path / 'home'))
  for name in ('TMPDIR', 'JUPYTER_RUNTIME_DIR'):
    (tmp_path / name).mkdir()
    monkeypatch.setenv(name, str(tmp_path / name))
  monkeypatch.delenv('MPLBACKEND', raising=False)
  found = tmp_path / 'place'
  found.mkdir()
  return found


def test_the_named_notebooks_are_there():
  assert {path.stem for path in FILES} == {
    'diagnose_your_teacher',
    'gradient_equations',
    'partial_kd_on_synthetic_classes',
  }


@EACH_NOTEBOOK
def test_it_is_committed_without_outputs(path):
  notebook = _read(path)
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  assert notebook.metadata.kernelspec.name == 'python3'
  for cell in notebook.cells:
    assert not cell.metadata
  for cell in _code(notebook):
    assert not cell.outputs
    assert cell.execution_count is None


@EACH_NOTEBOOK
def test_it_opens_in_colab_and_installs_kdjax(path):
  title, install = _read(path).cells[:2]
  at_github = f'github/kdjax/kdjax/blob/main/colabs/{path.name}'
  assert f'(https://colab.research.google.com/{at_github})' in title.source
  assert "\nSOURCE = 'git+https://github.com/kdjax/kdjax'\n" in install.source
  assert install.source.endswith(
    'try:\n  import kdjax\nexcept ModuleNotFoundError:\n'
    '  %pip install -q "$SOURCE"'
  )


@EACH_NOTEBOOK
def test_it_defines_no_mathematics(path):
  code = '\n'.join(cell.source for cell in _code(_read(path)))
  assert 'from kdjax import analysis' in code
  assert not re.search(r'softmax|logsumexp|\bj?np\.exp\b', code)


@EACH_NOTEBOOK
def test_it_runs_to_its_last_figure(path, place):
  notebook = _read(path)
  NotebookClient(
    notebook,
    timeout=SECONDS,
    kernel_name='python3',
    resources={'metadata': {'path': str(place)}},
  ).execute()
  last = _code(notebook)[-1]
  assert any('image/png' in output.get('data', {}) for output in last.outputs)
  assert not list(place.iterdir())
