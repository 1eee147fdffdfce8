"""A report as a page: one file that asks for no other."""

import base64
import html
from string import Template

from kdjax.analysis.rules import Finding
from kdjax.report import content
from kdjax.report.content import Content, Picture
from kdjax.report.measures import Table
from kdjax.report.sheet import SHEET

# A figure from so many pixels on takes the whole width of the page.
_WIDE = 720
# On a phone a figure keeps so much of its size, and is scrolled.
_LEGIBLE = 0.58

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$sheet</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="verdict">$verdict</p>
<dl>$source</dl>
<ul class="tiles">$tiles</ul>
<nav aria-label="Parts of the report"><a href="#findings">Findings</a>
<a href="#figures">Figures</a> <a href="#measures">Measures</a></nav>
</header>
<main>
<section id="findings"><h2>Findings</h2>$findings</section>
<section id="figures"><h2>Figures</h2>
<div class="figures">$figures</div></section>
<section id="measures"><h2>Measures</h2>
<div class="tables">$tables</div></section>
</main>
</body>
</html>
""")


def render(report: Content) -> str:
  """Writes a report as HTML.

  Args:
    report: what it says.

  Returns:
    A whole page; figures and style are in it.
  """
  return _PAGE.substitute(
    title=_text(report.title),
    sheet=SHEET,
    verdict=_text(report.verdict),
    source=''.join(
      f'<dt>{_text(name)}</dt><dd>{_text(value)}</dd>'
      for name, value in report.source
    ),
    tiles=''.join(
      f'<li><strong>{_text(value)}</strong><span>{_text(label)}</span></li>'
      for label, value in report.headlines
    ),
    findings=''.join(map(_finding, report.findings)),
    figures=''.join(map(_picture, report.pictures)),
    tables=''.join(
      f'<div class="card">{_table(table)}</div>' for table in report.tables
    ),
  )


def _finding(finding: Finding) -> str:
  severity = content.SEVERITIES[finding.severity]
  flags = ' '.join(
    f'<span>{_text(flag)}</span>' for flag in content.flags(finding)
  )
  rows = tuple(content.evidence(finding))
  return (
    f'<article class="card finding {_text(finding.severity)}">'
    f'<h3><span class="badge">{severity}</span>'
    f'<code>{_text(finding.code)}</code></h3>'
    f'<p>{_text(finding.explanation)}</p>'
    + _table(Table('', ('evidence', 'value'), rows))
    + f'<p><strong>What to do:</strong> {_text(finding.remedy)}</p>'
    + (f'<pre><code>{flags}</code></pre>' if flags else '')
    + '</article>'
  )


def _picture(picture: Picture) -> str:
  plate, width = picture.plate, picture.width
  data = base64.b64encode(picture.path.read_bytes()).decode()
  wide = ' wide' if width > _WIDE else ''
  size = f'min-width: {round(_LEGIBLE * width)}px; max-width: {width}px'
  return (
    f'<figure class="card{wide}"><h3>{_text(plate.title)}</h3>'
    f'<div class="plate" tabindex="0" role="group"'
    f' aria-label="{_text(plate.title)}">'
    f'<img src="data:image/png;base64,{data}" alt="{_text(plate.description)}"'
    f' width="{width}" height="{picture.height}" style="{size}"></div>'
    f'<figcaption><p>{_text(plate.caption)}</p></figcaption></figure>'
  )


def _table(table: Table) -> str:
  """Column names where there are any, and a name before each row."""
  caption = f'<caption>{_text(table.title)}</caption>' if table.title else ''
  head = ''.join(f'<th scope="col">{_text(name)}</th>' for name in table.header)
  body = ''.join(
    f'<tr><th scope="row">{_text(name)}</th>'
    + ''.join(f'<td>{_text(cell)}</td>' for cell in cells)
    + '</tr>'
    for name, *cells in table.rows
  )
  return (
    f'<table>{caption}<thead><tr>{head}</tr></thead>'
    f'<tbody>{body}</tbody></table>'
  )


def _text(text: str) -> str:
  return html.escape(text)
