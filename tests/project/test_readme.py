"""What the README shows is what the shipped artifact answers; `make docs` writes it anew."""

import json
import re
from typing import Any

import pytest

from docs.pictures import PICTURE, README, ROOT, as_text, first_request, shortened, with_answer
from tests.fences import fences
from tests.serving import serving


@pytest.fixture(scope="module")
def answered() -> dict[str, Any]:
    """The service's answer to the README's first request."""
    with serving(ROOT / "artifacts") as client:
        response = client.post("/v1/encode", json=first_request(README.read_text()))
    read: dict[str, Any] = response.json()
    return read


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def test_the_readme_shows_the_answer_of_the_shipped_artifact(answered: dict[str, Any]) -> None:
    (shown,) = (fence.text for fence in fences(README) if fence.language == "json")
    expected = as_text(shortened(answered))
    json.loads(shown)
    assert re.sub(r"[-.\d]+", "", shown.strip()) == re.sub(r"[-.\d]+", "", expected)
    # Three digits are shown, and another processor may round the last one otherwise.
    assert numbers(shown) == pytest.approx(numbers(expected), abs=1.1e-3)


def test_the_picture_shows_the_weights_of_that_answer(answered: dict[str, Any]) -> None:
    attention = answered["users"][0]["attention"]
    heads = zip(attention["start"], attention["weights"], strict=True)
    expected = [weight for start, clicks in heads for weight in (start, *clicks, 0, 0)]
    drawn = re.findall(r'<g id="weight-[^>]*>\s*<text[^>]*>([\d.]+)</text>', PICTURE.read_text())
    assert [float(number) for number in drawn] == pytest.approx(expected, abs=1.1e-2)


def test_writing_the_answer_again_changes_nothing_else() -> None:
    readme = README.read_text()
    (shown,) = (fence.text for fence in fences(README) if fence.language == "json")
    assert with_answer(readme, shown.rstrip("\n")) == readme
