"""A run's encoder on its test cases, beside the baselines and beside another run."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from model.baselines import ItemKNN, Markov, Popularity, RepeatLast, click_counts
from model.curves import read_curve
from model.errors import DataError, RecipeError
from model.histories import Cases, Int, Split
from model.metrics import (
    CLICK_EDGES,
    KS,
    LENGTH_EDGES,
    Bucket,
    Comparison,
    Estimate,
    Evaluation,
    Scorer,
    breakdown,
    compare,
    evaluate_scorer,
)
from model.recipe import DataRecipe, Recipe
from model.run import DATA, TRAINING, DataFact, read_facts, read_item_ids, read_run_recipe
from model.scorer import EncoderScorer
from model.train import BEST, load_encoder

METRICS = {f"{name}@{k}": (name, k) for name in ("HR", "NDCG", "MRR") for k in KS}
HEADLINE = "NDCG@10"  # decides which baseline is the best
BREAKDOWN_KS = (1, 10)
KNN_ITEMS = 20_000  # item-kNN keeps the square of the catalogue in memory, 1.6 GB at this size
# What makes cases the same, given the same file.
PROTOCOL = ("split", "held_out_share", "remove_seen", "limit")

Json = dict[str, object]


@dataclass(frozen=True)
class Beside:
    """Another scorer on the same cases."""

    evaluation: Evaluation
    ahead: dict[str, Comparison]  # the run's encoder less this scorer, by metric


@dataclass(frozen=True)
class Group:
    """Cases that are alike in a count, ranked by the encoder and by the best baseline."""

    encoder: Bucket
    baseline: Bucket


@dataclass(frozen=True)
class OtherRun:
    """The run that was compared with."""

    folder: str
    recipe: Recipe
    beside: Beside


@dataclass(frozen=True)
class RunEvaluation:
    """All that a report says."""

    folder: str
    recipe: Recipe
    data: DataFact
    training_users: int
    training_clicks: int
    encoder: Evaluation
    baselines: list[Beside]
    by_history_length: list[Group]
    by_target_clicks: list[Group]  # clicks on the target in training
    training: Json  # empty as long as training has not ended
    curves: dict[str, dict[int, float]]  # by name and epoch
    against: OtherRun | None

    @property
    def best_baseline(self) -> Beside:
        """The baseline with the highest HEADLINE."""
        return best_of(self.baselines)

    @property
    def scorers(self) -> list[Evaluation]:
        """The baselines, then the encoder."""
        return [*(other.evaluation for other in self.baselines), self.encoder]


def evaluate_run(
    run: Path, data: DataFact, split: Split, against: Path | None = None
) -> RunEvaluation:
    """Ranks every item for every test case, by the encoder of `run` and by the baselines.

    Args:
        run: folder of the run.
        data: the file that `split` comes from.
        split: of the run's data, as its recipe says.
        against: folder of a run on the same cases to compare with.

    Raises:
        DataError: there are no test cases.
        RecipeError: a run learned from other data, or splits or ranks otherwise.
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
        beside(encoder, evaluate_scorer(scorer, cases, remove_seen))
        for scorer in fitted_baselines(split)
    ]
    best = best_of(baselines).evaluation
    lengths, clicks = cases.histories.lengths, click_counts(split.train)[cases.targets]
    return RunEvaluation(
        folder=str(run),
        recipe=recipe,
        data=data,
        training_users=len(split.train),
        training_clicks=len(split.train.items),
        encoder=encoder,
        baselines=baselines,
        by_history_length=groups(encoder, best, lengths, LENGTH_EDGES),
        by_target_clicks=groups(encoder, best, clicks, CLICK_EDGES),
        training=known(read_facts(run, TRAINING)),
        curves={name: read_curve(run, name) for name in ("loss", recipe.training.monitor)},
        against=None if against is None else other_run(against, encoder, cases),
    )


def check_data(run: Path, data: DataFact) -> None:
    """Refuses a file that the run did not learn from: its test users may have been learned.

    Raises:
        RecipeError: the checksums differ.
    """
    learned = read_facts(run, DATA)
    if learned.get("sha256") != data.sha256:
        raise RecipeError(
            f"{data.file} (sha256 {data.sha256[:12]}) is not what {run} learned from, "
            f"{learned.get('file')} (sha256 {str(learned.get('sha256'))[:12]})"
        )


def check_same_cases(run: Path, against: Path) -> None:
    """Refuses to pair runs that are asked different questions.

    Raises:
        RecipeError: the runs differ in data, split or ranking; the message says in what.
    """
    ours, theirs = protocol(run), protocol(against)
    for name, value in ours.items():
        if theirs[name] != value:
            raise RecipeError(
                f"{against} cannot be compared with {run}: "
                f"{name} is {theirs[name]} there and {value} here"
            )


def protocol(run: Path) -> Json:
    """What decides a run's test cases and how they are ranked."""
    recipe: DataRecipe = read_run_recipe(run).data
    facts: Json = {"the data's sha256": read_facts(run, DATA).get("sha256")}
    facts |= {name: getattr(recipe, name) for name in PROTOCOL}
    if recipe.split != "held_out_users":
        del facts["held_out_share"]
    return facts


