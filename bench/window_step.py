"""What a window that moves in steps costs in quality: MovieLens-100K, ranked at several steps."""

from pathlib import Path
from typing import Annotated

import typer

from bench.quality import DATA, RECIPES
from bench.report import machine, table
from bench.results import record, record_table
from bench.trained import mean, paired, seeded, trained
from model.evaluation.metrics import Evaluation
from model.training.recipe import Recipe

STEPS = (1, 10, 25, 50, 100)
SHOWN = 50  # whose loss is a figure
PAGE = Path(__file__).parents[1] / "docs" / "experiments.md"


def window_step(
    *,
    data: Annotated[Path, typer.Option(help="The ratings.")] = DATA / "ml-100k.tsv",
    recipe: Annotated[Path, typer.Option(help="The recipe; time is left out.")] = RECIPES
    / "ml-100k.toml",
    seeds: Annotated[int, typer.Option(help="Trainings, of the seeds 0, 1, ...", min=1)] = 5,
) -> None:
    """Rank MovieLens-100K with windows that move by 1 click and by more."""
    found: dict[int, list[Evaluation]] = {step: [] for step in STEPS}
    for seed in range(seeds):
        for step in STEPS:
            found[step].append(
                trained(_with_step(seeded(recipe, seed, None), step), data).evaluate()
            )
            typer.echo(f"seed {seed}, step {step}: {found[step][-1].metrics['NDCG@10']:.4f}")
    command = f"python -m bench window-step --seeds {seeds}"
    kept = mean(found[SHOWN], "NDCG@10") / mean(found[1], "NDCG@10")
    record(f"window_step_{SHOWN}_quality", round(kept, 4), None, command)
    rows = []
    for step, evaluations in found.items():
        margin = paired(evaluations, found[1])
        beside = f"{margin.difference.mean:+.4f}, {margin.p_text}" if step > 1 else ""
        rows.append([step, f"{mean(evaluations, 'NDCG@10'):.4f}", beside])
    text = table(["window_step", "NDCG@10", "beside 1"], rows)
    about = (
        "`recipes/ml-100k.toml` without time, leave-one-out, every film ranked except those seen. "
        "The window has at most 200 clicks; one user in seven has more. Trained once a seed: the "
        f"step changes what is read, not what is learnt. Written by `{command}` on {machine()}."
    )
    record_table(
        "encoder_window_step", f"#### Windows that move in steps\n\n{about}\n\n{text}\n", [PAGE]
    )


def _with_step(recipe: Recipe, step: int) -> Recipe:
    parts = recipe.model_dump()
    parts["encoder"] |= {"time": "none", "window_step": step}
    return Recipe.model_validate(parts)
