"""The picture of the model card: quality beside the baselines, attention over the examples."""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from persona.artifact.catalogue import open_catalogue
from persona.artifact.format import Example, Facts
from persona.artifact.reading import Artifact
from persona.artifact.titles import Titles
from persona.colours import ABOVE, BELOW, INK, PALE, STYLE, WEIGHTS
from persona.contract import ITEM_ID, Floats, Query
from persona.engine.clicks import ClickReader
from persona.engine.limits import Limits
from persona.engine.session import Session

METRIC = "NDCG@10"
MOST_EXAMPLES, MOST_CLICKS = 3, 9  # longer histories would not be readable
WIDTH = 7.5  # inches
COLOURS = LinearSegmentedColormap.from_list("persona", WEIGHTS)


@dataclass(frozen=True)
class Strip:
    """What the user embedding of one example looks at."""

    name: str
    clicks: Sequence[str]  # L
    weights: Floats  # (H, 1 + L)


def card_picture(artifact: Artifact) -> str | None:
    """An SVG; None where the artifact has neither figures of its quality nor short examples."""
    scores, strips = _scores(artifact.manifest.metrics), _strips(artifact)
    if not scores and not strips:
        return None
    with rc_context({**STYLE, "font.size": 9}):
        heights = [0.6 + 0.24 * len(scores)] if scores else []
        heights += [0.75 + 0.26 * len(strip.weights) for strip in strips]
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        grid = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
        if scores:
            _draw_scores(grid[0], scores, artifact.manifest.metrics)
        for axes, strip in zip(grid[len(grid) - len(strips) :], strips, strict=True):
            _draw_strip(axes, strip)
        return _svg(figure)


def _scores(metrics: Facts) -> Mapping[str, float]:
    """The metric of each scorer."""
    scorers = metrics.get("scorers")
    found = scorers if isinstance(scorers, dict) else {}
    return {name: figures[METRIC] for name, figures in found.items() if METRIC in figures}


def _strips(artifact: Artifact) -> list[Strip]:
    """The first short examples; none where a model reads more of a click than its item."""
    if "attention" not in artifact.manifest.graphs:
        return []
    artifact = artifact.without(*(artifact.manifest.graphs.keys() - {"attention"}))
    examples = [one for one in artifact.examples if 1 <= len(one.history) <= MOST_CLICKS]
    reader = ClickReader(artifact, open_catalogue(artifact), Limits())
    if not examples or set(reader.typecodes) != {ITEM_ID}:
        return []
    examples = examples[:MOST_EXAMPLES]
    inputs = reader.read(Query({ITEM_ID: [example.history for example in examples]}))
    outputs = Session(artifact).run("attention", inputs)
    names = _names(artifact, examples)
    return [
        Strip(example.name, clicks, output["attention_pooled"][:, : 1 + len(clicks)])
        for example, clicks, output in zip(examples, names, outputs, strict=True)
    ]


def _names(artifact: Artifact, examples: Sequence[Example]) -> list[list[str]]:
    titles, catalogue = Titles(artifact), open_catalogue(artifact)
    return [
        [titles.of_row(row).name for row in catalogue.rows(example.history)] for example in examples
    ]


def _draw_scores(axes: Axes, scores: Mapping[str, float], metrics: Facts) -> None:
    """A dot a scorer, with its 95 % interval where the artifact has it."""
    intervals: Any = metrics.get("intervals", {})
    for place, (name, mean) in enumerate(scores.items()):
        colour = ABOVE if name == "encoder" else BELOW
        if METRIC in intervals.get(name, {}):
            axes.plot(intervals[name][METRIC], [place, place], color=colour, linewidth=1.8)
        axes.plot(mean, place, "o", color=colour, markersize=5)
        edge = axes.get_yaxis_transform()
        axes.text(1.02, place, f"{mean:.4f}", color=colour, va="center", transform=edge)
    cases = metrics.get("cases")
    of_cases = f" of {cases:,} test cases" if isinstance(cases, int) else ""
    interval = ", and its 95 % interval" if intervals else ""
    axes.set_title(f"{METRIC}{of_cases}{interval}", loc="left", fontsize=10, color=INK)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.tick_params("y", length=0)
    axes.grid(visible=False, axis="y")


def _draw_strip(axes: Axes, strip: Strip) -> None:
    """Heads by clicks, behind the start token."""
    scale = Normalize(0, 1)
    axes.pcolormesh(strip.weights, cmap=COLOURS, norm=scale, edgecolors="white", linewidth=1.5)
    for (head, click), weight in np.ndenumerate(strip.weights):
        if weight >= 0.005:
            colour = "white" if weight > 0.5 else INK
            middle = (click + 0.5, head + 0.5)
            axes.text(*middle, f"{weight:.2f}", color=colour, ha="center", va="center", fontsize=8)
    names = ["start", *(textwrap.shorten(name, 24, placeholder="…") for name in strip.clicks)]
    wrapped = [textwrap.fill(name, 13) for name in names]
    axes.set_xticks(np.arange(len(names)) + 0.5, wrapped, color=INK, fontsize=8)
    heads = [f"head {number}" for number in range(1, len(strip.weights) + 1)]
    axes.set_yticks(np.arange(len(heads)) + 0.5, heads, color=PALE, fontsize=8)
    axes.set_title(f"Attention: {strip.name}", loc="left", fontsize=10, color=INK)
    axes.set_ylim(len(heads), 0)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _svg(figure: Figure) -> str:
    """The same for the same artifact: without a date, and without the library's version."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", facecolor="white", metadata=nothing)
    lines = (line.rstrip() for line in _numbered(buffer.getvalue()).splitlines())
    return "\n".join(lines) + "\n"


def _numbered(svg: str) -> str:
    """With the clip paths numbered: Matplotlib's ids hash positions that differ in the last bit."""
    found = dict.fromkeys(re.findall(r'<clipPath id="(\w+)"', svg))
    for number, name in enumerate(found):
        svg = svg.replace(f'id="{name}"', f'id="clip{number}"').replace(
            f"url(#{name})", f"url(#clip{number})"
        )
    return svg
