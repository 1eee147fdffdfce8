"""What a report says, whatever it is written in."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from kdjax.analysis.diagnosis import Diagnosis
from kdjax.analysis.rules import Finding
from kdjax.report import frequency, measures
from kdjax.report.figures import Plate

# How a finding is announced, by its severity.
SEVERITIES = {'error': 'Error', 'warning': 'Warning', 'info': 'Info'}


class Picture(NamedTuple):
  """A figure that was written: its texts, and its PNG."""

  plate: Plate
  path: Path

  @property
  def width(self) -> int:
    """Its natural width on a screen, in CSS pixels."""
    return round(96 * self.plate.figure.get_figwidth())

  @property
  def height(self) -> int:
    """Its natural height, in CSS pixels."""
    return round(96 * self.plate.figure.get_figheight())


class Content(NamedTuple):
  """A report.

  Attributes:
    title: of the page.
    source: what was diagnosed: a name and a text per line.
    verdict: the findings in a few words.
    findings: most severe first.
    headlines: label and quantity of what to know first.
    pictures: the figures.
    tables: everything that was measured.
  """

  title: str
  source: tuple[tuple[str, str], ...]
  verdict: str
  findings: tuple[Finding, ...]
  headlines: tuple[tuple[str, str], ...]
  pictures: tuple[Picture, ...]
  tables: tuple[measures.Table, ...]


def gather(
  diagnosis: Diagnosis,
  pictures: tuple[Picture, ...],
  *,
  title: str,
  source: Mapping[str, str],
) -> Content:
  """Puts together what a report says.

  Args:
    diagnosis: what was found.
    pictures: the figures.
    title: of the page.
    source: what was diagnosed, by name.

  Returns:
    The content.
  """
  lines = {name: str(text) for name, text in source.items()}
  return Content(
    title,
    tuple((lines | _basis(diagnosis)).items()),
    _verdict(diagnosis.findings),
    diagnosis.findings,
    measures.headlines(diagnosis.metrics),
    pictures,
    (*measures.tables(diagnosis.metrics), *_of_text(diagnosis)),
  )


def flags(finding: Finding) -> list[str]:
  """What to put on the command line of a run.

  >>> flags(Finding('', '', {}, '', '', {'temperature': 8.0, 'topk': 3}))
  ['--config.temperature=8.0', '--config.topk=3']
  """
  return [
    f'--config.{key}={shlex.quote(str(value))}'
    for key, value in finding.settings.items()
  ]


def evidence(finding: Finding) -> list[tuple[str, str]]:
  """Label and quantity of each number that a finding rests on."""
  return [
    (measures.label(name), measures.quantity(name, value))
    for name, value in finding.evidence.items()
  ]


def _of_text(diagnosis: Diagnosis) -> tuple[measures.Table, ...]:
  if not diagnosis.is_text:
    return ()
  return frequency.tables(
    diagnosis.signal.by_frequency, diagnosis.scores.by_frequency
  )


def _basis(diagnosis: Diagnosis) -> dict[str, str]:
  """The loss that was judged, and the examples."""
  signal, scores = diagnosis.signal, diagnosis.scores
  settings = diagnosis.settings
  classes = f'{signal.num_classes:,}'
  if signal.classes is not None:
    classes += (
      f'; relations, and how the gradient is split, of the '
      f'{len(signal.classes)} most frequent'
    )
  return {
    'Loss': f'λ = {settings["weight"]:g}, T = {settings["temperature"]:g}, '
    f'n = {settings["temperature_power"]:g}',
    'Classes (the tokens)' if diagnosis.is_text else 'Classes': classes,
    'Examples (tokens)' if diagnosis.is_text else 'Examples': (
      f'{signal.num_examples:,} for what the teacher says, '
      f'{scores.num_examples:,} for how good the answers are'
    ),
  }


def _verdict(findings: tuple[Finding, ...]) -> str:
  """Counts the findings.

  >>> _verdict((Finding('healthy', 'info', {}, '', ''),))
  'Nothing wrong was found.'
  """
  severities = [finding.severity for finding in findings]
  parts = []
  for severity in ('error', 'warning'):
    count = severities.count(severity)
    if count:
      parts.append(f'{count} {severity}{"s" if count > 1 else ""}')
  return (
    f'{" and ".join(parts)} found.' if parts else 'Nothing wrong was found.'
  )
