"""Which figures a diagnosis has, and how each is to be read."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from kdjax.analysis import geometry
from kdjax.analysis.diagnosis import Diagnosis
from kdjax.analysis.signal import Signal
from kdjax.report import answers, frequency, heatmaps, teaching
from kdjax.report.measures import NETWORKS

# Of a text, or of thousands of classes, so many of the most frequent are shown,
# with their names.
_MAX_SHOWN = 32

# By name of its file: title, how to read it, and what a blind reader is told.
TEXTS = {
  'rescaling_factor': (
    'Rescaling by instance',
    'How many times the gradient of plain cross-entropy each example gets. '
    'Above w = 1 the teacher enlarges it, below it takes away; a rising median '
    'means that easy examples weigh more, a negative w that the student is '
    'pushed off the label.',
    "Scatter plot of the rescaling factor against the teacher's confidence, "
    'with median and 10–90 % band',
  ),
  'gradient_shares': (
    'What the gradient consists of',
    'Of the norm of the gradient, the part of the labels, and the three levels '
    'of what a teacher knows: that there are other classes, how classes are '
    'related, and what is special to an example.',
    'Stacked bar of the shares of the gradient',
  ),
  'class_similarity': (
    'Which classes a network holds alike',
    'Bright: alike. The same blocks in every panel, and a correlation r near '
    "1, mean that the network has the teacher's class relations. The order of "
    'the classes is the same everywhere.',
    'Heat maps of the cosine between classes, one per network',
  ),
  'class_relations': (
    "Where the teacher's doubt goes",
    'A row per true class, bright where a wrong class gets much of what the '
    'teacher does not give to the true one. Bright blocks are related classes; '
    'a row of one colour says nothing about relations.',
    "Heat map of the teacher's mean probability of each wrong class",
  ),
  'topk_mass': (
    'How much the likeliest classes hold',
    'A line that rises at once is a teacher that says little but the label; '
    'a slow one spends its probability on a long tail, which kd_topk cuts.',
    'Line plot of the mean mass of the k likeliest classes against k',
  ),
  'reliability': (
    'Whether confidence can be trusted',
    'Calibrated bars end on the diagonal. Below it a network is too sure, '
    'above it not sure enough; below, how many examples a bar stands for.',
    'Reliability diagrams, accuracy against confidence, one per network',
  ),
  'class_gain': (
    'Class by class',
    'Sorted from the best class to the worst; hatched where accuracy is lost. '
    'An average hides classes that lose: their examples and labels are worth a '
    'look.',
    'Accuracy by class, sorted',
  ),
}

# The same, of a text alone.
OF_TEXT = {
  'token_frequency': (
    'Rare and frequent tokens',
    'A fifth of the tokens on each tick, from those that are rarest in the '
    'training text to the most frequent. Left, how many times the gradient of '
    'plain cross-entropy they get; a mean far above the median says that a few '
    'tokens get most of it. Right, which tokens a network has learned better.',
    'Rescaling factor and mean cross-entropy against token frequency',
  ),
}


class Plate(NamedTuple):
  """A figure and its texts."""

  title: str
  caption: str
  description: str
  figure: Figure


def draw(
  diagnosis: Diagnosis,
  *,
  class_names: Sequence[str] | None = None,
  groups: Sequence[int] | None = None,
  class_weights: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Plate]:
  """Draws what there is to show.

  Args:
    diagnosis: what was found.
    class_names: `[K]`, or None: their numbers.
    groups: `[K]`, the super-class of each class, or None: they are clustered.
    class_weights: `[K, D]` rows of the last layer by network; where one is
      missing, class means of its logits stand in.

  Returns:
    Figures by name, a name of `OF_TEXT` or `TEXTS`.
  """
  signal, settings = diagnosis.signal, diagnosis.settings
  figures = {}
  if _varies(signal.rescaling_factor):
    figures['rescaling_factor'] = teaching.rescaling_factor(
      signal.teacher_confidence,
      signal.rescaling_factor,
      weight=settings['weight'],
      has_student=signal.has_student,
      example='a token' if diagnosis.is_text else 'an example',
    )
  if diagnosis.is_text:
    figures['token_frequency'] = frequency.token_frequency(
      signal.by_frequency, diagnosis.scores.by_frequency
    )
  if any(signal.gradient_shares.values()):
    figures['gradient_shares'] = teaching.gradient_shares(
      signal.gradient_shares
    )
  if signal.num_classes > 2:
    figures['topk_mass'] = teaching.topk_mass(
      signal.topk_mass,
      signal.topk_mass_untempered,
      temperature=settings['temperature'],
      kept_classes=None
      if diagnosis.is_text
      else signal.metrics.get('kept_classes'),
    )
  if class_names is None:
    class_names = [str(k) for k in range(signal.num_classes)]
  figures |= _heat_maps(diagnosis, class_names, groups, class_weights or {})
  figures |= _answers(diagnosis, class_names)
  return {
    name: Plate(*texts, figures[name])
    for name, texts in (OF_TEXT | TEXTS).items()
    if name in figures
  }


def _varies(values: np.ndarray) -> bool:
  finite = values[np.isfinite(values)]
  return finite.size > 0 and np.ptp(finite) > 0


def _answers(diagnosis: Diagnosis, names: Sequence[str]) -> dict[str, Figure]:
  scores, is_text = diagnosis.scores, diagnosis.is_text
  errors = {
    name: scores.metrics[f'{name}_ece']
    for name in scores.reliability
    if f'{name}_ece' in scores.metrics
  }
  figures = {
    'reliability': answers.reliability(
      scores.reliability,
      errors=errors,
      examples='tokens' if is_text else 'examples',
    )
  }
  gains, what = _gains(scores.class_accuracy)
  texts = {}
  if is_text:  # of the others there is too little to see
    counts = diagnosis.signal.class_counts
    frequent = np.argsort(-counts, kind='stable')[: answers.MAX_BARS]
    gains, names = gains[frequent], [names[k] for k in frequent]
    title = f'Accuracy at the {len(names)} most frequent tokens'
    texts = {'title': title, 'classes': 'tokens'}
  if np.any(np.isfinite(gains)):
    figures['class_gain'] = answers.class_gain(
      gains, what=what, names=names, **texts
    )
  return figures


def _gains(accuracy: Mapping[str, np.ndarray]) -> tuple[np.ndarray, str]:
  """The comparison that says most, of those that there are."""
  if 'student' not in accuracy:
    return accuracy['teacher'], 'teacher'
  other = 'baseline' if 'baseline' in accuracy else 'teacher'
  return accuracy['student'] - accuracy[other], f'student − {other}'


def _heat_maps(
  diagnosis: Diagnosis,
  names: Sequence[str],
  groups: Sequence[int] | None,
  class_weights: Mapping[str, np.ndarray],
) -> dict[str, Figure]:
  """Both figures in one order, of classes that have examples."""
  signal = diagnosis.signal
  counts = signal.class_counts
  classes = signal.classes
  if classes is None:
    classes = np.arange(signal.num_classes)
  places = np.flatnonzero(counts[classes] > 0)
  if len(places) < 3:
    return {}
  tables, correlations = _similarities(signal, class_weights, classes, places)
  shown = np.arange(len(places))
  note, few = _left_out(signal), {}
  if diagnosis.is_text or signal.classes is not None:
    frequent = np.argsort(-counts[classes[places]], kind='stable')
    shown, few = frequent[:_MAX_SHOWN], {'max_named': _MAX_SHOWN}
    what = 'tokens' if diagnosis.is_text else 'classes'
    note = f'the {len(shown)} most frequent of {signal.num_classes:,} {what}'
    if len(places) > len(shown):
      note += f'; shares, and r, among {len(places)}'
  here = classes[places[shown]]
  known = None if groups is None else np.asarray(groups)[here]
  first = next(iter(tables.values()))
  order = geometry.order_classes(first[np.ix_(shown, shown)], groups=known)
  texts = {
    'names': [names[k] for k in here[order]],
    'borders': []
    if known is None
    else [int(k) for k in np.flatnonzero(np.diff(known[order])) + 1],
    'note': note,
    **few,
  }
  inside = shown[order]
  return {
    'class_similarity': heatmaps.class_similarity(
      {name: table[np.ix_(inside, inside)] for name, table in tables.items()},
      correlations=correlations,
      **texts,
    ),
    'class_relations': heatmaps.class_relations(
      signal.relations[np.ix_(places[inside], places[inside])], **texts
    ),
  }


def _left_out(signal: Signal) -> str:
  absent = np.sum(signal.class_counts == 0)
  return f'without examples, left out: {absent}' if absent else ''


def _similarities(
  signal: Signal,
  class_weights: Mapping[str, np.ndarray],
  classes: np.ndarray,
  places: np.ndarray,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
  """Similarity by network, and its correlation with the teacher's.

  A network is held against the teacher's last layer if its own is known, else
  against the teacher's logits.
  """
  square = np.ix_(places, places)
  logits = {name: table[square] for name, table in signal.similarity.items()}
  layers = {
    name: np.asarray(
      geometry.class_similarity(jnp.asarray(np.asarray(rows)[classes[places]]))
    )
    for name, rows in class_weights.items()
  }
  tables, correlations = {}, {}
  for name in dict.fromkeys([*NETWORKS, *layers]):
    if name not in layers and name not in logits:
      continue
    of_layer = name in layers
    title = f'{name}, {"last layer" if of_layer else "logits"}'
    tables[title] = layers[name] if of_layer else logits[name]
    if name != 'teacher':
      teacher = layers.get('teacher') if of_layer else logits['teacher']
      correlations[title] = float(
        geometry.relation_correlation(
          tables[title], logits['teacher'] if teacher is None else teacher
        )
      )
  return tables, correlations
