"""The pieces of a report's HTML, its frame and its style; everything a page needs is in it."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from model.metrics import Bucket, Comparison, Estimate

# $-names are for string.Template. Colours: blue is the encoder, orange what it is compared with.
FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root {
  --page: #fff; --ink: #1f2933; --pale: #5b6773; --edge: #dde2e8; --own: #f1f6fd;
  --encoder: #1f66b8; --baseline: #b4590a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181d; --ink: #e3e8ed; --pale: #9aa7b4; --edge: #2f3842; --own: #1a2635;
    --encoder: #6fb1ff; --baseline: #f0a35c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .3rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
p, dt, figcaption, summary { color: var(--pale); }
p.verdict { color: var(--ink); font-size: 1.1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .5rem 0; }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.charts {
  display: grid; gap: 1rem 2.5rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
}
figure { margin: 0; max-width: 34rem; }
figcaption { font-size: .9rem; margin-bottom: .3rem; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--pale); }
svg text.small { font-size: 10px; }
svg .grid { stroke: var(--edge); }
svg .encoder { fill: var(--encoder); stroke: var(--encoder); }
svg .baseline { fill: var(--baseline); stroke: var(--baseline); }
svg text.encoder, svg text.baseline { stroke: none; }
svg text.encoder { font-weight: 600; }
svg .whisker { stroke-width: 2; }
svg .curve { fill: none; stroke: var(--encoder); stroke-width: 2; }
svg .ring { fill: none; stroke: var(--encoder); stroke-width: 1.5; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td {
  padding: .3rem .7rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--edge);
}
th { font-weight: 600; }
th:first-child { text-align: left; padding-left: .3rem; }
tbody th { font-weight: 400; position: sticky; left: 0; background: var(--page); }
tr.own th, tr.own td { background: var(--own); }
small { display: block; color: var(--pale); font-size: .78rem; }
pre { overflow-x: auto; font-size: .85rem; }
@media (max-width: 34rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
"""


def section(title: str, *parts: str) -> str:
    """Parts below a heading."""
    return "\n".join(["<section>", f"<h2>{escape(title)}</h2>", *parts, "</section>"])


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escape(text)}</p>"


def terms(facts: Mapping[str, str]) -> str:
    """Names with their values."""
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{''.join(rows)}</dl>"


def figures(charts: Mapping[str, str]) -> str:
    """Pictures side by side, as many as the page is wide, by caption."""
    parts = (
        f"<figure><figcaption>{escape(caption)}</figcaption>{chart}</figure>"
        for caption, chart in charts.items()
    )
    return f'<div class="charts">{"".join(parts)}</div>'


def table(heads: Sequence[str], rows: Mapping[str, Sequence[str]], own: str = "") -> str:
    """A table that scrolls on its own where the page is narrow.

    Args:
        heads: of all columns.
        rows: cells as HTML, by the row's name.
        own: name of the row that is coloured.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "\n".join(
        f'<tr{" class=own" if name == own else ""}><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows.items()
    )
    rows_of_both = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{rows_of_both}</table></div>'


def measured(found: Estimate, *, best: bool = False) -> str:
    """A cell: the mean, and half its confidence interval below."""
    mean = f"<strong>{found.mean:.4f}</strong>" if best else f"{found.mean:.4f}"
    if math.isnan(found.high):  # a single case has no spread
        return mean
    return f"{mean}<small>± {found.high - found.mean:.4f}</small>"


def compared(found: Comparison) -> str:
    """A cell: the difference, its confidence interval and p."""
    difference = found.difference
    if math.isnan(difference.high):
        return f"{difference.mean:+.4f}"
    return (
        f"{difference.mean:+.4f}<small>{difference.low:+.4f} to {difference.high:+.4f}</small>"
        f"<small>p {escape(p_value(found))}</small>"
    )


def p_value(found: Comparison) -> str:
    """The p-value with its sign: "= 0.023", "< 0.0001"."""
    return "< 0.0001" if found.p_value < 1e-4 else f"= {found.p_value:.2g}"


def bucket_name(bucket: Bucket) -> str:
    """The values that fall into a bucket: "3 to 5", "1,000 and more"."""
    if bucket.high is None:
        return f"{bucket.low:,} and more"
    return f"{bucket.low:,}" + (f" to {bucket.high - 1:,}" if bucket.high > bucket.low + 1 else "")


def short_bucket_name(bucket: Bucket) -> str:
    """The same where there is little room: "3-5", "≥ 1k", "10k-100k"."""
    if bucket.high is None:
        return f"≥ {thousands(bucket.low)}"
    if bucket.high == bucket.low + 1:
        return str(bucket.low)
    return f"{thousands(bucket.low)}-{thousands(bucket.high - (bucket.high < 1000))}"


def thousands(number: int) -> str:
    """10000 as "10k"."""
    return f"{number // 1000}k" if number >= 1000 else str(number)
