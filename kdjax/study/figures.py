"""Which figures a study has, and their files."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from kdjax.report import style
from kdjax.study import gains, panels, plots
from kdjax.study.summary import Record, Row, short_keys

# What `draw` writes, and removes if it is from before.
_NAMES = (
  'gain_over_ce_by_*',
  'accuracy_by_*',
  'perplexity_by_*',
  'gain_heatmap',
  'learning_curves',
  'rescaling_factors',
)


def draw(
  records: Iterable[Record], rows: Sequence[Row], folder: Path | str
) -> list[Path]:
  """Writes the figures for which there are data, whole or not at all.

  Args:
    records: of the study; those of the search are left out.
    rows: of `summarise`.
    folder: where to; made if it is not there. Figures of a study in it are
      replaced, or removed where there is none now.

  Returns:
    The PNGs: `gain_over_ce_by_<key>`, `accuracy_by_<key>` or
    `perplexity_by_<key>`, `gain_heatmap`, `learning_curves` and
    `rescaling_factors`, of which some may lack.

  Raises:
    OSError: a file cannot be written.
  """
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  students = [record for record in records if record['phase'] == 'final']
  paths = []
  for name, figure in _figures(students, rows):
    if figure is not None:
      paths.append(folder / f'{name}.png')
      _save(figure, paths[-1])
  for name in _NAMES:
    for path in set(folder.glob(f'{name}.png')) - set(paths):
      path.unlink()
  return paths


def _figures(
  students: Sequence[Record], rows: Sequence[Row]
) -> Iterator[tuple[str, Figure | None]]:
  looks = panels.looks(row.arm for row in rows)
  for key, name in short_keys(k for row in rows for k in row.scenario).items():
    yield f'gain_over_ce_by_{name}', gains.by_key(rows, key, looks)
  for key, name in short_keys(k for row in rows for k in row.fixed).items():
    yield f'{rows[0].score.name}_by_{name}', plots.score_by(rows, key, looks)
  yield 'gain_heatmap', gains.heat_map(rows)
  yield 'learning_curves', plots.learning_curves(students, looks)
  yield 'rescaling_factors', plots.rescaling_factors(students, looks)


def _save(figure: Figure, path: Path) -> None:
  scratch = path.with_name(f'.{os.getpid()}.{path.name}')
  style.save(figure, scratch)
  scratch.replace(path)
