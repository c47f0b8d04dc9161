"""`persona score`: the user embeddings of a whole file of histories."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from client import ScoreReport

SERVE = "import typer; from persona.serve import serve; typer.run(serve)"
START_LIMIT_S = 120.0
END_LIMIT_S = 15.0
LOG_SHOWN_CHARACTERS = 2000


def score(
    *,
    source: Annotated[
        Path, typer.Option("--input", help="Table of histories: .parquet, .csv or .jsonl.")
    ],
    target: Annotated[Path, typer.Option("--output", help="Embeddings: .parquet, .csv or .jsonl.")],
    url: Annotated[
        str | None, typer.Option(help="A running service.  [default: http://127.0.0.1:8000]")
    ] = None,
    artifacts: Annotated[
        Path | None,
        typer.Option(help="Instead of --url: start a service on this folder for the duration."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model.  [default: the service's first]")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Bad rows, JSONL.  [default: OUTPUT.rejects.jsonl]")
    ] = None,
    history_column: Annotated[str, typer.Option(help="Column with the clicks.")] = "history",
    id_column: Annotated[
        str | None, typer.Option(help="Column with the users' ids.  [default: id, if there]")
    ] = None,
    unknown_items: Annotated[
        Literal["token", "drop", "error"],
        typer.Option(
            help="token: a click on something unknown; drop: leave it out; error: reject the row."
        ),
    ] = "token",
) -> None:
    """Scores a whole file: a user embedding for every row.

    A row of the input is one user. Its column **history** lists the clicked items, oldest to
    newest (in CSV as a JSON list: `"[""frontpage"", ""news""]"`); a column **id** is optional.
    A table with a row a click is turned into one with `persona data convert CLICKS USERS`.

    The output has the columns row (of the input, from 0), id, embedding, used, truncated and
    unknown, in the input's order. A row that cannot be scored goes to the rejects file with its
    number and the reason; every row is in one of the two, exactly once. Both files appear at the
    end, complete, or not at all.

        persona score --artifacts artifacts --input users.parquet --output embeddings.parquet
    """
    from client import Client, score_file
    from client.http import DEFAULT_URL
    from client.rows import Columns

    if url is not None and artifacts is not None:
        raise typer.BadParameter("give --url or --artifacts, not both")
    rejects = rejects or target.with_name(f"{target.name}.rejects.jsonl")
    service = nullcontext(url or DEFAULT_URL) if artifacts is None else local_service(artifacts)
    with service as address, Client(address) as client, _progress_bar() as bar:
        task = bar.add_task("", total=1.0, rows=0)
        report = score_file(
            source,
            target,
            rejects,
            client,
            model=model,
            unknown_items=unknown_items,
            columns=Columns(history_column, id_column),
            progress=lambda rows, part: bar.update(task, completed=part, rows=rows),
        )
    _summarise(report, target, rejects)


@contextmanager
def local_service(artifacts: Path) -> Iterator[str]:
    """Address of a service on `artifacts` that runs as a process of its own, on a free port.

    Raises:
        ArtifactError: an artifact is missing or broken.
        NotReady: it ended or did not become ready; the message has what it said last.
    """
    from service.artifact import find_artifacts, open_artifact

    # The service would live on and only say that it is not ready; we need not wait for that.
    for folder in find_artifacts(artifacts):
        open_artifact(folder)
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    options = ["--artifacts", str(artifacts), "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-c", SERVE, *options]
    with (
        tempfile.TemporaryFile("w+") as log,
        # A session of its own: Ctrl-C reaches the service through us, after the last request.
        subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            _wait_until_ready(address, process, log)
            yield address
        finally:
            _end(process)


def _wait_until_ready(address: str, process: "subprocess.Popen[bytes]", log: IO[str]) -> None:
    from client import Client, NotReady

    deadline = time.monotonic() + START_LIMIT_S
    with Client(address) as client:
        while not client.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                said = log.read()[-LOG_SHOWN_CHARACTERS:].strip()
                raise NotReady(f"the service did not start:\n{said}")
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too


def _progress_bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _summarise(report: "ScoreReport", target: Path, rejects: Path) -> None:
    """Says what became of the rows; fails if nothing was usable."""
    lines = [
        f"{report.rows:,} rows in {report.seconds:.1f} s: {report.rows_per_second:,.0f} a second",
        f"{report.scored:,} scored by {report.model} version {report.version}: {target}",
        f"{report.rejected:,} rejected: {rejects}",
    ]
    Console(stderr=True, highlight=False, soft_wrap=True).print("\n".join(lines), markup=False)
    if report.rejected and not report.scored:
        raise typer.Exit(1)
