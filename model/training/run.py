"""A run: the folder of a recipe, its data's identity, checkpoints, learning curves and results.

<run>/
    recipe.json       the recipe with every default filled in
    data.json         file, checksum, counts
    source.json       where the file was, and that of the items' features
    item_features.json  how those features become numbers, if there are any
    item_ids.json     the catalogue: item_ids[i] is row i of the item table
    checkpoints/      last.ckpt to resume from, best.ckpt to use
    curves/           loss and metrics by epoch, one file per call
    training.json     epochs, seconds, parameters, the best validation figure
    evaluation.json   what `persona evaluate` found; report.html shows it
"""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from model.clicks.histories import Histories, Split, held_out_users, leave_one_out
from model.clicks.readers import read_clicks
from model.clicks.time_split import by_time
from model.errors import DataError, RecipeError
from model.training.recipe import DataRecipe, Recipe, read_recipe
from model.training.traffic import traffic
from persona.contract import ItemId
from persona.tables import checksum

RECIPE, DATA, ITEM_IDS = "recipe.json", "data.json", "item_ids.json"
TRAFFIC = "traffic.json"  # what the clicks are like; runs of earlier versions have none
TRAINING, EVALUATION = "training.json", "evaluation.json"
SOURCE = "source.json"  # apart from data.json, because a path is nobody else's business


@dataclass(frozen=True)
class DataFact:
    """Identity and counts of a click file."""

    file: str  # name, without its folder
    sha256: str  # of several files, that of their checksums
    users: int
    items: int
    clicks: int
    broken_rows: int


def load_data(recipe: Recipe, path: str | Path | None) -> tuple[Histories, DataFact]:
    """Reads the recipe's clicks, or those of `path`.

    Raises:
        DataError: the file cannot be used.
        TableError: likewise, of tables.
        RecipeError: neither the recipe nor the caller names a file.
    """
    chosen, data = str(path or recipe.data.path), recipe.data
    if not chosen:
        raise RecipeError(f"recipe {recipe.name} names no data.path; give --data FILE")
    histories, report = read_clicks(chosen, data.format, data.table(), limit=data.limit)
    fact = DataFact(
        Path(chosen).name,
        checksum(chosen),
        users=len(histories),
        items=histories.n_items,
        clicks=len(histories.items),
        broken_rows=report.broken_rows,
    )
    return histories, fact


def load_run_data(run: Path, recipe: Recipe, path: str | Path | None) -> tuple[Histories, DataFact]:
    """Reads the clicks of a run: from `path`, from where they were, or from the recipe's path.

    Raises:
        RecipeError: the file is not where it was, and the caller names no other.
        DataError: the file cannot be used.
        TableError: likewise, of tables.
    """
    source = source_of(run)
    if not path and is_local_file(source) and not Path(source).exists():
        raise RecipeError(f"{run} was trained on {source}, which is not there; give --data FILE")
    return load_data(recipe, path or source or None)


def source_of(run: Path, kind: Literal["path", "items"] = "path") -> str:
    """Where the clicks of a run were, or its items' features; "" where that is not known."""
    return str(read_facts(run, SOURCE).get(kind, ""))


def remember_source(run: Path, path: str | Path, items: str | Path = "") -> None:
    """Writes into the run where its clicks are, so that later commands find them.

    Args:
        run: its folder.
        path: of the clicks.
        items: the file of the items' features, where there is one.
    """
    source = str(path)
    places = {"path": source if "://" in source else str(Path.cwd() / source)}
    if items:
        places["items"] = str(Path.cwd() / items)
    write_json(run / SOURCE, places)


def is_local_file(source: str) -> bool:
    """Whether the text is a path of one file or folder, and neither a URL nor a glob."""
    return bool(source) and "://" not in source and not any(sign in source for sign in "*?[")


def split(histories: Histories, recipe: DataRecipe) -> Split:
    """Splits as the recipe says; the same for the same data, whatever the training seed.

    Raises:
        DataError: a split by time of clicks without times.
    """
    if recipe.split == "leave_one_out":
        return leave_one_out(histories)
    if recipe.split == "time":
        return by_time(histories, recipe.held_out_share, recipe.targets)
    return held_out_users(histories, recipe.held_out_share, seed=0)


def check_split(parts: Split) -> None:
    """Refuses clicks from which nothing can be learned.

    Raises:
        DataError: there is nothing to train on or to validate on.
    """
    if parts.train.n_items < 2:
        raise DataError("nothing to learn: all clicks are on the same item")
    if len(parts.train.items) == 0:
        raise DataError("nothing to train on: the training users have no clicks")
    if len(parts.validation.targets) == 0:
        raise DataError(
            "nothing to validate on: leave_one_out needs users with 3 or more clicks, "
            "held_out_users needs held-out users with 2 or more, time needs users with 2 or more "
            "one of which is among the validation clicks"
        )


def begin(run: Path, recipe: Recipe, histories: Histories, fact: DataFact) -> None:
    """Makes the run's folder, or checks that the folder holds this very run.

    Raises:
        RecipeError: the folder holds a run of another recipe or other data, or cannot be made.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"{run}: {error.strerror}") from error
    # Read as a recipe, because older files lack newer choices.
    other_recipe = (run / RECIPE).is_file() and read_recipe(run / RECIPE) != recipe
    if other_recipe or read_facts(run, DATA) not in ({}, asdict(fact)):
        path = run / (RECIPE if other_recipe else DATA)
        raise RecipeError(f"{path} differs: this folder holds another run; choose another")
    write_json(run / RECIPE, recipe.model_dump(mode="json"))
    write_json(run / DATA, asdict(fact))
    write_json(run / ITEM_IDS, list(histories.item_ids))
    write_json(run / TRAFFIC, traffic(histories))


def read_run_recipe(run: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        RecipeError: the folder holds no run, or one of an older version.
    """
    if not (run / RECIPE).is_file():
        raise RecipeError(
            f"{run}: no run here; `persona train --data FILE --output {run}` makes one"
        )
    return read_recipe(run / RECIPE)


def read_item_ids(run: Path) -> list[ItemId]:
    """The catalogue of a run."""
    item_ids: list[ItemId] = json.loads((run / ITEM_IDS).read_text())
    return item_ids


def read_facts(run: Path, name: str) -> dict[str, object]:
    """One of the run's JSON files; empty if it does not exist yet."""
    path = run / name
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def write_json(path: Path, value: object) -> None:
    """Writes readable JSON. An interruption leaves the old file, never half of the new one."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    partial.replace(path)


def read_curve(run: Path, name: str) -> dict[int, float]:
    """A logged value by epoch, counted from 1; the newest call's where epochs were repeated."""
    curve = {}
    versions = (run / "curves").glob("version_*/metrics.csv")
    for path in sorted(versions, key=lambda path: int(path.parent.name.removeprefix("version_"))):
        with path.open() as file:
            for row in csv.DictReader(file):
                if row.get(name):
                    curve[int(row["epoch"]) + 1] = float(row[name])
    return curve
