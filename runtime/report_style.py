"""The report's style sheet: light and dark, from a phone to a wide screen."""

CSS = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #17202c; --soft: #5d6979; --line: #dfe4ea;
  --blue: #2464c8; --band: #b5cdf3; --track: #e7ebf0; --good: #0b7a55; --good-back: #dcf3ea;
  --bad: #b3372a; --bad-back: #fbe4e0; --idle-back: #e9edf2; }
@media (prefers-color-scheme: dark) { :root {
  --page: #11151b; --card: #1a2029; --ink: #e8edf4; --soft: #9aa7b8; --line: #2c3542;
  --blue: #76a8f7; --band: #2f4f82; --track: #2a323e; --good: #5ed3a4; --good-back: #14382c;
  --bad: #ff9182; --bad-back: #47211d; --idle-back: #29313c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.02em; text-wrap: balance; }
h2 { font-size: 18px; margin: 0 0 4px; letter-spacing: -0.01em; }
h3 { font-size: 15px; margin: 20px 0 8px; }
p { margin: 0 0 8px; max-width: 76ch; }
.brand { color: var(--blue); font-weight: 650; margin-bottom: 12px; }
.soft { color: var(--soft); }
.small { font-size: 13px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 20px 22px; margin-top: 20px; }
.scroll { overflow-x: auto; margin: 0 -22px; padding: 0 22px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 550; font-size: 13px; color: var(--soft); padding: 6px 7px;
  border-bottom: 1px solid var(--line); line-height: 1.3; vertical-align: bottom; }
tr.task th { color: var(--ink); font-size: 14px; font-weight: 600; padding-top: 18px; }
td { text-align: right; padding: 10px 7px; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
td.left, th.left { text-align: left; }
td.bar { min-width: 190px; }
td.bar svg { margin-top: 2px; }
td.wide { width: 55%; }
.fight td { padding-top: 5px; padding-bottom: 5px; }
.plan { font-weight: 600; }
.pill { display: inline-block; border-radius: 99px; padding: 1px 10px; font-weight: 600; font-size: 13px;
  background: var(--idle-back); color: var(--soft); }
.pill.good { background: var(--good-back); color: var(--good); }
.pill.bad { background: var(--bad-back); color: var(--bad); }
svg { display: block; overflow: visible; }
svg text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg text.late { fill: var(--bad); }
.track { fill: var(--track); } .band { fill: var(--band); } .mark { fill: var(--blue); }
.shown { fill: var(--band); } .bar { fill: var(--blue); } .bar.late { fill: var(--bad); }
.axis { fill: var(--line); } .tick { stroke: var(--soft); } .zero { stroke: var(--soft); }
.margin { stroke: var(--soft); stroke-dasharray: 2 3; }
.deadline { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 3; }
.success { fill: var(--good); opacity: 0.6; } .failure { fill: none; stroke: var(--bad); stroke-width: 1.5; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 22px 36px;
  margin-top: 14px; }
.plots.narrow { grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
.plots + p { margin-top: 12px; }
.grid { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 14px; margin-top: 14px; }
.grid .names { font-size: 13px; line-height: 20px; }
.grid .seeds { grid-column: 2; display: flex; justify-content: space-between; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 4px 0 0; }
.key.plan { background: var(--blue); } .key.shown { background: var(--band); margin-left: 12px; }
.key.yes { background: var(--good); opacity: 0.6; } .key.no { border: 1.5px solid var(--bad); margin-left: 12px; }
video { display: block; width: 100%; max-width: 640px; border-radius: 8px; background: #000; margin-top: 10px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 10px 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  main { padding: 20px 12px 32px; } h1 { font-size: 24px; }
  section { padding: 16px; } .scroll { margin: 0 -16px; padding: 0 16px; }
  .grid { grid-template-columns: 1fr; } .grid .seeds { grid-column: 1; } }
@media print { section { break-inside: avoid; } body { background: none; } }
"""
