"""The gain of training from yesterday's run over training from scratch, in the same time."""

import tempfile
from pathlib import Path
from statistics import mean
from typing import Annotated

import numpy as np
import typer

from bench.report import machine, table
from bench.results import record, record_table
from bench.trained import go_on
from model.clicks.histories import Histories, leave_one_out
from model.clicks.readers import read_clicks
from model.training.default_recipe import default_recipe
from model.training.recipe import Recipe
from model.training.run import DataFact, begin
from model.training.warm_start import Gain, initial_weights, measure_gain
from persona.tables import TableOptions

DATA = Path("../shared/data/ml-100k.tsv")
OLD_SHARE = 0.9  # of the clicks, by time, are yesterday's


def warm_start(
    data: Annotated[Path, typer.Option(help="ml-100k.tsv.")] = DATA,
    minutes: Annotated[float, typer.Option(help="Of tonight's trainings.")] = 1.0,
    seeds: Annotated[int, typer.Option(help="Trainings, of the seeds 0, 1, ...", min=1)] = 3,
    yesterday: Annotated[float, typer.Option(help="Minutes of yesterday's training.")] = 5.0,
) -> None:
    """Yesterday's run has the first 90 % of ml-100k's clicks; tonight's has all of them."""
    columns = TableOptions(user="1", item="2", time="4", header=False)
    whole, _ = read_clicks(data, None, columns)
    with tempfile.TemporaryDirectory() as folder:
        gains = [
            _gain(whole, Path(folder) / str(seed), seed, minutes, yesterday)
            for seed in range(seeds)
        ]
    rows = [
        [seed, f"{g.warm:.4f}", f"{g.from_nothing:.4f}", g.comparison.p_text]
        for seed, g in enumerate(gains)
    ]
    text = table(["seed", "NDCG@10 from yesterday's run", "from nothing", "paired"], rows)
    typer.echo(text)
    command = (
        f"python -m bench warm-start --minutes {minutes:g} --seeds {seeds} "
        f"--yesterday {yesterday:g}"
    )
    ratio = mean(g.warm for g in gains) / mean(g.from_nothing for g in gains)
    typer.echo(f"warm_start_gain {ratio:.3f}")
    if data != DATA:
        return
    record("warm_start_gain", round(ratio, 3), 1.0, command)
    about = (
        f"ml-100k, the default recipe, leave-one-out. Yesterday's run had the first "
        f"{OLD_SHARE:.0%} of the clicks and {yesterday:g} minutes, tonight's all clicks and "
        f"{minutes:g} minutes. Written by `{command}` on {machine()}."
    )
    record_table("warm_start", f"## From yesterday's run\n\n{about}\n\n{text}\n")


def _gain(whole: Histories, folder: Path, seed: int, minutes: float, yesterday: float) -> Gain:
    old = until(whole, OLD_SHARE)
    recipe = _seeded(default_recipe(old), seed, yesterday)
    fact = DataFact(DATA.name, "", len(old), old.n_items, len(old.items), 0)
    begin(folder / "yesterday", recipe, old, fact)
    go_on(recipe, leave_one_out(old), folder / "yesterday")
    tonight = _seeded(recipe, seed, minutes)
    weights, _ = initial_weights(folder / "yesterday", tonight, whole.item_ids)
    parts, run = leave_one_out(whole), folder / "tonight"
    result = go_on(tonight, parts, run, weights)
    return measure_gain(tonight, parts, run, result, progress=False)


def until(histories: Histories, share: float) -> Histories:
    """The first clicks by time, that share of all, and the items among them."""
    times = histories.columns["time"]
    limit = np.quantile(times, share)
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    old = times <= limit
    rows, codes = np.unique(histories.items[old], return_inverse=True)
    lengths = np.bincount(user[old], minlength=len(histories))
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    item_ids = [histories.item_ids[row] for row in rows.tolist()]
    return Histories(histories.user_ids, item_ids, codes.astype(np.int32), offsets)


def _seeded(recipe: Recipe, seed: int, minutes: float) -> Recipe:
    training = recipe.training.model_copy(update={"seed": seed, "minutes": minutes})
    return recipe.model_copy(update={"training": training})
