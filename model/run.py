"""A run: the folder that holds a recipe, its data's identity, checkpoints, curves and results.

<run>/
    recipe.json       the recipe with every default filled in
    data.json         file, checksum, counts
    item_ids.json     the catalogue: item_ids[i] is row i of the item table
    checkpoints/      last.ckpt to go on from, best.ckpt to use
    curves/           loss and metrics by epoch, one file for each call; learning_curve.png
    training.json     epochs, seconds, parameters, the best validation figure
    evaluation.json   what `persona evaluate` found
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from model.errors import RecipeError
from model.histories import Histories, ItemId, Split, held_out_users, leave_one_out
from model.readers import read_clicks
from model.recipe import DataRecipe, Recipe

RECIPE, DATA, ITEM_IDS = "recipe.json", "data.json", "item_ids.json"
TRAINING, EVALUATION = "training.json", "evaluation.json"


@dataclass(frozen=True)
class DataFact:
    """Which file was learned from, and what was in it."""

    file: str  # name, without its folder
    sha256: str
    users: int
    items: int
    clicks: int
    broken_rows: int


def load_data(recipe: Recipe, path: Path | None) -> tuple[Histories, DataFact]:
    """Reads the recipe's clicks, from `path` where it is given.

    Raises:
        DataError: the file cannot be used.
        RecipeError: neither the recipe nor the caller names a file.
    """
    chosen = path or Path(recipe.data.path)
    if not str(recipe.data.path) and path is None:
        raise RecipeError(f"recipe {recipe.name} names no data.path; give --data FILE")
    histories, report = read_clicks(chosen, recipe.data.format, limit=recipe.data.limit)
    with chosen.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    fact = DataFact(
        chosen.name,
        digest,
        users=len(histories),
        items=histories.n_items,
        clicks=len(histories.items),
        broken_rows=report.broken_rows,
    )
    return histories, fact


def split(histories: Histories, recipe: DataRecipe) -> Split:
    """Splits as the recipe says; the same for the same data, whatever the training seed."""
    if recipe.split == "leave_one_out":
        return leave_one_out(histories)
    return held_out_users(histories, recipe.held_out_share, seed=0)


def begin(run: Path, recipe: Recipe, histories: Histories, fact: DataFact) -> None:
    """Makes the run's folder, or checks that it is the same run that goes on.

    Raises:
        RecipeError: the folder holds a run of another recipe or other data.
    """
    run.mkdir(parents=True, exist_ok=True)
    for name, now in ((RECIPE, recipe.model_dump(mode="json")), (DATA, asdict(fact))):
        path = run / name
        if path.exists() and json.loads(path.read_text()) != now:
            raise RecipeError(f"{path} differs: this folder holds another run; choose another")
        write_json(path, now)
    write_json(run / ITEM_IDS, list(histories.item_ids))


def read_run_recipe(run: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        RecipeError: the folder holds no run.
    """
    path = run / RECIPE
    if not path.is_file():
        raise RecipeError(f"{run}: no run here; `persona train --output {run}` makes one")
    return Recipe.model_validate_json(path.read_text())


def read_item_ids(run: Path) -> list[ItemId]:
    """The catalogue of a run."""
    item_ids: list[ItemId] = json.loads((run / ITEM_IDS).read_text())
    return item_ids


def read_facts(run: Path, name: str) -> dict[str, object]:
    """One of the run's JSON files, empty if it is not there yet."""
    path = run / name
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def write_json(path: Path, value: object) -> None:
    """Writes readable JSON."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
