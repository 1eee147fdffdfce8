"""What says how good a student is, and how students are compared by it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import data
from kdjax.study.members import Totals

# Of a mean cross-entropy; its exponential, squared, is still a float.
_MOST_NATS = 300.0


class Score(NamedTuple):
  """A number that says how good a network is.

  Attributes:
    name: what it is called, as in the key 'test_accuracy' of a record.
    plural: of the name.
    unit: in which it is shown, or ''.
    factor: what it is multiplied by to be shown in that unit.
    best: 'highest' or 'lowest'.
    of: from right answers, nats in all, and how many were asked for.
    merit_of: from totals to what is compared in training; higher is better.
    compared: the measure whose differences are tested, as in
      'test_cross_entropy'.
    sign: 1 where more of that measure is better, else -1.
    gain: from a difference of it, positive is better, to what is shown.
    gain_unit: of what is shown.
    gains: says what a gain is.
  """

  name: str
  plural: str
  unit: str
  factor: float
  best: str
  of: Callable[[float, float, int], float]
  merit_of: Callable[[Totals], jax.Array]
  compared: str
  sign: int
  gain: Callable[[Any], Any]
  gain_unit: str
  gains: str

  def value(self, metrics: Mapping[str, Any], split: str) -> float:
    """Returns the number in a record's metrics; NaN where it is not finite."""
    return number(metrics[f'{split}_{self.name}'])

  def merit(self, metrics: Mapping[str, Any], split: str) -> float:
    """Returns what is compared, higher is better; NaN if it is not finite."""
    return self.sign * number(metrics[f'{split}_{self.compared}'])

  def found(
    self, split: str, correct: float, nats: float, count: int
  ) -> dict[str, float]:
    """Returns what a record says of a split.

    Args:
      split: its name.
      correct: right answers.
      nats: cross-entropy, summed up.
      count: how many were asked for.

    Returns:
      The score and the mean cross-entropy.
    """
    return {
      f'{split}_{self.name}': self.of(correct, nats, count),
      f'{split}_cross_entropy': nats / count,
    }

  def titled(self, title: str) -> str:
    """Returns a title with the unit, if there is one."""
    return f'{title} ({self.unit})' if self.unit else title

  def shown(self, values: Any) -> Any:  # noqa: ANN401
    """Returns values, a number or an array, in the unit."""
    return self.factor * values


ACCURACY = Score(
  name='accuracy',
  plural='accuracies',
  unit='%',
  factor=100,
  best='highest',
  of=lambda correct, nats, count: correct / count,
  merit_of=lambda totals: totals.correct,
  compared='accuracy',
  sign=1,
  gain=lambda difference: 100 * difference,
  gain_unit='points',
  gains='Gains are in points of test accuracy after the last step, over the'
  ' student of CE or KD with the same seed, hence the same data order and'
  " the same initial weights, with 95 % intervals of Student's t on the"
  ' paired differences.',
)

PERPLEXITY = Score(
  name='perplexity',
  plural='perplexities',
  unit='',
  factor=1,
  best='lowest',
  of=lambda correct, nats, count: _perplexity(nats / count),
  merit_of=lambda totals: (
    -jnp.where(jnp.isnan(totals.cross_entropy), jnp.inf, totals.cross_entropy)
  ),
  compared='cross_entropy',
  sign=-1,
  gain=lambda difference: -100 * np.expm1(-np.asarray(difference)),
  gain_unit='% of its perplexity',
  gains='Gains say by how many percent the test perplexity after the last step'
  ' is below that of the student of CE or KD with the same seed, hence the same'
  ' data order and the same initial weights: 100 · (1 − exp(−d)) %, where d is'
  " the mean of the paired differences of cross-entropy in nats, with Student's"
  ' t on these for its 95 % interval and its p value.',
)


def of_data(dataset: data.Dataset) -> Score:
  """Returns the score of students of a data set."""
  return PERPLEXITY if dataset.text else ACCURACY


def of_metrics(metrics: Mapping[str, Any]) -> Score:
  """Returns the score that a record's metrics have.

  >>> of_metrics({'dev_perplexity': 80.0}).best
  'lowest'
  """
  return PERPLEXITY if 'dev_perplexity' in metrics else ACCURACY


def number(value: float | None) -> float:
  """Returns a number of a record, in which None stands for no finite one."""
  return math.nan if value is None else value


def _perplexity(nats: float) -> float:
  return math.exp(nats) if nats < _MOST_NATS else math.inf
