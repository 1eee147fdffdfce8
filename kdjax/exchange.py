"""What the networks say about a batch, and what a loss may look at."""

from typing import Any, NamedTuple

import jax

from kdjax.models import Outputs

# A configuration, or anything with its method keys as attributes.
Settings = Any


class Exchange(NamedTuple):
  """What the networks say about a batch, and what a loss may look at.

  Attributes:
    student: the student's outputs.
    teacher: the teacher's outputs, or None for a method without a teacher.
    class_weights: `[K, D]`, rows of the teacher's last layer, or None.
    labels: `[B]`, in 0..K-1; of a text `[B, T]`, as logits are `[B, T, K]`.
    epoch: scalar, passes over the training set so far.
    positions: `[B]`, where in the training set the examples are, or None.
    key: of what a loss draws at random, or None.
    mask: `[B, T]`, where a text has a token to predict; None for other data.
      Logits and labels elsewhere are zeros, and what a loss says of them is
      left out of its mean.
  """

  student: Outputs
  teacher: Outputs | None
  class_weights: jax.Array | None
  labels: jax.Array
  epoch: jax.Array
  positions: jax.Array | None = None
  key: jax.Array | None = None
  mask: jax.Array | None = None
