"""`persona data`: inspects and converts click files, and downloads the public sets."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from persona.cli.columns import FormatOption, reads_tables
from persona.columns import NAME
from persona.tables.options import TableOptions

if TYPE_CHECKING:
    from model.clicks.histories import Histories
    from model.clicks.readers import ReadReport
    from persona.tables import Proposal

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Inspects and converts click files, and downloads the public sets.",
)

BROKEN_SHOWN = 10
LABELS = {
    "users_with_2_clicks": "users with 2 or more clicks",
    "tied_clicks": "clicks at the time of another",
}
LimitOption = Annotated[int | None, typer.Option(min=1, help="Read only the first rows.")]
FileArgument = Annotated[
    str,
    typer.Argument(
        help="Clicks or histories: a file; tables also as a folder, glob or URL.",
        show_default=False,
    ),
]


@app.command()
@reads_tables
def inspect(
    file: FileArgument,
    *,
    table: TableOptions,
    format: FormatOption = None,  # noqa: A002  # the name of the option
    limit: LimitOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Counts users, items and clicks, lists broken rows, and suggests the next commands.

    Guesses the columns if they have unusual names. The last lines are the commands that train on
    the file, evaluate, export and score it, with the options that these columns need.

    For example:

    - `persona data inspect msnbc990928.seq`
    - `persona data inspect events.csv`
    - `persona data inspect clicks.csv --user visitor --item article --time at`
    """
    from model.clicks.readers import read_clicks

    found = proposal(file, format, table)
    table = found.options if found else table
    histories, report = read_clicks(file, format, table, limit=limit)
    facts = summary(histories, report)
    if json:
        import orjson

        broken = [{"line": row.line, "reason": row.reason} for row in report.broken]
        options = {"options": {name: value for name, value in asdict(table).items() if value}}
        typer.echo(orjson.dumps({"file": file, **facts, **options, "broken": broken}))
    else:
        show(file, facts, report)
        show_commands(file, found)


def proposal(file: str, format: str | None, table: TableOptions) -> "Proposal | None":  # noqa: A002  # as above
    """The options for reading a table; None for a public format, which needs none."""
    from model.clicks.readers import LINE_READERS, known_format
    from persona.tables import propose

    return None if known_format(file, format, table) in LINE_READERS else propose(file, table)


def summary(histories: "Histories", report: "ReadReport") -> dict[str, str | int]:
    """Counts the clicks of a file, and its history lengths."""
    import numpy as np

    facts: dict[str, str | int] = {
        "format": report.format,
        "rows": report.rows,
        "users": len(histories),
        "items": histories.n_items,
        "clicks": len(histories.items),
    }
    # Without interpolation, so that every percentile is a length that occurs.
    percents = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    for name, percent in percents.items():
        length = np.percentile(histories.lengths, percent, method="inverted_cdf")
        facts[f"history_length_{name}"] = int(length)
    return facts | {
        "users_with_2_clicks": int(np.sum(histories.lengths >= 2)),
        "empty_users": report.empty_users,
        "tied_clicks": report.tied_clicks,
        "repeated_rows": report.repeated_rows,
        "repeated_clicks": report.repeated_clicks,
        "broken_rows": report.broken_rows,
    }


def show(file: str, facts: dict[str, str | int], report: "ReadReport") -> None:
    """Prints the facts as a table, followed by the first broken rows."""
    from rich.table import Table

    console = Console()
    table = Table("", "", title=file, show_header=False)
    for name, value in facts.items():
        label = LABELS.get(name, name.replace("_", " "))
        text = f"{value:,}" if isinstance(value, int) else value
        if name == "tied_clicks":
            text += f" ({report.tied_clicks / int(facts['clicks']):.1%})"
        table.add_row(label, text)
    console.print(table)
    for row in report.broken[:BROKEN_SHOWN]:
        console.print(f"{row.place}: {row.reason}", markup=False, highlight=False)
    if report.broken_rows > BROKEN_SHOWN:
        console.print(f"and {report.broken_rows - BROKEN_SHOWN:,} more broken rows")


def show_commands(file: str, found: "Proposal | None") -> None:
    """Prints notes about the columns, and the commands from the file to its embeddings."""
    from persona.tables.proposal import as_words

    if found:
        typer.echo(f"columns: {', '.join(found.columns)}")
    if found and len(found.events) > 1:
        typer.echo(f"events: {', '.join(found.events)}; --where chooses")
        if found.event and NAME.fullmatch(found.event):
            told = f"persona train --column {found.event}=category"
            typer.echo(f"or: without --where, {told} lets the model tell them apart")
    if found and found.rating:
        typer.echo(f"ratings: --rating {found.rating} --min-rating 4 keeps the high ones")
    words = f" {as_words(found.options)}" if found and as_words(found.options) else ""
    path = shlex.quote(file)
    typer.echo(f"persona train --data {path}{words} --output runs/mine")
    typer.echo("persona evaluate runs/mine")
    typer.echo("persona export runs/mine --name mine")
    if found is None:
        typer.echo(f"persona data convert {path} users.parquet")
        path = "users.parquet"
    score = f"persona score --artifact artifacts/mine --input {path}{words}"
    typer.echo(f"{score} --output embeddings.parquet")


@app.command()
@reads_tables
def convert(
    file: FileArgument,
    output: Annotated[
        Path, typer.Argument(help="Ends in .parquet, .jsonl or .csv.", show_default=False)
    ],
    *,
    table: TableOptions,
    format: FormatOption = None,  # noqa: A002  # the name of the option
    limit: LimitOption = None,
) -> None:
    """Writes one row per user, with the columns `id` and `history`, oldest click first.

    `persona score` reads this table. In CSV the history is a JSON list.

    For example:

    - `persona data convert msnbc990928.seq visitors.parquet --limit 100000`
    - `persona data convert clicks.jsonl users.csv`
    """
    from model.clicks.readers import read_clicks
    from model.clicks.writers import write_histories

    histories, report = read_clicks(file, format, table, limit=limit)
    write_histories(histories, output)
    typer.echo(f"{output}: {len(histories):,} users, {len(histories.items):,} clicks")
    if report.broken_rows:
        message = f"{report.broken_rows:,} broken rows left out; see persona data inspect {file}"
        typer.echo(message, err=True)


@app.command()
def download(
    name: Annotated[
        str, typer.Argument(help="msnbc, ml-1m, amazon-beauty, ...", show_default=False)
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the file; created if it is missing.")
    ] = Path("data"),
    base_url: Annotated[
        str | None,
        typer.Option(help="Mirror with the same paths as the official host."),
    ] = None,
) -> None:
    """Downloads a public set from its official site and verifies its checksum.

    A file with the right checksum is not downloaded again. The last line states the terms of
    use. An unknown name lists the known sets.

    For example:

    - `persona data download msnbc`
    - `persona data download wikispeedia --output ~/clicks`
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from model.clicks import download as public
    from model.clicks.public_sets import find
    from persona.cli.retries import announced_retries

    console = Console(stderr=True, highlight=False)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        announced_retries(console, public.reason),
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task(name, total=None)
        path = public.download(
            name,
            output,
            base_url,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    typer.echo(path)
    found = find(name)
    if found.sha256 is None and found.packed_sha256 is None:
        note = f"No checksum is published; that of this download is in {public.beside(path)}"
        typer.echo(note, err=True)
    typer.echo(f"Terms: {found.terms}", err=True)
