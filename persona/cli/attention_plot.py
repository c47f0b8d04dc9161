"""Draws attention weights as heat maps: clicks by heads, queries or candidates.

Every picture names its rows, columns and colours. Long histories are broken into several strips,
like lines of a text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from persona.colours import ABOVE, BELOW, FORBIDDEN, INK, NOTHING, PALE, WEIGHTS

Weights = NDArray[np.float32]

SIGNED = LinearSegmentedColormap.from_list("persona signed", [BELOW, NOTHING, ABOVE])
COLOURS = LinearSegmentedColormap.from_list("persona", WEIGHTS)
START, NO_CLICK = "start", "no click"
STRIP = 32  # columns a strip
ROOMY = 12  # up to this many columns, cells are wide
LABEL = 20  # shown characters of an item id
NAMED = 32  # up to this many positions, every row of a matrix is named
DPI = 120


@dataclass(frozen=True)
class Panel:
    """Rows that share their columns, such as candidates over clicks."""

    title: str
    rows: Sequence[str]
    weights: Weights  # (rows, columns)


def draw_pooled(clicks: Sequence[str], weights: Weights, title: str, about: str) -> Figure:
    """Heads by clicks: the weights behind the user embedding, (H, 1 + L).

    `clicks` names the used clicks from oldest to newest; `about` is a line below the title.
    """
    panel = Panel("", [f"head {head + 1}" for head in range(len(weights))], weights)
    return _strips([panel], [START, *clicks], weights[:, 1:], title, about)


def draw_candidates(
    clicks: Sequence[str], candidates: Sequence[str], weights: Weights, title: str, about: str
) -> Figure:
    """Candidates by clicks, one panel per head: weights (N, H, L)."""
    panels = [
        Panel(f"head {head + 1}", candidates, weights[:, head]) for head in range(weights.shape[1])
    ]
    return _strips(panels, clicks, weights, title, about)


def draw_reasons(
    clicks: Sequence[str],
    items: Sequence[str],
    reasons: Weights,
    base: Weights | None,
    title: str,
    about: str,
) -> Figure:
    """Items by clicks: each click's contribution to each item's score, (N, L); orange is negative.

    `base` (N,) holds the scores for an empty history, drawn as the first column.
    """
    if base is None:
        return _strips([Panel("", items, reasons)], clicks, reasons, title, about)
    shown = np.column_stack([base, reasons])
    panel = Panel("", items, shown)
    return _strips([panel], [NO_CLICK, *clicks], shown, title, about, signed=True)


def draw_full(clicks: Sequence[str], weights: Weights, title: str, about: str) -> Figure:
    """Queries by keys, one panel per block and head: weights (blocks, H, 1 + L, 1 + L).

    Keys later than the query are grey.
    """
    blocks, heads, size, _ = weights.shape
    names = [START, *map(shortened, clicks)]
    inches = float(np.clip(0.42 * size, 2.4, 6.5))
    names_inches = 0.085 * max(map(len, names))
    figure = Figure(
        figsize=(heads * inches + names_inches + 1.6, blocks * (inches + 0.3) + names_inches + 1.2),
        layout="constrained",
    )
    grid = figure.subplots(blocks, heads, squeeze=False, sharex=True, sharey=True)
    causal = np.tril(np.ones((size, size), np.bool_))
    # Over a long history most weights are small; square-root colours keep them visible.
    scale = PowerNorm(1.0 if size <= NAMED else 0.5, 0, float(weights.max()))
    for (block, head), axes in np.ndenumerate(grid):
        shown = np.ma.masked_where(~causal, weights[block, head])
        _cells(axes, shown, scale, numbers=size <= ROOMY, gap=1.0 if size <= NAMED else 0.0)
        axes.set_title(f"block {block + 1}, head {head + 1}", fontsize=10, color=INK)
        axes.set_aspect("equal")
        _name_positions(axes, names)
    for axes in grid[:, 0]:
        axes.set_ylabel("as of this position (query)", color=PALE)
    for axes in grid[-1]:
        axes.set_xlabel("looks at (key)", color=PALE)
    _head_and_scale(figure, scale, title, f"{about}\ngrey: later than the query, never seen")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes the picture; the file's extension decides the format."""
    figure.savefig(path, dpi=DPI, facecolor="white")


def shortened(name: str) -> str:
    """The name, shortened to fit beside a cell."""
    return name if len(name) <= LABEL else f"{name[: LABEL - 1]}…"


