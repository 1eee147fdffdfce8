"""What an evaluation says of the teaching, beside the scores.

It looks at the loss that trains, whatever the method, and at its gradient in
the student's logits, example by example, which terms that compare features do
not have. Both networks have answered already.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import methods, models, numerics, plans, targets, terms
from kdjax.analysis import fidelity, frequency, gradients, rescaling
from kdjax.analysis.samples import calibration_error, rank_correlation
from kdjax.train.given import Task
from kdjax.train.state import Weights


class Taught(NamedTuple):
  """What the teacher does to `N` examples.

  Attributes:
    rescaling: `[N]`, how much the loss enlarges cross-entropy's gradient.
    teacher_confidence: `[N]`, p̃_y, the softened teacher's in the label.
    share: `[N]`, of the gradient that comes from the teacher, in [0, 1].
    agreement: `[N]`, 1 where both networks give one answer, else 0.
    divergence: `[N]`, KL(p ‖ q), in nats.
  """

  rescaling: jax.Array
  teacher_confidence: jax.Array
  share: jax.Array
  agreement: jax.Array
  divergence: jax.Array


class Seen(NamedTuple):
  """What is seen of `N` examples.

  Attributes:
    confidence: `[N]`, the student's in its answer, in [0, 1].
    correct: `[N]`, whether that is the label.
    taught: what the teacher does to them, or None.
  """

  confidence: jax.Array
  correct: jax.Array
  taught: Taught | None


def see(
  task: Task,
  teacher: Weights | None,
  teacher_logits: jax.Array | None,
  logits: jax.Array,
  labels: jax.Array,
  step: jax.Array,
  *,
  num_examples: int,
) -> Seen:
  """Returns what is seen of some examples.

  Args:
    task: what a step is made of.
    teacher: the frozen teacher, or None.
    teacher_logits: `[B, K]`, or None.
    logits: `[B, K]`, the student's.
    labels: `[B]`.
    step: scalar, updates so far.
    num_examples: how many to look at, from the first; the others are padding.

  Returns:
    Values of each example.
  """
  logits, labels = logits[:num_examples], labels[:num_examples]
  confidence = jnp.max(targets.full(logits, temperature=1.0), axis=-1)
  correct = jnp.argmax(logits, axis=-1) == labels
  if teacher is None:
    return Seen(confidence, correct, None)
  network = models.merge(
    task.teacher, task.gather(teacher.params), teacher.rest
  )
  exchange = methods.Exchange(
    student=models.Outputs(logits, {}),
    teacher=models.Outputs(teacher_logits[:num_examples], {}),
    class_weights=network.class_weights,
    labels=labels,
    epoch=step / task.steps_per_epoch,
    key=jax.random.key(0),
  )
  method = methods.get(task.settings.method)
  return Seen(confidence, correct, taught(exchange, method, task.settings))


def taught(
  exchange: methods.Exchange,
  method: methods.Method,
  settings: methods.Settings,
) -> Taught:
  """Returns what the teacher does to each example.

  Args:
    exchange: what both networks say of `N` examples.
    method: whose loss trains the student.
    settings: what the loss reads.

  Returns:
    Values of each example. A loss that relates examples to each other, as
    `dist` does, relates these.
  """
  student, teacher, labels = (
    exchange.student.logits,
    exchange.teacher.logits,
    exchange.labels,
  )

  of_logits = [
    plans.Planned(name, ())
    for name in methods.terms_of(settings)
    if terms.TERMS[name].pairs is None
  ]

  def total(logits: jax.Array) -> jax.Array:
    answered = exchange.student._replace(logits=logits)
    given = exchange._replace(student=answered)
    return jnp.sum(method.loss(given, settings)) + sum(
      jnp.sum(plans.value(term, given, settings, {})) for term in of_logits
    )

  gradient = jax.grad(total)(student)
  soft = targets.full(teacher, temperature=settings.temperature)
  at_label = numerics.is_label(labels, soft.shape[-1])
  return Taught(
    rescaling=rescaling.rescaling_factor_from(gradient, student, labels),
    teacher_confidence=numerics.label_entry(soft, at_label),
    share=gradients.teacher_share_from(
      gradient, student, labels, label_weight=method.label_weight(settings)
    ),
    agreement=jax.vmap(fidelity.agreement)(student, teacher),
    divergence=jax.vmap(fidelity.teacher_kl)(student, teacher),
  )


def by_frequency(rescaling: np.ndarray, counts: np.ndarray) -> dict[str, float]:
  """Returns the rescaling factor by how frequent the tokens are.

  Args:
    rescaling: `[N]`, of each token.
    counts: `[N]`, how often it is in the training text.

  Returns:
    `rescaling_frequency_1` to `_5`: the median factor of each fifth of the
    tokens, from those that are rarest in the training text to the most
    frequent.
  """
  fifths = frequency.medians_by_frequency(rescaling, counts, num_groups=5)
  return {
    f'rescaling_frequency_{i}': float(median)
    for i, median in enumerate(fifths, start=1)
  }


def summary(seen: Seen) -> dict[str, float]:
  """Returns what a row of metrics says of `N` examples.

  Args:
    seen: of the examples, on the host.

  Returns:
    `ece`; and if they are taught, quantiles of the rescaling factor, the
    fraction of examples where it is negative, so that the label is pushed
    down, its rank correlation with the teacher's confidence, the mean share of
    the teacher in the gradient, the fraction of equal answers, and the mean
    divergence in nats.
  """
  found = {'ece': calibration_error(seen.confidence, seen.correct)}
  if seen.taught is None:
    return found
  of = Taught(*(np.asarray(x, np.float64) for x in seen.taught))
  for percent in (10, 50, 90):
    # A sure student's factor may be infinite: nothing is interpolated.
    quantile = np.percentile(of.rescaling, percent, method='nearest')
    found[f'rescaling_p{percent}'] = float(quantile)
  return found | {
    'rescaling_negative': float(np.mean(of.rescaling < 0)),
    'rescaling_confidence_correlation': rank_correlation(
      of.rescaling, of.teacher_confidence
    ),
    'teacher_gradient_share': float(np.mean(of.share)),
    'agreement': float(np.mean(of.agreement)),
    'teacher_kl': float(np.mean(of.divergence)),
  }
