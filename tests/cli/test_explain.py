"""`persona explain`: a table that adds up, pictures that can be opened, and clear refusals."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner, Result

from export.write import Description, write_artifact
from model.network.config import EncoderConfig
from persona.cli.app import app
from persona.cli.attention_plot import NAMED, STRIP, draw_full, draw_pooled
from persona.cli.explain import item_ids
from persona.engine import Engine
from tests.conftest import random_encoder
from tests.fences import ROOT

HISTORY = "item 1,item 2,item 2,item 7"
ITEMS: list[str | int] = [7, 8, "7", "films, old"]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with a source-target artifact over integer items."""
    root = tmp_path_factory.mktemp("films")
    config = EncoderConfig(attention="source_target", width=16, blocks=1, max_length=12)
    write_artifact(random_encoder(config, 30), list(range(100, 130)), Description("films"), root)
    return root


def explain(artifacts: Path, output: Path, *options: str) -> Result:
    words = ["explain", "--artifacts", str(artifacts), "--output", str(output), *options]
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, words)


def weights_of(table: str) -> np.ndarray:
    """The weights in the printed table, (1 + clicks, H)."""
    rows = [line.split("│")[3:-1] for line in table.splitlines() if line.startswith("│")]
    return np.array([[float(cell) for cell in row] for row in rows])


@pytest.mark.parametrize("history", ["", HISTORY, ",".join(["item 3"] * 12)])
def test_the_printed_weights_of_every_head_sum_to_1(
    tiny_artifacts: Path, tmp_path: Path, history: str
) -> None:
    result = explain(tiny_artifacts, tmp_path / "a.png", "--history", history)
    assert result.exit_code == 0, result.output
    weights = weights_of(result.output)
    assert weights.shape == (1 + len(history.split(",")) * bool(history), 2)
    np.testing.assert_allclose(weights.sum(0), 1, atol=0.007)  # printed with three digits


@pytest.mark.parametrize("options", [[], ["--full"]], ids=["pooled", "full"])
def test_a_picture_is_drawn(tiny_artifacts: Path, tmp_path: Path, options: list[str]) -> None:
    output = tmp_path / "attention.png"
    result = explain(tiny_artifacts, output, "--history", HISTORY, *options)
    assert result.exit_code == 0, result.output
    picture = imread(output)
    assert picture.std() > 0.05  # not a blank page


def test_unknown_clicks_are_marked_and_old_ones_counted(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "attention.svg"
    history = ",".join(["item 1"] * 14 + ["never seen"])
    result = explain(tiny_artifacts, output, "--history", history)
    assert "never seen*" in result.output
    assert "older and left out: 3; * unknown item" in output.read_text()


def test_candidates_are_explained_by_integer_items_too(films: Path, tmp_path: Path) -> None:
    output = tmp_path / "candidates.png"
    options = ["--history", "101,102,129", "--candidates", "100,103"]
    result = explain(films, output, *options)
    assert result.exit_code == 0, result.output
    assert "*" not in result.output
    assert [line.split("│")[1].strip() for line in result.output.splitlines() if "│" in line] == [
        "100",
        "103",
    ]
    assert output.exists()


def test_candidates_of_a_user_without_clicks_still_have_scores(films: Path, tmp_path: Path) -> None:
    options = ["--history", "", "--candidates", "100"]
    assert explain(films, tmp_path / "a.png", *options).exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "books"], "no model 'books'"),
        (["--candidates", "item 1"], "carries no graph 'score' for attention of candidates"),
        (["--candidates", "item 1", "--full"], "give one of --full, --candidates and --next"),
        (["--output", "a.txt"], "the picture's name ends with .png"),
        (["--history", "[1"], "not JSON"),
    ],
    ids=["unknown model", "no candidates", "both", "unknown format", "broken JSON"],
)
def test_what_cannot_be_drawn_is_refused(
    tiny_artifacts: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = explain(tiny_artifacts, tmp_path / "a.png", "--history", HISTORY, *options)
    assert result.exit_code in {1, 2}  # 1: the command line prints the library's error
    assert message in f"{result.output}{result.exception}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8, 9", [8, "9"]),
        ("7", ["7"]),
        ("08", ["08"]),
        ('["films, old", 8]', ["films, old", 8]),
        (" , ", []),
    ],
    ids=["integers and unknowns", "text before number", "no other spelling", "JSON", "nothing"],
)
def test_items_are_meant_as_the_catalogue_writes_them(text: str, expected: list[object]) -> None:
    assert item_ids(text, ITEMS) == expected


def test_every_click_of_a_long_history_is_named_once() -> None:
    clicks = [f"item {number}" for number in range(2 * STRIP)]
    weights = np.full((2, 1 + len(clicks)), 1 / (1 + len(clicks)), np.float32)
    figure = draw_pooled(clicks, weights, "", "")
    named = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert [name for name in named if name] == ["start", *clicks]


@pytest.mark.parametrize("size", [NAMED, NAMED + 1])
def test_the_first_query_of_a_full_picture_stands_on_top_in_every_panel(size: int) -> None:
    weights = np.tril(np.full((2, 2, size, size), 0.1, np.float32))
    figure = draw_full(["click"] * (size - 1), weights, "", "")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_ylim() for axes in panels] == [(size, 0)] * 4


def run_without(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`persona explain` where a module cannot be imported."""
    script = (
        f"import sys; sys.modules['{module}'] = None; sys.argv[1:] = {['explain', *words]}; "
        "from persona.cli.app import main; main()"
    )
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_explaining_needs_no_pytorch(tiny_artifacts: Path, tmp_path: Path) -> None:
    options = ["--artifacts", str(tiny_artifacts), "--output", str(tmp_path / "a.png")]
    assert run_without("torch", *options, "--history", HISTORY).returncode == 0


def test_the_table_needs_no_matplotlib_and_the_picture_says_how_to_get_it(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    options = ["--artifacts", str(tiny_artifacts), "--history", HISTORY]
    table = run_without("matplotlib", *options)
    assert (table.returncode, table.stderr) == (0, "")
    assert "start token" in table.stdout
    picture = run_without("matplotlib", *options, "--output", str(tmp_path / "a.png"))
    assert picture.returncode == 1
    assert picture.stderr.startswith("persona: this needs matplotlib: pip install")


def test_next_items_come_with_their_reasons(tiny_artifacts: Path, tmp_path: Path) -> None:
    output = tmp_path / "next.svg"
    result = explain(tiny_artifacts, output, "--history", HISTORY, "--next", "3")
    assert result.exit_code == 0, result.output
    best = Engine.open(tiny_artifacts).recommend([HISTORY.split(",")], 3).users[0]
    rows = [line.split("│") for line in result.output.splitlines() if line.startswith("│")]
    assert [row[1].strip() for row in rows] == best.items
    assert [float(row[3]) for row in rows] == pytest.approx(best.scores, abs=6e-4)
    assert "no click" in output.read_text()


def test_items_have_the_names_of_the_artifact(tmp_path: Path) -> None:
    result = explain(ROOT / "artifacts/news", tmp_path / "a.png", "--history", "frontpage,x")
    assert "Front page" in result.output
    assert "x*" in result.output


def test_two_kinds_of_pictures_at_once_are_refused(tiny_artifacts: Path, tmp_path: Path) -> None:
    result = explain(tiny_artifacts, tmp_path / "a.png", "--history", "", "--full", "--next", "3")
    assert result.exit_code == 2
    assert "give one of --full, --candidates and --next" in result.output
