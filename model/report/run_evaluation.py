"""Evaluates a run on its test cases: the encoder against the baselines and another run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model.clicks.histories import Cases, Int, Split
from model.errors import DataError, RecipeError
from model.evaluation.baselines import (
    ItemKNN,
    Markov,
    Popularity,
    RecentPopularity,
    RepeatLast,
    click_counts,
)
from model.evaluation.metrics import (
    CLICK_EDGES,
    LENGTH_EDGES,
    METRICS,
    Bucket,
    Comparison,
    Evaluation,
    Metrics,
    Scorer,
    breakdown,
    compare,
    evaluate_scorer,
)
from model.evaluation.rankings import Ranker
from model.evaluation.scorer import EncoderScorer
from model.training.recipe import DataRecipe, Recipe
from model.training.run import (
    DATA,
    TRAINING,
    DataFact,
    read_curve,
    read_facts,
    read_item_ids,
    read_run_recipe,
)
from model.training.train import load_encoder

TIME_KNOWN = "encoder, time known"
HEADLINE = "NDCG@10"  # decides which baseline is the best
BREAKDOWN_KS = (1, 10)
KNN_ITEMS = 20_000  # item-kNN stores n_items^2 numbers, 1.6 GB at this size
PROTOCOL = (
    "split",
    "held_out_share",
    "targets",
    "remove_seen",
    "limit",
)  # with the file, decide the cases

Json = dict[str, object]


@dataclass(frozen=True)
class ComparedScorer:
    """Another scorer, and the encoder's advantage over it on the same cases."""

    evaluation: Evaluation
    advantage: dict[str, Comparison]  # by metric: the run's encoder minus this scorer


@dataclass(frozen=True)
class Group:
    """Cases with similar counts, ranked by the encoder and by the best baseline."""

    encoder: Bucket
    baseline: Bucket


@dataclass(frozen=True)
class Apart:
    """The figures of every scorer on one kind of cases."""

    name: str
    metrics: dict[str, Metrics]  # by scorer
    cases: int


@dataclass(frozen=True)
class OtherRun:
    """The run to compare with."""

    folder: str
    recipe: Recipe
    encoder: ComparedScorer


@dataclass(frozen=True)
class RunEvaluation:
    """Everything that the report shows."""

    folder: str
    recipe: Recipe
    data: DataFact
    training_users: int
    training_clicks: int
    encoder: Evaluation  # asked at the newest click's time, if it reads time
    time_known: Evaluation | None  # asked at the target's time; only if it reads time
    baselines: list[ComparedScorer]
    served: list[ComparedScorer]  # the same encoder in an artifact or a running service
    apart: list[Apart]  # cold items, new users, and the others; empty if all are known
    by_history_length: list[Group]
    by_target_clicks: list[Group]  # clicks on the target in training
    training: Json  # empty until training has ended
    curves: dict[str, dict[int, float]]  # by name and epoch
    against: OtherRun | None

    @property
    def best_baseline(self) -> ComparedScorer:
        """The baseline with the highest HEADLINE."""
        return best_of(self.baselines)

    @property
    def scorers(self) -> list[Evaluation]:
        """The baselines, the served encoder, and the encoder; twice if it reads time."""
        others = [*self.baselines, *self.served]
        own = [self.encoder, *([self.time_known] if self.time_known else [])]
        return [*(other.evaluation for other in others), *own]


def evaluate_run(
    run: Path,
    data: DataFact,
    split: Split,
    against: Path | None = None,
    served: Sequence[Ranker] = (),
) -> RunEvaluation:
    """Ranks every item for every test case, by the encoder of `run` and by the baselines.

    Args:
        run: folder of the run.
        data: the file of the split.
        split: of the run's data, as its recipe says.
        against: folder of another run on the same cases, to compare with.
        served: the same encoder in other places, such as a running service.

    Raises:
        DataError: there are no test cases.
        RecipeError: a run has no checkpoint, was trained on other data, or has another protocol.
    """
    recipe = read_run_recipe(run)
    check_data(run, data)
    if against is not None:
        check_same_cases(run, against)
    cases, remove_seen = split.test, recipe.data.remove_seen
    if len(cases.targets) == 0:
        raise DataError(f"{data.file} has no test cases under split {recipe.data.split}")
    encoder = evaluate_encoder(run, cases)
    baselines = [
        compare_with(encoder, evaluate_scorer(scorer, cases, remove_seen))
        for scorer in fitted_baselines(split)
    ]
    elsewhere = [
        compare_with(encoder, evaluate_scorer(ranker, cases, remove_seen)) for ranker in served
    ]
    best = best_of(baselines).evaluation
    scorers = [other.evaluation for other in (*baselines, *elsewhere)]
    lengths, clicks = cases.histories.lengths, click_counts(split.train)[cases.targets]
    return RunEvaluation(
        folder=str(run),
        recipe=recipe,
        data=data,
        training_users=len(split.train),
        training_clicks=len(split.train.items),
        encoder=encoder,
        time_known=evaluate_at_target_times(run, cases),
        baselines=baselines,
        served=elsewhere,
        apart=kinds_apart(
            [*scorers, encoder], split, held_out=recipe.data.split == "held_out_users"
        ),
        by_history_length=groups(encoder, best, lengths, LENGTH_EDGES),
        by_target_clicks=groups(encoder, best, clicks, CLICK_EDGES),
        training=without_nan(read_facts(run, TRAINING)),
        curves={name: read_curve(run, name) for name in ("loss", recipe.training.monitor)},
        against=None if against is None else other_run(against, encoder, cases),
    )


