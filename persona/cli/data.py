"""`persona data`: inspects and converts click files, and downloads the public sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from model.clicks.histories import Histories
    from model.clicks.readers import ReadReport

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Inspects and converts click files, and downloads the public sets.",
)

BROKEN_SHOWN = 10
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="msnbc, sasrec, wikispeedia, mind, parquet, csv or jsonl; "
        "by default detected from the name or the content.",
    ),
]
UserOption = Annotated[str, typer.Option(help="Column of the user (Parquet, CSV, JSONL).")]
ItemOption = Annotated[str, typer.Option(help="Column of the item.")]
TimeOption = Annotated[
    str, typer.Option(help="Column of the time; a file without a column `time` is in click order.")
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Read only the first rows.")]
FileArgument = Annotated[Path, typer.Argument(help="A click file.", show_default=False)]


@app.command()
def inspect(
    file: FileArgument,
    *,
    format: FormatOption = None,  # noqa: A002  # the name of the option
    user: UserOption = "user",
    item: ItemOption = "item",
    time: TimeOption = "time",
    limit: LimitOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Counts users, items and clicks, and lists rows that cannot be read.

    For example:

    - `persona data inspect msnbc990928.seq`
    - `persona data inspect clicks.csv --user visitor --item article --time at`
    """
    from model.clicks.readers import read_clicks

    histories, report = read_clicks(file, format, user=user, item=item, time=time, limit=limit)
    facts = summary(histories, report)
    if json:
        import orjson

        broken = [{"line": row.line, "reason": row.reason} for row in report.broken]
        typer.echo(orjson.dumps({"file": str(file), **facts, "broken": broken}))
    else:
        show(file, facts, report)


def summary(histories: "Histories", report: "ReadReport") -> dict[str, str | int]:
    """The counts of a click file, and its history lengths."""
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
        "repeated_rows": report.repeated_rows,
        "repeated_clicks": report.repeated_clicks,
        "broken_rows": report.broken_rows,
    }


def show(file: Path, facts: dict[str, str | int], report: "ReadReport") -> None:
    """Prints the facts as a table, and below it the first broken rows."""
    from rich.table import Table

    console = Console()
    table = Table("", "", title=str(file), show_header=False)
    for name, value in facts.items():
        label = name.replace("users_with_2_clicks", "users with 2 or more clicks").replace("_", " ")
        table.add_row(label, f"{value:,}" if isinstance(value, int) else value)
    console.print(table)
    for row in report.broken[:BROKEN_SHOWN]:
        console.print(f"line {row.line}: {row.reason}", markup=False, highlight=False)
    if report.broken_rows > BROKEN_SHOWN:
        console.print(f"and {report.broken_rows - BROKEN_SHOWN:,} more broken rows")


@app.command()
def convert(
    file: FileArgument,
    output: Annotated[
        Path, typer.Argument(help="Ends in .parquet, .jsonl or .csv.", show_default=False)
    ],
    *,
    format: FormatOption = None,  # noqa: A002  # the name of the option
    user: UserOption = "user",
    item: ItemOption = "item",
    time: TimeOption = "time",
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

    histories, report = read_clicks(file, format, user=user, item=item, time=time, limit=limit)
    write_histories(histories, output)
    typer.echo(f"{output}: {len(histories):,} users, {len(histories.items):,} clicks")
    if report.broken_rows:
        message = f"{report.broken_rows:,} broken rows left out; see persona data inspect {file}"
        typer.echo(message, err=True)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="msnbc, wikispeedia or ml-1m.", show_default=False)],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the file; created if missing.")
    ] = Path("data"),
    base_url: Annotated[
        str | None,
        typer.Option(help="A mirror with the same paths, in place of the official host."),
    ] = None,
) -> None:
    """Downloads a public set from its official site and verifies its checksum.

    A file with the right checksum is not downloaded again. The last line states the set's terms.

    For example:

    - `persona data download msnbc`
    - `persona data download wikispeedia --output ~/clicks`
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from model.clicks import download as public
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
    typer.echo(f"Terms: {public.find(name).terms}", err=True)
