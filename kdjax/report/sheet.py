"""The style sheet of a report's page: screen and print, light and dark."""

SHEET = """
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --ink: #1c2430; --faint: #5a6675;
  --line: #d9dee5; --error: #a3182d; --warning: #8a5300; --info: #1b6b3a;
  --code: #eef1f5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1b212a; --ink: #e6eaf0; --faint: #9aa7b8;
    --line: #323b48; --error: #ff8b98; --warning: #f2b25c; --info: #7fd6a0;
    --code: #10141a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; padding: 0 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
header, main { max-width: 70rem; margin: 0 auto; }
header { padding: 2.5rem 0 0; }
h1 { margin: 0 0 .5rem; font-size: clamp(1.5rem, 5vw, 2.2rem);
  line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 1rem; font-size: 1.4rem; }
h3 { margin: 0 0 .5rem; font-size: 1.05rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 48rem; }
nav { display: flex; gap: 1.25rem; margin-top: 1rem; }
a { color: inherit; }
code, pre { font-family: ui-monospace, Menlo, Consolas, monospace; }
code { font-size: .95em; }
pre { background: var(--code); border: 1px solid var(--line);
  border-radius: .4rem; padding: .6rem .8rem; margin: .75rem 0 0;
  white-space: pre-wrap; overflow-x: auto; }
pre span { white-space: nowrap; }
td { white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem;
  margin: 1rem 0 0; color: var(--faint); }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
.verdict { font-size: 1.15rem; }
.tiles { display: grid; gap: .75rem; padding: 0; margin: 1.5rem 0 0;
  list-style: none;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.card, .tiles li { background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; padding: 1rem 1.15rem; }
.tiles strong { display: block; font-size: 1.6rem; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.tiles span { color: var(--faint); font-size: .85rem; }
.finding + .finding { margin-top: 1rem; }
.finding { border-left: .4rem solid var(--tone); }
.error { --tone: var(--error); }
.warning { --tone: var(--warning); }
.info { --tone: var(--info); }
.badge { display: inline-block; border: 1px solid var(--tone);
  color: var(--tone); border-radius: 1rem; padding: 0 .6rem;
  margin-right: .5rem; font-size: .8rem; line-height: 1.5; }
.figures, .tables { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.figures > *, .tables > * { margin: 0; min-width: 0; }
.wide { grid-column: 1 / -1; }
.plate { background: #ffffff; border-radius: .4rem; padding: .5rem;
  overflow-x: auto; }
.plate img { display: block; height: auto; margin: 0 auto; width: 100%; }
figcaption p { margin: .75rem 0 0; color: var(--faint); font-size: .9rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .3rem .4rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; font-weight: 400; padding-left: 0; }
thead th { color: var(--faint); font-weight: 600; }
tr > :last-child { padding-right: 0; }
.finding table { width: auto; margin-top: .5rem; }
.finding th { padding-right: 1.5rem; }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; }
  .card { padding: .9rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
}
@media print {
  :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000;
    --faint: #333; --line: #bbb; --code: #fff; --error: #a3182d;
    --warning: #8a5300; --info: #1b6b3a; }
  body { padding: 0; font-size: 10.5pt; }
  header { padding: 0; }
  nav { display: none; }
  h2, h3 { break-after: avoid; }
  .card, .tiles li, tr { break-inside: avoid; }
  .plate { overflow: visible; }
  .plate img { min-width: 0 !important; }
}
"""
