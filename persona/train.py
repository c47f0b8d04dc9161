"""`persona train`: clicks and a recipe into a run."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


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
    from model.default_recipe import default_recipe
    from model.recipe import Recipe, read_recipe
    from model.run import TRAINING, begin, load_data, split, write_json
    from model.train import train_encoder

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    chosen = read_recipe(recipe) if recipe else Recipe(name="default")
    histories, fact = load_data(chosen, data)
    if recipe is None:
        chosen = default_recipe(histories)
    if seed is not None:
        training = chosen.training.model_copy(update={"seed": seed})
        chosen = chosen.model_copy(update={"training": training})
    # Where several devices train, Lightning gives each process but the first a rank of its own.
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    console = Console(quiet=not first)
    if first:
        begin(output, chosen, histories, fact)
    console.print(
        f"{fact.file}: {fact.users:,} users, {fact.items:,} items, {fact.clicks:,} clicks"
        + (f", {fact.broken_rows:,} broken rows left out" if fact.broken_rows else "")
    )
    parts = split(histories, chosen.data)
    result = train_encoder(chosen, parts, output, progress=progress, devices=devices or "auto")
    if not first:
        return
    write_json(output / TRAINING, asdict(result))
    draw_learning_curve(output, result.monitor)
    console.print(
        f"{result.parameters:,} parameters, {result.epochs} epochs in {result.seconds:.0f} s on "
        f"{result.device}; best validation {result.monitor} {result.best:.4f} in epoch "
        f"{result.best_epoch}"
    )
    console.print(f"next: persona evaluate {output}", style="dim")
