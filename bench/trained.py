"""Runs of shipped recipes in the cache folder: trained once, gone on with, ranked, served.

A run is kept by its recipe, seed and data, whatever the code that trained it: a command that was
cut off goes on when it is given again, and `--afresh` forgets the run.
"""

import hashlib
import json
import logging
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from bench import encoders
from bench.news import ArtifactScorer
from export.run import export_run
from model.clicks.histories import Histories, Split
from model.clicks.item_features import ItemFeatures
from model.evaluation.metrics import (
    Comparison,
    Evaluation,
    Metrics,
    compare_gains,
    evaluate_scorer,
    gains,
)
from model.evaluation.scorer import EncoderScorer
from model.training.features import keep_columns
from model.training.recipe import Recipe, read_recipe
from model.training.run import (
    TRAINING,
    DataFact,
    begin,
    load_data,
    read_facts,
    split,
    write_json,
)
from model.training.train import LAST, TrainingResult, load_encoder, train_encoder
from persona.contract import Floats

CALLS = "calls.json"  # in the run's folder: [start, end] of every call that trained it


@dataclass(frozen=True)
class Trained:
    """A finished run, and the cases that it is asked about."""

    run: Path
    recipe: Recipe
    split: Split
    epochs: int
    best_epoch: int  # counted from 1
    seconds: float  # of all calls that trained it, validation included
    parameters: int

    @property
    def minutes_to_best(self) -> float:
        """The share of the minutes that belongs to the epochs up to the best one."""
        return self.seconds / 60 * self.best_epoch / self.epochs

    def validate(self) -> Evaluation:
        """Ranks the validation cases through PyTorch."""
        return evaluate_scorer(self._scorer(), self.split.validation, self.recipe.data.remove_seen)

    def evaluate(self) -> Evaluation:
        """Ranks the test cases through PyTorch."""
        return self._ranked(self._scorer())

    def evaluate_at_target_times(self) -> Evaluation:
        """The same, each asked at the time of its target."""
        cases = self.split.test.at_their_times()
        return evaluate_scorer(self._scorer(), cases, self.recipe.data.remove_seen)

    def evaluate_served(self) -> Evaluation:
        """Exports the run, and ranks the test cases through ONNX Runtime."""
        root = self.run / "artifacts"
        shutil.rmtree(root, ignore_errors=True)  # what an older exporter made
        return self._ranked(ArtifactScorer(export_run(self.run, self.recipe.name, "1", root)))

    def _scorer(self) -> EncoderScorer:
        encoder = load_encoder(self.recipe.encoder, self.split.train.n_items, self.run)
        return EncoderScorer(encoder)

    def _ranked(self, scorer: EncoderScorer | ArtifactScorer) -> Evaluation:
        return evaluate_scorer(scorer, self.split.test, self.recipe.data.remove_seen)


def seeded(path: Path, seed: int, limit: int | None) -> Recipe:
    """A recipe with this seed, on the first lines of its data where there is a limit."""
    recipe = read_recipe(path)
    data = recipe.data.model_copy(update={"limit": limit or recipe.data.limit})
    training = recipe.training.model_copy(update={"seed": seed})
    return recipe.model_copy(update={"data": data, "training": training})


def trained(recipe: Recipe, data: Path, *, afresh: bool = False) -> Trained:
    """The run of this recipe on this data, trained as far as it is not yet."""
    histories, fact = load_data(recipe, data)
    return kept(recipe, histories, fact, split(histories, recipe.data), afresh=afresh)


def kept(
    recipe: Recipe,
    histories: Histories,
    fact: DataFact,
    parts: Split,
    *,
    items: ItemFeatures | None = None,
    afresh: bool = False,
) -> Trained:
    """Likewise, of clicks that are split already, and with features where the recipe reads them."""
    run = encoders.CACHE / "runs" / f"{recipe.name}-{_digest(recipe, fact)}"
    if afresh:
        shutil.rmtree(run, ignore_errors=True)
    if not (run / TRAINING).exists():
        begin(run, recipe, histories, fact)
        if items is not None:
            keep_columns(run, items)
        features = None if items is None else items.matrix
        with _timed(run):
            result = go_on(recipe, parts, run, features=features)
        write_json(run / TRAINING, asdict(result))
    facts = read_facts(run, TRAINING)
    epochs, best, parameters = (int(str(facts[k])) for k in ("epochs", "best_epoch", "parameters"))
    return Trained(run, recipe, parts, epochs, best, _seconds(run), parameters)


def go_on(
    recipe: Recipe,
    parts: Split,
    run: Path,
    weights: dict[str, Tensor] | None = None,
    features: Floats | None = None,
) -> TrainingResult:
    """Trains from the run's last checkpoint, if there is one, without Lightning's remarks."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
        return train_encoder(recipe, parts, run, progress=False, weights=weights, features=features)


def mean(evaluations: list[Evaluation], metric: str) -> float:
    """Over the seeds."""
    return sum(evaluation.metrics[metric] for evaluation in evaluations) / len(evaluations)


def paired(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> Comparison:
    """The first minus the second in NDCG@10, user by user, in the mean over the seeds."""
    means = [
        np.mean([gains(one.ranks, "NDCG", 10) for one in each], axis=0) for each in (first, second)
    ]
    return compare_gains(means[0] - means[1])


def with_error(metrics: Metrics, metric: str) -> str:
    """A metric and its standard error over users."""
    estimate = metrics.estimates[metric]
    return f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}"


def _digest(recipe: Recipe, fact: DataFact) -> str:
    """Twelve digits that tell recipe, seed and data.

    Training does not depend on the step of the window, which is of histories that are asked about.
    """
    text = recipe.model_dump_json(exclude={"encoder": {"window_step"}})
    return hashlib.sha256((text + fact.sha256).encode()).hexdigest()[:12]


@contextmanager
def _timed(run: Path) -> Iterator[None]:
    """Notes when training began and ended; a call that was killed ended at its last checkpoint."""
    calls = _calls(run)
    calls.append([time.time(), 0.0])
    write_json(run / CALLS, calls)
    yield
    calls[-1][1] = time.time()
    write_json(run / CALLS, calls)


def _calls(run: Path) -> list[list[float]]:
    path = run / CALLS
    calls: list[list[float]] = json.loads(path.read_text()) if path.exists() else []
    if calls and not calls[-1][1]:
        last = run / "checkpoints" / LAST
        written = last.stat().st_mtime if last.exists() else 0.0
        calls[-1][1] = max(calls[-1][0], written)
    return calls


def _seconds(run: Path) -> float:
    return sum(end - start for start, end in _calls(run))
