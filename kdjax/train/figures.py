"""Pictures of a run."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

# Distinct in colour and in grey-scale, by lightness and dash.
_STYLES = {
  'teacher': {'color': '#222222', 'linestyle': ':'},
  'student': {'color': '#d1495b', 'linestyle': '-'},
  'baseline': {'color': '#5b8fb9', 'linestyle': '--'},
}


def curves(path: Path, runs: dict[str, list[dict]]) -> None:
  """Draws training loss and dev accuracy, or perplexity, against epochs.

  Args:
    path: the PNG to write.
    runs: rows of `metrics.jsonl` by 'teacher', 'student' or 'baseline'.
  """
  figure = Figure(figsize=(9, 3.6), layout='constrained')
  FigureCanvasAgg(figure)
  left, right = figure.subplots(1, 2)
  is_text = any(
    'dev_perplexity' in row for rows in runs.values() for row in rows
  )
  score = ('dev_perplexity', 1.0) if is_text else ('dev_accuracy', 100.0)
  for name, rows in runs.items():
    epochs = {row['step']: row['epoch'] for row in rows if 'epoch' in row}
    style = _STYLES[name]
    _line(left, rows, epochs, 'train_loss', 1.0, name, style)
    _line(right, rows, epochs, *score, name, style)
  left.set(xlabel='epoch', ylabel='training loss (nats)', yscale='log')
  right.set(xlabel='epoch', ylabel='dev accuracy (%)')
  if is_text:
    right.set(ylabel='dev perplexity', yscale='log')
    plain = LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5))
    right.yaxis.set_major_formatter(plain)
    right.yaxis.set_minor_formatter(plain)
  for axes in (left, right):
    axes.grid(alpha=0.25)
    axes.spines[['top', 'right']].set_visible(False)
  figure.legend(
    *right.get_legend_handles_labels(),
    loc='outside upper center',
    ncols=len(runs),
    frameon=False,
  )
  figure.savefig(path, dpi=150)


def _line(
  axes: object,
  rows: list[dict],
  epochs: dict[int, float],
  key: str,
  scale: float,
  name: str,
  style: dict,
) -> None:
  points = [
    (epochs[row['step']], row[key] * scale)
    for row in rows
    if row.get(key) is not None and row['step'] in epochs
  ]
  if points:
    axes.plot(*zip(*points, strict=True), label=name, **style)
