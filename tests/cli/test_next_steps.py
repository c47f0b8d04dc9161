"""Every command that a verb prints as the next step works as it is printed."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from persona.artifact.reading import open_artifact
from persona.cli.app import app
from tests.commands import SMALL, persona
from tests.small import walks


def next_words(output: str) -> list[str]:
    """The arguments of `persona` in the line `next: persona ...`."""
    (line,) = [line for line in output.splitlines() if line.startswith("next: ")]
    persona, *words = shlex.split(line.removeprefix("next: "))
    assert persona == "persona"
    return words


def write_clicks(path: Path) -> Path:
    rows = [(user, item) for user in range(40) for item in walks()[user]]
    lines = [f"visitor {user},page {item}\n" for user, item in rows]
    path.write_text("".join(["visitor,page\n", *lines]))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with clicks whose columns need options, and a recipe."""
    monkeypatch.chdir(tmp_path)
    write_clicks(tmp_path / "my clicks.csv")
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path


def train(output: str, *more: str) -> str:
    columns = ["--user", "visitor", "--item", "page"]
    return persona("train", "--data", "my clicks.csv", *columns, "--output", output, *more)


@pytest.mark.parametrize("recipe", [[], ["--recipe", "small.toml"]], ids=["by rule", "recipe"])
def test_a_run_is_evaluated_by_the_line_that_training_prints(
    folder: Path, recipe: list[str]
) -> None:
    run = f"runs/a run with a name that is much longer than a line of {'very ' * 8}narrow terminals"
    assert "NDCG@10 over popularity" in persona(*next_words(train(run, *recipe)))


def test_a_run_finds_its_clicks_from_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("run", "--recipe", "small.toml")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert "NDCG@10 over popularity" in persona("evaluate", "../run")


def test_clicks_that_have_moved_are_named_with_the_way_on(folder: Path) -> None:
    train("run", "--recipe", "small.toml")
    (folder / "my clicks.csv").rename(folder / "moved.csv")
    done = CliRunner().invoke(app, ["evaluate", "run"])
    assert str(done.exception) == (
        f"run was trained on {folder / 'my clicks.csv'}, which is not there; give --data FILE"
    )
    persona("evaluate", "run", "--data", "moved.csv")


def test_clicks_that_have_changed_are_refused(folder: Path) -> None:
    train("run", "--recipe", "small.toml")
    with (folder / "my clicks.csv").open("a") as file:
        file.write("visitor 1,page 1\n")
    done = CliRunner().invoke(app, ["evaluate", "run"])
    assert "run was trained on my clicks.csv (sha256 " in str(done.exception)


def test_the_artifact_is_served_from_the_folder_that_export_prints(folder: Path) -> None:
    train("run", "--recipe", "small.toml")
    output = persona("export", "run", "--name", "pages", "--output", "all artifacts")
    serve, option, root = next_words(output)
    assert (serve, option) == ("serve", "--artifacts")
    assert open_artifact(Path(root) / "pages" / "1").manifest.n_items == 10


def test_inspect_prints_the_commands_in_an_order_that_works(folder: Path) -> None:
    output = persona("data", "inspect", "my clicks.csv")
    commands = [shlex.split(line) for line in output.splitlines() if line.startswith("persona ")]
    assert [words[1] for words in commands] == ["train", "evaluate", "export", "score"]
    for words in commands:
        persona(*words[1:])
    assert (folder / "embeddings.parquet").exists()
