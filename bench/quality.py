"""The quality and training time of the shipped recipes, and their quality when served."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.report import machine, table
from bench.results import record, record_table
from bench.trained import Trained, mean, paired, seeded, trained, with_error
from model.clicks.histories import Histories
from model.evaluation.baselines import ItemKNN, Markov, Popularity, RepeatLast
from model.evaluation.metrics import Evaluation, Scorer, compare, evaluate_scorer, log_losses
from model.evaluation.scorer import EncoderScorer
from model.training.recipe import Recipe
from model.training.train import load_encoder

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
DATA = Path("../shared/data")

Seeds = Annotated[int, typer.Option(help="Trainings, of the seeds 0, 1, ...", min=1)]
Limit = Annotated[int | None, typer.Option(help="Read only so many lines, and keep no figure.")]
Afresh = Annotated[bool, typer.Option(help="Forget kept runs, and train again.")]
RecipeFile = Annotated[Path, typer.Option("--recipe", help="The recipe.")]
ABOUT_MINUTES = (
    "Minutes are of wall clock, validation and checkpoints included, summed over the calls of a "
    "run that was interrupted; minutes to the best checkpoint are minutes x best epoch / epochs."
)


def ml1m(
    *,
    data: Annotated[Path, typer.Option(help="The clicks.")] = DATA / "ml-1m.txt",
    recipe: RecipeFile = RECIPES / "ml-1m.toml",
    seeds: Seeds = 3,
    limit: Limit = None,
    afresh: Afresh = False,
) -> None:
    """Train MovieLens-1M, and rank every film for everyone, by PyTorch and as served."""
    runs, found, served = _train_and_rank(recipe, data, seeds, limit, afresh=afresh)
    _check_protocol(runs[0].recipe)
    differences = _differences(found, served)
    text = _runs_table(runs, found, served)
    typer.echo(text)
    if limit:
        return
    command = f"python -m bench ml1m --seeds {seeds}"
    ndcg = [round(evaluation.metrics["NDCG@10"], 5) for evaluation in found]
    record("ml1m_ndcg10", round(mean(found, "NDCG@10"), 5), 0.186, command)
    record("ml1m_ndcg10_seeds", ndcg, None, command)
    record("ml1m_hr10", round(mean(found, "HR@10"), 5), 0.318, command)
    record("ml1m_minutes", round(max(run.minutes_to_best for run in runs), 2), 60, command)
    record("ml1m_served_ndcg10_difference", max(differences), 0.001, command)
    _tell("ml1m", "MovieLens-1M", text, runs, command)


def wikispeedia(
    *,
    data: Annotated[Path, typer.Option(help="The paths.")] = DATA
    / "wikispeedia-paths-unfinished.tsv",
    recipe: RecipeFile = RECIPES / "wikispeedia.toml",
    seeds: Seeds = 1,
    limit: Limit = None,
    afresh: Afresh = False,
) -> None:
    """Train Wikispeedia, and rank every article for everyone, beside every baseline."""
    runs, found, served = _train_and_rank(recipe, data, seeds, limit, afresh=afresh)
    baselines = _baselines(runs[0])
    best = max(baselines, key=lambda baseline: baseline.metrics["NDCG@10"])
    margin = paired(found, [best] * len(found))
    less = f"{margin.difference.mean:+.4f}, {margin.p_text}"
    text = (
        f"{_runs_table(runs, found, served)}\n\n{_beside(found[0], baselines)}\n\n"
        f"In the mean over the seeds, paired by user, {less} beside {best.name}."
    )
    typer.echo(text)
    if limit:
        return
    command = f"python -m bench wikispeedia --seeds {seeds}"
    metric = {baseline.name: round(baseline.metrics["NDCG@10"], 5) for baseline in baselines}
    ndcg = [round(evaluation.metrics["NDCG@10"], 5) for evaluation in found]
    record("wikispeedia_ndcg10", round(mean(found, "NDCG@10"), 5), metric[best.name], command)
    record("wikispeedia_ndcg10_seeds", ndcg, None, command)
    record("wikispeedia_ndcg10_p", margin.p_value, 0.05, command)
    record("wikispeedia_ndcg10_best_baseline", metric[best.name], None, command)
    for name, value in metric.items():
        record(f"wikispeedia_ndcg10_{name.replace('-', '_')}", value, None, command)
    _tell("wikispeedia", "Wikispeedia", text, runs, command)


def msnbc_training(
    *,
    data: Annotated[Path, typer.Option(help="The clicks.")] = DATA / "msnbc990928.seq",
    recipe: RecipeFile = RECIPES / "msnbc.toml",
    limit: Limit = None,
    afresh: Afresh = False,
) -> None:
    """Train all of MSNBC from nothing, and say how long that took."""
    run = trained(seeded(recipe, 0, limit), data, afresh=afresh)
    text = _news_table(run)
    typer.echo(text)
    if limit:
        return
    command = "python -m bench msnbc-training"
    record("msnbc_minutes", round(run.seconds / 60, 2), 30, command)
    _tell("msnbc", "MSNBC, from nothing", text, [run], command)


def _train_and_rank(
    recipe: Path, data: Path, seeds: int, limit: int | None, *, afresh: bool
) -> tuple[list[Trained], list[Evaluation], list[Evaluation]]:
    """The runs, their test ranks by PyTorch, and the same by ONNX Runtime."""
    runs, found, served = [], [], []
    for seed in range(seeds):
        run = trained(seeded(recipe, seed, limit), data, afresh=afresh)
        typer.echo(f"{run.run}: {run.epochs} epochs in {run.seconds / 60:.1f} minutes")
        runs.append(run)
        found.append(run.evaluate())
        served.append(run.evaluate_served())
    return runs, found, served


def _check_protocol(recipe: Recipe) -> None:
    if recipe.data.split != "leave_one_out" or not recipe.data.remove_seen:
        raise typer.BadParameter("published figures are of leave_one_out with seen items removed")


def _differences(found: Sequence[Evaluation], served: Sequence[Evaluation]) -> list[float]:
    """The absolute change of NDCG@10 by serving, by seed."""
    pairs = zip(found, served, strict=True)
    return [round(abs(a.metrics["NDCG@10"] - b.metrics["NDCG@10"]), 7) for a, b in pairs]


def _runs_table(
    runs: Sequence[Trained], found: Sequence[Evaluation], served: Sequence[Evaluation]
) -> str:
    head = ["seed", "NDCG@10", "HR@10", "served NDCG@10", "apart", "best epoch", "epochs"]
    rows = [
        [
            run.recipe.training.seed,
            with_error(evaluation.metrics, "NDCG@10"),
            with_error(evaluation.metrics, "HR@10"),
            f"{artifact.metrics['NDCG@10']:.4f}",
            f"{apart:.1e}",
            run.best_epoch,
            run.epochs,
            f"{run.seconds / 60:.1f}",
            f"{run.minutes_to_best:.1f}",
        ]
        for run, evaluation, artifact, apart in zip(
            runs, found, served, _differences(found, served), strict=True
        )
    ]
    return table([*head, "minutes", "minutes to best"], rows)


def _baselines(run: Trained) -> list[Evaluation]:
    train: Histories = run.split.train
    scorers: list[Scorer] = [
        Popularity().fit(train),
        RepeatLast().fit(train),
        Markov(1).fit(train),
        Markov(2).fit(train),
        ItemKNN().fit(train),
    ]
    remove_seen = run.recipe.data.remove_seen
    return [evaluate_scorer(scorer, run.split.test, remove_seen) for scorer in scorers]


def _beside(encoder: Evaluation, baselines: Sequence[Evaluation]) -> str:
    rows = []
    for other in (encoder, *baselines):
        margin = compare(encoder.ranks, other.ranks).difference
        less = f"{margin.mean:+.4f} ({margin.low:+.4f}, {margin.high:+.4f})"
        metrics = [with_error(other.metrics, name) for name in ("NDCG@10", "HR@10")]
        rows.append([other.name, *metrics, "" if other is encoder else less])
    return table(["", "NDCG@10", "HR@10", "encoder ahead in NDCG@10, paired, 95 %"], rows)


def _news_table(run: Trained) -> str:
    encoder = load_encoder(run.recipe.encoder, run.split.train.n_items, run.run)
    scorers: list[Scorer] = [
        EncoderScorer(encoder, probabilities=True),
        Markov(1).fit(run.split.train),
        Markov(2).fit(run.split.train),
    ]
    rows = []
    for scorer in scorers:
        evaluation = evaluate_scorer(scorer, run.split.test, run.recipe.data.remove_seen)
        loss = float(log_losses(scorer, run.split.test).mean())
        rows.append([scorer.name, f"{loss:.4f}", with_error(evaluation.metrics, "HR@1")])
    trained_in = f"{run.epochs} epochs in {run.seconds / 60:.1f} minutes, best {run.best_epoch}."
    return f"{table(['', 'log-loss, nats', 'HR@1'], rows)}\n\n{trained_in}"


def _tell(name: str, heading: str, text: str, runs: Sequence[Trained], command: str) -> None:
    first = runs[0]
    about = (
        f"`recipes/{first.recipe.name}.toml`, {first.parameters:,} parameters, "
        f"{len(first.split.test.targets):,} test cases, every item ranked, "
        f"{first.recipe.data.split.replace('_', ' ')}, seen items "
        f"{'removed' if first.recipe.data.remove_seen else 'kept'}; the checkpoint is the best one "
        f"by validation {first.recipe.training.monitor}. ± is a standard error over users. "
        f"{ABOUT_MINUTES} Written by `{command}` on {machine()}."
    )
    record_table(f"encoder_{name}", f"## {heading}\n\n{about}\n\n{text}\n")
