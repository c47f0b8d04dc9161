"""Draws the pictures of docs/attention.md: the masks that the code makes, and weights of `news`.

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

from model.network.attention import mask_from_lengths, masked_softmax, sequence_mask
from model.network.config import EncoderConfig
from model.network.sequence import MaskedSequence
from persona.cli.explain import explain
from persona.colours import ABOVE, FORBIDDEN, INK, PALE

DOCS = Path(__file__).parent
ARTIFACTS = DOCS.parent / "artifacts"
SHORT = "frontpage,news,news,sports,sports,frontpage"
HISTORY = f"{SHORT},business,tech,tech,frontpage"
TOKENS = ("start", "click 1", "click 2", "click 3", "click 4", "padding", "padding")
CLICKS = ("click 1", "click 2", "click 3", "padding", "padding")
USERS = ("user 1", "user 2")
KEY_MASK = torch.tensor([[True, True, True, True, False, False]])  # the start token is added later
SHADES = mpl.colormaps["Blues"]
MASKED, ATTENDED = FORBIDDEN, ABOVE
YES_NO = ListedColormap([MASKED, ATTENDED])
WRONG = ("", "", "padding", "lost")  # words for the colours of a wrong mask
OUTCOMES = ListedColormap([MASKED, ATTENDED, "#d29922", "#c93c37"])
Texts = Sequence[Sequence[str]]


def cells(
    axes: Axes,
    values: Tensor,
    title: str,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    *,
    below: str = "",
    texts: Texts = (),
    colours: Colormap = SHADES,
    span: tuple[float, float] = (0, 1),
) -> None:
    """A table of coloured cells (rows, columns), row 0 on top, with a line of text below it."""
    scale = Normalize(*span)
    axes.pcolormesh(values, cmap=colours, norm=scale, edgecolors="white", linewidth=1.5)
    axes.set(ylim=(len(values), 0), aspect="equal")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, colors=INK)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel(below, fontsize=8.5, color=PALE)
    axes.set_yticks([row + 0.5 for row in range(len(rows))], rows)
    axes.set_xticks([column + 0.5 for column in range(len(columns))], columns, rotation=90)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            colour = "white" if scale(float(values[row, column])) > 0.6 else INK
            place = (column + 0.5, row + 0.5)
            axes.annotate(text, place, ha="center", va="center", fontsize=7.5, color=colour)


def masks() -> Figure:
    """Key mask, causal mask, both, and the query mask, for four clicks padded to six."""
    sequence, size = MaskedSequence(KEY_MASK, EncoderConfig()), len(TOKENS)
    key, causal = sequence.key_mask.expand(size, -1), torch.ones(size, size).tril()
    both, query = sequence.attend_mask[0, 0], sequence.query_mask[0].expand(-1, 1)
    figure, axes = _panels(3.9, (7, 7, 7, 1))
    cells(axes[0], key, "key mask", TOKENS, TOKENS, below="no key is padding", colours=YES_NO)
    below = "no key is later than its query"
    cells(axes[1], causal, "causal mask", (), TOKENS, below=below, colours=YES_NO)
    below = "on scores, before the softmax"
    cells(axes[2], both, "both (True = attend)", (), TOKENS, below=below, colours=YES_NO)
    cells(axes[3], query, "query mask", TOKENS, below="on outputs", colours=YES_NO)
    return figure


def steps() -> Figure:
    """Scores, weights and outputs of one head, and where each mask acts."""
    sequence = MaskedSequence(KEY_MASK, EncoderConfig())
    torch.manual_seed(4)
    scores = torch.randn(len(TOKENS), len(TOKENS))
    weights = masked_softmax(scores, sequence.attend_mask[0, 0])
    outputs = weights @ torch.rand(len(TOKENS), 3).add(0.15)
    kept = sequence_mask(outputs, sequence.query_mask[0], "mul")
    figure, axes = _panels(3.9, (7, 7, 3, 3))
    panels = (
        (scores, "scores", TOKENS, "not masked yet", (-3, 3)),
        (weights, "weights", TOKENS, "padded keys get 0", (0, 1)),
        (outputs, "outputs", (), "padded rows too", (0, 1)),
        (kept, "after query mask", (), "padded rows are 0", (0, 1)),
    )
    for panel, (values, title, columns, below, span) in zip(axes, panels, strict=True):
        texts = _numbers(values)
        cells(panel, values, title, TOKENS, columns, below=below, texts=texts, span=span)
    return figure


def sequence_masks() -> Figure:
    """`add` on scores before the softmax, `mul` on values after it."""
    mask = torch.tensor([True, True, True, False, False])
    scores = torch.tensor([0.3, 1.2, -0.5, 0.9, 2.0])
    added = sequence_mask(scores, mask, "add")
    weights = added.softmax(dim=-1)
    torch.manual_seed(1)
    values = torch.rand(3, 5).add(0.1)  # columns are positions here
    multiplied = sequence_mask(values, mask, "mul")
    shown = torch.stack((scores, added.clamp_min(-3), weights * 6 - 3))  # one range of colours
    texts = _numbers(torch.stack((scores, added, weights)))
    figure, axes = _panels(3.2, (1, 1, 1))
    title, below = "add, before the softmax", "min: the lowest finite number"
    rows = ("scores", "after add", "softmax")
    cells(axes[0], shown, title, rows, CLICKS, below=below, texts=texts, span=(-3, 3))
    rows = ("value 1", "value 2", "value 3")
    cells(axes[1], values, "values", rows, CLICKS, texts=_numbers(values))
    title = "mul, after the softmax"
    cells(axes[2], multiplied, title, (), CLICKS, texts=_numbers(multiplied))
    return figure


def padding() -> Figure:
    """Two histories padded on either side, and a mask made for the wrong side."""
    lengths = torch.tensor([4, 2])
    right, left = (mask_from_lengths(lengths, 6, side) for side in ("right", "left"))
    figure, axes = _panels(1.9, (1, 1, 1))
    for panel, mask, side in ((axes[0], right, "right"), (axes[1], left, "left")):
        positions = MaskedSequence(mask, EncoderConfig()).positions[:, 1:] * mask
        texts = [[str(place or "") for place in line] for line in positions.tolist()]
        title, below = f"padding on the {side}", "the same positions"
        cells(panel, mask, title, USERS, below=below, texts=texts, colours=YES_NO)
    wrong = left.long() + 2 * (
        left ^ right
    )  # 0 masked, 1 read, 2 padding that is read, 3 click that is lost
    texts = [[WRONG[cell] for cell in line] for line in wrong]
    title, below = "padded on the left, masked on the right", "clicks are lost, padding is read"
    span = (0, len(WRONG) - 1)
    cells(axes[2], wrong, title, USERS, below=below, texts=texts, colours=OUTCOMES, span=span)
    return figure


def _panels(height: float, widths: Sequence[float]) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(11, height), layout="compressed")
    return figure, figure.subplots(1, len(widths), width_ratios=widths)


def _numbers(values: Tensor) -> Texts:
    """Two digits; an exact 0 and the lowest finite number stand out."""
    words = {0.0: "0", torch.finfo(values.dtype).min: "min"}
    return [
        [words.get(cell, f"{cell:.2f}".replace("0.", ".", 1)) for cell in row]
        for row in values.tolist()
    ]


def main() -> None:
    """Draws all pictures."""
    drawn = {"masks": masks, "steps": steps, "sequence-mask": sequence_masks, "padding": padding}
    with mpl.rc_context({"svg.hashsalt": "persona"}):  # same input, same file
        for title, draw in drawn.items():
            path = DOCS / f"attention-{title}.svg"
            draw().savefig(path, metadata={"Date": None}, facecolor="white", bbox_inches="tight")
    pooled, full = (DOCS / f"attention-{title}.png" for title in ("news", "news-full"))
    explain(HISTORY, output=pooled, artifacts=ARTIFACTS, model="news")
    explain(SHORT, output=full, artifacts=ARTIFACTS, model="news", full=True)


if __name__ == "__main__":
    main()
