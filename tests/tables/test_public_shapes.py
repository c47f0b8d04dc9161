"""Each public shape is read right by the commands that `persona data inspect` proposes for it."""

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from persona.cli.app import app
from persona.contract import ItemId
from tests.tables.shapes import SHAPES, Shape


def run(*words: str | Path) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def proposed_options(path: Path) -> list[str]:
    """The options of the command that `inspect` prints for training."""
    (line,) = [
        line
        for line in run("data", "inspect", path).splitlines()
        if line.startswith("persona train")
    ]
    words = shlex.split(line)
    assert words[:4] == ["persona", "train", "--data", str(path)]
    return words[4 : words.index("--output")]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_inspect_proposes_the_options_that_read_a_public_shape_right(
    shape: Shape, tmp_path: Path
) -> None:
    path, users = tmp_path / shape.name, tmp_path / "users.jsonl"
    shape.write(path)
    run("data", "convert", path, users, *proposed_options(path))
    rows = map(json.loads, users.read_text().splitlines())
    found: dict[ItemId, list[ItemId]] = {row["id"]: row["history"] for row in rows}
    assert found == shape.histories


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_inspect_proposes_the_same_options_for_scoring(shape: Shape, tmp_path: Path) -> None:
    path = tmp_path / shape.name
    shape.write(path)
    (line,) = [
        line for line in run("data", "inspect", path).splitlines() if "persona score" in line
    ]
    words = shlex.split(line)
    assert words[words.index(str(path)) + 1 : words.index("--output")] == proposed_options(path)
