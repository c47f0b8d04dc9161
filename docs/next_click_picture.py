"""Draws what a service computes of three requests of one user, for docs/next-click.md.

python -m docs.next_click_picture
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

PICTURE = Path(__file__).parent / "next-click.svg"
INK = "#768390"  # readable on white and on black
KEPT, COMPUTED = "#adbac7", "#2f81f7"
REQUESTS = (  # clicks in the request, and how many of them are kept
    ("first request", 6, 0),
    ("one click later", 7, 6),
    ("the same again", 7, 7),
    ("two clicks later", 9, 7),
)


def picture() -> Figure:
    """A row of cells for each request: grey what is kept, blue what is computed."""
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axes = figure.subplots()
    for row, (_, clicks, kept) in enumerate(REQUESTS):
        for at in range(clicks):
            colour = KEPT if at < kept else COMPUTED
            axes.barh(row, 0.9, left=at, height=0.7, color=colour)
            axes.text(at + 0.45, row, str(at + 1), ha="center", va="center", color="white")
        done = "answered from its embedding" if kept == clicks else f"{clicks - kept} computed"
        axes.text(9.3, row, done, va="center", color=INK)
    axes.set_yticks(range(len(REQUESTS)), [name for name, *_ in REQUESTS], color=INK)
    axes.set_xticks([])
    axes.set_xlim(0, 13)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("clicks of the history, oldest to newest", loc="left", color=INK)
    return figure


def main() -> None:
    """Writes docs/next-click.svg."""
    # Text stays text, and the same input gives the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "persona"}):
        metadata = {"Date": None, "Title": "Grey clicks are kept, blue ones are computed"}
        picture().savefig(PICTURE, transparent=True, metadata=metadata)


if __name__ == "__main__":
    main()