def _strips(
    panels: Sequence[Panel],
    columns: Sequence[str],
    compared: Weights,
    title: str,
    about: str,
    *,
    signed: bool = False,
) -> Figure:
    """All panels below one another, for each strip of columns; colours reach `compared`'s top."""
    names = [shortened(name) for name in columns]
    strips = [range(at, min(at + STRIP, len(names))) for at in range(0, len(names), STRIP)]
    strips = strips or [range(0)]
    width = max(1, len(strips[0]))
    wide = width <= ROOMY
    cell = 0.85 if wide else 0.42
    upright = not wide or max(map(len, names), default=0) > 9
    names_height = 0.085 * max(map(len, names), default=0) if upright else 0.2
    row_names = 0.09 * max(len(row) for panel in panels for row in panel.rows)
    heights = [0.4 * len(panel.rows) + (0.3 if panel.title else 0.0) for panel in panels]
    strip_height = sum(heights) + 0.15 * len(panels) + names_height + 0.25
    figure = Figure(
        figsize=(max(5.2, width * cell + row_names + 1.5), len(strips) * strip_height + 1.25),
        layout="constrained",
    )
    top = max(float(np.abs(compared).max()) if compared.size else 1.0, 1e-6)
    scale = Normalize(-top if signed else 0, top)
    grid = figure.subplots(
        len(strips) * len(panels), 1, squeeze=False, height_ratios=heights * len(strips)
    )[:, 0]
    for number, axes in enumerate(grid):
        strip, panel = strips[number // len(panels)], panels[number % len(panels)]
        part = panel.weights[:, strip.start : strip.stop]
        _cells(axes, np.ma.array(part), scale, numbers=True, gap=1.5)
        axes.set_xlim(0, width)  # a short last strip keeps the size of its cells
        axes.set_title(panel.title, fontsize=10, color=INK, loc="left")
        axes.set_yticks(np.arange(len(panel.rows)) + 0.5, panel.rows)
        last = number % len(panels) == len(panels) - 1
        shown = names[strip.start : strip.stop] if last else []
        axes.set_xticks(np.arange(len(shown)) + 0.5, shown, rotation=90 if upright else 0)
        if names and names[0] in {START, NO_CLICK} and strip.start == 0:
            axes.axvline(1, color="white", linewidth=6)  # that column is no click
    grid[-1].set_xlabel("clicks, oldest to newest", color=PALE)
    beyond = any(panel.weights.size and panel.weights.max() > scale.vmax for panel in panels)
    _head_and_scale(figure, scale, title, about, extend="max" if beyond else "neither")
    return figure


def _cells(
    axes: Axes, weights: "np.ma.MaskedArray", scale: Normalize, *, numbers: bool, gap: float
) -> None:
    """Coloured cells, row 0 on top, with their weights as text where there is room."""
    signed = (scale.vmin or 0) < 0
    colours: Colormap = (SIGNED if signed else COLOURS).with_extremes(bad=FORBIDDEN)
    axes.pcolormesh(weights, cmap=colours, norm=scale, edgecolors="white", linewidth=gap)
    axes.set_ylim(len(weights), 0)  # not invert_yaxis: shared axes would turn again and again
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.spines[:].set_visible(False)
    if not numbers:
        return
    for row, column in np.argwhere(np.abs(weights.filled(0)) >= 0.005):
        weight = float(weights[row, column])
        colour = "white" if abs(weight) > 0.5 * (scale.vmax or 1) * (1 + signed / 2) else INK
        text = f"{weight:+.2f}" if signed else f"{weight:.2f}".removeprefix("0")
        place = (column + 0.5, row + 0.5)
        axes.annotate(text, place, ha="center", va="center", fontsize=8, color=colour)


def _name_positions(axes: Axes, names: Sequence[str]) -> None:
    """Names on both axes; of a long history only every so many, by number."""
    if len(names) <= NAMED:
        shown = dict(enumerate(names))
    else:
        step = max(1, round(len(names) / 10 / 5) * 5)
        shown = {0: START} | {at: f"click {at}" for at in range(step, len(names), step)}
    places = np.array(list(shown)) + 0.5
    axes.set_xticks(places, list(shown.values()), rotation=90)
    axes.set_yticks(places, list(shown.values()))


def _head_and_scale(
    figure: Figure, scale: Normalize, title: str, about: str, extend: str = "neither"
) -> None:
    signed = (scale.vmin or 0) < 0
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    figure.supxlabel(about, x=0.01, ha="left", fontsize=8.5, color=PALE)
    bar = figure.colorbar(
        ScalarMappable(scale, SIGNED if signed else COLOURS),
        ax=figure.axes,
        extend=extend,
        fraction=0.04,
        aspect=30,
        pad=0.02,
    )
    bar.set_label("share of the score" if signed else "attention weight", color=PALE)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, colors=INK)
