"""The evaluations of a training: scores, and what else there is to see."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from kdjax import data
from kdjax.train import evaluate, insight, predictions, sharding
from kdjax.train.given import Task
from kdjax.train.state import State, Weights


class Look:
  """Sees what the teacher does to the examples of an evaluation."""

  def __init__(
    self,
    task: Task,
    teacher: Weights | None,
    *,
    keep_answers: bool,
    batch_size: int,
    mesh: Mesh,
  ) -> None:
    """Takes what does not change between evaluations.

    Args:
      task: what a step is made of.
      teacher: the frozen teacher, or None.
      keep_answers: whether the same examples are shown every time, all at
        once, so that the teacher need not be asked again.
      batch_size: examples that the teacher answers at once.
      mesh: the devices.
    """
    self._teacher, self._keep_answers = teacher, keep_answers
    self._answers = None
    self._ask = teacher and predictions.make_predict(
      task.teacher,
      normalise=task.normalise,
      batch_size=batch_size,
      mesh=mesh,
      gather=task.gather,
    )
    self._see = jax.jit(
      functools.partial(insight.see, task),
      static_argnames='num_examples',
      out_shardings=sharding.replicated(mesh),
      compiler_options=options(mesh),
    )

  def __call__(self, shown: evaluate.Shown, step: jax.Array) -> insight.Seen:
    """Returns what is seen of some examples, on the devices.

    Args:
      shown: the examples, and what the student says of them.
      step: scalar, updates so far.

    Returns:
      Values of each example.
    """
    answers = self._answers
    if self._ask and answers is None:
      answers = self._ask(self._teacher, shown.inputs)
      self._answers = answers if self._keep_answers else None
    return self._see(
      self._teacher,
      answers,
      shown.logits,
      shown.labels,
      step,
      num_examples=shown.num_examples,
    )


def options(mesh: Mesh) -> dict[str, int] | None:
  """Returns those of the compiler for what runs seldom.

  It would take a CPU longer to optimise than to run.
  """
  is_cpu = mesh.devices.flat[0].platform == 'cpu'
  return {'xla_backend_optimization_level': 0} if is_cpu else None


class Examiner:
  """Evaluates a network in training on the held-out set."""

  def __init__(
    self,
    count: evaluate.Evaluator,
    look: Look | None = None,
  ) -> None:
    """Takes what counts right answers, and what looks closer, if anything."""
    self._count, self._look = count, look

  def compile(self, state: State) -> None:
    """Compiles for states that lie as this one does."""
    self._count.compile(state.evaluated, self._visit(state, []))

  def __call__(
    self, state: State, going: Callable[[], bool] = lambda: True
  ) -> dict[str, float] | None:
    """Returns what a row of metrics says of the network.

    Args:
      state: of the network.
      going: asked between batches of encoded images.

    Returns:
      Figures by name, or None if it was not to go on.
    """
    seen = []
    totals = self._count(state.evaluated, going, self._visit(state, seen))
    if totals is None:
      return None
    found = evaluate.scores(totals)
    if seen:
      parts = jax.device_get(seen)
      whole = jax.tree.map(lambda *part: np.concatenate(part), *parts)
      found |= insight.summary(whole)
    return found

  def _visit(
    self, state: State, seen: list[insight.Seen]
  ) -> evaluate.Visit | None:
    """Returns what appends to `seen` what it sees."""
    if self._look is None:
      return None
    return lambda shown: seen.append(self._look(shown, state.step))


def make(
  count: evaluate.Evaluator,
  split: data.Split,
  task: Task,
  teacher: Weights | None,
  mesh: Mesh,
) -> Examiner:
  """Returns what evaluates a network in training.

  Args:
    count: counts what the network gets right in the split.
    split: held out.
    task: what a step is made of; its settings say whether to look closer.
    teacher: the frozen teacher, or None.
    mesh: the devices.

  Returns:
    The examiner.
  """
  if not task.settings.analysis:
    return Examiner(count)
  look = Look(
    task,
    teacher,
    keep_answers=not isinstance(split.inputs, data.Images),
    batch_size=min(task.settings.eval_batch_size, len(split.labels)),
    mesh=mesh,
  )
  return Examiner(count, look)
