"""Checkpoints: asynchronous, atomic, the last few and the best on dev."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from kdjax.train.state import State


class Checkpoints:
  """A folder of checkpoints, one a step."""

  def __init__(self, directory: Path, *, keep: int) -> None:
    """Opens the folder, which need not exist yet.

    Args:
      directory: where the checkpoints are.
      keep: how many of the last ones to keep, beside the best.
    """
    preservation = policies.AnyPreservationPolicy(
      [
        policies.LatestN(keep),
        policies.BestN(get_metric_fn=_score, n=1),
      ]
    )
    self._manager = ocp.CheckpointManager(
      directory.resolve(),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=preservation,
        best_fn=_score,  # without it Orbax keeps no metrics
        step_format_fixed_length=8,
      ),
    )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_: object) -> None:
    self._manager.close()

  def save(self, state: State, *, step: int, score: float) -> None:
    """Starts to save; returns before the files are whole.

    Args:
      state: a pytree of arrays.
      step: its step.
      score: higher is better; decides which checkpoint is the best.
    """
    self._manager.save(
      step, args=ocp.args.StandardSave(state), metrics={'score': score}
    )

  def wait(self) -> None:
    """Returns when every started save is on disk."""
    self._manager.wait_until_finished()

  def latest(self) -> int | None:
    """Returns the last saved step, or None."""
    return self._manager.latest_step()

  def best(self) -> int:
    """Returns the step with the best score, the latest of equals."""
    scored = [
      (_score(self._manager.metrics(step)), step)
      for step in self._manager.all_steps()
    ]
    return max(scored)[1]

  def restore(self, like: State, *, step: int) -> State:
    """Returns the state of a step.

    Args:
      like: a pytree of arrays with the shapes, types and shardings to restore.
      step: the step.

    Returns:
      The saved state.
    """
    abstract = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
      like,
    )
    return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))


def _score(metrics: dict[str, float]) -> float:
  return metrics['score']
