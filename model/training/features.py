"""What a run keeps of its items' features, so that its next steps need no file of them."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from model.clicks.item_features import ItemFeatures, read_item_features
from model.errors import RecipeError
from model.training.recipe import Recipe
from model.training.run import read_facts, write_json
from persona.contract import ItemId
from persona.features import FeatureColumn

ITEM_FEATURES = "item_features.json"  # of runs whose recipe has `items`
COLUMNS = TypeAdapter(list[FeatureColumn])


def load_features(
    recipe: Recipe, path: str, item_ids: Sequence[ItemId], earlier: Path | None = None
) -> ItemFeatures | None:
    """The features of a catalogue's items; None if the recipe reads none.

    Args:
        recipe: of the run.
        path: of their file.
        item_ids: the catalogue.
        earlier: the run whose weights this one starts from, which fix how features become numbers.

    Raises:
        RecipeError: nothing names a file.
        DataError, TableError: it cannot be used.
    """
    if recipe.items is None:
        return None
    if not path:
        raise RecipeError(f"recipe {recipe.name} names no items.path; give --items FILE")
    columns = read_columns(earlier) if earlier else None
    names = recipe.items.categories
    return read_item_features(Path(path), item_ids, categories=names, columns=columns)


def keep_columns(run: Path, features: ItemFeatures) -> None:
    """Writes into the run's folder how features become numbers, and what file they came from.

    Raises:
        RecipeError: the folder holds a run of other features.
    """
    columns = COLUMNS.dump_python(list(features.columns), mode="json")
    facts = {"file": features.file, "sha256": features.sha256, "columns": columns}
    if read_facts(run, ITEM_FEATURES) not in ({}, facts):
        message = "differs: this folder holds another run; choose another"
        raise RecipeError(f"{run / ITEM_FEATURES} {message}")
    write_json(run / ITEM_FEATURES, facts)


def read_columns(run: Path) -> list[FeatureColumn]:
    """The columns of features that a run has read; none if its items are their ids alone."""
    return COLUMNS.validate_python(read_facts(run, ITEM_FEATURES).get("columns", []))
