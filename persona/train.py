"""`persona train`: clicks and a recipe into a run."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from model.histories import Histories
    from model.recipe import Recipe
    from model.run import DataFact
    from model.train import TrainingResult


def train(
    output: Annotated[Path, typer.Option(help="Folder of the run.")],
    recipe: Annotated[
        Path | None,
        typer.Option(help="TOML file with every choice.  [default: made from the clicks by rule]"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Click file, in place of the recipe's `data.path`.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed, in place of the recipe's `training.seed`.")
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            help="Processes that train together, a GPU each or all on CPUs.  "
            "[default: every GPU, or one process]",
            min=1,
        ),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Train a user encoder on clicks.

    A run that was interrupted, even by SIGKILL, goes on from its last epoch when the same
    command is given again, and ends as if it had never stopped.

    Example: persona train --recipe recipes/msnbc.toml --data msnbc990928.seq --output runs/news

    Without a recipe: persona train --data clicks.csv --output runs/mine
    """
    import logging
    import os

    from model.curves import draw_learning_curve
    from model.run import TRAINING, begin, split, write_json
    from model.train import train_encoder

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Where several devices train, Lightning gives each process but the first a rank of its own.
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    console = Console(quiet=not first)
    chosen, histories, fact = _read(recipe, data, seed)
    if first:
        begin(output, chosen, histories, fact)
    console.print(_told(fact))
    parts = split(histories, chosen.data)
    result = train_encoder(chosen, parts, output, progress=progress, devices=devices or "auto")
    if first:
        write_json(output / TRAINING, asdict(result))
        draw_learning_curve(output, result.monitor)
    console.print(_summary(result))
    console.print(f"next: persona evaluate {output}", style="dim")


def _read(
    path: Path | None, data: Path | None, seed: int | None
) -> "tuple[Recipe, Histories, DataFact]":
    """The recipe, made by rule if there is none, and the clicks that it learns from."""
    from model.default_recipe import default_recipe
    from model.recipe import Recipe, read_recipe
    from model.run import load_data

    recipe = read_recipe(path) if path else Recipe(name="default")
    histories, fact = load_data(recipe, data)
    if path is None:
        recipe = default_recipe(histories)
    if seed is not None:
        training = recipe.training.model_copy(update={"seed": seed})
        recipe = recipe.model_copy(update={"training": training})
    return recipe, histories, fact


def _told(fact: "DataFact") -> str:
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
