"""The style of every picture: the playground, `persona explain`, reports and benchmarks.

`service/playground/page/style.css` repeats the colours; a test compares both.
"""

from typing import Any

INK, PALE, FORBIDDEN = "#1f2933", "#66727f", "#e4e7eb"  # text, fainter text, what a mask hides
ABOVE, BELOW = "#2f78c4", "#c2611a"  # zero; also the encoder and what it is compared with
NOTHING, HEAT = "#f3f7fc", "#0a2f5c"  # the ends of the scale of weights
WEIGHTS = (NOTHING, "#9cc4ec", ABOVE, HEAT)  # that scale
LINES = (ABOVE, BELOW, "#3f8f4f", "#8a5bb5", "#b5476b", "#7d8792", "#2a9d9d", "#a8892c")

STYLE: dict[Any, Any] = {  # matplotlib's settings
    "text.parse_math": False,  # names may have dollars in them
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "persona",  # so that the same numbers give the same file
    "text.color": INK,
    "axes.edgecolor": PALE,
    "axes.labelcolor": PALE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FORBIDDEN,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "legend.frameon": False,
}
