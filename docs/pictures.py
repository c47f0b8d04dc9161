"""Writes what the README shows of the shipped artifacts: the first answer, and the picture.

python -m docs.pictures
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "persona.svg"
SHOWN = 3  # numbers of the embedding in the README

INK = "#768390"  # readable on white and on black
HEADS = ("#2f81f7", "#d29922", "#3fb950", "#db61a2")
PADDING = 2  # positions of padding in the picture


def first_request(readme: str) -> dict[str, Any]:
    """The body of the first request in the README."""
    found = re.search(r"curl [^']*/v1/encode -d '([^']*)'", readme)
    if found is None:
        raise ValueError(f"{README}: no curl of /v1/encode with a body in single quotes")
    body: dict[str, Any] = json.loads(found[1])
    return body


async def answer(body: dict[str, Any]) -> dict[str, Any]:
    """The answer of the service on the shipped artifacts."""
    app = create_app(Settings(artifacts=ROOT / "artifacts"))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://readme") as client,
    ):
        response = await client.post("/v1/encode", json=body, timeout=60)
    read: dict[str, Any] = response.raise_for_status().json()
    return read


def shortened(response: dict[str, Any]) -> dict[str, Any]:
    """The response with rounded numbers and only the first few numbers of each embedding."""
    users = []
    for user in response["users"]:
        head = [round(value, 3) for value in user["embedding"][:SHOWN]]
        more = f"... {len(user['embedding']) - SHOWN} more"
        users.append({**_rounded(user), "embedding": [*head, more]})
    return {**response, "users": users}


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 3)
        case list():
            return [_rounded(part) for part in value]
        case dict():
            return {key: _rounded(part) for key, part in value.items()}
    return value


def as_text(response: dict[str, Any]) -> str:
    """JSON with a line a field, and lists of plain values on one line."""
    text = json.dumps(response, indent=2, ensure_ascii=False)
    lists = re.compile(r"\[\s+([^\[\]{}]*?)\s+\]")
    return lists.sub(lambda found: "[" + re.sub(r",\s+", ", ", found[1]) + "]", text)


def with_answer(readme: str, text: str) -> str:
    """The README with its JSON fence replaced."""
    return re.sub(r"```json\n.*?\n```", lambda _: f"```json\n{text}\n```", readme, flags=re.DOTALL)


def picture(user: dict[str, Any]) -> Figure:
    """History, mask, weights and embedding of one user of a response."""
    figure = Figure(figsize=(9.6, 4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 1))
    _draw_weights(above, user["attention"])
    embedding = user["embedding"]
    below.bar(np.arange(len(embedding)), embedding, color=INK)
    below.set_title(f"the user embedding: {len(embedding)} numbers", loc="left", color=INK)
    below.set_xticks([])
    for axes in (above, below):
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.axhline(0, color=INK, linewidth=0.8)
    return figure


def _draw_weights(axes: Axes, attention: dict[str, Any]) -> None:
    """A group of bars for every token, and a bar in it for every head."""
    real = ["start", *attention["items"]]
    labels = [f"{token}\nmask 1" for token in real] + ["padding\nmask 0"] * PADDING
    places = np.arange(len(labels))
    width = 0.8 / len(attention["start"])
    heads = zip(attention["start"], attention["weights"], strict=True)
    for head, (start, clicks) in enumerate(heads):
        weights = [start, *clicks] + [0.0] * PADDING
        left = places + width * (head + 0.5) - 0.4
        bars = axes.bar(left, weights, 0.9 * width, color=HEADS[head % len(HEADS)])
        bars.set_label(f"head {head + 1}")
        texts = [f"{weight:.2f}" for weight in weights[:-PADDING]] + ["0"] * PADDING
        for place, label in enumerate(axes.bar_label(bars, texts, padding=2, color=INK)):
            label.set_gid(f"weight-{head}-{place}")  # tests/project/test_readme.py reads these
    axes.set_xticks(places, labels, color=INK)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.margins(x=0.01, y=0.15)
    axes.legend(loc="upper right", frameon=False, labelcolor=INK)
    title = "how much the newest click attends to each position; the mask hides the padding"
    axes.set_title(title, loc="left", color=INK)


def main() -> None:
    """Writes the README's answer and docs/persona.svg."""
    readme = README.read_text()
    response = asyncio.run(answer(first_request(readme)))
    README.write_text(with_answer(readme, as_text(shortened(response))))
    title = "A history becomes a user embedding, with the weight of every click"
    # Text stays text, and the same input gives the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "persona"}):
        figure = picture(response["users"][0])
        figure.savefig(PICTURE, transparent=True, metadata={"Date": None, "Title": title})


if __name__ == "__main__":
    main()
