"""From training with features to new items: the same vectors wherever they are computed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from model.clicks.item_features import read_item_features
from model.network.encoder import UserEncoder
from model.network.item_table import ItemTable
from model.training.features import read_columns
from model.training.run import read_item_ids, read_run_recipe
from model.training.train import load_encoder
from persona.artifact import open_artifact
from persona.cli.app import app
from persona.engine import Engine
from tests.commands import SMALL, persona
from tests.small import walks

RECIPE = SMALL + "[items]\ndrop = 0.1\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clicks, a recipe, features of eleven pages of which ten are clicked, and a run with them."""
    folder = tmp_path_factory.mktemp("features")
    rows = [f"{user},page {item}\n" for user in range(40) for item in walks()[user]]
    (folder / "clicks.csv").write_text("".join(["user,item\n", *rows]))
    pages = [f"page {n},{'news|sports' if n % 2 else 'news'},{n}.5\n" for n in range(11)]
    (folder / "items.csv").write_text("".join(["item_id,section,price\n", *pages]))
    (folder / "new.csv").write_text("".join(["item_id,section,price\n", pages[10]]))
    (folder / "small.toml").write_text(RECIPE)
    train(folder, "run", "--recipe", folder / "small.toml", "--items", folder / "items.csv")
    return folder


def train(folder: Path, output: str, *more: str | Path) -> str:
    clicks, run = folder / "clicks.csv", folder / output
    return persona("train", "--data", clicks, "--output", run, *more)


@pytest.fixture(scope="module")
def shop(folder: Path) -> Path:
    """Folder of the model, whose version 2 also knows the eleventh page."""
    persona("export", folder / "run", "--name", "shop", "--output", folder / "artifacts")
    shop = folder / "artifacts" / "shop"
    persona("items", "add", folder / "new.csv", "--artifact", shop)
    return shop


def with_new_page(folder: Path) -> UserEncoder:
    """The run's encoder over eleven pages; nothing is learned of the last one."""
    run, ids = folder / "run", read_item_ids(folder / "run")
    config = read_run_recipe(run).encoder
    weights = load_encoder(config, len(ids), run).state_dict()
    columns = read_columns(run)
    found = read_item_features(folder / "items.csv", [*ids, "page 10"], columns=columns)
    encoder = UserEncoder(config, 11, ItemTable(torch.from_numpy(found.matrix), config.width))
    learned = weights["item_embedding.learned"]
    new = torch.zeros(1, config.width)
    weights["item_embedding.learned"] = torch.cat((learned[:-1], new, learned[-1:]))
    weights["item_embedding.features"] = encoder.state_dict()["item_embedding.features"]
    encoder.load_state_dict(weights)
    return encoder.eval()


def test_the_exported_table_is_that_of_pytorch(folder: Path, shop: Path) -> None:
    config = read_run_recipe(folder / "run").encoder
    table = load_encoder(config, 10, folder / "run").item_embedding.weight
    found = open_artifact(shop / "1").item_embeddings()
    np.testing.assert_allclose(found, table.detach().numpy(), atol=1e-6)


def test_a_new_item_has_the_vector_that_pytorch_gives_it(folder: Path, shop: Path) -> None:
    table = with_new_page(folder).item_embedding.weight[10]
    found = open_artifact(shop / "2").item_embeddings()[10]
    np.testing.assert_allclose(found, table.detach().numpy(), atol=1e-6)


def test_a_history_with_a_new_item_has_the_embedding_that_pytorch_gives_it(
    folder: Path, shop: Path
) -> None:
    ids = [*read_item_ids(folder / "run"), "page 10"]
    history = ["page 3", "page 10", "page 4"]
    item_ids = torch.tensor([[ids.index(item) for item in history]])
    expected, _ = with_new_page(folder).encode(item_ids, torch.ones(1, 3, dtype=torch.bool))
    found = Engine.open(shop.parent).encode([history]).embeddings
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)


def test_the_run_is_evaluated_without_the_file_of_features(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copy(folder / "clicks.csv", tmp_path)
    persona("evaluate", tmp_path / "run", "--data", tmp_path / "clicks.csv")


def test_the_model_card_names_the_file_of_features(shop: Path) -> None:
    commands = open_artifact(shop / "1").manifest.training["commands"]
    assert isinstance(commands, list)
    assert "--data clicks.csv --items items.csv --output" in commands[0]


def test_without_a_recipe_the_features_alone_make_a_model_that_reads_them(folder: Path) -> None:
    train(folder, "by-rule", "--items", folder / "items.csv", "--minutes", "0.05")
    assert read_run_recipe(folder / "by-rule").items is not None
    assert [c.name for c in read_columns(folder / "by-rule")] == ["section", "price"]


def test_a_run_goes_on_with_the_features_of_an_earlier_one(folder: Path) -> None:
    output = train(folder, "tonight", "--from", folder / "run", "--no-gain")
    assert "10 items kept, 0 new" in output
    facts = [
        json.loads((folder / n / "item_features.json").read_text()) for n in ("run", "tonight")
    ]
    assert facts[0] == facts[1]


def test_a_run_without_features_does_not_go_on_with_them(folder: Path) -> None:
    (folder / "plain.toml").write_text(SMALL)
    words = ["--data", folder / "clicks.csv", "--output", folder / "other"]
    start = ["--from", folder / "run", "--recipe", folder / "plain.toml"]
    done = CliRunner().invoke(app, ["train", *map(str, (*words, *start))])
    assert "run reads features of items, but the recipe does not" in str(done.exception)


def test_another_file_of_features_is_another_run(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "items.csv"
    other.write_text((folder / "items.csv").read_text().replace("sports", "weather"))
    words = ["--recipe", folder / "small.toml", "--items", other, "--output", folder / "run"]
    done = CliRunner().invoke(
        app, ["train", "--data", str(folder / "clicks.csv"), *map(str, words)]
    )
    assert "item_features.json differs: this folder holds another run" in str(done.exception)


def test_a_recipe_whose_features_are_nowhere_is_refused(folder: Path) -> None:
    words = ["--recipe", folder / "small.toml", "--output", folder / "none"]
    done = CliRunner().invoke(
        app, ["train", "--data", str(folder / "clicks.csv"), *map(str, words)]
    )
    assert str(done.exception) == "recipe small names no items.path; give --items FILE"
