"""Items that training never saw: how well their features alone let users find them.

A tenth of the items is held out of training, and then added as `persona items add` does. The test
targets among them are cold, the others warm.
"""

import shutil
from collections.abc import Collection, Mapping, Sequence
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
KINDS = ("cold", "warm", "among cold")
HEAD = ["", "", "cold targets", "warm targets", "cold targets among the cold items"]
PAGE = Path(__file__).parents[1] / "docs" / "items.md"
ABOUT = (
    f"{HELD_OUT:.0%} of the items, drawn at random, have no clicks in training, and are then added "
    f"by their features. {METRIC}, leave-one-out, with the sets' recipes. *No features*: the same "
    "recipe on the same clicks; the added items are unknown, and only the others are ranked. "
    "*Popularity* has no clicks on the added items and puts them last; among themselves, any order "
    "is all that it can do. The last row counts the clicks that were held out."
)


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

    @property
    def cold_test(self) -> Cases:
        """The cases whose target is cold."""
        cold = np.flatnonzero(self.is_cold)
        return Cases(self.test.histories.select(cold), self.test.targets[cold])

    @property
    def known_without_cold(self) -> Histories:
        """The clicks that training has, over all items."""
        train = self.train.train
        return replace(train, item_ids=self.item_ids)

    def as_without(self) -> Cases:
        """The warm test cases as a service knows them that has only the warm items."""
        warm = np.flatnonzero(~self.is_cold)
        histories = self.test.histories.select(warm)
        items = np.minimum(histories.items, np.int32(self.n_warm))
        ids = self.item_ids[: self.n_warm]
        return Cases(replace(histories, items=items, item_ids=ids), self.test.targets[warm])


class ColdAlone:
    """Another scorer's order of the cold items; all others come after them."""

    def __init__(self, scorer: Scorer, n_warm: int) -> None:
        self.name = scorer.name
        self._scorer = scorer
        self._n_warm = n_warm

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Scores (B, n_items)."""
        scores = self._scorer.scores(histories).copy()
        scores[:, : self._n_warm] = np.finfo(np.float32).min
        return scores


class AnyOrder:
    """An order drawn for each user: all that popularity can do with items that nobody clicked."""

    name = "any order"

    def __init__(self, n_items: int, seed: int) -> None:
        self._n_items = n_items
        self._rng = np.random.default_rng(seed)

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Scores (B, n_items)."""
        return self._rng.random((len(histories), self._n_items), np.float32)


def cold_items(
    *,
    data: Annotated[Path, typer.Option(help="Folder of the sets.")] = DATA,
    seeds: Annotated[int, typer.Option(help="Of trainings, and of what is held out.", min=1)] = 1,
    epochs: Annotated[
        int | None, typer.Option(help="Of every training.  [default: the recipe's]", min=2)
    ] = None,
    only: Annotated[str, typer.Option(help="One of the sets.  [default: all]")] = "",
    limit: Annotated[int | None, typer.Option(help="Only so many lines; keeps no figure.")] = None,
) -> None:
    """Train without a tenth of the items, add them by their features, and rank all of them."""
    command = f"python -m bench cold-items --seeds {seeds}"
    command += f" --epochs {epochs}" if epochs else ""
    command += f" --only {only}" if only else ""
    rows: list[list[str]] = []
    for name in [only] if only else SETS:
        found = [
            _measured(name, data, recipe_of(name, seed, epochs, limit)) for seed in range(seeds)
        ]
        figures = {key: mean(each[key] for each in found) for key in found[0]}
        rows += _rows(name, figures)
        if not limit:
            _record(name, figures, command)
    text = table(HEAD, rows)
    typer.echo(text)
    if not limit:
        about = f"{ABOUT} Written by `{command}` on {machine()}."
        record_table("cold_items", f"#### Figures\n\n{about}\n\n{text}\n", [PAGE])


def recipe_of(name: str, seed: int, epochs: int | None, limit: int | None) -> Recipe:
    """A set's own recipe, shorter where it is asked for."""
    recipe = seeded(RECIPES / f"{name}.toml", seed, limit)
    training = recipe.training.model_copy(update={"epochs": epochs or recipe.training.epochs})
    return recipe.model_copy(update={"training": training})


