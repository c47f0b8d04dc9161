"""Recipes and run folders: every impossible choice is refused before anything starts."""

import json
from pathlib import Path

import pytest

from model.errors import DataError, RecipeError
from model.training.recipe import ItemsRecipe, Recipe, read_recipe
from model.training.run import DataFact, begin, check_split, read_run_recipe, split, write_json
from tests.small import of, walks

FACT = DataFact("walks.txt", "0" * 64, users=120, items=10, clicks=900, broken_rows=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepochz = 3", "training.epochz: Extra inputs are not permitted, got 3"),
        ("[encoder]\nsimilarity = 'cosine'", "encoder.similarity: Input should be 'dot'"),
        ("[encoder]\nwidth = 10\nheads = 4", "encoder: width 10 does not divide into 4 heads"),
        ("[encoder]\nheads = 0", "encoder: heads is 0, at least 1 is needed"),
        ("[encoder]\nmax_length = 0", "encoder: max_length is 0, at least 1 is needed"),
        ("[encoder]\ndropout = 1.0", "encoder: dropout is 1.0, at least 0 and below 1 is needed"),
        ("[encoder]\nembedding_scale = inf", "encoder: embedding_scale is inf, above 0"),
        ("[training]\nmonitor = 'NDCG@7'", "training.monitor: no metric 'NDCG@7', known are HR@1"),
        ("[training]\nseed = -1", "training.seed: Input should be greater than .* 0, got -1"),
        ("[training]\nlearning_rate = inf", "training.learning_rate: Input should be a finite"),
        ("[training]\nprecision = 'fp8'", "training.precision: Input should be 'auto', '32-true'"),
        (
            "[training]\nepochs = 2\nvalidate_every = 3",
            "training: validate_every is 3, but epochs is 2: the run would never validate",
        ),
        ("[data]\nformat = 'xml'", "data.format: Input should be 'msnbc', 'sasrec'"),
        ("[data", "not TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_place_and_value(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "recipe.toml").write_text(f"name = 'x'\n{text}")
    with pytest.raises(RecipeError, match=f"recipe.toml: {message}"):
        read_recipe(tmp_path / "recipe.toml")


def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"name = 'caf\xe9'")
    with pytest.raises(RecipeError, match=r"latin\.toml: not TOML"):
        read_recipe(tmp_path / "latin.toml")
    with pytest.raises(RecipeError, match="Is a directory"):
        read_recipe(tmp_path)
    with pytest.raises(RecipeError, match=r"nowhere\.toml: No such file"):
        read_recipe(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("path", sorted(Path("recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert read_recipe(path).name == path.stem


def test_a_folder_with_another_run_is_not_overwritten(tmp_path: Path) -> None:
    begin(tmp_path, Recipe(name="first"), walks(), FACT)
    with pytest.raises(RecipeError, match="this folder holds another run; choose another"):
        begin(tmp_path, Recipe(name="second"), walks(), FACT)
    assert read_run_recipe(tmp_path).name == "first"


def test_a_run_cannot_be_made_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RecipeError, match="run: File exists"):
        begin(tmp_path / "run", Recipe(name="x"), walks(), FACT)


def test_a_run_of_another_version_is_named_with_its_first_problem(tmp_path: Path) -> None:
    write_json(tmp_path / "recipe.json", {"name": "x", "training": {"monitor": "AUC"}})
    with pytest.raises(RecipeError, match=r"recipe\.json: training\.monitor: no metric 'AUC'"):
        read_run_recipe(tmp_path)


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no run here; `persona train --data FILE --output"):
        read_run_recipe(tmp_path)


def test_a_json_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}


@pytest.mark.parametrize(
    ("rows", "data", "message"),
    [
        ([[0]], {}, "nothing to validate on: leave_one_out needs users with 3 or more clicks"),
        ([[0, 1], [1, 0]], {}, "nothing to validate on"),
        ([[0, 1]] * 5, {"split": "held_out_users"}, "nothing to validate on"),
        (
            [[]] * 5 + [[0, 1]],
            {"split": "held_out_users", "held_out_share": 0.49},
            "nothing to train on",
        ),
    ],
    ids=["one click", "short histories", "too few users to hold out", "clickless users"],
)
def test_clicks_that_teach_nothing_are_refused(
    rows: list[list[int]], data: dict[str, object], message: str
) -> None:
    recipe = Recipe.model_validate({"name": "x", "data": data})
    with pytest.raises(DataError, match=message):
        check_split(split(of(*rows), recipe.data))


def test_a_single_item_is_nothing_to_learn() -> None:
    parts = split(of([0, 0, 0, 0], n_items=1), Recipe(name="x").data)
    with pytest.raises(DataError, match="all clicks are on the same item"):
        check_split(parts)


def test_a_recipe_without_features_of_items_says_nothing_of_them() -> None:
    assert "items" not in Recipe(name="ids").model_dump()
    with_items = Recipe(name="shop", items=ItemsRecipe(categories=("brand",)))
    assert Recipe.model_validate_json(with_items.model_dump_json()) == with_items
