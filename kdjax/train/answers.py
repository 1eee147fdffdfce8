"""What the networks say of a batch, and what the loss makes of it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdjax import methods, models, plans
from kdjax.exchange import Exchange
from kdjax.train import verdict
from kdjax.train.given import Examples, Task
from kdjax.train.state import Carries, State, Trained, Weights

# Folded into a step's key for what its loss draws at random.
_DRAWS = 0x44524157


class Answers(NamedTuple):
  """What the networks say of a batch.

  Attributes:
    said: what the loss makes of the logits.
    terms: what is added to its mean, weighted scalars by name.
    teacher_logits: `[B, K]`, or None.
    rest: the student's batch statistics after this batch.
    aids: those and the memories of what is trained beside it.
    carries: what the networks remember of the batch.
  """

  said: verdict.Verdict
  terms: dict[str, jax.Array]
  teacher_logits: jax.Array | None
  rest: models.Tree
  aids: models.Tree
  carries: Carries

  @property
  def loss(self) -> jax.Array:
    """Scalar, what is minimised."""
    return sum(self.terms.values(), self.said.mean)


def answer(
  task: Task,
  trained: Trained,
  state: State,
  teacher: Weights | None,
  examples: Examples,
  key: jax.Array,
) -> Answers:
  """Returns what both networks say of a batch, and what the loss makes of it.

  Args:
    task: what a step is made of.
    trained: the parameters of the student, and of what helps it.
    state: the rest of them, and the step.
    teacher: the frozen teacher, or None.
    examples: `B` of them.
    key: of the dropout.

  Returns:
    The answers.
  """
  carries = _carries(task, state)
  params = task.gather(trained.params)
  outputs, rest = models.apply(
    task.student,
    params,
    state.rest,
    examples.inputs,
    train=True,
    key=key,
    taps=task.lesson.student_taps,
    carry=carries.student,
  )
  mentor, asked = _consult(task, teacher, examples, carries.teacher)
  exchange = Exchange(
    student=outputs,
    teacher=asked,
    class_weights=mentor and mentor.class_weights,
    labels=examples.labels,
    epoch=state.step / task.steps_per_epoch,
    positions=examples.positions,
    key=jax.random.fold_in(key, _DRAWS),
  )
  mask = verdict.mask_of(examples.labels)
  if in_blocks(task, examples.labels):
    network = models.merge(task.student, params, rest)
    said = _in_blocks(task, network, mentor, exchange, examples)
  else:
    if mask is not None:
      exchange = verdict.blanked(exchange, mask)
    values = _on_logits(task, teacher, task.loss, exchange, examples)
    said = verdict.of(exchange, values, mask)
  added, aids = _added(task, trained, state, teacher, exchange, examples)
  if task.in_order:
    heard = asked.carry if asked is not None else ()
    carries = Carries(outputs.carry, heard or carries.teacher)
  return Answers(said, added, asked and asked.logits, rest, aids, carries)


def _added(
  task: Task,
  trained: Trained,
  state: State,
  teacher: Weights | None,
  exchange: Exchange,
  examples: Examples,
) -> tuple[dict[str, jax.Array], models.Tree]:
  """The terms of the loss, and what changes of what helps them."""
  lesson, found, aids = task.lesson, {}, {}
  if lesson.aids is not None:
    params = task.gather(trained.aids)
    aids = models.merge(lesson.aids, params, state.aids.rest)
  for term in lesson.plan:
    if term.pairs:
      found[term.name] = plans.value(term, exchange, task.settings, aids)
    else:
      of_logits = functools.partial(_term, term)
      values = _on_logits(task, teacher, of_logits, exchange, examples)
      found[term.name] = verdict.mean(values, exchange.mask)
  return found, models.split(aids)[2] if lesson.aids is not None else {}


def in_blocks(task: Task, labels: jax.Array) -> bool:
  """Returns whether the loss of a batch never has all logits at once."""
  return labels.ndim > 1 and task.settings.loss_block_tokens > 0


def _carries(task: Task, state: State) -> Carries:
  """What the networks remember; nothing where a text begins anew."""
  begins = state.step % task.steps_per_epoch == 0
  return jax.tree.map(lambda a: jnp.where(begins, 0, a), state.carries)


def _in_blocks(
  task: Task,
  student: nnx.Module,
  teacher: nnx.Module | None,
  exchange: Exchange,
  examples: Examples,
) -> verdict.Verdict:
  """A verdict for which the logits need not be there."""
  mentor = None
  if teacher is not None and examples.teacher is None:
    mentor = verdict.head(teacher, exchange.teacher)
  return verdict.in_blocks(
    task.loss,
    task.settings,
    exchange,
    verdict.head(student, exchange.student),
    mentor,
    block_size=task.settings.loss_block_tokens,
  )


def _term(
  term: plans.Planned, exchange: Exchange, settings: methods.Settings
) -> jax.Array:
  return plans.value(term, exchange, settings, {})


def _on_logits(
  task: Task,
  teacher: Weights | None,
  loss: methods.Loss,
  exchange: Exchange,
  examples: Examples,
) -> jax.Array:
  """`[B]`; over both labels of what mixup made, and over several teachers."""
  exchanges = [(1.0, exchange)]
  if task.lesson.shares:
    exchanges = _of_each(task, teacher, exchange)

  def losses_of(labels: jax.Array) -> jax.Array:
    return sum(
      share * loss(one._replace(labels=labels), task.settings)
      for share, one in exchanges
    )

  losses = losses_of(examples.labels)
  if examples.shares is None:
    return losses
  share = examples.shares
  return share * losses + (1 - share) * losses_of(examples.partners)


def _of_each(
  task: Task, teacher: Weights, exchange: Exchange
) -> list[tuple[float, Exchange]]:
  """Shares of an ensemble's members, and the exchange with each."""
  params = task.gather(teacher.params)
  network = models.merge(task.teacher, params, teacher.rest)
  answers = exchange.teacher.features['members']
  return [
    (
      share,
      exchange._replace(
        teacher=exchange.teacher._replace(logits=answers[:, i]),
        class_weights=network.members[i].class_weights,
      ),
    )
    for i, share in enumerate(task.lesson.shares)
  ]