def _measured(name: str, data: Path, recipe: Recipe) -> dict[str, float]:
    """METRIC of every way to rank, by the targets and the items that are ranked."""
    file = encoders.CACHE / f"{name}-items.parquet"
    write_features(name, data, file)
    rows = {str(row[ITEM_ID]): row for row in read_items(file)}
    held = held_out(recipe, data / SETS[name][0], rows, recipe.training.seed)
    plain = kept(recipe, held.train.train, held.fact, held.train)
    run = _with_features(recipe, held, file)
    found = {"no features, warm": _warm_alone(plain, held)}
    is_cold, hides = held.is_cold, recipe.data.remove_seen
    for way, scorer in _scorers(held, run, rows).items():
        ranks = target_ranks(scorer, held.test, hides)
        found[f"{way}, cold"] = Metrics.of(ranks[is_cold])[METRIC]
        found[f"{way}, warm"] = Metrics.of(ranks[~is_cold])[METRIC]
        among = target_ranks(ColdAlone(scorer, held.n_warm), held.cold_test, hides)
        found[f"{way}, among cold"] = Metrics.of(among)[METRIC]
    return found


def _with_features(recipe: Recipe, held: ColdItems, file: Path) -> Trained:
    """The run that has read the features of the warm items."""
    items = read_item_features(file, held.item_ids[: held.n_warm])
    with_items = recipe.model_copy(update={"items": ItemsRecipe()})
    return kept(with_items, held.train.train, held.fact, held.train, items=items)


def _warm_alone(plain: Trained, held: ColdItems) -> float:
    """METRIC without features: the cold items are unknown, and only the warm ones are ranked."""
    encoder = EncoderScorer(load_encoder(plain.recipe.encoder, held.n_warm, plain.run))
    ranks = target_ranks(encoder, held.as_without(), plain.recipe.data.remove_seen)
    return Metrics.of(ranks)[METRIC]


def _scorers(
    held: ColdItems, run: Trained, rows: Mapping[str, Mapping[str, object]]
) -> dict[str, Scorer]:
    cold, seed = held.item_ids[held.n_warm :], run.recipe.training.seed
    described = [_described(item_id, rows[str(item_id)]) for item_id in cold]
    root = run.run / "artifacts"
    shutil.rmtree(root, ignore_errors=True)
    trained = export_run(run.run, "cold", "1", root)
    return {
        "features": ArtifactScorer(_with_items(trained, described, "2")),
        "random vectors": ArtifactScorer(_with_items(trained, _random(trained, cold, seed), "3")),
        "popularity": Popularity().fit(held.known_without_cold),
        "any order": AnyOrder(len(held.item_ids), seed),
        "popularity that knows the clicks held out": Popularity().fit(held.known),
    }


def _rows(name: str, figures: Mapping[str, float]) -> list[list[str]]:
    ways = dict.fromkeys(key.rpartition(", ")[0] for key in figures)
    cells = [[figures.get(f"{way}, {kind}") for kind in KINDS] for way in ways]
    return [
        [name, way, *("" if cell is None else f"{cell:.4f}" for cell in row)]
        for way, row in zip(ways, cells, strict=True)
    ]


def _record(name: str, figures: Mapping[str, float], command: str) -> None:
    prefix = "" if name == "wikispeedia" else f"{name.replace('-', '')}_"
    among = figures["features, among cold"]
    for figure, way, target in (
        ("cold_vs_popularity", "any order", 3.0),
        ("cold_vs_random_vectors", "random vectors", 3.0),
        ("cold_vs_known_popularity", "popularity that knows the clicks held out", None),
    ):
        ratio = among / figures[f"{way}, among cold"]
        record(f"{prefix}{figure}", round(ratio, 2), target, command)
    record(f"{prefix}cold_ndcg10", round(figures["features, cold"], 5), None, command)
    loss = 1 - figures["features, warm"] / figures["no features, warm"]
    record(f"{prefix}warm_loss", round(loss, 4), 0.02, command)


def held_out(recipe: Recipe, data: Path, described: Collection[str], seed: int) -> ColdItems:
    """Holds items out that a seed draws among those whose features are known."""
    histories, fact = load_data(recipe, data)
    known = [str(item_id) in described for item_id in histories.item_ids]
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(known))
    cold = drawn[: round(HELD_OUT * histories.n_items)]
    n_warm = histories.n_items - len(cold)
    order = np.append(np.setdiff1d(np.arange(histories.n_items), cold), cold)
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


def _random(trained: Artifact, item_ids: Sequence[ItemId], seed: int) -> list[NewItem]:
    """Vectors as long as those of the other items."""
    table = trained.item_embeddings()[:-1]
    vectors = np.random.default_rng(seed).normal(size=(len(item_ids), table.shape[1]))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors *= np.linalg.norm(table, axis=1).mean() / lengths
    return [NewItem(i, vector=v.tolist()) for i, v in zip(item_ids, vectors, strict=True)]


def _with_items(trained: Artifact, items: Sequence[NewItem], version: str) -> Artifact:
    """Another version of an artifact, with more items."""
    changed, name = ChangedItems(trained, items), trained.manifest.name
    root = trained.folder.parents[1]
    with new_version(root, name, version) as folder:
        changed.write(folder, version)
    return open_artifact(root / name / version)
