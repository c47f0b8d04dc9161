"""`persona evaluate`: a run against the baselines on its test cases."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder that `persona train` made.")],
    data: Annotated[
        Path | None, typer.Option(help="Click file, in place of the recipe's `data.path`.")
    ] = None,
    metrics: Annotated[str, typer.Option(help="Rows of the table, comma-separated.")] = (
        "HR@1,HR@5,HR@10,HR@20,NDCG@5,NDCG@10,NDCG@20,MRR@5,MRR@10,MRR@20"
    ),
) -> None:
    """Rank every item for every test case, the encoder beside the baselines.

    Popularity, repeat-last and Markov chains of first and second order are fitted on the same
    training clicks. The figures are written to evaluation.json in the run.

    Example: persona evaluate runs/news --data msnbc990928.seq
    """
    from model.evaluate import evaluate_run, figures, margins
    from model.run import EVALUATION, load_data, read_run_recipe, split, write_json

    recipe = read_run_recipe(run)
    histories, _ = load_data(recipe, data)
    parts = split(histories, recipe.data)
    evaluations = evaluate_run(run, recipe, parts)
    table = Table(title=f"{recipe.name}: {len(parts.test.targets):,} test cases, every item ranked")
    table.add_column("")
    for evaluation in evaluations:
        table.add_column(evaluation.name, justify="right")
    for metric in metrics.split(","):
        table.add_row(metric, *(f"{evaluation.metrics[metric]:.4f}" for evaluation in evaluations))
    Console().print(table)
    ahead = margins(evaluations, "NDCG", 10)
    for name, margin in ahead.items():
        difference = margin.difference
        Console().print(
            f"NDCG@10 over {name}: {difference.mean:+.4f} "
            f"(95 % {difference.low:+.4f} to {difference.high:+.4f}), p {margin.p_value:.2g}"
        )
    facts = {
        "protocol": recipe.data.split,
        "seen_items_removed": recipe.data.remove_seen,
        "cases": len(parts.test.targets),
        "scorers": figures(evaluations),
    }
    write_json(run / EVALUATION, facts)