def ask_teacher(
  task: Task,
  teacher: Weights | None,
  examples: Examples,
  carry: models.Tree = (),
) -> Examples:
  """Returns the examples with the teacher's answers, if there is a teacher.

  Args:
    task: what a step is made of.
    teacher: the frozen teacher, or None.
    examples: `B` of them; answers that they have already stay.
    carry: what the teacher remembers.

  Returns:
    The examples.
  """
  if teacher is None or examples.teacher is not None:
    return examples
  outputs, _ = models.apply(
    task.teacher,
    task.gather(teacher.params),
    teacher.rest,
    examples.inputs,
    train=False,
    taps=task.lesson.teacher_taps,
    carry=carry,
  )
  names = task.lesson.teacher_features
  if in_blocks(task, examples.labels):
    names = (*names, 'pooled')
  kept = {name: outputs.features[name] for name in names}
  return examples._replace(teacher=outputs._replace(features=kept))


def class_weights(task: Task, teacher: Weights) -> jax.Array:
  """Returns the rows of the teacher's last layer, `[K, D]`."""
  params = task.gather(teacher.params)
  return models.merge(task.teacher, params, teacher.rest).class_weights


def _consult(
  task: Task,
  teacher: Weights | None,
  examples: Examples,
  carry: models.Tree,
) -> tuple[nnx.Module | None, models.Outputs | None]:
  """The teacher, and its outputs on a batch."""
  if teacher is None:
    return None, None
  params = task.gather(teacher.params)
  network = models.merge(task.teacher, params, teacher.rest)
  return network, ask_teacher(task, teacher, examples, carry).teacher
