"""Which columns of clicks a run's encoder reads, and what it knows of them."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from model.clicks.columns import declared
from model.clicks.histories import Histories
from model.errors import RecipeError
from model.training.recipe import Recipe
from model.training.run import read_run_recipe


def with_columns(recipe: Recipe, train: Histories, start: Path | None = None) -> Recipe:
    """The recipe with the categories, means and deviations of the columns of the clicks.

    They are those of the run that it starts from, whose weights belong to them; otherwise those
    that the recipe has, or those of the training clicks.

    Args:
        recipe: of the run.
        train: its training clicks.
        start: the run that it starts from.

    Raises:
        RecipeError: `encoder.columns` and `data.columns` differ.
        DataError: the clicks lack a column.
    """
    known, kinds = recipe.encoder.columns, recipe.data.columns
    if not known and start is not None:
        known = read_run_recipe(start).encoder.columns
    known = known or declared(train, kinds)
    if {name: column.kind for name, column in known.items()} != kinds:
        raise RecipeError(
            f"the encoder reads the columns {_listed(known)} of clicks, and data.columns has "
            f"{_listed(kinds)}, perhaps of other kinds"
        )
    return recipe.model_copy(update={"encoder": replace(recipe.encoder, columns=known)})


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) or "none"