def kinds_apart(scorers: list[Evaluation], split: Split, *, held_out: bool) -> list[Apart]:
    """Cases with unseen items, cases with unseen users, and all others; without empty groups.

    Items without training clicks have no trained vector, which the mean over all cases would hide.
    If users are held out, all test users are unseen, so only items are separated.
    """
    cold = click_counts(split.train)[split.test.targets] == 0
    known = set(split.train.user_ids)
    new = np.array(
        [user not in known and not held_out for user in split.test.histories.user_ids], np.bool_
    )
    kinds = {
        "items unseen in training": cold,
        "users unseen in training": new,
        "items and users seen in training": ~cold & ~new,
    }
    if not (cold | new).any():
        return []
    return [
        Apart(name, {s.name: Metrics.of(s.ranks[kind]) for s in scorers}, int(kind.sum()))
        for name, kind in kinds.items()
        if kind.any()
    ]


def check_data(run: Path, data: DataFact) -> None:
    """Refuses a file other than the run's, because its test cases may be among the training clicks.

    Raises:
        RecipeError: the checksums differ.
    """
    trained = read_facts(run, DATA)
    if trained.get("sha256") != data.sha256:
        raise RecipeError(
            f"{run} was trained on {trained.get('file')} (sha256 "
            f"{str(trained.get('sha256'))[:12]}), not on {data.file} "
            f"(sha256 {data.sha256[:12]})"
        )


def check_same_cases(run: Path, against: Path) -> None:
    """Refuses to compare runs with different test cases or rankings.

    Raises:
        RecipeError: the runs differ in data, split or ranking; the message names the difference.
    """
    ours, theirs = protocol(run), protocol(against)
    for name, value in ours.items():
        if theirs[name] != value:
            raise RecipeError(
                f"{against} cannot be compared with {run}: "
                f"{name} is {theirs[name]} there and {value} here"
            )


def protocol(run: Path) -> Json:
    """The choices that decide a run's test cases and their ranking."""
    recipe: DataRecipe = read_run_recipe(run).data
    facts: Json = {"the data's sha256": read_facts(run, DATA).get("sha256")}
    facts |= {name: getattr(recipe, name) for name in PROTOCOL}
    if recipe.split == "leave_one_out":
        del facts["held_out_share"]
    if recipe.split != "time":
        del facts["targets"]
    return facts


def evaluate_encoder(run: Path, cases: Cases) -> Evaluation:
    """The run's best checkpoint on the cases, ranked as its recipe says.

    Raises:
        RecipeError: the run has no checkpoint yet.
    """
    recipe = read_run_recipe(run)
    encoder = load_encoder(recipe.encoder, len(read_item_ids(run)), run)
    return evaluate_scorer(EncoderScorer(encoder), cases, recipe.data.remove_seen)


def evaluate_at_target_times(run: Path, cases: Cases) -> Evaluation | None:
    """The encoder asked at the targets' times; None if it does not read time."""
    if read_run_recipe(run).encoder.time == "none":
        return None
    return replace(evaluate_encoder(run, cases.at_their_times()), name=TIME_KNOWN)


def fitted_baselines(split: Split) -> list[Scorer]:
    """The baselines, fitted on the training clicks; item-kNN only if the catalogue allows."""
    scorers: list[Scorer] = [
        Popularity().fit(split.train),
        RepeatLast().fit(split.train),
        Markov(1).fit(split.train),
        Markov(2).fit(split.train),
    ]
    if "time" in split.train.columns:
        scorers.insert(1, RecentPopularity().fit(split.train))
    if split.train.n_items <= KNN_ITEMS:
        scorers.append(ItemKNN().fit(split.train))
    return scorers


def other_run(folder: Path, encoder: Evaluation, cases: Cases) -> OtherRun:
    """Evaluates another run and compares this run's encoder with it."""
    compared = compare_with(encoder, evaluate_encoder(folder, cases))
    return OtherRun(str(folder), read_run_recipe(folder), compared)


def compare_with(encoder: Evaluation, other: Evaluation) -> ComparedScorer:
    """Compares the encoder with another scorer, case by case, in every metric."""
    advantage = {name: compare(encoder.ranks, other.ranks, *METRICS[name]) for name in METRICS}
    return ComparedScorer(other, advantage)


def best_of(baselines: list[ComparedScorer]) -> ComparedScorer:
    """The baseline with the highest HEADLINE."""
    return max(baselines, key=lambda other: other.evaluation.metrics[HEADLINE])


def groups(
    encoder: Evaluation, baseline: Evaluation, values: Int, edges: tuple[int, ...]
) -> list[Group]:
    """Groups the cases by a count per case, (cases,), for both scorers."""
    both = (breakdown(scorer.ranks, values, edges, BREAKDOWN_KS) for scorer in (encoder, baseline))
    return [Group(*pair) for pair in zip(*both, strict=True)]


def without_nan(facts: Json) -> Json:
    """The facts without NaN: a call without training steps has no speed."""
    return {
        name: value
        for name, value in facts.items()
        if not (isinstance(value, float) and math.isnan(value))
    }
