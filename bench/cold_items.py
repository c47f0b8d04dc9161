"""Items that training never saw: how well their features alone let users find them.

A tenth of the items is held out of training, and added to the artifact as `persona items add` does.
The test targets among them are cold; the others are warm.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
import typer
from numpy.typing import NDArray

from bench.news import ArtifactScorer
from bench.quality import DATA, RECIPES
from bench.report import machine, table
from bench.results import record, record_table
from bench.trained import go_on, seeded
from export.run import export_run
from model.clicks.histories import Cases, Histories, Split
from model.clicks.item_features import read_item_features
from model.evaluation.baselines import Popularity
from model.evaluation.metrics import Metrics, Scorer, target_ranks
from model.training.features import keep_columns
from model.training.recipe import ItemsRecipe, Recipe
from model.training.run import DataFact, begin, load_data, split
from persona.artifact.item_changes import ChangedItems, NewItem
from persona.artifact.reading import open_artifact
from persona.artifact.writing import new_version
from persona.contract import ItemId
from persona.tables.items import ITEM_ID, read_items

HELD_OUT = 0.1  # of the items
HEADLINE = "NDCG@10"
Rows = Iterator[dict[str, Any]]


def articles(folder: Path) -> Rows:
    """Wikispeedia's articles, each with the categories that it is in, and those above them."""
    found: dict[str, set[str]] = {}
    for line in (folder / "wikispeedia-categories.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            article, category = line.split("\t")
            parts = category.split(".")[1:]
            levels = {".".join(parts[: n + 1]) for n in range(len(parts))}
            found.setdefault(unquote(article), set()).update(levels)
    for article, categories in found.items():
        yield {ITEM_ID: article, "categories": sorted(categories)}


def films(folder: Path) -> Rows:
    """MovieLens-100K's films, each with its genres and its year."""
    for line in (folder / "ml-100k-items.psv").read_text("latin-1").splitlines():
        number, _, date, _, _, *flags = line.split("|")
        genres = [GENRES[place] for place, flag in enumerate(flags) if flag == "1"]
        year = float(date[-4:]) if date else None
        yield {ITEM_ID: int(number), "genres": genres, "year": year}


GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir "
    "Horror Musical Mystery Romance Sci-Fi Thriller War Western"
).split()
SETS: Mapping[str, tuple[str, Callable[[Path], Rows]]] = {
    "wikispeedia": ("wikispeedia-paths-unfinished.tsv", articles),
    "ml-100k": ("ml-100k.tsv", films),
}


def write_features(name: str, data: Path, file: Path) -> None:
    """The features of a set's items, as a file that `persona train --items` reads."""
    pa.parquet.write_table(pa.Table.from_pylist(list(SETS[name][1](data))), file)


@dataclass(frozen=True)
class ColdItems:
    """Clicks on a catalogue whose last items training does not see."""

    recipe: Recipe
    train: Split  # over the warm items alone
    test: Cases  # over all items, the cold ones last
    known: Histories  # the training clicks over all items

    @property
    def n_warm(self) -> int:
        """Items that training sees."""
        return self.train.train.n_items

    @property
    def cold(self) -> NDArray[np.bool_]:
        """Which test targets are cold."""
        return self.test.targets >= self.n_warm


def held_out(recipe: Recipe, data: Path, seed: int) -> ColdItems:
    """Holds items out that a seed draws."""
    histories, _ = load_data(recipe, data)
    order = np.random.default_rng(seed).permutation(histories.n_items)
    n_warm = round((1 - HELD_OUT) * histories.n_items)
    order = np.concatenate((np.sort(order[:n_warm]), order[n_warm:]))
    place = np.empty(histories.n_items + 1, np.int32)
    place[np.append(order, histories.n_items)] = np.arange(histories.n_items + 1)
    ids = [histories.item_ids[row] for row in order.tolist()]
    parts = split(replace(histories, item_ids=ids, items=place[histories.items]), recipe.data)
    validation = parts.validation
    warm = np.flatnonzero(validation.targets < n_warm)
    cases = Cases(without_cold(validation.histories.select(warm), n_warm), validation.targets[warm])
    train = Split(without_cold(parts.train, n_warm), cases, cases)
    return ColdItems(recipe, train, parts.test, parts.train)


def without_cold(histories: Histories, n_warm: int) -> Histories:
    """The clicks on the first items of the catalogue alone."""
    kept = histories.items < n_warm
    before = np.concatenate(([0], np.cumsum(kept)))
    columns = {name: values[kept] for name, values in histories.columns.items()}
    return Histories(
        histories.user_ids,
        histories.item_ids[:n_warm],
        histories.items[kept],
        before[histories.offsets],
        columns,
    )
