"""Whole files scored by the three engines: against an ideal loop, memory, and SIGKILLs survived."""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from bench import encoders
from bench.batch import batches
from bench.loads import Rows
from bench.peers import persona, running
from bench.report import machine, table, tell
from bench.results import record, record_table
from persona.engine.session import flush_subnormals

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scoring.md"
ENGINES = {"artifact": 0.85, "ray": 0.85, "url": 0.6}  # with their targets
PART = 20_000  # histories that the ideal loop sorts by length
RUN_TOKENS = (1024, 2048, 4096)  # of which the ideal loop takes the best
WRITTEN_AT_ONCE = 100_000
KILLS, KILLED_ROWS = 20, 100_000
BILLION = 10**9
MEGABYTE = 1e6


def scoring(
    rows: Annotated[int, typer.Option(help="Histories to score.", min=1000)] = 1_000_000,
    rounds: Annotated[
        int, typer.Option(help="Rounds; medians count. 0: only SIGKILLs.", min=0)
    ] = 1,
    mix: Annotated[str, typer.Option(help="news, films or mixed.")] = "mixed",
    kills: Annotated[int, typer.Option(help="SIGKILLs at random moments.", min=0)] = KILLS,
) -> None:
    """Users a second of `persona score` against an ideal loop, memory, and SIGKILLs survived."""
    command = f"python -m bench scoring --rows {rows} --rounds {rounds} --mix {mix} --kills {kills}"
    encoders.artifacts()  # made once, before two processes ask for it
    with tempfile.TemporaryDirectory(dir=encoders.CACHE) as folder:
        if kills:
            survived = _survived(Path(folder), kills, mix)
            record("score_kills_survived", survived, KILLS, command)
            typer.echo(f"{survived} of {kills} SIGKILLs survived")
        if rounds:
            _measure(Path(folder), rows, rounds, mix, command)


def _measure(folder: Path, rows: int, rounds: int, mix: str, command: str) -> None:
    source = _write(folder / "users.parquet", rows, mix)
    measured = _rounds(source, rounds, mix)
    sizes = [path.stat().st_size / rows for path in (source, folder / "artifact.parquet")]
    for engine, target in ENGINES.items():
        ratio = median(one / ideal for one, ideal in measured[engine])
        record(f"score_{engine}_vs_ideal", round(ratio, 3), target, command)
    record("score_megabytes", round(max(measured["megabytes"])), 500, command)
    tell("scoring", "Whole files", _told(measured, f"{rows:,} histories of `{mix}`"))
    _tell_sizes(median(one for one, _ in measured["artifact"]), sizes, mix, command)


def _write(path: Path, rows: int, mix: str) -> Path:
    """Histories with integer user ids, in Parquet."""
    schema = pa.schema({"id": pa.int64(), "history": pa.list_(pa.string())})
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, WRITTEN_AT_ONCE):
            (found,) = batches(mix, 1, min(WRITTEN_AT_ONCE, rows - first), seed=first)
            columns = {
                "id": range(first, first + len(found)),
                "history": [[f"n{row}" for row in history] for history in found],
            }
            writer.write_table(pa.table(columns, schema))
    return path


def _rounds(source: Path, rounds: int, mix: str) -> dict[str, Any]:
    """Users a second of every engine with those of the ideal loop around it, and megabytes."""
    measured: dict[str, Any] = {engine: [] for engine in ENGINES} | {"megabytes": []}
    tokens = max(RUN_TOKENS, key=lambda tokens: ideal(mix, tokens, 2.0))
    for _ in range(rounds):
        before = ideal(mix, tokens)
        for engine in ENGINES:
            with _options(engine) as options:
                report, megabytes = _score(source, source.with_name(f"{engine}.parquet"), options)
            after = ideal(mix, tokens)
            measured[engine].append((report["rows_per_second"], mean((before, after))))
            if engine == "artifact":
                measured["megabytes"].append(megabytes)
            typer.echo(
                f"{engine}: {report['rows_per_second']:,.0f} a second, ideal {before:,.0f} and "
                f"{after:,.0f}, {megabytes:,.0f} MB"
            )
            before = after
    return measured


@contextmanager
def _options(engine: str) -> Iterator[list[str]]:
    artifact = ["--artifact", str(encoders.artifacts())]
    if engine != "url":
        yield [*artifact, *(["--ray", "local"] if engine == "ray" else [])]
        return
    with running(persona()) as started:
        yield ["--url", f"http://127.0.0.1:{started.port}"]


