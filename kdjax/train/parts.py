"""What each part of a loss is worth in a step, and how hard it pulls."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from kdjax import losses, methods
from kdjax.train import answers, given, verdict
from kdjax.train.given import Batch, Task
from kdjax.train.state import State, Trained, Weights


def measure(
  task: Task,
  state: State,
  teacher: Weights | None,
  batch: Batch,
  key: jax.Array,
) -> dict[str, jax.Array]:
  """Returns value and gradient norm of each part of the loss on a batch.

  The parts are the label's share of the logits' loss, the teacher's, which is
  the rest of it, and every term, all as they are weighted in this step. The
  gradients are those of the student's parameters.

  Args:
    task: what the step is made of.
    state: the student's state, which stays as it is.
    teacher: the frozen teacher, or None.
    batch: `B` examples.
    key: the run's key.

  Returns:
    Scalars: `loss_NAME` and `gradient_norm_NAME`.
  """
  batch = task.place(batch)
  examples, dropout_key = given.prepare(task, batch, key, state.step)
  # A whole batch may not fit: of one that is worked on in parts, the first.
  examples, carries = jax.tree.map(
    lambda a: a[:: task.parts], (examples, state.carries)
  )
  state = dataclasses.replace(state, carries=carries)
  dropout_key = given.part_key(task, dropout_key, 0)

  def values(params: optax.Params) -> dict[str, jax.Array]:
    trained = Trained(params, state.aids.params)

    def ask(task: Task) -> answers.Answers:
      return answers.answer(
        task, trained, state, teacher, examples, dropout_key
      )

    said = ask(task)
    return _of_label(task, said, examples, ask) | said.terms

  found, pull = jax.vjp(values, state.params)
  names = list(found)
  norms = jax.lax.map(
    lambda row: optax.tree.norm(pull(dict(zip(names, row, strict=True)))[0]),
    jnp.eye(len(names)),
  )
  return {f'loss_{name}': value for name, value in found.items()} | {
    f'gradient_norm_{name}': norm
    for name, norm in zip(names, norms, strict=True)
  }


def _of_label(
  task: Task,
  said: answers.Answers,
  examples: given.Examples,
  ask: Callable[[Task], answers.Answers],
) -> dict[str, jax.Array]:
  """The loss of the logits, in the label's share and the teacher's."""
  total = said.said.mean
  method = methods.get(task.settings.method)
  if not method.needs_teacher or method.terms:
    return {'label': total}
  if said.said.logits is None:
    plain = dataclasses.replace(task, loss=methods.get('ce').loss)
    nats = ask(plain).said.mean
  else:
    nats = _cross_entropy(said.said.logits, examples)
  label = method.label_weight(task.settings) * nats
  return {'label': label, 'teacher': total - label}


def _cross_entropy(logits: jax.Array, examples: given.Examples) -> jax.Array:
  """Its mean, over both labels of what mixup made."""
  mask = verdict.mask_of(examples.labels)
  labels = jnp.maximum(examples.labels, 0)
  nats = losses.cross_entropy(logits, labels)
  if examples.shares is not None:
    other = losses.cross_entropy(logits, examples.partners)
    nats = examples.shares * nats + (1 - examples.shares) * other
  return verdict.mean(nats, mask)


class Parts:
  """Measures the parts of the loss in a training."""

  def __init__(
    self,
    task: Task,
    teacher: Weights | None,
    fetch: Callable[[int], tuple[Batch, jax.Array]],
    options: dict[str, int] | None,
  ) -> None:
    """Takes what does not change in a training.

    Args:
      task: what a step is made of.
      teacher: the frozen teacher; without one there is nothing to tell apart.
      fetch: from a step to its batch, and the key to prepare it.
      options: of the compiler.
    """
    self._wanted = teacher is not None and task.settings.analysis
    self._teacher, self._fetch, self._compiled = teacher, fetch, None
    self._run = jax.jit(
      functools.partial(measure, task), compiler_options=options
    )

  def compile(self, state: State) -> None:
    """Compiles for states that lie as this one does."""
    if self._wanted:
      lowered = self._run.lower(state, self._teacher, *self._fetch(0))
      self._compiled = lowered.compile()

  def __call__(self, state: State, step: int) -> dict[str, float]:
    """Returns what a row of metrics says of the step before `step`.

    Args:
      state: of the network.
      step: its step; ahead of the first, the first is looked at.

    Returns:
      Figures by name; nothing where nothing is to be told apart.
    """
    if not self._wanted:
      return {}
    batch, key = self._fetch(max(step - 1, 0))
    found = jax.device_get(self._compiled(state, self._teacher, batch, key))
    return {name: float(value) for name, value in found.items()}
