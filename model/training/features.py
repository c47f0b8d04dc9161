"""What a run keeps of its items' features, so that its next steps need no file of them."""

from pathlib import Path

from pydantic import TypeAdapter

from model.clicks.item_features import ItemFeatures
from model.errors import RecipeError
from model.training.run import read_facts, write_json
from persona.features import FeatureColumn

ITEM_FEATURES = "item_features.json"  # of runs whose recipe has `items`
COLUMNS = TypeAdapter(list[FeatureColumn])


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
