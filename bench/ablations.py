"""Measures each choice of `recipes/ml-1m.toml`: trains the recipe with one of them changed.

All with few epochs and a cosine over them, so that each run ends its schedule, and on the
validation cases alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bench.quality import DATA, RECIPES
from bench.report import machine, table
from bench.results import record_table
from bench.trained import seeded, trained, with_error
from model.evaluation.metrics import Evaluation, compare
from model.training.recipe import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "experiments.md"
HALF_AGAIN = 1.5  # epochs, where one has two thirds of the clicks
Change = Mapping[str, Mapping[str, object]]  # of a recipe, by section

CHANGES: dict[str, Change] = {
    "nothing else": {},
    "512 shared negatives in the loss": {"training": {"negatives": 512}},
    "2 heads": {"encoder": {"heads": 2}},
    "learned positions": {"encoder": {"positions": "learned"}},
    "the newest window of each history, half as many epochs again": {
        "training": {"windows": "newest"}
    },
    "64 negatives of its own a position": {"training": {"negatives": 64, "share_negatives": False}},
    "1 block": {"encoder": {"blocks": 1}},
    "max_length 50": {"encoder": {"max_length": 50}},
    "norms after the sums": {"encoder": {"norm": "post"}},
    "constant learning rate": {"training": {"schedule": "constant"}},
}


def ablations(
    *,
    data: Annotated[Path, typer.Option(help="The clicks of ml-1m.")] = DATA / "ml-1m.txt",
    recipe: Annotated[Path, typer.Option(help="The recipe.")] = RECIPES / "ml-1m.toml",
    epochs: Annotated[int, typer.Option(help="Of every run's whole schedule.", min=1)] = 9,
    only: Annotated[list[str] | None, typer.Option(help="Of the changes; all if none.")] = None,
) -> None:
    """Train ml-1m with one choice changed at a time, and rank the validation cases."""
    shown = seeded(recipe, 0, None)
    found: dict[str, Evaluation] = {}
    for name, change in CHANGES.items():
        if only and name not in only and change:
            continue
        found[name] = trained(changed(shown, change, epochs), data).validate()
        typer.echo(f"{name}: {with_error(found[name].metrics, 'NDCG@10')}")
    text = beside(found)
    typer.echo(text)
    if only:
        return
    command = f"python -m bench ablations --epochs {epochs}"
    about = (
        f"Each run has {epochs} epochs with a cosine schedule, unless its row says otherwise; the "
        f"recipe has {shown.training.epochs} at a constant rate. Best epoch by validation, seed "
        f"{shown.training.seed}. "
        f"Written by `{command}` on {machine()}."
    )
    record_table("ablations", f"#### One choice changed at a time\n\n{about}\n\n{text}\n", [PAGE])


def changed(recipe: Recipe, change: Change, epochs: int) -> Recipe:
    """The recipe with a choice changed, on a schedule of its own."""
    newest = change.get("training", {}).get("windows") == "newest"
    epochs = round(epochs * HALF_AGAIN) if newest else epochs
    short = {"epochs": epochs, "validate_every": 1, "schedule": "cosine"}
    training = {**short, **change.get("training", {})}
    sections = {"encoder": change.get("encoder", {}), "training": training}
    parts = recipe.model_dump()
    return Recipe.model_validate(
        parts | {name: parts[name] | new for name, new in sections.items()}
    )


def beside(found: Mapping[str, Evaluation]) -> str:
    """A row a run, beside the first one."""
    first, *_ = found.values()
    rows = []
    for name, evaluation in found.items():
        margin = compare(evaluation.ranks, first.ranks).difference
        less = f"{margin.mean:+.4f} ({margin.low:+.4f}, {margin.high:+.4f})"
        metrics = [with_error(evaluation.metrics, metric) for metric in ("NDCG@10", "HR@10")]
        rows.append([name, *metrics, "" if evaluation is first else less])
    return table(["", "NDCG@10", "HR@10", "NDCG@10 beside the first, paired, 95 %"], rows)
