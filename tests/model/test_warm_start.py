"""Training from an earlier run: the catalogue is mapped, and the gain is reported."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from model.errors import RecipeError
from model.network.config import EncoderConfig
from model.training.recipe import DataRecipe, Recipe, TrainingRecipe
from model.training.run import DataFact, begin, split
from model.training.train import load_encoder, train_encoder
from model.training.warm_start import initial_weights
from persona.cli.app import app
from tests.small import walks

ENCODER = EncoderConfig(width=8, blocks=1, max_length=6)
RECIPE = Recipe(
    name="walk", encoder=ENCODER, training=TrainingRecipe(epochs=2, warmup_steps=2, max_batch=32)
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the walks over the items 0 to 9."""
    folder = tmp_path_factory.mktemp("runs") / "monday"
    histories = walks()
    begin(folder, RECIPE, histories, DataFact("walks", "", 120, 10, len(histories.items), 0))
    train_encoder(RECIPE, split(histories, RECIPE.data), folder, progress=False)
    return folder


def test_rows_follow_their_items_into_another_catalogue(run: Path) -> None:
    old = load_encoder(ENCODER, 10, run).state_dict()
    weights, carried = initial_weights(run, RECIPE, [7, "new", 3])
    table = weights["item_embedding.weight"]
    torch.testing.assert_close(table[[0, 2]], old["item_embedding.weight"][[7, 3]])
    torch.testing.assert_close(table[3], old["item_embedding.weight"][10])  # unknown items
    assert table[1].norm() > 0
    assert (carried.kept_items, carried.new_items, carried.gone_items) == (2, 1, 8)
    assert all(torch.equal(weights[n], old[n]) for n in old if n != "item_embedding.weight")


def test_training_goes_on_from_the_weights(run: Path, tmp_path: Path) -> None:
    weights, _ = initial_weights(run, RECIPE, range(10))
    still = RECIPE.training.model_copy(update={"learning_rate": 1e-9})
    recipe = RECIPE.model_copy(update={"training": still})
    train_encoder(recipe, split(walks(), recipe.data), tmp_path, progress=False, weights=weights)
    for name, weight in load_encoder(ENCODER, 10, tmp_path).state_dict().items():
        torch.testing.assert_close(weight, weights[name], atol=1e-5, rtol=0)


def test_a_run_of_an_older_version_goes_on_though_its_recipe_lacks_newer_choices(
    run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    fact = DataFact("walks", "", 120, 10, 1, 0)
    begin(folder, RECIPE, walks(), fact)
    older = json.loads((folder / "recipe.json").read_text())
    del older["training"]["minutes"], older["data"]["targets"]
    (folder / "recipe.json").write_text(json.dumps(older))
    begin(folder, RECIPE, walks(), fact)
    other = RECIPE.model_copy(update={"data": DataRecipe(remove_seen=True)})
    with pytest.raises(RecipeError, match=r"recipe\.json differs"):
        begin(folder, other, walks(), fact)


def test_a_catalogue_without_a_common_item_is_refused(run: Path) -> None:
    with pytest.raises(RecipeError, match="none of the 2 items is among those of"):
        initial_weights(run, RECIPE, ["a", "b"])


def test_another_architecture_is_refused_by_name(run: Path) -> None:
    wide = RECIPE.model_copy(update={"encoder": replace(ENCODER, width=16)})
    with pytest.raises(RecipeError, match="has width 8, but the recipe has 16"):
        initial_weights(run, wide, range(10))


def test_test_users_that_the_weights_may_know_are_refused(run: Path) -> None:
    drawn = RECIPE.model_copy(update={"data": DataRecipe(split="held_out_users")})
    with pytest.raises(RecipeError, match="may know the test users; use leave_one_out"):
        initial_weights(run, drawn, range(10))


def test_tonights_run_starts_from_yesterdays_and_reports_the_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def persona(*words: str) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, f"{done.output}{done.exception}"
        return done.output

    monkeypatch.chdir(tmp_path)
    rows = [(user, item) for user in range(60) for item in walks()[user]]
    lines = [f"{user},{item}\n" for user, item in rows]
    Path("monday.csv").write_text("".join(["user,item\n", *lines]))
    Path("tuesday.csv").write_text("".join(["user,item\n", *lines, "0,new\n", "1,new\n"]))
    text = 'name = "small"\n[encoder]\nwidth = 8\nblocks = 1\n[training]\nepochs = 2\n'
    Path("small.toml").write_text(text)
    persona("train", "--recipe", "small.toml", "--data", "monday.csv", "--output", "monday")

    output = persona("train", "--from", "monday", "--data", "tuesday.csv", "--output", "tuesday")
    assert "from monday: 10 items kept, 1 new, 0 gone" in output
    assert "from nothing in the same" in output
    facts = json.loads(Path("tuesday/warm_start.json").read_text())
    assert facts["gain"]["comparison"]["difference"]["mean"] == pytest.approx(
        facts["gain"]["warm"] - facts["gain"]["from_nothing"]
    )
    assert "NDCG@10 over popularity" in persona("evaluate", "tuesday")

    output = persona("train", "--from", "monday", "--no-gain", "--output", "again")
    assert "0 new" in output
    assert "from nothing" not in output
    assert "monday.csv" in Path("again/source.json").read_text()
