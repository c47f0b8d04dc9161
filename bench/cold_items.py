"""Items that training never saw: how well their features alone let users find them.

A tenth of the items is held out of training, and then added as `persona items add` does. The test
targets among them are cold, the others warm.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bench import encoders
from bench.item_features import SETS, write_features
from bench.news import ArtifactScorer
from bench.quality import DATA, RECIPES
from bench.report import machine, table
from bench.results import record, record_table
from bench.trained import Trained, kept, seeded
from export.run import export_run
from model.clicks.histories import Cases, Histories, Split
from model.clicks.item_features import read_item_features
from model.evaluation.baselines import Popularity
from model.evaluation.metrics import Metrics, Scorer, target_ranks
from model.evaluation.scorer import EncoderScorer
from model.training.recipe import ItemsRecipe, Recipe
from model.training.run import DataFact, load_data, split
from model.training.train import load_encoder
from persona.artifact.item_changes import ChangedItems, NewItem
from persona.artifact.reading import Artifact, open_artifact
from persona.artifact.writing import new_version
from persona.contract import ItemId
from persona.tables.items import ITEM_ID, read_items

HELD_OUT = 0.1  # of the items
METRIC = "NDCG@10"


@dataclass(frozen=True)
class ColdItems:
    """Clicks on a catalogue whose last items training does not see."""

    recipe: Recipe
    fact: DataFact
    train: Split  # over the warm items alone
    test: Cases  # over all items
    known: Histories  # the training clicks over all items

    @property
    def n_warm(self) -> int:
        """Items that training sees."""
        return self.train.train.n_items

    @property
    def item_ids(self) -> Sequence[ItemId]:
        """The catalogue, the cold items last."""
        return self.test.histories.item_ids

    @property
    def is_cold(self) -> NDArray[np.bool_]:
        """Whether each test target is cold, (cases,)."""
        return self.test.targets >= self.n_warm

    def as_without(self) -> Cases:
        """The warm test cases as a service knows them that has only the warm items."""
        warm = np.flatnonzero(~self.is_cold)
        histories = self.test.histories.select(warm)
        items = np.minimum(histories.items, np.int32(self.n_warm))
        ids = self.item_ids[: self.n_warm]
        return Cases(replace(histories, items=items, item_ids=ids), self.test.targets[warm])


def cold_items(
    *,
    data: Annotated[Path, typer.Option(help="Folder of the sets.")] = DATA,
    seeds: Annotated[int, typer.Option(help="Of trainings, and of what is held out.", min=1)] = 1,
    only: Annotated[str, typer.Option(help="One of the sets.  [default: all]")] = "",
    epochs: Annotated[
        int | None, typer.Option(help="Of every training.  [default: the recipe's]", min=2)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many lines; keeps no figure.")] = None,
) -> None:
    """Train without a tenth of the items, add them by their features, and rank all of them."""
    command = f"python -m bench cold-items --seeds {seeds}"
    command += f" --epochs {epochs}" if epochs else ""
    rows = []
    for name in [only] if only else SETS:
        found = [
            _measured(name, data, recipe_of(name, seed, epochs, limit)) for seed in range(seeds)
        ]
        figures = {key: mean(each[key] for each in found) for key in found[0]}
        rows += _rows(name, figures)
        typer.echo(table(HEAD, rows))
        if not limit:
            _record(name, figures, command)
    if limit or only:
        return
    about = (
        f"{HELD_OUT:.0%} of the items have no training clicks, and are added to the artifact by "
        f"their features. {METRIC}, leave-one-out, all items ranked. The encoder without features "
        "does not know the cold items and ranks the others alone. Popularity knows the clicks on "
        f"cold items that training did not. Written by `{command}` on {machine()}."
    )
    record_table(
        "cold_items", f"## Items that training never saw\n\n{about}\n\n{table(HEAD, rows)}\n"
    )


HEAD = ["", "", "cold targets", "warm targets"]


def recipe_of(name: str, seed: int, epochs: int | None, limit: int | None) -> Recipe:
    """A set's own recipe, shorter where it is asked for."""
    recipe = seeded(RECIPES / f"{name}.toml", seed, limit)
    training = recipe.training.model_copy(update={"epochs": epochs or recipe.training.epochs})
    return recipe.model_copy(update={"training": training})


