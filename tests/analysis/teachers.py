"""Logits of teachers that are made up, each with one trait."""

import numpy as np

NUM_CLASSES = 10


def relations(num_classes=NUM_CLASSES, scale=2.0):
  """What every class finds of every other."""
  rng = np.random.default_rng(1)
  return scale * rng.normal(size=(num_classes, num_classes))


def answers(
  *,
  num_examples=2000,
  num_classes=NUM_CLASSES,
  margin=8.0,
  related=2.0,
  noise=0.7,
  wrong=0.05,
  seed=0,
):
  """Logits `[N, K]` and labels `[N]`.

  Args:
    num_examples: N.
    num_classes: K.
    margin: of the class that the teacher answers.
    related: scale of what the class explains.
    noise: scale of what it does not.
    wrong: share of answers that are not the label.
    seed: of the noise.

  Returns:
    Logits and labels.
  """
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, num_classes, num_examples)
  others = rng.integers(0, num_classes, num_examples)
  answer = np.where(rng.random(num_examples) < wrong, others, labels)
  logits = relations(num_classes, related)[labels]
  logits = logits + noise * rng.normal(size=logits.shape)
  logits[np.arange(num_examples), answer] = margin
  return logits.astype(np.float32), labels
