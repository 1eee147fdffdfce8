"""Diagnoses made by hand: every number is known, and nothing is compiled.

And what a figure looks like.
"""

import dataclasses

import numpy as np
from matplotlib.colors import to_rgb

from kdjax.analysis.calibration import Reliability
from kdjax.analysis.diagnosis import Diagnosis
from kdjax.analysis.frequency import by_frequency
from kdjax.analysis.rules import Finding
from kdjax.analysis.scores import Scores
from kdjax.analysis.signal import Signal

ALL = ('teacher', 'student', 'baseline')

FINDINGS = (
  Finding(
    'teacher_weaker_than_student',
    'error',
    {'teacher_accuracy': 0.625, 'of_a_new_kind': float('inf')},
    'The teacher <b>errs</b> more than the student.',
    'Take a better teacher.',
    {'method': 'ce'},
  ),
  Finding(
    'noisy_tail',
    'warning',
    {'tail_mass': 0.25},
    'The tail is noise.',
    'Keep the likeliest classes.',
    {'method': 'kd_topk', 'topk': np.int64(3), 'teacher.name': 'a b'},
  ),
)


def diagnosis(
  num_classes=5, num_examples=60, *, networks=ALL, absent=(), weight=0.75
):
  return Diagnosis(
    FINDINGS,
    signal(num_classes, num_examples, networks=networks, absent=absent),
    scores(num_classes, num_examples, networks=networks),
    {'weight': weight, 'temperature': 4.0, 'temperature_power': 2},
  )


def text(num_classes=50, num_examples=60, *, chosen=None):
  """Of a text; tables are of so many classes, the later ones more frequent."""
  whole = diagnosis(num_classes, num_examples)
  rng = np.random.default_rng(2)
  counts = rng.integers(1, 900, num_examples)
  tables = {}
  if chosen:
    few = signal(chosen, 1)
    classes = num_classes - 1 - np.arange(chosen)
    tables = {'relations': few.relations, 'similarity': few.similarity}
    tables['classes'] = classes
  metrics = {f'{name}_perplexity': 10.0 for name in ALL}
  return dataclasses.replace(
    whole,
    signal=whole.signal._replace(
      by_frequency=by_frequency(rng.normal(size=num_examples), counts),
      class_counts=np.arange(num_classes),
      **tables,
    ),
    scores=whole.scores._replace(
      metrics=whole.scores.metrics | metrics,
      by_frequency={
        name: by_frequency(rng.random(num_examples), counts) for name in ALL
      },
    ),
  )


def signal(num_classes, num_examples, *, networks=ALL, absent=()):
  rng = np.random.default_rng(0)
  relations = rng.random((num_classes, num_classes)) * ~np.eye(
    num_classes, dtype=bool
  )
  counts = np.full(num_classes, 7)
  counts[list(absent)] = 0
  mass = np.linspace(0.5, 1, num_classes)
  return Signal(
    num_examples=num_examples,
    num_classes=num_classes,
    metrics={'dark_mass': np.float64(0.125), 'kept_classes': 2.0},
    teacher_confidence=rng.random(num_examples),
    rescaling_factor=rng.normal(size=num_examples),
    has_student='student' in networks,
    topk_mass=mass,
    topk_mass_untempered=mass**0.1,
    relations=relations / relations.sum(1, keepdims=True),
    class_counts=counts,
    gradient_shares={
      'label': 0.5,
      'smoothing': 0.25,
      'class_relations': 0.2,
      'instance': 0.05,
    },
    similarity={
      name: similarity(rng.normal(size=(num_classes, 8)))
      for name in networks
      if name != 'baseline'
    },
  )


def scores(num_classes, num_examples, *, networks=ALL):
  rng = np.random.default_rng(1)
  metrics = {f'{name}_accuracy': 0.625 for name in networks}
  metrics |= {f'{name}_ece': 0.0625 for name in networks}
  return Scores(
    num_examples=num_examples,
    num_classes=num_classes,
    metrics=metrics | {'of_a_new_kind': float('nan')},
    reliability=dict.fromkeys(networks, bins()),
    class_accuracy={name: rng.random(num_classes) for name in networks},
  )


def bins():
  """Four bins, one of them empty."""
  return Reliability(
    np.array([0.2, 0.0, 0.6, 0.9]),
    np.array([0.1, 0.0, 0.7, 0.9]),
    np.array([3, 0, 5, 90]),
  )


def similarity(rows):
  rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  return rows @ rows.T


def legend(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


def lightness(color):
  return np.dot(to_rgb(color), (0.299, 0.587, 0.114))
