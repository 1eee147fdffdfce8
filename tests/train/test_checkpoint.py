import random
import shutil

import chex
import jax
import jax.numpy as jnp
import pytest

from kdjax.train import checkpoint, manifest
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.state import State

CONFIG = {'seed': 0, 'optimizer': {'momentum': 0.9}, 'model_devices': 1}


def _open(folder, keep=2, config=CONFIG):
  return Checkpoints(folder, keep=keep, config=config)


def _state(step, size=1000):
  return State(
    step=jnp.asarray(step, jnp.int32),
    params={'kernel': jnp.arange(size, dtype=jnp.float32) + step},
    rest={},
    opt_state=(None, {'trace': jnp.full((3,), float(step))}),
    ema=None,
  )


def _saved(folder):
  return checkpoint.steps(folder)


def test_the_last_two_and_the_best_stay(tmp_path):
  scores = {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.2, 5: 0.4}
  with _open(tmp_path) as checkpoints:
    for step, score in scores.items():
      checkpoints.save(_state(step), step=step, score=score)
    checkpoints.wait()
    assert checkpoints.best() == 2
    assert checkpoints.last() == 5
  assert _saved(tmp_path) == [2, 4, 5]


def test_the_latest_of_equals_is_the_best(tmp_path):
  with _open(tmp_path, keep=1) as checkpoints:
    for step, score in {1: 0.5, 2: 0.5, 3: 0.4}.items():
      checkpoints.save(_state(step), step=step, score=score)
    checkpoints.wait()
    assert checkpoints.best() == 2
  assert _saved(tmp_path) == [2, 3]


def test_another_process_restores_every_bit(tmp_path):
  with _open(tmp_path) as checkpoints:
    checkpoints.save(_state(7), step=7, score=0.0)
  with _open(tmp_path) as checkpoints:
    found = checkpoints.latest(_state(0), print)
  assert (found.step, found.score) == (7, 0.0)
  chex.assert_trees_all_equal(found.tree, _state(7))


def test_an_empty_folder_has_no_latest(tmp_path):
  with _open(tmp_path / 'new') as checkpoints:
    assert checkpoints.latest(_state(0), print) is None
    assert checkpoints.best() is None


