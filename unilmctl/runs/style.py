"""How report.html looks: one narrow stylesheet for light and dark, screen and paper."""

STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --ink: #1f2937; --pale: #4b5563; --grid: #e5e7eb; --card: #f9fafb;
  --line-1: #1d4ed8; --line-2: #c2410c; --line-3: #047857; }
@media (prefers-color-scheme: dark) { :root {
  --page: #111827; --ink: #f3f4f6; --pale: #b6bdc9; --grid: #374151; --card: #1b2433;
  --line-1: #7aa7ff; --line-2: #fb923c; --line-3: #34d399; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .75rem; }
dl { display: flex; flex-wrap: wrap; gap: .75rem 2rem; margin: 0; }
dt { color: var(--pale); font-size: .85rem; }
dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.grid-of-charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .75rem; background: var(--card); border-radius: .5rem; min-width: 0; }
figcaption { font-weight: 600; }
figure p { margin: .15rem 0; color: var(--pale); font-size: .85rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--pale); font: 11px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--grid); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line-1 { stroke: var(--line-1); } .dot-1, .bar { fill: var(--line-1); }
.line-2 { stroke: var(--line-2); stroke-dasharray: 6 3; } .dot-2 { fill: var(--line-2); }
.line-3 { stroke: var(--line-3); stroke-dasharray: 2 3; } .dot-3 { fill: var(--line-3); }
.key::before { content: ""; display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .35em; }
.key { margin-right: 1rem; }
.key-1::before { background: var(--line-1); } .key-2::before { background: var(--line-2); }
.key-3::before { background: var(--line-3); }
table { border-collapse: collapse; width: 100%; margin: .25rem 0 1rem; }
th { text-align: start; vertical-align: top; font-weight: 400; color: var(--pale); white-space: nowrap;
  padding: .25rem 1rem .25rem 0; width: 1%; }
td { padding: .25rem 0; overflow-wrap: anywhere; }
tr { border-top: 1px solid var(--grid); }
.given td { font-style: italic; }
summary { cursor: pointer; }
pre { overflow-x: auto; padding: .75rem; background: var(--card); border-radius: .5rem; }
@media print { details > * { display: block; } figure { break-inside: avoid; } }
"""
