"""`persona score`: computes user embeddings for a whole file of histories."""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from persona.cli.columns import reads_tables
from persona.cli.progress import progress_on, resumable
from persona.collector import collect_seldom
from persona.tables.options import TableFormat, TableOptions

if TYPE_CHECKING:
    from persona.scoring import Scorer, ScoreReport

TOO_MANY_REJECTS, RUN_CHANGED = 3, 4  # exit statuses
YOUNG_OBJECTS = 100_000  # objects before the garbage collector runs


@reads_tables
def score(
    *,
    source: Annotated[
        str,
        typer.Option("--input", help="Histories or clicks: a file, folder, glob or URL."),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--output",
            help="File that ends with .parquet, .jsonl, .csv or .npy, or a folder for parts.",
        ),
    ],
    table: TableOptions,
    url: Annotated[
        str | None,
        typer.Option(help="Address of a running service.  [default: http://127.0.0.1:8000]"),
    ] = None,
    artifact: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --url: score on this machine, with one process per core. A folder "
            "with NAME/VERSION/ folders, of one model, or of one version."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="With --artifact: score on the Ray cluster at this address; `local` starts one."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes for --artifact.  [default: one per core]")
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Requests to --url at a time, at most; about 8 for each core of the service.  "
            "[default: 16]",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model.  [default: the default model]")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Version of the model.  [default: the newest]")
    ] = None,
    unknown_items: Annotated[
        Literal["token", "drop", "error"],
        typer.Option(
            help="Clicks on items that the model does not know. token: encode as unknown; "
            "drop: leave out; error: reject the row."
        ),
    ] = "token",
    format: Annotated[  # noqa: A002  # the name of the option
        TableFormat | None, typer.Option("--format", help="Format of the input.  [detected]")
    ] = None,
    output_format: Annotated[
        Literal["parquet", "jsonl", "csv", "npy"] | None,
        typer.Option(help="Format of the output.  [default: by its name; parquet for a folder]"),
    ] = None,
    float16: Annotated[bool, typer.Option("--float16", help="Write float16 numbers.")] = False,
    recommend: Annotated[
        int | None, typer.Option(min=1, help="Write this many recommended items instead.")
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="With --recommend: also write embeddings.")
    ] = False,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", help="Do not recommend items of the history.")
    ] = False,
    keep: Annotated[
        list[str] | None, typer.Option(help="Column to copy to the output. May be repeated.")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="JSONL of rejected rows.  [default: OUTPUT.rejects.jsonl]")
    ] = None,
    max_rejects: Annotated[
        str | None, typer.Option(help="Stop if more rows are rejected: 100, or 1%.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard an earlier, unfinished run.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Scores a whole file: writes a user embedding for every user.

    Each row of the input is one user with a list of items, or one click. The output has one row
    per user, in the order of the input. Rows that cannot be scored go to the rejects file, with
    their number and the reason.

    If a run is interrupted, even by SIGKILL, the same command continues it and writes the same
    bytes. Finished parts are in the folder OUTPUT.work until the run ends.

    Exit status: 0 success; 1 failure, the same command continues; 2 wrong options; 3 too many rows
    were rejected, or all; 4 the input, the model or an option has changed since the interrupted
    run.

        persona score --artifact artifacts/news --input users.parquet --output embeddings.parquet
    """
    # Arrow's own allocator keeps 35 MB that it no longer needs.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from persona.scoring import RunChanged, TooManyRejects, score_file

    collect_seldom(YOUNG_OBJECTS)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    scorer = _scorer(url, artifact, ray, workers, requests, console)
    with resumable(console), progress_on(console) as progress:
        try:
            report = score_file(
                source,
                target,
                scorer,
                columns=replace(table, format=format, columns=tuple(keep or ())),
                output_format=output_format,
                rejects=rejects,
                model=model,
                version=version,
                unknown_items=unknown_items,
                float16=float16,
                recommend=recommend,
                embeddings=embeddings or recommend is None,
                exclude_seen=exclude_seen,
                max_rejects=max_rejects,
                restart=restart,
                progress=progress,
            )
        except (RunChanged, TooManyRejects) as error:
            console.print(f"persona: {error}", markup=False)
            status = RUN_CHANGED if isinstance(error, RunChanged) else TOO_MANY_REJECTS
            raise typer.Exit(status) from error
    if json:
        typer.echo(_json(report))
    console.print(_summary(report, target), markup=False)
    if report.counts.rejected and not report.counts.scored:
        raise typer.Exit(TOO_MANY_REJECTS)


def _scorer(
    url: str | None,
    artifact: Path | None,
    ray: str | None,
    workers: int | None,
    requests: int | None,
    console: Console,
) -> "Scorer":
    if url is not None and artifact is not None:
        raise typer.BadParameter("give --url or --artifact, not both")
    if artifact is None and (ray is not None or workers is not None):
        raise typer.BadParameter("--ray and --workers need --artifact")
    if artifact is not None and requests is not None:
        raise typer.BadParameter("--requests is for --url")
    if ray is not None:
        from persona.scoring import RayScorer

        return RayScorer(artifact or "", ray)
    if artifact is not None:
        from persona.scoring import ProcessScorer

        return ProcessScorer(artifact, workers=workers)
    from persona.client.http import DEFAULT_URL
    from persona.scoring import ServiceScorer
    from persona.scoring.service import REQUESTS

    return ServiceScorer(
        url or DEFAULT_URL,
        concurrency=requests or REQUESTS,
        notice=lambda text: console.print(text, markup=False),
    )


def _json(report: "ScoreReport") -> str:
    import orjson

    facts = {**asdict(report.counts), "model": asdict(report.model)}
    facts |= {"resumed_rows": report.resumed_rows, "seconds": report.seconds}
    facts |= {"rows_per_second": report.rows_per_second, "padding_ratio": report.padding_ratio}
    return orjson.dumps(facts).decode()


def _summary(report: "ScoreReport", target: str) -> str:
    counts, model, padding = report.counts, report.model, report.padding_ratio
    return (
        f"{counts.rows:,} rows"
        + (f", {report.resumed_rows:,} of them before," if report.resumed_rows else "")
        + f" in {report.seconds:.1f} s: {report.rows_per_second:,.0f} a second"
        + (f", padding ratio {padding:.3f}\n" if padding else "\n")
        + f"{counts.scored:,} scored by {model.name} version {model.version}: {target}\n"
        + f"{counts.rejected:,} rejected, {counts.unknown:,} clicks on unknown items, "
        + f"{counts.truncated:,} histories truncated"
    )
