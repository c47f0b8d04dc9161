"""Charts of a report as inline SVG, and a run's learning curve as a picture.

The text stays text, the background is transparent, and the colours suit light and dark pages.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model.evaluation.metrics import Estimate
from persona.colours import ABOVE, BELOW, STYLE

ENCODER, BASELINE, GREY = ABOVE, BELOW, "#7d8792"
ON_ANY_PAGE: dict[Any, Any] = {
    **STYLE,
    "font.size": 11,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "xtick.color": GREY,
    "ytick.color": GREY,
}
WIDTH = 6.1  # inches; 440 CSS pixels


@rc_context(ON_ANY_PAGE)
def interval_chart(
    rows: Sequence[tuple[str, Estimate]], colours: Sequence[str], number: str = "{:.4f}"
) -> str:
    """A dot with its 95 % confidence interval per row.

    Args:
        rows: name and estimate.
        colours: one per row.
        number: format of the means at the right edge.
    """
    figure, axes = _chart(height=0.6 + 0.3 * len(rows))
    for place, ((_, found), colour) in enumerate(zip(rows, colours, strict=True)):
        error = found.high - found.mean
        axes.errorbar(found.mean, place, xerr=error, color=colour, fmt="o", elinewidth=1.8)
        mean, edge = number.format(found.mean), axes.get_yaxis_transform()
        axes.text(1.03, place, mean, color=colour, va="center", transform=edge)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.tick_params("y", length=0)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    axes.axvline(0, color=GREY)
    if all(found.mean >= 0 for _, found in rows):
        axes.set_xlim(left=0)
    return _svg(figure)


@rc_context(ON_ANY_PAGE)
def group_chart(names: Sequence[str], series: Sequence[tuple[str, str, Sequence[Estimate]]]) -> str:
    """Estimates by group from zero, with a legend.

    The means decide the height, so the interval of a small group may exceed the picture.

    Args:
        names: of the groups.
        series: name, colour, and one estimate per group.
    """
    figure, axes = _chart(height=3.2)
    for number, (name, colour, estimates) in enumerate(series):
        places = [place + 0.2 * (number - (len(series) - 1) / 2) for place in range(len(names))]
        means = [found.mean for found in estimates]
        errors = [found.high - found.mean for found in estimates]
        axes.errorbar(places, means, errors, color=colour, fmt="o", elinewidth=1.8, label=name)
    highest = max(found.mean for _, _, estimates in series for found in estimates)
    axes.set_ylim(0, 1.15 * highest or 1)
    axes.set_xticks(range(len(names)), names, fontsize=9)
    axes.grid(visible=False, axis="x")
    figure.legend(
        loc="outside upper left", ncols=len(series), frameon=False, labelcolor="linecolor"
    )
    return _svg(figure)


@rc_context(ON_ANY_PAGE)
def curve_chart(curve: dict[int, float], marked: int | None = None) -> str:
    """A value by epoch, with a ring around the marked epoch."""
    figure, axes = _chart(height=2.8)
    axes.plot(list(curve), list(curve.values()), color=ENCODER, marker=".")
    if marked in curve:
        axes.plot(marked, curve[marked], "o", color=ENCODER, fillstyle="none", markersize=11)
    axes.set_xlabel("epoch", loc="right")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure)


def _chart(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    """The figure as an SVG element without ids, which would repeat within a page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    return re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
