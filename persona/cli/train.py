"""`persona train`: trains a user encoder on clicks, by a recipe, into a run."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from persona.cli.columns import Clicks, DataOption, FormatOption, reads_tables
from persona.cli.next_step import print_next
from persona.tables.options import TableOptions

if TYPE_CHECKING:
    from model.clicks.histories import Histories
    from model.training.recipe import Recipe
    from model.training.run import DataFact
    from model.training.train import TrainingResult


@reads_tables
def train(
    output: Annotated[Path, typer.Option(help="Folder of the run.")],
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with the choices.  [default: rules derive them from the clicks]"
        ),
    ] = None,
    data: DataOption = None,
    format: FormatOption = None,  # noqa: A002  # the name of the option
    seed: Annotated[
        int | None,
        typer.Option(help="Seed, in place of the recipe's `training.seed`.", min=0, max=2**32 - 1),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            help="Processes that train together, on one GPU each or all on CPUs.  "
            "[default: every GPU, or one process]",
            min=1,
        ),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show the progress.")] = True,
    *,
    table: TableOptions,
) -> None:
    """Train a user encoder on clicks.

    If the run is interrupted, even by SIGKILL, the same command resumes it from its last
    checkpoint, and the result is that of an uninterrupted run.

    Example: persona train --recipe recipes/msnbc.toml --data msnbc990928.seq --output runs/news

    Without a recipe: persona train --data clicks.csv --output runs/mine

    With columns of other names, which `persona data inspect` finds:
    persona train --data events.csv --user visitorid --item itemid --output runs/mine
    """
    # On several devices Lightning starts one process each, and numbers all but the first.
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        clicks = Clicks(data, format, table)
        _train(output, recipe, clicks, seed, devices or "auto", progress=progress, first=first)
    except KeyboardInterrupt:
        if first:
            message = "persona: interrupted; the same command resumes the run"
            Console(stderr=True, highlight=False).print(message)
        raise typer.Exit(130) from None


def _train(
    output: Path,
    path: Path | None,
    clicks: Clicks,
    seed: int | None,
    devices: int | Literal["auto"],
    *,
    progress: bool,
    first: bool,
) -> None:
    import logging

    from model.training.run import (
        TRAINING,
        begin,
        check_split,
        remember_source,
        split,
        write_json,
    )
    from model.training.train import train_encoder

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    console = Console(quiet=not first)
    recipe, histories, fact = _read(path, clicks, seed)
    console.print(_counts(fact))
    parts = split(histories, recipe.data)
    check_split(parts)
    if first:
        begin(output, recipe, histories, fact)
        remember_source(output, clicks.path or recipe.data.path)
    result = train_encoder(recipe, parts, output, progress=progress, devices=devices)
    if first:
        write_json(output / TRAINING, asdict(result))
    console.print(_summary(result))
    print_next(console, "evaluate", output)


def _read(
    path: Path | None, clicks: Clicks, seed: int | None
) -> "tuple[Recipe, Histories, DataFact]":
    """The recipe, by default derived from the clicks, and the clicks."""
    from model.training.default_recipe import default_recipe
    from model.training.recipe import BY_RULE, Recipe, read_recipe
    from model.training.run import load_data

    recipe = clicks.chosen(read_recipe(path) if path else Recipe(name=BY_RULE))
    histories, fact = load_data(recipe, clicks.path)
    if path is None:
        recipe = default_recipe(histories, recipe.data)
    if seed is not None:
        training = recipe.training.model_copy(update={"seed": seed})
        recipe = recipe.model_copy(update={"training": training})
    return recipe, histories, fact


def _counts(fact: "DataFact") -> str:
    broken = f", {fact.broken_rows:,} broken rows left out" if fact.broken_rows else ""
    return (
        f"{fact.file}: {fact.users:,} users, {fact.items:,} items, {fact.clicks:,} clicks{broken}"
    )


def _summary(result: "TrainingResult") -> str:
    return (
        f"{result.parameters:,} parameters, {result.epochs} epochs in {result.seconds:.0f} s on "
        f"{result.device}; best validation {result.monitor} {result.best:.4f} in epoch "
        f"{result.best_epoch}"
    )