def evaluate_encoder(run: Path, cases: Cases) -> Evaluation:
    """The run's best checkpoint on the cases, ranked as its recipe says.

    Raises:
        RecipeError: the run has not reached a checkpoint.
    """
    recipe = read_run_recipe(run)
    if not (run / "checkpoints" / BEST).is_file():
        raise RecipeError(f"{run}: no checkpoint yet; `persona train` goes on with the run")
    encoder = load_encoder(recipe.encoder, len(read_item_ids(run)), run)
    return evaluate_scorer(EncoderScorer(encoder), cases, recipe.data.remove_seen)


def fitted_baselines(split: Split) -> list[Scorer]:
    """The baselines, fitted on the training clicks; item-kNN only if the catalogue allows."""
    scorers: list[Scorer] = [
        Popularity().fit(split.train),
        RepeatLast().fit(split.train),
        Markov(1).fit(split.train),
        Markov(2).fit(split.train),
    ]
    if split.train.n_items <= KNN_ITEMS:
        scorers.append(ItemKNN().fit(split.train))
    return scorers


def other_run(folder: Path, encoder: Evaluation, cases: Cases) -> OtherRun:
    """The encoder of another run beside this run's."""
    return OtherRun(
        str(folder), read_run_recipe(folder), beside(encoder, evaluate_encoder(folder, cases))
    )


def beside(encoder: Evaluation, other: Evaluation) -> Beside:
    """Pairs the encoder with another scorer, case by case, in every metric."""
    return Beside(
        other,
        {name: compare(encoder.ranks, other.ranks, *METRICS[name]) for name in METRICS},
    )


def best_of(baselines: list[Beside]) -> Beside:
    """The one with the highest HEADLINE."""
    return max(baselines, key=lambda other: other.evaluation.metrics[HEADLINE])


def groups(
    encoder: Evaluation, baseline: Evaluation, values: Int, edges: tuple[int, ...]
) -> list[Group]:
    """Both scorers by some count of each case, (cases,)."""
    both = (breakdown(scorer.ranks, values, edges, BREAKDOWN_KS) for scorer in (encoder, baseline))
    return [Group(*pair) for pair in zip(*both, strict=True)]


def known(facts: Json) -> Json:
    """Without what could not be measured, such as the speed of a call that had nothing to do."""
    return {
        name: value
        for name, value in facts.items()
        if not (isinstance(value, float) and math.isnan(value))
    }


def as_json(evaluation: RunEvaluation) -> Json:
    """The report as plain values; `protocol` to `scorers` are what an artifact carries."""
    scorers = evaluation.scorers
    facts: Json = {
        "protocol": evaluation.recipe.data.split,
        "seen_items_removed": evaluation.recipe.data.remove_seen,
        "cases": evaluation.encoder.metrics.cases,
        "scorers": {
            scorer.name: {name: found.mean for name, found in scorer.metrics.estimates.items()}
            for scorer in scorers
        },
        "intervals": {scorer.name: _estimates(scorer.metrics.estimates) for scorer in scorers},
        "encoder_less": {
            other.evaluation.name: _comparisons(other.ahead) for other in evaluation.baselines
        },
        "best_baseline": evaluation.best_baseline.evaluation.name,
        "by_history_length": _groups(evaluation, evaluation.by_history_length),
        "by_target_clicks": _groups(evaluation, evaluation.by_target_clicks),
        "coverage": {scorer.name: scorer.coverage for scorer in scorers},
        "data": asdict(evaluation.data),
        "training": evaluation.training,
        "curves": {
            name: {epoch: _number(value) for epoch, value in curve.items()}
            for name, curve in evaluation.curves.items()
        },
        "recipe": evaluation.recipe.model_dump(mode="json"),
    }
    if (against := evaluation.against) is not None:
        facts["against"] = {
            "run": against.folder,
            "recipe": against.recipe.model_dump(mode="json"),
            "intervals": _estimates(against.beside.evaluation.metrics.estimates),
            "encoder_less": _comparisons(against.beside.ahead),
            "coverage": against.beside.evaluation.coverage,
        }
    return facts


def _groups(evaluation: RunEvaluation, groups: list[Group]) -> list[Json]:
    return [
        {
            "from": group.encoder.low,
            "below": group.encoder.high,
            "cases": group.encoder.metrics.cases,
            "encoder": _estimates(group.encoder.metrics.estimates),
            evaluation.best_baseline.evaluation.name: _estimates(group.baseline.metrics.estimates),
        }
        for group in groups
    ]


def _comparisons(ahead: dict[str, Comparison]) -> Json:
    return {
        name: _estimate(found.difference) | {"p_value": _number(found.p_value)}
        for name, found in ahead.items()
    }


def _estimates(estimates: dict[str, Estimate]) -> Json:
    return {name: _estimate(found) for name, found in estimates.items()}


def _estimate(found: Estimate) -> Json:
    return {name: _number(value) for name, value in asdict(found).items()}


def _number(value: float) -> float | None:
    """JSON has no NaN, which is what the spread of a single case is."""
    return None if math.isnan(value) else value
