"""`persona evaluate`: compares a run with the baselines or another run, on its test cases."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from persona.cli.columns import Clicks, DataOption, FormatOption, reads_tables
from persona.tables.options import TableOptions

if TYPE_CHECKING:
    from model.evaluation.rankings import Ranker
    from model.report.run_evaluation import Apart, ComparedScorer, RunEvaluation
    from model.training.recipe import Recipe
    from persona.client import Client
    from persona.engine import Engine


@reads_tables
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder that `persona train` wrote.")],
    data: DataOption = None,
    format: FormatOption = None,  # noqa: A002  # the name of the option
    against: Annotated[
        Path | None,
        typer.Option(help="Another run on the same data and split, to compare."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Service that serves the run: also rank its recommendations."),
    ] = None,
    artifact: Annotated[
        Path | None,
        typer.Option(help="Artifact of the run: also rank the recommendations of its engine."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model of the service.  [default: the default model]")
    ] = None,
    metrics: Annotated[str, typer.Option(help="Rows of the table, comma-separated.")] = (
        "HR@1,HR@5,HR@10,HR@20,NDCG@5,NDCG@10,NDCG@20,MRR@5,MRR@10,MRR@20"
    ),
    *,
    table: TableOptions,
) -> None:
    """Rank every item for every test case, with the encoder and with the baselines.

    The baselines are popularity, also over a recent window, repeat-last, Markov chains of first
    and second order, and item-kNN, fitted on the same training clicks. The command writes the full
    result into the run's folder: report.html for people and evaluation.json for programs.

    The run knows where its clicks are. If they have moved, name them with `--data`.

    Example: persona evaluate runs/news --against runs/other

    To measure a running service: persona evaluate runs/news --url http://127.0.0.1:8000
    """
    from model.evaluation.metrics import METRICS
    from model.report.evaluation_json import as_json
    from model.report.page import html_report
    from model.report.protocol import protocol_text
    from model.report.run_evaluation import evaluate_run
    from model.training.run import EVALUATION, load_run_data, read_run_recipe, split, write_json

    shown = metrics.split(",")
    if unknown := [name for name in shown if name not in METRICS]:
        raise typer.BadParameter(f"no metric {unknown[0]!r}; known are {', '.join(METRICS)}")
    console = Console()
    recipe = Clicks(data, format, table).chosen(read_run_recipe(run))
    histories, fact = load_run_data(run, recipe, data)
    with console.status("ranking"), _served(url, artifact, model, recipe) as served:
        evaluation = evaluate_run(run, fact, split(histories, recipe.data), against, served)
    console.print(_table(evaluation, shown))
    console.print(protocol_text(evaluation), highlight=False, soft_wrap=True)
    for kind in evaluation.apart:
        console.print(_apart(kind), highlight=False, soft_wrap=True)
    for other in (*evaluation.baselines, *evaluation.served):
        console.print(_difference(other, other.evaluation.name))
    if evaluation.against is not None:
        console.print(_difference(evaluation.against.encoder, evaluation.against.folder))
    write_json(run / EVALUATION, as_json(evaluation))
    report = run / "report.html"
    report.write_text(html_report(evaluation), encoding="utf-8")
    console.print(f"report: {report}", style="dim")


def _table(evaluation: "RunEvaluation", metrics: list[str]) -> Table:
    """The mean figures, one column per scorer."""
    cases = evaluation.encoder.metrics.cases
    table = Table(title=f"{evaluation.recipe.name}: {cases:,} test cases, every item ranked")
    table.add_column("")
    for scorer in evaluation.scorers:
        table.add_column(scorer.name, justify="right")
    for metric in metrics:
        table.add_row(metric, *(f"{scorer.metrics[metric]:.4f}" for scorer in evaluation.scorers))
    return table


def _apart(kind: "Apart") -> str:
    """One line with the HEADLINE figure of every scorer on one kind of cases."""
    from model.report.run_evaluation import HEADLINE

    found = (f"{name} {metrics[HEADLINE]:.4f}" for name, metrics in kind.metrics.items())
    return f"{HEADLINE} of {kind.cases:,} cases, {kind.name}: {', '.join(found)}"


@contextmanager
def _served(
    url: str | None, artifact: Path | None, model: str | None, recipe: "Recipe"
) -> "Iterator[list[Ranker]]":
    """Scorers that rank the recommendations of a service or an artifact."""
    from model.evaluation.rankings import ListRanker
    from persona.client import Client
    from persona.engine import Engine

    def ranker(name: str, server: "Client | Engine") -> "Ranker":
        def recommend(histories: list[Any], k: int, hides: bool) -> list[Any]:
            found = server.recommend(histories, k, exclude_seen=hides, exact=True, model=model)
            return [(user.items, user.scores) for user in found.users]

        return ListRanker(name, recommend, recipe.encoder)

    with ExitStack() as stack:
        rankers = []
        if artifact is not None:
            rankers.append(ranker("artifact", Engine.open(artifact)))
        if url is not None:
            rankers.append(ranker("service", stack.enter_context(Client(url))))
        yield rankers


def _difference(other: "ComparedScorer", name: str) -> str:
    """One line with the encoder's advantage over another scorer."""
    from model.report.run_evaluation import HEADLINE

    found = other.advantage[HEADLINE]
    interval = found.difference.interval("{:+.4f}")
    return f"{HEADLINE} over {name}: {found.difference.mean:+.4f} ({interval}), {found.p_text}"
