"""What every test relies on: strict ranks, two CPU devices, no home writes."""

import os
import pathlib
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('MPLBACKEND', 'Agg')
# Two workers on two cores: a thread pool per worker and core is too many.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# Most of the time here is XLA's, and most programs come again: in another
# test, worker or process.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _programs = tempfile.TemporaryDirectory(prefix='kdjax-programs-')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _programs.name
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '0'

import jax
import pytest

jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_numpy_rank_promotion', 'raise')


# Mappings of memory that a process may have before Linux refuses more, 65,530,
# with room for a file's tests: each compiled program takes some.
_MOST_MAPPINGS = 20_000


@pytest.fixture(autouse=True, scope='module')
def _room_for_programs():
  """Lets go of compiled programs before a process has too many of them."""
  mappings = pathlib.Path('/proc/self/maps')
  if mappings.exists() and mappings.read_bytes().count(b'\n') > _MOST_MAPPINGS:
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _private_home(tmp_path_factory, monkeypatch):
  """Keeps the teacher cache and prepared data out of the user's home."""
  base = tmp_path_factory.getbasetemp()
  monkeypatch.setenv('XDG_CACHE_HOME', str(base / 'cache'))
  monkeypatch.setenv('TFDS_DATA_DIR', str(base / 'tfds'))