def _started(source: Path, target: Path, options: Sequence[str]) -> "subprocess.Popen[str]":
    paths = ["--input", str(source), "--output", str(target), "--json"]
    command = [sys.executable, "-m", "persona", "score", *paths, *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _score(source: Path, target: Path, options: Sequence[str]) -> tuple[dict[str, Any], float]:
    """The report of a run, and the most megabytes that its processes had together."""
    seen = [0.0]

    def watch() -> None:
        while process.poll() is None:
            seen.append(sum(map(_proportional_bytes, _family(process.pid))) / MEGABYTE)
            time.sleep(0.5)

    with _started(source, target, options) as process:
        watching = threading.Thread(target=watch)
        watching.start()
        told, _ = process.communicate()
        watching.join()
    if process.returncode:
        raise RuntimeError(f"persona score ended with status {process.returncode}")
    report: dict[str, Any] = json.loads(told)
    return report, max(seen)


def _family(process: int) -> set[int]:
    """A process, its children, theirs, and so on."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(") ")[2].split()[1])
        except OSError:  # has ended
            continue
    found, size = {process}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def _proportional_bytes(process: int) -> float:
    """PSS: a page that n processes share counts as one nth in each."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # has ended
        return 0.0
    return sum(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def ideal(mix: str, run_tokens: int, seconds: float = 8.0, processes: int = 2) -> float:
    """Users a second of processes that sort histories by length and run the graph, no more."""
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(processes), context.Queue()
    arguments = (mix, run_tokens, seconds, barrier, counts)
    started = [context.Process(target=_loop, args=arguments) for _ in range(processes)]
    for process in started:
        process.start()
    found = sum(counts.get(timeout=seconds + 120) for _ in started)
    for process in started:
        process.join()
    return float(found)


def _loop(
    mix: str, run_tokens: int, seconds: float, barrier: Barrier, counts: "Queue[float]"
) -> None:
    path = encoders.artifacts() / encoders.NAME / "1" / "embedding.onnx"
    os.environ["BENCH_ONNX"] = str(path)
    from bench.servers.plain_encoder import PlainEncoder

    flush_subnormals()  # as Persona does, before the first session is opened
    encoder = PlainEncoder()
    (rows,) = batches(mix, 1, PART)
    runs = list(_sorted_runs(rows, run_tokens))
    random.Random(0).shuffle(runs)  # so that any few seconds have runs of all lengths
    encoder.encode(runs[0])
    barrier.wait()
    done, started = 0, time.perf_counter()
    for run in cycle(runs):
        encoder.encode(run)
        done += len(run)
        if (passed := time.perf_counter() - started) > seconds:
            counts.put(done / passed)
            return


def _sorted_runs(rows: Rows, run_tokens: int) -> Iterator[Rows]:
    """Histories of like lengths, as many as have so many tokens with padding."""
    run: Rows = []
    for history in sorted(rows, key=len):
        if run and (len(run) + 1) * (1 + len(history)) > run_tokens:
            yield run
            run = []
        run.append(history)
    yield run


def _survived(folder: Path, kills: int, mix: str) -> int:
    """SIGKILLs at random moments after which a run went on and gave the bytes of one without."""
    source = _write(folder / "some.parquet", KILLED_ROWS, mix)
    options = ["--artifact", str(encoders.artifacts())]
    whole, target = folder / "whole.parquet", folder / "killed.parquet"
    seconds = _score(source, whole, options)[0]["seconds"]
    draw, survived, since = random.Random(0), 0, 0
    while survived + since < kills:
        with _started(source, target, options) as process:
            try:
                process.wait(draw.random() * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                since += 1
                continue
        # It came to its end before the moment was there.
        survived, since = survived + since * (target.read_bytes() == whole.read_bytes()), 0
        target.unlink()
    _score(source, target, options)
    return survived + since * (target.read_bytes() == whole.read_bytes())


def _told(measured: dict[str, Any], what: str) -> str:
    lines = [
        [
            f"`--{engine}`",
            f"{median(one for one, _ in measured[engine]):,.0f}",
            f"{median(best for _, best in measured[engine]):,.0f}",
            f"{median(one / best for one, best in measured[engine]):.3f}",
        ]
        for engine in ENGINES
    ]
    about = (
        f"{what} in Parquet, by `persona score` on two cores, from its start to its end, medians "
        f"of {len(measured['artifact'])} rounds. The ideal loop is two processes that "
        "sort histories by length, pad them and run Persona's own graph: no reading, no item ids, "
        "no writing; it is measured before and after each engine. The service of `--url` has the "
        "same two cores. The processes of `--artifact` had at most "
        f"{max(measured['megabytes']):,.0f} MB together (PSS). Figure "
        f"`score_kills_survived`: SIGKILLs at random moments of runs over {KILLED_ROWS:,} "
        "histories, after which the next run went on and gave the same bytes."
    )
    head = ["engine", "users a second", "ideal loop", "ratio"]
    return f"{about}\n\n{table(head, lines)}"


def _tell_sizes(per_second: float, sizes: Sequence[float], mix: str, command: str) -> None:
    """The table of the documentation: what a billion users take."""
    hours = BILLION / (per_second / 2) / 3600
    gigabytes = [size * BILLION / 1e9 for size in sizes]
    lines = [
        [f"{cores:,}", f"{hours / cores:,.3g}", f"{per_second / 2 * cores:,.0f}"]
        for cores in (2, 16, 64, 256, 1024)
    ]
    about = (
        f"A billion users take {hours:,.0f} core hours, {gigabytes[0]:,.0f} GB of Parquet that is "
        f"read (mix `{mix}`) and {gigabytes[1]:,.0f} GB that is written (64 numbers of float32). "
        f"Calculated from {per_second:,.0f} users a second on two cores. Measured by `{command}` "
        f"on {machine()}."
    )
    head = ["cores", "hours", "users a second"]
    record_table("scoring_sizes", f"{about}\n\n{table(head, lines)}\n", [PAGE])
