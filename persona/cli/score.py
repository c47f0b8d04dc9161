"""`persona score`: the user embeddings of a whole file of histories."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from persona.scoring import Scorer, ScoreReport


def score(
    *,
    source: Annotated[
        Path, typer.Option("--input", help="Table of histories: .parquet, .csv or .jsonl.")
    ],
    target: Annotated[Path, typer.Option("--output", help="Embeddings: .parquet, .csv or .jsonl.")],
    url: Annotated[
        str | None,
        typer.Option(help="Address of a running service.  [default: http://127.0.0.1:8000]"),
    ] = None,
    artifacts: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --url: score in this process, with the models in this folder of "
            "NAME/VERSION folders."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model.  [default: the default model]")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Version of the model.  [default: the newest]")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Rejected rows, JSONL.  [default: OUTPUT.rejects.jsonl]")
    ] = None,
    history_column: Annotated[str, typer.Option(help="Column with the clicks.")] = "history",
    id_column: Annotated[
        str | None, typer.Option(help="Column with the users' ids.  [default: id, if it exists]")
    ] = None,
    unknown_items: Annotated[
        Literal["token", "drop", "error"],
        typer.Option(
            help="For items that the model does not know. token: encode an unknown item; "
            "drop: leave the click out; error: reject the row."
        ),
    ] = "token",
) -> None:
    """Scores a whole file: a user embedding for every row.

    Each row of the input is one user. The column **history** lists the clicked items, oldest to
    newest (in CSV as a JSON list: `"[""frontpage"", ""news""]"`); a column **id** is optional.
    If each row of your table is one click, first run `persona data convert CLICKS USERS`.

    The output has the columns row (of the input, from 0), id, embedding, used, truncated and
    unknown, in the order of the input. A row that cannot be scored goes to the rejects file, with
    its number and the reason. Every row is in exactly one of the two files. Both files appear at
    the end, complete, or not at all.

        persona score --artifacts artifacts --input users.parquet --output embeddings.parquet
    """
    from persona.scoring import Columns, score_file

    if url is not None and artifacts is not None:
        raise typer.BadParameter("give --url or --artifacts, not both")
    rejects = rejects or target.with_name(f"{target.name}.rejects.jsonl")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with _scorer(url, artifacts, console) as scorer, _progress_bar(console) as bar:
        task = bar.add_task("", total=1.0, rows=0)
        report = score_file(
            source,
            target,
            rejects,
            scorer,
            model=model,
            version=version,
            unknown_items=unknown_items,
            columns=Columns(history_column, id_column),
            progress=lambda rows, part: bar.update(task, completed=part, rows=rows),
        )
    _print_summary(report, target, rejects, console)


@contextmanager
def _scorer(url: str | None, artifacts: Path | None, console: Console) -> Iterator["Scorer"]:
    if artifacts is not None:
        from persona.engine import Engine

        yield Engine.open(artifacts)
        return
    from persona.cli.retries import announced_retries
    from persona.client import Client
    from persona.client.http import DEFAULT_URL

    with Client(url or DEFAULT_URL) as client, announced_retries(console):
        yield client


def _progress_bar(console: Console) -> Progress:
    return Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _print_summary(report: "ScoreReport", target: Path, rejects: Path, console: Console) -> None:
    """Prints the counts; exits with status 1 if every row is rejected."""
    lines = [
        f"{report.rows:,} rows in {report.seconds:.1f} s: {report.rows_per_second:,.0f} a second",
        f"{report.scored:,} scored by {report.model} version {report.version}: {target}",
        f"{report.rejected:,} rejected: {rejects}",
    ]
    console.print("\n".join(lines), markup=False)
    if report.rejected and not report.scored:
        raise typer.Exit(1)
