"""The benchmarks' pictures, in the style of all others, and what is drawn in them as JSON beside.

`python -m bench plots` draws them again from that, without measuring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import typer
from pydantic import TypeAdapter

from bench.results import FOLDER
from persona.colours import LINES, STYLE

PLOTS = FOLDER / "plots"
WIDTH = 7.5  # inches


@dataclass(frozen=True)
class Panel:
    """Curves over one vertical axis: by the name of each, its points (x, y)."""

    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Picture:
    """Panels over the same horizontal axis."""

    x: str
    panels: list[Panel]
    logarithmic: bool = False  # both axes; x has a tick for each point


_PICTURE = TypeAdapter(Picture)


def plot(name: str, x: str, y: str, lines: Mapping[str, Mapping[int, float]]) -> str:
    """Curves over logarithmic axes, which leave out zeros, as `keep`."""
    points = {
        label: [(at, value) for at, value in curve.items() if value > 0]
        for label, curve in lines.items()
    }
    return keep(name, Picture(x, [Panel(y, points)], logarithmic=True), f"{y} over {x}")


def keep(name: str, picture: Picture, about: str) -> str:
    """Draws `plots/<name>.png`, and keeps `<name>.json` beside it; the Markdown that shows it."""
    PLOTS.mkdir(exist_ok=True)
    (PLOTS / f"{name}.json").write_bytes(_PICTURE.dump_json(picture, indent=1) + b"\n")
    draw(name)
    return f"![{about}](plots/{name}.png)"


def plots() -> None:
    """Draws the pictures again from what is kept beside them; measures nothing."""
    for path in sorted(PLOTS.glob("*.json")):
        draw(path.stem)
        typer.echo(f"plots/{path.stem}.png")


def draw(name: str) -> None:
    """Draws `plots/<name>.png` from the JSON beside it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    picture = _PICTURE.validate_json((PLOTS / f"{name}.json").read_bytes())
    with rc_context(STYLE):
        height = 4 if len(picture.panels) == 1 else 2.6 * len(picture.panels)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = figure.subplots(len(picture.panels), squeeze=False, sharex=True)[:, 0]
        for axes, panel in zip(grid, picture.panels, strict=True):
            _draw_panel(axes, panel, logarithmic=picture.logarithmic)
        grid[-1].set_xlabel(picture.x)
        # Without a date and the library's version, the same numbers give the same file.
        figure.savefig(PLOTS / f"{name}.png", dpi=120, metadata={"Software": None})


def _draw_panel(axes: Any, panel: Panel, *, logarithmic: bool) -> None:
    # The first line is what all others are compared with; further ones repeat the colours.
    kinds = product(("-", "--"), LINES)
    mark = "o" if logarithmic else ""
    for number, (label, points) in enumerate(panel.lines.items()):
        dashes, colour = next(kinds)
        axes.plot(
            *zip(*points, strict=True),
            linestyle=dashes,
            marker=mark,
            markersize=5,
            color=colour,
            linewidth=2.2 if number == 0 else 1.5,
            zorder=3 if number == 0 else 2,
            label=label,
        )
    axes.set_ylabel(panel.y)
    if len(panel.lines) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), labelcolor="linecolor")
    if logarithmic:
        _use_logarithms(axes, sorted({at for points in panel.lines.values() for at, _ in points}))
    else:
        axes.set_ylim(bottom=0)


def _use_logarithms(axes: Any, ticks: list[float]) -> None:
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value:,.10g}")
    axes.minorticks_off()
