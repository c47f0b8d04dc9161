"""Draws the pictures of docs/attention.md: the masks as the code makes them, real weights.

python -m docs.attention_pictures
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from model.attention import PaddingSide, mask_from_lengths, masked_softmax, sequence_mask
from model.encoder import EncoderConfig, MaskedSequence
from persona.attention_plot import COLOURS, FORBIDDEN, INK, PALE
from persona.explain import explain

DOCS = Path(__file__).parent
ARTIFACTS = DOCS.parent / "artifacts"
SHORT = "frontpage,news,news,sports,sports,frontpage"
HISTORY = f"{SHORT},business,tech,tech,frontpage"
TOKENS = ["start", "click 1", "click 2", "click 3", "click 4", "padding", "padding"]
KEY_MASK = torch.tensor([[True, True, True, True, False, False]])  # the start token comes by itself
YES_NO: Colormap = ListedColormap([FORBIDDEN, "#2f78c4"])
WRONG = "#c93c37"


def sequence() -> MaskedSequence:
    """The masks of four clicks that are padded to six."""
    return MaskedSequence(KEY_MASK, EncoderConfig())


def cells(
    axes: Axes,
    values: Tensor,
    colours: Colormap,
    texts: Sequence[Sequence[str]] | None = None,
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> None:
    """A table of coloured cells, row 0 on top, with texts in them."""
    scale = Normalize(low, high)
    axes.pcolormesh(values, cmap=colours, norm=scale, edgecolors="white", linewidth=1.5)
    axes.set_ylim(len(values), 0)
    axes.set_aspect("equal")
    axes.tick_params(length=0, labelsize=8, colors=INK)
    axes.spines[:].set_visible(False)
    for row, line in enumerate(texts or []):
        for column, text in enumerate(line):
            dark = float(scale(float(values[row, column]))) > 0.5
            colour = "white" if dark else INK
            place = (column + 0.5, row + 0.5)
            axes.annotate(text, place, ha="center", va="center", fontsize=7.5, color=colour)


def name(
    axes: Axes, title: str, rows: Sequence[str] = (), columns: Sequence[str] = (), below: str = ""
) -> None:
    """Title, row and column names, and a line below."""
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_yticks([row + 0.5 for row in range(len(rows))], rows)
    axes.set_xticks([column + 0.5 for column in range(len(columns))], columns, rotation=90)
    axes.set_xlabel(below, fontsize=8.5, color=PALE)


def masks() -> Figure:
    """Key mask, causal mask, both, and the query mask, for one padded row."""
    made = sequence()
    size = made.key_mask.shape[1]
    causal = torch.ones(size, size).tril().bool()
    panels = (
        ("key mask", made.key_mask.expand(size, -1), "no key is padding"),
        ("causal mask", causal, "no key is later than its query"),
        ("both: True = attend", made.attend_mask[0, 0], "on scores, before the softmax"),
        ("query mask", made.query_mask[0].expand(-1, 1), "on outputs, after it"),
    )
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    every = figure.subplots(1, 4, width_ratios=(7, 7, 7, 3.6))
    for number, (axes, (title, mask, below)) in enumerate(zip(every, panels, strict=True)):
        cells(axes, mask.float(), YES_NO)
        rows = TOKENS if number in {0, 3} else ()
        name(axes, title, rows, TOKENS if number < 3 else (), below)
    every[0].set_ylabel("queries", color=PALE)
    every[0].set_xlabel("keys; no key is padding", fontsize=8.5, color=PALE)
    return figure


def steps() -> Figure:
    """Scores, weights and outputs of one head: where each mask acts."""
    made = sequence()
    torch.manual_seed(4)
    size = made.key_mask.shape[1]
    scores = torch.randn(size, size)
    weights = masked_softmax(scores, made.attend_mask[0, 0])
    outputs = weights @ torch.rand(size, 3).add(0.15)
    kept = sequence_mask(outputs, made.query_mask[0], "mul")
    figure = Figure(figsize=(11, 3.7), layout="constrained")
    every = figure.subplots(1, 4, width_ratios=(7, 7, 3.2, 3.2))
    cells(every[0], scores, COLOURS, _numbers(scores), low=-2.5, high=4)
    name(every[0], "scores s", TOKENS, TOKENS, "queries by keys, nothing masked yet")
    cells(every[1], weights, COLOURS, _numbers(weights))
    name(every[1], "weights a", TOKENS, TOKENS, "padded keys: 0; padded queries still attend")
    cells(every[2], outputs, COLOURS, _numbers(outputs))
    name(every[2], "outputs c", TOKENS, (), "rows of padding too")
    cells(every[3], kept, COLOURS, _numbers(kept))
    name(every[3], "query mask", TOKENS, (), "rows of padding: 0")
    return figure


def sequence_masks() -> Figure:
    """`add` on scores before the softmax, `mul` on values after it."""
    mask = torch.tensor([True, True, True, False, False])
    columns = ["click 1", "click 2", "click 3", "padding", "padding"]
    scores = torch.tensor([0.3, 1.2, -0.5, 0.9, 2.0])
    added = sequence_mask(scores, mask, "add")
    weights = F.softmax(added, dim=-1)
    torch.manual_seed(1)
    values = torch.rand(3, 5).add(0.1)  # columns are positions here
    multiplied = sequence_mask(values, mask, "mul")
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    shown = torch.stack((scores, added.clamp_min(-3), weights * 6 - 3))  # one range of colours
    texts = [_numbers(scores[None])[0], _numbers(added[None])[0], _numbers(weights[None])[0]]
    cells(left, shown, COLOURS, texts, low=-3, high=3)
    rows = ["scores", "after add", "softmax"]
    name(left, "add: before the normalisation", rows, columns, "min: the lowest finite number")
    cells(middle, values, COLOURS, _numbers(values))
    name(middle, "values", ["value 1", "value 2", "value 3"], columns)
    cells(right, multiplied, COLOURS, _numbers(multiplied))
    name(right, "mul: after it", (), columns, "selected, so that 0 · NaN never happens")
    return figure


def padding() -> Figure:
    """The same two histories padded on either side, and a length read from the wrong one."""
    lengths = torch.tensor([4, 2])
    figure = Figure(figsize=(11, 2.1), layout="constrained")
    every = figure.subplots(1, 3)
    sides: tuple[PaddingSide, PaddingSide] = ("right", "left")
    for axes, side in zip(every, sides, strict=False):
        mask = mask_from_lengths(lengths, 6, side)
        positions = MaskedSequence(mask, EncoderConfig()).positions[:, 1:]
        texts = [
            [str(int(at)) if real else "" for at, real in zip(line, kept, strict=True)]
            for line, kept in zip(positions, mask, strict=True)
        ]
        cells(axes, mask.float(), YES_NO, texts)
        name(axes, f"padding on the {side}", ["user 1", "user 2"], below="the same positions")
    real, read = (mask_from_lengths(lengths, 6, side) for side in ("left", "right"))
    lost = (real & ~read).float() * 2 + (real & read).float()
    colours = ListedColormap([FORBIDDEN, "#2f78c4", WRONG])
    texts = [["lost" if cell == 2 else "" for cell in line] for line in lost]
    cells(every[2], lost, colours, texts, high=2)
    below = "real clicks masked, and padding attended to"
    name(every[2], "a length alone, read from the wrong side", ["user 1", "user 2"], below=below)
    return figure


def _numbers(values: Tensor) -> list[list[str]]:
    """Two digits; an exact 0 and the lowest finite number stand out."""
    words = {0.0: "0", torch.finfo(values.dtype).min: "min"}
    return [
        [words.get(cell, f"{cell:.2f}".replace("0.", ".", 1)) for cell in row.tolist()]
        for row in values
    ]


def main() -> None:
    """Draws them all."""
    mpl.rcParams["svg.hashsalt"] = "persona"  # the same file for the same picture
    drawn = {"masks": masks, "steps": steps, "sequence-mask": sequence_masks, "padding": padding}
    for title, draw in drawn.items():
        path = DOCS / f"attention-{title}.svg"
        draw().savefig(path, metadata={"Date": None}, facecolor="white", bbox_inches="tight")
    pooled, full = (DOCS / f"attention-{title}.png" for title in ("news", "news-full"))
    explain(HISTORY, output=pooled, artifacts=ARTIFACTS, model="news")
    explain(SHORT, output=full, artifacts=ARTIFACTS, model="news", full=True)


if __name__ == "__main__":
    main()
