"""Checkpoints: asynchronous, atomic, digested; the last few and the best."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from kdjax.train import hosts, manifest
from kdjax.train.state import PyTree

# What Orbax appends to the name of a folder that is not whole yet.
_UNFINISHED = '.orbax-checkpoint-tmp'
_DELETED = '.deleted'


class Restored(NamedTuple):
  """A checkpoint, read.

  Attributes:
    step: its step.
    score: its score, or None where it was saved without one.
    tree: what was saved.
  """

  step: int
  score: float | None
  tree: PyTree


def read(
  directory: Path,
  like: PyTree,
  config: dict,
  *,
  step: int,
) -> Restored:
  """Reads one checkpoint, and nothing that is not as it was saved.

  Args:
    directory: holds the checkpoints.
    like: a pytree with the shapes, types and shardings to restore.
    config: the configuration of this training, plain data.
    step: which checkpoint.

  Returns:
    The checkpoint.

  Raises:
    ValueError: it is damaged or of another training; the message names what.
  """
  facts = hosts.on_primary(lambda: _facts(directory, like, config, step))
  return _restore(directory, like, facts)


def steps(directory: Path) -> list[int]:
  """Returns the steps of all checkpoints, whole or damaged, in order."""
  if not directory.is_dir():
    return []
  return sorted(
    int(p.name) for p in directory.iterdir() if p.is_dir() and p.name.isdigit()
  )


class Checkpoints:
  """A folder of checkpoints, one a step, that one run writes to."""

  def __init__(self, directory: Path, *, keep: int, config: dict) -> None:
    """Opens the folder, which need not exist yet, and clears it of remains.

    Args:
      directory: where the checkpoints are.
      keep: how many of the last ones to keep, beside the best.
      config: the configuration of this training, plain data.
    """
    self._directory = directory.resolve()
    self._keep = keep
    self._config = config
    self._pending: dict[str, Any] = {}
    hosts.on_primary(self._clear)
    self._identity = self._identify()
    self._writer = ocp.AsyncCheckpointer(
      ocp.StandardCheckpointHandler(),
      async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
    )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_: object) -> None:
    with contextlib.suppress(Exception):  # told by `check`, or by what failed
      self._writer.wait_until_finished()
    self._writer.close()

  def save(
    self, tree: PyTree, *, step: int, score: float | None = None
  ) -> None:
    """Starts to save; returns before the files are whole.

    Args:
      tree: a pytree of arrays.
      step: its step.
      score: higher is better; decides which checkpoint is the best. A step
        that is there already, saved without one, only gets its score.

    Raises:
      OSError: this or the save before it cannot be written.
    """
    self.wait()
    self.check()
    with self._there():
      if hosts.on_primary(lambda: self._rescore(step, score)):
        return
    self._pending = {
      'step': step,
      'score': score,
      'config': self._config,
      'leaves': manifest.leaves(tree),
    }
    with self._told():
      self._writer.save(
        folder(self._directory, step), args=ocp.args.StandardSave(tree)
      )

  def check(self) -> None:
    """Raises `OSError` if a save has failed, or the folder is gone."""
    with self._told():
      self._writer.check_for_errors()
    self._check_there()  # Orbax would make it anew

  def wait(self) -> None:
    """Returns when the save that was started is on disk.

    Raises:
      OSError: it cannot be written; the earlier checkpoints are intact.
    """
    with self._told():
      self._writer.wait_until_finished()
    with self._there():
      hosts.on_primary(self._prune)

  def best(self) -> int | None:
    """Returns the step with the best score, the latest of equals, or None.

    Raises:
      ValueError: a checkpoint is damaged, and its score is not known.
    """
    return hosts.on_primary(self._best)

  def last(self) -> int | None:
    """Returns the step of the newest checkpoint, or None."""
    return hosts.on_primary(lambda: max(steps(self._directory), default=None))

  def latest(self, like: PyTree, say: Callable[[str], None]) -> Restored | None:
    """Reads the newest checkpoint that is whole and of this training.

    Newer ones that are not are named and put aside.

    Args:
      like: a pytree with the shapes, types and shardings to restore.
      say: is told about every checkpoint that cannot be used.

    Returns:
      The checkpoint, or None where there is none at all.

    Raises:
      ValueError: there are checkpoints, and none can be used.
    """
    facts, problems = hosts.on_primary(lambda: self._newest(like))
    for problem in problems:
      say(problem)
    return facts and _restore(self._directory, like, facts)

  def read(self, like: PyTree, *, step: int) -> Restored:
    """Reads one checkpoint, as the function `read` does."""
    return read(self._directory, like, self._config, step=step)

  def _newest(self, like: PyTree) -> tuple[dict | None, list[str]]:
    problems = {}
    for step in reversed(steps(self._directory)):
      try:
        facts = _facts(self._directory, like, self._config, step)
      except ValueError as error:
        problems[step] = str(error)
        continue
      for bad in problems:
        _rename(folder(self._directory, bad), '.unusable')
      return facts, [
        f'{problem}; put aside, going on from step {step}'
        for problem in problems.values()
      ]
    if problems:
      raise ValueError(
        f'no checkpoint in {self._directory} can be used, delete that folder '
        f'to begin anew: {"; ".join(problems.values())}'
      )
    return None, []

  def _check_there(self) -> None:
    if self._identify() != self._identity:
      raise FileNotFoundError(
        f'{self._directory} is gone since this run began: put it back, and run '
        f'the same command to go on'
      )

  @contextlib.contextmanager
  def _there(self) -> Iterator[None]:
    """A folder may go away between two looks at it: says so in one line."""
    try:
      yield
    except OSError:
      self._check_there()
      raise

  def _identify(self) -> tuple[int, int] | None:
    """Device and inode of the folder, or None where it is not there."""
    try:
      found = self._directory.stat()
    except FileNotFoundError:
      return None
    return found.st_dev, found.st_ino

  def _clear(self) -> None:
    """Removes what a killed process has left."""
    self._directory.mkdir(parents=True, exist_ok=True)
    for path in self._directory.iterdir():
      if _UNFINISHED in path.name or path.name.endswith(_DELETED):
        shutil.rmtree(path)

  def _rescore(self, step: int, score: float | None) -> bool:
    """Adds a score to what a stopped run has saved before it had one."""
    found = folder(self._directory, step)
    if not found.is_dir():
      return False
    manifest.write(found, {**manifest.read(found), 'score': score})
    return True

  def _seal(self) -> None:
    """Writes the manifest; the folder gets its name right after."""
    name = folder(self._directory, self._pending['step']).name
    (unfinished,) = self._directory.glob(f'{name}{_UNFINISHED}*')
    manifest.write(unfinished, self._pending)

  def _prune(self) -> None:
    """Deletes all but the last, the best, and what may be the best."""
    saved = steps(self._directory)
    scores, unreadable = self._scores()
    best = [step for _, step in sorted(scores)[-1:]]
    kept = {*saved[-self._keep :], *best, *unreadable}
    for step in set(saved) - kept:
      shutil.rmtree(_rename(folder(self._directory, step), _DELETED))

  def _best(self) -> int | None:
    scores, unreadable = self._scores()
    for problem in unreadable.values():
      raise ValueError(
        f'{problem}, so nobody knows whether it is the best on dev: delete '
        f'its folder to take the best of the others'
      )
    return max(scores, default=(0, None))[1]

  def _scores(self) -> tuple[list[tuple[float, int]], dict[int, str]]:
    """Scores and steps of what has one; by step, what cannot be read."""
    scores, unreadable = [], {}
    for step in steps(self._directory):
      try:
        facts = manifest.read(folder(self._directory, step))
      except ValueError as error:
        unreadable[step] = str(error)
        continue
      if facts['score'] is not None:
        scores.append((facts['score'], step))
    return scores, unreadable

  @contextlib.contextmanager
  def _told(self) -> Iterator[None]:
    """Turns whatever a writer raises into one clear `OSError`."""
    try:
      yield
    except Exception as error:
      step = self._pending.get('step')
      raise OSError(
        f'cannot save step {step} in {self._directory}: {_reason(error)}; '
        f'the earlier checkpoints are intact'
      ) from error


def _facts(
  directory: Path,
  like: PyTree,
  config: dict,
  step: int,
) -> dict[str, Any]:
  """Step and score of a checkpoint that can be used."""
  found = folder(directory, step)
  try:
    facts = manifest.verify(found)
    manifest.check_ours(facts, manifest.leaves(like), config)
  except ValueError as error:
    raise ValueError(f'checkpoint {found}: {error}') from error
  return {'step': facts['step'], 'score': facts['score']}


def _restore(directory: Path, like: PyTree, facts: dict[str, Any]) -> Restored:
  abstract = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like
  )
  with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
    tree = reader.restore(
      folder(directory.resolve(), facts['step']),
      args=ocp.args.StandardRestore(abstract),
    )
  return Restored(facts['step'], facts['score'], tree)


def folder(directory: Path, step: int) -> Path:
  """Returns where the checkpoint of a step is."""
  return directory / f'{step:08d}'


def _rename(folder: Path, suffix: str) -> Path:
  """Gives a folder another name at once; what had that name goes."""
  target = folder.with_name(folder.name + suffix)
  shutil.rmtree(target, ignore_errors=True)
  return folder.rename(target)


def _reason(error: Exception) -> str:
  """The first line of what failed, below whatever wraps it."""
  while error.__cause__ is not None:
    error = error.__cause__
  return str(error).splitlines()[0] if str(error) else type(error).__name__
