"""The colours of every picture: the playground, `persona explain`, reports and benchmarks.

`service/playground/page/style.css` repeats them; a test compares both.
"""

INK, PALE, FORBIDDEN = "#1f2933", "#66727f", "#e4e7eb"  # text, fainter text, what a mask hides
ABOVE, BELOW = "#2f78c4", "#c2611a"  # zero; also the encoder and what it is compared with
NOTHING, HEAT = "#f3f7fc", "#0a2f5c"  # the ends of the scale of weights
LINES = (ABOVE, BELOW, "#3f8f4f", "#8a5bb5", "#b5476b", "#7d8792", "#2a9d9d", "#a8892c")
