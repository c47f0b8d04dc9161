"""Newest, mean and additive pooling: what they are worth on the same clicks, budget and seed."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, get_args

import torch
import typer

from bench.results import record, record_table
from model.clicks.histories import Int
from model.evaluation.metrics import Metrics, compare, evaluate_scorer
from model.evaluation.scorer import EncoderScorer
from model.network.config import EncoderConfig, Pooling
from model.training.recipe import DataRecipe, Recipe, TrainingRecipe
from model.training.run import load_data, split
from model.training.train import load_encoder, train_encoder

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "decisions" / "0007-pooling.md"
COMMAND = "python -m bench pooling"
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


@dataclass(frozen=True)
class Outcome:
    """How one training went."""

    ranks: Int  # (cases,), of every test case
    best_epoch: int
    seconds: float


def pooling(
    *,
    articles: Annotated[Path, typer.Option(help="The Wikispeedia paths.")] = Path(
        "../shared/data/wikispeedia-paths-unfinished.tsv"
    ),
    news: Annotated[Path, typer.Option(help="The MSNBC clicks.")] = Path(
        "../shared/data/msnbc990928.seq"
    ),
    epochs: Annotated[int, typer.Option(help="Of each training.")] = 20,
    seeds: Annotated[int, typer.Option(help="Trainings of each kind.")] = 1,
    users: Annotated[int | None, typer.Option(help="Read only so many rows, to try it.")] = None,
    write: Annotated[bool, typer.Option(help="Keep the figures.")] = True,
) -> None:
    """Train each pooling on articles and news, and compare them user by user."""
    sets = {"articles": articles, "news": news}
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, get_context("spawn")) as pool,
    ):
        jobs = {
            (name, kind): [
                pool.submit(
                    train,
                    RECIPES[name](kind, epochs, seed, users),
                    path,
                    Path(folder) / f"{name}-{kind}-{seed}",
                )
                for seed in range(seeds)
            ]
            for name, path in sets.items()
            for kind in POOLINGS
        }
        outcomes = {key: [job.result() for job in trainings] for key, trainings in jobs.items()}
    table = _table(outcomes, epochs, seeds)
    typer.echo(table)
    if not write:
        return
    for kind in POOLINGS:
        record(f"pooling_{kind}_ndcg10", _mean(outcomes["articles", kind]), None, COMMAND)
    record_table("pooling", table, [PAGE])


def article_recipe(kind: Pooling, epochs: int, seed: int, limit: int | None) -> Recipe:
    """Leave-one-out, every article ranked."""
    return Recipe(
        name=f"articles-{kind}",
        data=DataRecipe(format="wikispeedia", split="leave_one_out", limit=limit),
        encoder=EncoderConfig(pooling=kind, width=64, heads=2, max_length=50, dropout=0.2),
        training=TrainingRecipe(
            epochs=epochs, patience=epochs, seed=seed, learning_rate=2e-3, max_batch_tokens=2048
        ),
    )


def news_recipe(kind: Pooling, epochs: int, seed: int, limit: int | None) -> Recipe:
    """Visitors never seen, every section ranked."""
    return Recipe(
        name=f"news-{kind}",
        data=DataRecipe(
            format="msnbc",
            split="held_out_users",
            held_out_share=0.2,
            limit=min(100_000, limit or 100_000),
        ),
        encoder=EncoderConfig(pooling=kind, width=32, heads=2, max_length=50, dropout=0.0),
        training=TrainingRecipe(
            epochs=epochs, patience=epochs, seed=seed, learning_rate=3e-3, max_batch_tokens=4096
        ),
    )


RECIPES = {"articles": article_recipe, "news": news_recipe}


def train(recipe: Recipe, data: Path, run: Path) -> Outcome:
    """Trains and evaluates one pooling; runs in a process of its own."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    histories, _ = load_data(recipe, data)
    parts = split(histories, recipe.data)
    result = train_encoder(recipe, parts, run, progress=False)
    scorer = EncoderScorer(load_encoder(recipe.encoder, histories.n_items, run))
    evaluation = evaluate_scorer(scorer, parts.test, recipe.data.remove_seen)
    return Outcome(evaluation.ranks, result.best_epoch, result.seconds)


def _mean(trainings: Sequence[Outcome]) -> float:
    """NDCG@10 over all seeds."""
    return sum(Metrics.of(outcome.ranks)["NDCG@10"] for outcome in trainings) / len(trainings)


def _table(
    outcomes: Mapping[tuple[str, Pooling], Sequence[Outcome]], epochs: int, seeds: int
) -> str:
    about = (
        f"Articles: Wikispeedia, leave-one-out, all articles ranked; width 64, 2 heads, 50 "
        f"clicks. News: 100,000 visitors of MSNBC, 20 % held out for the test, all sections "
        f"ranked; width 32, 2 heads, 50 clicks. Both {epochs} epochs of 2 blocks, {seeds} seeds, "
        "the best epoch by NDCG@10 of the validation cases. Differences are paired by user, with "
        f"95 % intervals, first seed. Written by `{COMMAND}`."
    )
    head = (
        "| data | pooling | NDCG@10 | HR@10 | less newest | best epoch | seconds |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    )
    rows = []
    for (data, kind), trainings in outcomes.items():
        first = trainings[0]
        metrics = Metrics.of(first.ranks)
        apart = compare(first.ranks, outcomes[data, "newest"][0].ranks).difference
        less = (
            "" if kind == "newest" else f"{apart.mean:+.4f} ({apart.low:+.4f}, {apart.high:+.4f})"
        )
        rows.append(
            f"| {data} | {kind} | {_mean(trainings):.4f} | {metrics['HR@10']:.4f} | {less} "
            f"| {first.best_epoch} | {first.seconds:.0f} |"
        )
    return "\n".join(["## Poolings on the same clicks", "", about, "", head, *rows, ""])
