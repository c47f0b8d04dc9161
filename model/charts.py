"""Small charts as inline SVG. Colours are the page's, by CSS class: they follow dark and light."""

import math
from collections.abc import Callable, Sequence
from html import escape

from model.metrics import Estimate

WIDTH = 440  # units of every chart, about pixels
LETTER = 8.6  # width of a wide bold letter at the charts' font size
Scale = Callable[[float], float]


def interval_chart(
    title: str, rows: Sequence[tuple[str, Estimate]], classes: Sequence[str], form: str = "{:.4f}"
) -> str:
    """A dot and its 95 % confidence interval a row, from zero.

    Args:
        title: read out in place of the picture.
        rows: name and estimate.
        classes: CSS class of each row.
        form: of the means at the right edge.
    """
    left, right, top, step = 14 + LETTER * max(len(name) for name, _ in rows), WIDTH - 62, 8, 26
    bottom = top + step * len(rows)
    ends = [value for _, found in rows for value in finite(found)]
    marks = ticks(min(0.0, *ends), max(0.0, *ends))
    x = scale(marks[0], marks[-1], left, right)
    parts = [line(x(mark), top, x(mark), bottom, "grid") for mark in marks]
    parts += [text(x(mark), bottom + 16, f"{mark:.6g}", "middle") for mark in marks]
    for row, ((name, found), style) in enumerate(zip(rows, classes, strict=True)):
        y = top + step * (row + 0.5)
        parts.append(text(left - 8, y + 4, name, "end", style))
        parts.append(whisker(x(found.low), y, x(found.high), y, style))
        parts.append(dot(x(found.mean), y, style, f"{name}: {described(found)}"))
        parts.append(text(WIDTH, y + 4, form.format(found.mean), "end", style))
    return svg(title, bottom + 24, parts)


def bucket_chart(
    title: str, buckets: Sequence[str], series: Sequence[tuple[str, str, Sequence[Estimate]]]
) -> str:
    """Estimates by bucket from zero, with a legend; buckets are named below the axis.

    Means decide the height: the interval of a bucket of few cases may leave the picture.

    Args:
        title: read out in place of the picture.
        buckets: names.
        series: name, CSS class and an estimate a bucket.
    """
    left, right, top, bottom = 40.0, float(WIDTH), 30, 210
    marks = ticks(0.0, max(found.mean for _, _, estimates in series for found in estimates))
    y = scale(marks[0], marks[-1], bottom, top)
    step = (right - left) / len(buckets)
    apart = min(0.2 * step, 12.0)
    parts = levels(marks, y, left, right)
    for place, name in enumerate(buckets):
        parts.append(text(left + step * (place + 0.5), bottom + 17, name, "middle", "small"))
    legend = left
    for number, (name, style, estimates) in enumerate(series):
        parts.append(dot(legend + 6, 10, style, name))
        parts.append(text(legend + 16, 14, name, "start", style))
        legend += 30 + LETTER * len(name)
        for place, found in enumerate(estimates):
            x = left + step * (place + 0.5) + apart * (number - (len(series) - 1) / 2)
            about = f"{name}, {buckets[place]}: {described(found)}"
            low, high = max(found.low, marks[0]), min(found.high, marks[-1])
            parts.append(whisker(x, y(low), x, y(high), style))
            parts.append(dot(x, y(found.mean), style, about))
    return svg(title, bottom + 26, parts)


def line_chart(title: str, curve: dict[int, float], marked: int | None = None) -> str:
    """A value by epoch, with a ring around the epoch that was kept."""
    left, right, top, bottom = 52.0, WIDTH - 12.0, 10, 180
    values = [value for value in curve.values() if math.isfinite(value)]
    marks = ticks(min(values), max(values))
    y = scale(marks[0], marks[-1], bottom, top)
    x = scale(min(curve), max(curve), left + 8, right)
    points = [(x(epoch), y(value)) for epoch, value in curve.items() if math.isfinite(value)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    parts = [*levels(marks, y, left, right), f'<polyline class="curve" points="{path}"/>']
    parts += [
        dot(x(epoch), y(value), "encoder", f"epoch {epoch}: {value:.4f}", radius=3)
        for epoch, value in curve.items()
        if math.isfinite(value)
    ]
    if marked in curve and math.isfinite(curve[marked]):
        ring = f'cx="{x(marked):.1f}" cy="{y(curve[marked]):.1f}" r="7"'
        parts.append(f'<circle class="ring" {ring}/>')
    for mark in ticks(min(curve), max(curve)):
        if mark == round(mark) and min(curve) <= mark <= max(curve):
            parts.append(text(x(mark), bottom + 17, f"{mark:.0f}", "middle"))
    parts.append(text(right, bottom + 34, "epoch", "end"))
    return svg(title, bottom + 40, parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers in even steps, from at most `low` to at least `high`; at least two."""
    rough = (high - low) / about or max(abs(high), 1.0) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """Maps low to start and high to end; a range of nothing to the middle."""
    if low == high:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def levels(marks: Sequence[float], y: Scale, left: float, right: float) -> list[str]:
    """Horizontal lines with their values."""
    lines = [line(left, y(mark), right, y(mark), "grid") for mark in marks]
    return lines + [text(left - 6, y(mark) + 4, f"{mark:.6g}", "end") for mark in marks]


def finite(found: Estimate) -> list[float]:
    """The numbers to make room for."""
    return [value for value in (found.low, found.mean, found.high) if math.isfinite(value)]


def described(found: Estimate) -> str:
    """For the pointer that rests on a dot."""
    if math.isnan(found.high):
        return f"{found.mean:.4f}"
    return f"{found.mean:.4f}, 95 % {found.low:.4f} to {found.high:.4f}"


def svg(title: str, height: float, parts: Sequence[str]) -> str:
    """A picture that shrinks with the page."""
    name = escape(title)
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{name}">{inside}</svg>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A straight line."""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="{style}" {ends}/>'


def whisker(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A confidence interval; nothing where it is unknown."""
    known = all(map(math.isfinite, (x1, y1, x2, y2)))
    return line(x1, y1, x2, y2, f"whisker {style}") if known else ""


def dot(x: float, y: float, style: str, about: str, radius: float = 4.5) -> str:
    """A dot that says what it is."""
    centre = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius}"'
    return f'<circle class="{style}" {centre}><title>{escape(about)}</title></circle>'


def text(x: float, y: float, words: str, anchor: str, style: str = "") -> str:
    """Words that start, end or have their middle at x."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(words)}</text>'
