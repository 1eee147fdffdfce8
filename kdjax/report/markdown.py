"""A report in Markdown."""

import re
from collections.abc import Sequence

from kdjax.analysis.rules import Finding
from kdjax.report import content
from kdjax.report.content import Content, Picture

# What Markdown would take for markup; `_` inside a word it leaves alone.
_MARKUP = re.compile(r'([\\`*<>|\[\]#])')


def render(report: Content) -> str:
  """Writes a report down.

  Args:
    report: what it says.

  Returns:
    Markdown; figures are links relative to its folder.
  """
  parts = [f'# {_plain(report.title)}']
  parts.append(
    '\n'.join(f'- {_plain(name)}: {_plain(x)}' for name, x in report.source)
  )
  parts += ['## Findings', report.verdict]
  parts += [_finding(finding) for finding in report.findings]
  if report.pictures:
    parts.append('## Figures')
    parts += [_picture(picture) for picture in report.pictures]
  parts.append('## Measures')
  for table in report.tables:
    parts += [f'### {table.title}', _table(table.header, table.rows)]
  return '\n\n'.join(parts) + '\n'


def _finding(finding: Finding) -> str:
  severity = content.SEVERITIES[finding.severity]
  lines = [
    f'### {severity}: `{finding.code}`',
    _plain(finding.explanation),
    _table(('evidence', 'value'), content.evidence(finding)),
    f'**What to do:** {_plain(finding.remedy)}',
  ]
  flags = content.flags(finding)
  if flags:
    lines.append('\n'.join(['```sh', ' '.join(flags), '```']))
  return '\n\n'.join(lines)


def _picture(picture: Picture) -> str:
  plate = picture.plate
  link = f'{picture.path.parent.name}/{picture.path.name}'
  return (
    f'### {plate.title}\n\n![{plate.description}]({link})\n\n{plate.caption}'
  )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A pipe table: names left, values right."""
  lines = [[_plain(cell) for cell in line] for line in (header, *rows)]
  lines.insert(1, [':--', *('--:' for _ in header[1:])])
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _plain(text: str) -> str:
  r"""Text on one line, without markup.

  >>> print(_plain('a <b> c|d'))
  a \<b\> c\|d
  """
  return _MARKUP.sub(r'\\\1', ' '.join(text.split()))