def _measured(name: str, data: Path, recipe: Recipe) -> dict[str, float]:
    """METRIC of every way to rank, on the cold targets and on the warm ones."""
    seed = recipe.training.seed
    held = held_out(recipe, data / SETS[name][0], seed)
    plain = kept(held.recipe, held.train.train, held.fact, held.train)
    file = encoders.CACHE / f"{name}-items.parquet"
    write_features(name, data, file)
    items = read_item_features(file, held.item_ids[: held.n_warm])
    with_items = recipe.model_copy(update={"items": ItemsRecipe()})
    run = kept(with_items, held.train.train, held.fact, held.train, items=items)
    rows = {str(row[ITEM_ID]): row for row in read_items(file)}
    cold = held.item_ids[held.n_warm :]
    described = [_described(item_id, rows.get(str(item_id), {})) for item_id in cold]
    ranked: dict[str, Scorer] = {
        "popularity": Popularity().fit(held.known),
        "random vectors": ArtifactScorer(_with_items(run, _random(run, cold, seed))),
        "features": ArtifactScorer(_with_items(run, described)),
    }
    found = {}
    hides, is_cold = held.recipe.data.remove_seen, held.is_cold
    for way, scorer in ranked.items():
        ranks = target_ranks(scorer, held.test, hides)
        found[f"{way}, cold"] = Metrics.of(ranks[is_cold])[METRIC]
        found[f"{way}, warm"] = Metrics.of(ranks[~is_cold])[METRIC]
    encoder = EncoderScorer(load_encoder(plain.recipe.encoder, held.n_warm, plain.run))
    ranks = target_ranks(encoder, held.as_without(), hides)
    return found | {"no features, warm": Metrics.of(ranks)[METRIC]}


def _rows(name: str, figures: Mapping[str, float]) -> list[list[str]]:
    ways = dict.fromkeys(key.rpartition(", ")[0] for key in figures)
    return [
        [
            name,
            way,
            *(
                f"{figures[key]:.4f}" if (key := f"{way}, {kind}") in figures else ""
                for kind in ("cold", "warm")
            ),
        ]
        for way in ways
    ]


def _record(name: str, figures: Mapping[str, float], command: str) -> None:
    prefix = "" if name == "wikispeedia" else f"{name.replace('-', '')}_"
    cold = figures["features, cold"]
    for way in ("popularity", "random vectors"):
        ratio = round(cold / max(figures[f"{way}, cold"], 1e-6), 2)
        record(f"{prefix}cold_vs_{way.partition(' ')[0]}", ratio, 3.0, command)
    loss = 1 - figures["features, warm"] / figures["no features, warm"]
    record(f"{prefix}warm_loss", round(loss, 4), 0.02, command)


def held_out(recipe: Recipe, data: Path, seed: int) -> ColdItems:
    """Holds items out that a seed draws."""
    histories, fact = load_data(recipe, data)
    order = np.random.default_rng(seed).permutation(histories.n_items)
    n_warm = round((1 - HELD_OUT) * histories.n_items)
    order = np.append(np.sort(order[:n_warm]), order[n_warm:])
    place = np.empty(histories.n_items + 1, np.int32)
    place[np.append(order, histories.n_items)] = np.arange(histories.n_items + 1)
    ids = [histories.item_ids[row] for row in order.tolist()]
    parts = split(replace(histories, item_ids=ids, items=place[histories.items]), recipe.data)
    warm = np.flatnonzero(parts.validation.targets < n_warm)
    before = without_cold(parts.validation.histories.select(warm), n_warm)
    validation = Cases(before, parts.validation.targets[warm])
    train = Split(without_cold(parts.train, n_warm), validation, validation)
    fact = replace(fact, sha256=f"{fact.sha256}, items held out by seed {seed}", items=n_warm)
    return ColdItems(recipe, fact, train, parts.test, parts.train)


def without_cold(histories: Histories, n_warm: int) -> Histories:
    """The clicks on the first items of the catalogue alone."""
    warm = histories.items < n_warm
    offsets = np.append(0, np.cumsum(warm))[histories.offsets]
    columns = {name: values[warm] for name, values in histories.columns.items()}
    ids = histories.item_ids[:n_warm]
    return Histories(histories.user_ids, ids, histories.items[warm], offsets, columns)


def _described(item_id: ItemId, row: Mapping[str, object]) -> NewItem:
    features = {k: v for k, v in row.items() if k != ITEM_ID and v is not None}
    return NewItem(item_id, features=features)


def _random(run: Trained, item_ids: Sequence[ItemId], seed: int) -> list[NewItem]:
    """Vectors as long as those of the other items."""
    encoder = load_encoder(run.recipe.encoder, run.split.train.n_items, run.run)
    length = float(encoder.item_embedding.weight[:-1].norm(dim=1).mean())
    vectors = np.random.default_rng(seed).normal(size=(len(item_ids), run.recipe.encoder.width))
    vectors *= length / np.linalg.norm(vectors, axis=1, keepdims=True)
    return [NewItem(i, vector=v.tolist()) for i, v in zip(item_ids, vectors, strict=True)]


def _with_items(run: Trained, items: Sequence[NewItem]) -> Artifact:
    """The artifact of a run with more items, version 2."""
    root, name = run.run / "artifacts", run.recipe.name
    shutil.rmtree(root, ignore_errors=True)
    changed = ChangedItems(export_run(run.run, name, "1", root), items)
    with new_version(root, name, "2") as folder:
        changed.write(folder, "2")
    return open_artifact(root / name / "2")
