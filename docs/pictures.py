"""Writes what the README shows from the shipped artifact: its first answer, and its picture.

python -m docs.pictures
"""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from persona.score import local_service

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "persona.svg"
SHOWN = 3  # numbers of the embedding in the README

INK, PALE = "#768390", "#76839055"  # readable on white and on black
HEADS = ("#2f81f7", "#d29922", "#3fb950", "#db61a2")
BOX, STEP, LEFT = 92, 102, 20
BAR = 70.0  # height of a weight of 1


def first_request(readme: str) -> dict[str, Any]:
    """The body of the first request in the README."""
    found = re.search(r"curl [^']*/v1/encode -d '([^']*)'", readme)
    if found is None:
        raise ValueError(f"{README}: no curl of /v1/encode with a body in single quotes")
    body: dict[str, Any] = json.loads(found[1])
    return body


def answer(address: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the service at `address` answers."""
    request = urllib.request.Request(  # noqa: S310  # an address that the caller started
        f"{address}/v1/encode", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310  # as above
        read: dict[str, Any] = json.load(response)
    return read


def shortened(response: dict[str, Any]) -> dict[str, Any]:
    """The response with rounded numbers and, said so, the first few of each embedding."""
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


def picture(user: dict[str, Any]) -> str:
    """From one user of a response: history, mask, weights and embedding as SVG."""
    attention = user["attention"]
    tokens = ["start", *attention["items"], "padding", "padding"]
    columns = [*zip(*_with_start(attention), strict=True), None, None]
    parts = [
        _text(
            LEFT,
            16,
            "a history, oldest to newest, behind a start token; the mask hides the padding",
        )
    ]
    for number, (token, weights) in enumerate(zip(tokens, columns, strict=True)):
        parts += _token(LEFT + number * STEP, token, weights)
    parts.append(_text(LEFT, 112, "what the newest click attends to: a bar a head, padding gets 0"))
    parts.append(_text(LEFT, 246, f"the user embedding: {len(user['embedding'])} numbers"))
    parts += _strip(LEFT + 4, 286, user["embedding"])
    width = 2 * LEFT + len(tokens) * STEP - (STEP - BOX)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 320" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}" role="img">\n'
        "<title>A history becomes a user embedding, with the weight of every click</title>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _with_start(attention: dict[str, Any]) -> list[list[float]]:
    pairs = zip(attention["start"], attention["weights"], strict=True)
    return [[start, *clicks] for start, clicks in pairs]


def _token(x: int, name: str, weights: tuple[float, ...] | None) -> list[str]:
    real = weights is not None
    middle = x + BOX // 2
    parts = [
        _box(x, real=real),
        _text(middle, 48, name, "middle"),
        _text(middle, 78, f"mask {1 if real else 0}", "middle"),
    ]
    shown = weights or (0.0,)
    for head, weight in enumerate(shown):
        at = middle + (head - (len(shown) - 1) / 2) * 42
        height = BAR * weight
        parts.append(
            f'<rect x="{at - 15:.0f}" y="{200 - height:.1f}" width="30" height="{height:.1f}" '
            f'fill="{HEADS[head % len(HEADS)]}"/>'
        )
        label = f"{weight:.2f}" if real else "0"
        parts.append(_text(at, 214, label, "middle", 'font-size="11" class="weight"'))
    return [*parts, f'<path d="M{x} 200H{x + BOX}" stroke="{PALE}"/>']


def _box(x: int, *, real: bool) -> str:
    line = f'stroke="{INK}"' if real else f'stroke="{PALE}" stroke-dasharray="4 4"'
    return f'<rect x="{x}" y="28" width="{BOX}" height="30" rx="6" fill="none" {line}/>'


def _strip(x: int, y: int, embedding: list[float]) -> list[str]:
    scale = 26 / max(map(abs, embedding))
    bars = [
        f'<path d="M{x + 11 * number} {y}v{-value * scale:.1f}" stroke="{INK}" stroke-width="7"/>'
        for number, value in enumerate(embedding)
    ]
    return [*bars, f'<path d="M{x - 4} {y}h{11 * len(embedding)}" stroke="{PALE}"/>']


def _text(x: float, y: int, text: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def main() -> None:
    """Writes the README's answer and docs/persona.svg."""
    readme = README.read_text()
    with local_service(ROOT / "artifacts") as address:
        response = answer(address, first_request(readme))
    README.write_text(with_answer(readme, as_text(shortened(response))))
    PICTURE.write_text(picture(response["users"][0]))


if __name__ == "__main__":
    main()
