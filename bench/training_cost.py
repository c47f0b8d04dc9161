"""What training costs: a step by catalogue size, validation's share, the default recipe's minutes.

The clicks are made up: half of them go on from the item before to one of its twenty neighbours,
the others are drawn by Zipf's law.
"""

import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from bench.report import machine, table
from bench.results import record, record_table
from bench.trained import go_on
from model.clicks.histories import Histories, leave_one_out
from model.training.default_recipe import NEGATIVES, default_recipe
from model.training.recipe import Recipe
from model.training.train import TrainingResult

STEP_ITEMS = (50_000, 1_000_000)
VALIDATION_ITEMS = (50_000, 54_542)  # the loss compares the whole of one, a sample of the other
NEIGHBOURS = 20
COMMAND = "python -m bench training-cost"

Rounds = Annotated[int, typer.Option(help="Trainings of each catalogue; medians count.", min=1)]
Part = Annotated[float, typer.Option(help="Part of the clicks, to try it; keeps no figure.")]


def training_cost(
    rounds: Rounds = 3,
    part: Part = 1.0,
    default: Annotated[bool, typer.Option(help="Train by the default recipe, to its end.")] = True,
) -> None:
    """Steps of 50,000 and 1,000,000 items, validation's share, and 600,000 clicks by rule."""
    steps = _step_seconds(rounds, part)
    ratio = steps[STEP_ITEMS[1]] / steps[STEP_ITEMS[0]]
    shares = {n: _validation_share(n, part) for n in VALIDATION_ITEMS}
    rows = [
        *([f"ms a step, {n:,} items", f"{1000 * steps[n]:.0f}"] for n in STEP_ITEMS),
        [f"a step of {STEP_ITEMS[1]:,} / {STEP_ITEMS[0]:,} items", f"{ratio:.2f}"],
        *([f"validation's share, {n:,} items", f"{shares[n]:.3f}"] for n in shares),
    ]
    whole = _default(part) if default else None
    if whole is not None:
        rows += [
            ["minutes of 600,000 clicks on 5,000 items", f"{whole.seconds / 60:.1f}"],
            ["epochs; the best", f"{whole.epochs}; {whole.best_epoch}"],
            ["ended by its time limit", "yes" if whole.out_of_time else "no"],
        ]
    text = table(["", "found"], rows)
    typer.echo(text)
    if part < 1:
        return
    command = COMMAND if default else f"{COMMAND} --no-default"
    record("step_cost_1m_vs_50k", round(ratio, 3), 1.5, command)
    record("validation_share", round(max(shares.values()), 4), 0.15, command)
    if whole is not None:
        record("default_minutes_600k", round(whole.seconds / 60, 2), 30, command)
    about = (
        f"Generated clicks. Steps have {NEGATIVES:,} shared negatives. All else is the default "
        f"recipe. Written by `{command}` on {machine()}."
    )
    record_table("training_cost", f"## What training costs\n\n{about}\n\n{text}\n")


def _default(part: float) -> TrainingResult:
    log = _log(4_000, 5_000, part)
    return _trained(default_recipe(log), log)


def _step_seconds(rounds: int, part: float) -> dict[int, float]:
    """Median seconds of a step by catalogue size; the same clicks a step."""
    found: dict[int, list[float]] = {n: [] for n in STEP_ITEMS}
    for _ in range(rounds):
        for n_items in STEP_ITEMS:
            log = _log(1_500, n_items, part)
            recipe = _changed(default_recipe(log), epochs=1, negatives=NEGATIVES)
            recipe = _changed(recipe, validation_cases=100, max_batch_tokens=4_096, minutes=0)
            result = _trained(recipe, log)
            found[n_items].append(result.step_seconds)
    return {n_items: median(seconds) for n_items, seconds in found.items()}


def _validation_share(n_items: int, part: float) -> float:
    """Of an epoch's seconds."""
    log = _log(4_000, n_items, part)
    result = _trained(_changed(default_recipe(log), epochs=1), log)
    return result.validation_seconds / result.seconds


def _trained(recipe: Recipe, log: Histories) -> TrainingResult:
    with tempfile.TemporaryDirectory() as run:
        return go_on(recipe, leave_one_out(log), Path(run))


def _changed(recipe: Recipe, **choices: float) -> Recipe:
    training = recipe.training.model_copy(update=choices)
    return recipe.model_copy(update={"training": training})


def _log(users: int, n_items: int, part: float, length: int = 150) -> Histories:
    """`length` clicks of each user."""
    rng = np.random.default_rng(0)
    users = max(20, round(users * part))
    items = np.empty((users, length), np.int64)
    items[:, 0] = rng.zipf(1.2, users) % n_items
    for click in range(1, length):
        near = (items[:, click - 1] + rng.integers(1, NEIGHBOURS + 1, users)) % n_items
        items[:, click] = np.where(rng.random(users) < 0.5, near, rng.zipf(1.2, users) % n_items)
    offsets = np.arange(users + 1) * length
    return Histories(range(users), range(n_items), items.reshape(-1).astype(np.int32), offsets)
