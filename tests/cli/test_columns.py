"""All verbs that read clicks take the same options, and a recipe's [data] has them."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from model.clicks.readers import read_clicks
from model.training.recipe import DataRecipe, Recipe, read_recipe
from model.training.run import load_data
from persona.cli.app import app
from persona.cli.columns import OPTIONS, Clicks, click_columns
from persona.tables import TableOptions
from tests.small import walks

OTHER_NAMES = [
    "--user",
    "visitorid",
    "--item",
    "itemid",
    "--time",
    "ts",
    "--where",
    "event = 'view'",
]
SMALL = """
name = "walk"
[encoder]
width = 8
max_length = 6
[training]
epochs = 1
"""


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """The walks as a log of events, with other names and other events between them."""
    histories, lines = walks(), ["ts;event;visitorid;itemid"]
    for user in range(len(histories)):
        for time, item in enumerate(histories[user]):
            lines += [f"{time};view;{user};{item}", f"{time};buy;{user};{item}"]
    path = tmp_path / "events.csv"
    path.write_text("\n".join(lines))
    return path


def invoke(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("verb", ["train", "evaluate", "data inspect", "data convert"])
def test_every_verb_that_reads_clicks_shows_the_same_options(verb: str) -> None:
    text = invoke(*verb.split(), "--help")
    assert not [name for name in OPTIONS if f"--{name.replace('_', '-')}" not in text]


def test_options_recipe_and_library_have_the_same_names() -> None:
    names = {field.name for field in fields(TableOptions)}
    names -= {"format", "columns", "click_columns"}
    assert set(OPTIONS) == names
    assert names <= set(DataRecipe.model_fields)


def test_a_table_of_other_names_is_trained_on_and_evaluated(events: Path, tmp_path: Path) -> None:
    recipe, run = tmp_path / "walk.toml", tmp_path / "run"
    recipe.write_text(SMALL)
    clicks: list[str | Path] = ["--data", events, *OTHER_NAMES]
    invoke("train", "--recipe", recipe, *clicks, "--output", run, "--no-progress")
    assert json.loads((run / "data.json").read_text())["clicks"] == len(walks().items)
    assert json.loads((run / "recipe.json").read_text())["data"]["where"] == "event = 'view'"
    # The run knows how its clicks are read.
    assert "test cases" in invoke("evaluate", run, "--data", events)


def test_what_convert_writes_can_be_trained_on(events: Path, tmp_path: Path) -> None:
    for ending in ("parquet", "jsonl", "csv"):
        users = tmp_path / f"users.{ending}"
        invoke("data", "convert", events, users, *OTHER_NAMES)
        histories, _ = read_clicks(users)
        assert histories.items.tolist() == walks().items.tolist()
        assert list(histories.user_ids) == list(range(len(walks())))


def test_a_recipe_says_how_its_clicks_are_read(events: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    columns = 'user = "visitorid"\nitem = "4"\ntime = "ts"\nwhere = "event = \'view\'"'
    path.write_text(f'name = "x"\n[data]\n{columns}\n')
    histories, _ = load_data(read_recipe(path), events)
    assert histories.items.tolist() == walks().items.tolist()


def test_options_override_the_recipe() -> None:
    recipe = Recipe(name="x", data=DataRecipe(user="a", item="b"))
    chosen = Clicks(None, "jsonl", TableOptions(item="c")).chosen(recipe)
    assert (chosen.data.user, chosen.data.item, chosen.data.format) == ("a", "c", "jsonl")


def test_a_tab_can_be_typed(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("user\titem\nann\ta,b\n")
    facts = json.loads(invoke("data", "inspect", path, "--delimiter", "tab", "--json"))
    assert (facts["items"], facts["options"]) == (1, {"delimiter": "\t"})


def test_inspect_names_kinds_of_events_and_ratings(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("userId,movieId,rating,type\n1,2,5,view\n1,3,4,buy\n1,4,4,view\n")
    output = invoke("data", "inspect", path)
    assert "events: view, buy; --where chooses" in output
    assert "or: without --where, persona train --column type=category lets the model" in output
    assert "ratings: --rating rating --min-rating 4 keeps the high ones" in output
    assert "--where \"type = 'view'\"" in output


def test_columns_of_clicks_are_named_with_their_kinds() -> None:
    columns = click_columns(["event=category", "price=number"])
    assert columns == {"event": "category", "price": "number"}
    recipe = Recipe(name="x", data=DataRecipe(columns={"event": "category"}))
    assert Clicks(None, None, TableOptions(), columns).chosen(recipe).data.columns == columns
    assert Clicks(None, None, TableOptions()).chosen(recipe) == recipe


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("event", "--column event: give NAME=category or NAME=number"),
        ("event=text", "--column event=text: give NAME=category or NAME=number"),
        ("item_id=number", "--column: the column 'item_id' is read anyway"),
    ],
)
def test_a_column_without_a_known_kind_is_refused(word: str, message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        click_columns([word])