def test_a_save_holds_the_values_of_its_own_step(tmp_path):
  """Saving is asynchronous and the buffers are donated right after it."""
  size = 2_000_000
  advance = jax.jit(
    lambda state: jax.tree.map(lambda a: a + 1, state), donate_argnums=0
  )
  state = jax.device_put(_state(1, size))
  with _open(tmp_path, keep=1) as checkpoints:
    checkpoints.save(state, step=1, score=0.0)
    for _ in range(20):
      state = advance(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    found = checkpoints.read(_state(0, size), step=1)
  chex.assert_trees_all_equal(found.tree, _state(1, size))


def test_a_step_saved_without_a_score_may_get_one(tmp_path):
  with _open(tmp_path) as checkpoints:
    checkpoints.save(_state(3), step=3)
    checkpoints.wait()
    assert checkpoints.best() is None
    checkpoints.save(_state(3), step=3, score=0.5)
    checkpoints.wait()
    assert checkpoints.best() == 3
    found = checkpoints.latest(_state(0), print)
  assert found.score == 0.5
  chex.assert_trees_all_equal(found.tree, _state(3))


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """A folder with the steps 1 and 2."""
  folder = tmp_path_factory.mktemp('two')
  with _open(folder) as checkpoints:
    for step in (1, 2):
      checkpoints.save(_state(step), step=step, score=step / 10)
  return folder


def _listed(folder):
  """Every file of the newest checkpoint that is in its manifest, and it."""
  newest = folder / '00000002'
  return [newest / name for name in manifest.read(newest)['files']] + [
    newest / manifest.NAME
  ]


def _latest(folder):
  said = []
  with _open(folder) as checkpoints:
    return checkpoints.latest(_state(0), said.append), said


def _flip(path, rng):
  content = bytearray(path.read_bytes())
  place = rng.randrange(8 * len(content))
  content[place // 8] ^= 1 << place % 8
  path.write_bytes(content)


def test_three_hundred_flipped_bits_are_all_found(two, tmp_path):
  """In the files of one checkpoint, each as often as it is long."""
  rng = random.Random(0)
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  files = [p for p in _listed(tmp_path) if p.stat().st_size]
  sizes = [path.stat().st_size for path in files]
  chosen = files + rng.choices(files, sizes, k=300 - len(files))
  for path in chosen:
    before = path.read_bytes()
    _flip(path, rng)
    with pytest.raises(ValueError, match=path.name):
      manifest.verify(tmp_path / '00000002')
    path.write_bytes(before)
  manifest.verify(tmp_path / '00000002')


def test_files_outside_the_manifest_cannot_change_what_is_restored(
  two, tmp_path
):
  listed = set(_listed(two))
  rng = random.Random(0)
  others = [
    path
    for path in (two / '00000002').rglob('*')
    if path.is_file() and path not in listed
  ]
  assert others
  for index, path in enumerate(others * 10):
    folder = tmp_path / str(index)
    shutil.copytree(two, folder)
    _flip(folder / path.relative_to(two), rng)
    found, _ = _latest(folder)
    chex.assert_trees_all_equal(found.tree, _state(2))


def _truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path):
  path.write_bytes(b'')


def _delete(path):
  path.unlink()


@pytest.mark.parametrize('harm', [_truncate, _empty, _delete])
def test_a_damaged_file_is_named_and_the_one_before_is_used(
  harm, two, tmp_path
):
  for index, original in enumerate(_listed(two)):
    folder = tmp_path / str(index)
    shutil.copytree(two, folder)
    path = folder / original.relative_to(two)
    if not path.stat().st_size and harm is not _delete:
      continue
    harm(path)
    found, said = _latest(folder)
    assert found.step == 1
    chex.assert_trees_all_equal(found.tree, _state(1))
    (line,) = said
    assert str(path) in line
    assert 'going on from step 1' in line
    assert checkpoint.steps(folder) == [1]
    assert (folder / '00000002.unusable').is_dir()


def test_without_a_whole_one_it_is_never_a_silent_beginning(two, tmp_path):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  for path in tmp_path.rglob(manifest.NAME):
    path.unlink()
  with pytest.raises(ValueError, match=r'no checkpoint in .* can be used'):
    _latest(tmp_path)
  assert checkpoint.steps(tmp_path) == [1, 2]


def test_remains_of_a_killed_process_are_cleared(two, tmp_path):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  for name in ('00000003.orbax-checkpoint-tmp', '00000000.deleted'):
    shutil.copytree(two / '00000001', tmp_path / name)
  found, said = _latest(tmp_path)
  assert (found.step, said) == (2, [])
  assert sorted(p.name for p in tmp_path.iterdir()) == ['00000001', '00000002']


@pytest.mark.parametrize(
  ('like', 'config', 'named'),
  [
    ({'size': 999}, CONFIG, 'params/kernel is float32[1000], not float32[999]'),
    ({}, {**CONFIG, 'seed': 7}, 'another config: seed differ'),
  ],
)
def test_a_foreign_one_is_named(like, config, named, two, tmp_path):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  with (
    _open(tmp_path, config=config) as checkpoints,
    pytest.raises(ValueError, match='can be used') as error,
  ):
    checkpoints.latest(_state(0, **like), print)
  assert named in str(error.value)


def test_circumstances_may_differ(two):
  with _open(two, config={**CONFIG, 'model_devices': 4}) as checkpoints:
    assert checkpoints.latest(_state(0), print).step == 2


def test_a_disk_that_refuses_is_told_and_harms_nothing(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(28, 'No space left on device')

  with _open(tmp_path) as checkpoints:
    checkpoints.save(_state(1), step=1, score=0.1)
    checkpoints.wait()
    monkeypatch.setattr(manifest, 'write', refuse)
    checkpoints.save(_state(2), step=2, score=0.2)
    with pytest.raises(OSError, match=r'step 2 .*No space.* are intact'):
      checkpoints.wait()
    monkeypatch.undo()
    assert checkpoint.steps(tmp_path) == [1]
    checkpoints.save(_state(3), step=3, score=0.3)
  assert _latest(tmp_path)[0].step == 3


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path):
  folder = tmp_path / 'run' / 'checkpoints'
  with _open(folder) as checkpoints:
    shutil.rmtree(tmp_path / 'run')
    with pytest.raises(FileNotFoundError, match='is gone'):
      checkpoints.save(_state(1), step=1, score=0.1)
  assert not folder.exists()


def test_a_folder_that_goes_away_while_it_is_read_is_told(
  tmp_path, monkeypatch
):
  """Between two looks at it."""
  folder = tmp_path / 'run' / 'checkpoints'
  steps = checkpoint.steps

  def steps_too_late(directory):
    shutil.rmtree(tmp_path / 'run', ignore_errors=True)
    list(directory.iterdir())
    return steps(directory)

  with _open(folder) as checkpoints:
    monkeypatch.setattr(checkpoint, 'steps', steps_too_late)
    with pytest.raises(FileNotFoundError, match='is gone since this run'):
      checkpoints.wait()
