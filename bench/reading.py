"""Click files read by this checkout and by an earlier commit, and the memory of a large table."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import typer

from bench.house import ML1M, ROOT, Commit, check_out
from bench.report import table, tell
from bench.results import record

BEFORE = "afae0b5"  # the last commit with readers of our own
MSNBC = ML1M.with_name("msnbc990928.seq")
ITEMS, CLICKS_A_USER = 100_000, 50
FILES = 20  # of the large table
READ = """
import sys, time
from model.clicks.readers import read_clicks
started = time.perf_counter()
histories, report = read_clicks(sys.argv[1])
print(time.perf_counter() - started, len(histories), len(histories.items))
"""
MEASURE = """
import json, resource, sys, time
from persona.tables import open_table
started, users, clicks = time.perf_counter(), 0, 0
with open_table(sys.argv[1]) as table:
    for batch in table:
        users += len(batch.rows)
        clicks += sum(map(len, batch.histories))
seconds = time.perf_counter() - started
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([users, clicks, seconds, kilobytes * 1024 / 1e6]))
"""


def reading(
    rounds: Annotated[int, typer.Option(help="Rounds; medians count.", min=1)] = 5,
    clicks: Annotated[int, typer.Option(help="Of the large table.", min=1000)] = 100_000_000,
    before: Commit = BEFORE,
) -> None:
    """Reading time before / after, and the memory in which clicks in Parquet become histories."""
    command = f"python -m bench reading --rounds {rounds} --clicks {clicks} --before {before}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check_out(before, folder / "before")
        files = [MSNBC, ML1M, *_tables(folder)]
        rows = [_compare(file, folder / "before", rounds) for file in files]
        users, read, seconds, megabytes = _memory(folder / "large", clicks)
    record("read_vs_before", round(min(float(row[-1]) for row in rows[:2]), 3), 1.0, command)
    record(f"read_{clicks // 10**6}m_megabytes", round(megabytes), 2000, command)
    about = (
        f"Seconds of `read_clicks`, medians of {rounds} rounds in turn, and before / after, the "
        "median of the rounds' ratios. `read_vs_before` is the smaller one of the first two. "
        f"{read:,} clicks in {FILES} files of Parquet became {users:,} histories in "
        f"{seconds:.0f} s; the largest resident memory of the process was {megabytes:,.0f} MB."
    )
    head = ["file", f"commit {before}", "now", "before / after"]
    tell("reading", "Reading", f"{about}\n\n{table(head, rows)}")


def _tables(folder: Path) -> list[Path]:
    """The clicks of ml-1m as tables that both commits read without options."""
    user, item = np.loadtxt(ML1M, np.int64).T
    clicks = pa.table({"user": user, "item": item, "time": np.arange(len(user))})
    pyarrow.csv.write_csv(clicks, folder / "ml-1m.csv")
    pq.write_table(clicks, folder / "ml-1m.parquet")
    lines = (json.dumps(row) for row in clicks.to_pylist())
    (folder / "ml-1m.jsonl").write_text("\n".join(lines))
    return [folder / f"ml-1m.{ending}" for ending in ("csv", "jsonl", "parquet")]


def _compare(file: Path, before: Path, rounds: int) -> Sequence[str]:
    """Name, seconds before, seconds now, and the ratio."""
    seconds: dict[Path, list[float]] = {before: [], ROOT: []}
    for number in range(rounds):
        found = {}
        for root in sorted(seconds, reverse=bool(number % 2)):
            passed, *found[root] = _run(READ, file, root).split()
            seconds[root].append(float(passed))
        if found[before] != found[ROOT]:
            raise RuntimeError(f"{file}: read as {found}")
    ratio = median(b / a for b, a in zip(seconds[before], seconds[ROOT], strict=True))
    row = [file.name, *(f"{median(of):.2f}" for of in seconds.values()), f"{ratio:.3f}"]
    typer.echo(row)
    return row


def _memory(folder: Path, clicks: int) -> tuple[int, int, float, float]:
    """Users, clicks, seconds and megabytes of a generated table that is read to its end."""
    _generate(folder, clicks)
    users, read, seconds, megabytes = json.loads(_run(MEASURE, folder, ROOT))
    typer.echo([users, read, seconds, megabytes])
    return users, read, seconds, megabytes


def _generate(folder: Path, clicks: int) -> None:
    """Clicks of random users in random order."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(FILES):
        rows = clicks // FILES
        columns = {
            "user": rng.integers(0, max(clicks // CLICKS_A_USER, 1), rows),
            "item": rng.integers(0, ITEMS, rows),
            "time": rng.integers(1_600_000_000, 1_700_000_000, rows),
        }
        pq.write_table(pa.table(columns), folder / f"{number:02}.parquet")


def _run(code: str, file: Path, root: Path) -> str:
    command = [sys.executable, "-c", code, str(file)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
