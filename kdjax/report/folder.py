"""The folder of a report."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.analysis.diagnosis import Diagnosis
from kdjax.report import content, figures, markdown, page, style
from kdjax.report.content import Picture
from kdjax.report.figures import Plate
from kdjax.train import files


def write(
  diagnosis: Diagnosis,
  directory: Path | str,
  *,
  title: str,
  source: Mapping[str, str],
  class_names: Sequence[str] | None = None,
  groups: Sequence[int] | None = None,
  class_weights: Mapping[str, np.ndarray] | None = None,
) -> list[Path]:
  """Writes a report: `report.json`, `.md`, `.html` and `figures/*.png`.

  Args:
    diagnosis: what was found.
    directory: where to; made if it is not there. A report in it is replaced.
    title: of the report.
    source: what was diagnosed, by name: a run, its method, a data set.
    class_names: `[K]`, or None.
    groups: `[K]`, the super-class of each class, or None.
    class_weights: `[K, D]`, rows of the last layer by network, or None.

  Returns:
    The files.

  Raises:
    OSError: a file cannot be written.
    ValueError: names, groups or weights are not one per class.
  """
  _check(diagnosis.signal.num_classes, class_names, groups, class_weights)
  directory = Path(directory)
  (directory / 'figures').mkdir(parents=True, exist_ok=True)
  drawn = figures.draw(
    diagnosis,
    class_names=class_names,
    groups=groups,
    class_weights=class_weights,
  )
  pictures = _save(drawn, directory / 'figures')
  report = content.gather(diagnosis, pictures, title=title, source=source)
  files.write_json(directory / 'report.json', strict(_facts(diagnosis, source)))
  files.write_whole(directory / 'report.md', markdown.render(report))
  files.write_whole(directory / 'report.html', page.render(report))
  names = ('report.html', 'report.md', 'report.json')
  return [directory / n for n in names] + [p.path for p in pictures]


def strict(value: Any) -> Any:  # noqa: ANN401
  """Makes a value what JSON can say.

  Args:
    value: numbers, NumPy's too, texts, mappings and sequences of them.

  Returns:
    The same in Python's types; None for a number that is not finite.

  >>> strict({'k': np.int64(3), 'x': [np.float32(0.5), float('nan')]})
  {'k': 3, 'x': [0.5, None]}
  """
  if isinstance(value, Mapping):
    return {str(key): strict(entry) for key, entry in value.items()}
  if isinstance(value, np.ndarray | np.generic):
    return strict(value.tolist())
  if isinstance(value, list | tuple):
    return [strict(entry) for entry in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _facts(diagnosis: Diagnosis, source: Mapping[str, str]) -> dict:
  return {
    'findings': [
      {
        'code': finding.code,
        'severity': finding.severity,
        'evidence': finding.evidence,
        'explanation': finding.explanation,
        'remedy': finding.remedy,
        'settings': finding.settings,
      }
      for finding in diagnosis.findings
    ],
    'metrics': dict(sorted(diagnosis.metrics.items())),
    'settings': diagnosis.settings,
    'source': source,
  }


def _save(drawn: Mapping[str, Plate], directory: Path) -> tuple[Picture, ...]:
  """Writes the figures; removes those of a report that was here before."""
  for name in (figures.OF_TEXT | figures.TEXTS).keys() - drawn.keys():
    (directory / f'{name}.png').unlink(missing_ok=True)
  pictures = tuple(
    Picture(plate, directory / f'{name}.png') for name, plate in drawn.items()
  )
  for picture in pictures:
    style.save(picture.plate.figure, picture.path)
  return pictures


def _check(
  num_classes: int,
  class_names: Sequence[str] | None,
  groups: Sequence[int] | None,
  class_weights: Mapping[str, np.ndarray] | None,
) -> None:
  for name, entries in (('class_names', class_names), ('groups', groups)):
    if entries is not None and len(entries) != num_classes:
      raise ValueError(
        f'{name} has {len(entries)} entries, and there are {num_classes}'
        ' classes; give one per class'
      )
  for network, rows in (class_weights or {}).items():
    shape = np.shape(rows)
    if len(shape) != 2 or shape[0] != num_classes:
      raise ValueError(
        f'class_weights[{network!r}] has shape {shape}; it must be'
        f' [{num_classes}, D], a row per class'
      )
    if not np.all(np.isfinite(rows)):
      raise ValueError(
        f'class_weights[{network!r}] has an entry that is not finite'
      )
