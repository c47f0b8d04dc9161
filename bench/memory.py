"""Memory and rest: many shapes, workers that share a large item table, and CPU at idle."""

import os
import random
import time
from pathlib import Path
from typing import Annotated

import typer

from bench import loads
from bench.encoders import resized
from bench.load import closed_loop, requests
from bench.peers import Running, persona, running
from bench.report import table, tell
from bench.results import record

MEGABYTE = 1e6
ITEMS = 1_000_000
FEW_ITEMS = 1_000
LONGEST, LARGEST = 200, 50  # 10,000 shapes
WIDTH_BYTES = 64 * 4  # of an item's embedding


def memory(
    shapes: Annotated[int, typer.Option(help="Different shapes.", min=1)] = LONGEST * LARGEST,
    items: Annotated[int, typer.Option(help="Of the large artifact.", min=1)] = ITEMS,
    idle_seconds: Annotated[float, typer.Option(help="To watch the CPU.", min=0.1)] = 20.0,
) -> None:
    """10,000 shapes, a million items over several workers, and CPU at idle."""
    command = "python -m bench memory"
    before, after = shape_growth(shapes)
    record("shapes_memory_growth", round(after / before - 1, 4), 0.10, command)
    idle = _idle_after_load(idle_seconds)
    record("idle_cpu", round(idle, 5), 0.01, command)
    large, small = worker_bytes(items), worker_bytes(FEW_ITEMS)
    item_table = items * WIDTH_BYTES
    record("worker_memory_share", round((large - small) / item_table, 4), 0.15, command)
    rows = [
        ["one worker after warm-up", f"{before / MEGABYTE:,.1f} MB"],
        [f"the same after {shapes:,} shapes", f"{after / MEGABYTE:,.1f} MB"],
        [f"an extra worker, {FEW_ITEMS:,} items", f"{small / MEGABYTE:,.1f} MB"],
        [f"an extra worker, {items:,} items", f"{large / MEGABYTE:,.1f} MB"],
        [f"the table of {items:,} items", f"{item_table / MEGABYTE:,.1f} MB"],
        [f"CPU of two workers over {idle_seconds:g} s at idle", f"{idle:.2%} of a core"],
    ]
    about = (
        "Shapes: resident memory (RSS) of one worker; requests of each number of histories up to "
        "50 and each length up to 200, in random order. Workers: proportional set size (PSS) of "
        "the whole service with three workers less that with two, after the same load; the figure "
        "is what the large artifact adds to an extra worker, in sizes of its item table."
    )
    tell("memory", "Memory and rest", f"{about}\n\n{table(['what', 'how much'], rows)}")


def shape_growth(shapes: int) -> tuple[float, float]:
    """Resident bytes of one worker after its warm-up, and after all shapes."""
    wanted = [(size, length) for size in range(1, LARGEST + 1) for length in range(1, LONGEST + 1)]
    random.Random(0).shuffle(wanted)
    with running(persona(workers=1)) as started:
        for number in range(100):
            started.post(loads.of_lengths([LONGEST] * LARGEST, seed=number))
        before = resident_bytes(started)
        for number, (size, length) in enumerate(wanted[:shapes]):
            started.post(loads.of_lengths([length] * size, seed=number))
        return before, resident_bytes(started)


def worker_bytes(n_items: int) -> float:
    """The memory that one more worker adds."""
    with resized(n_items) as artifacts:
        two, three = (_loaded_bytes(artifacts, n_items, workers) for workers in (2, 3))
    return three - two


def _loaded_bytes(artifacts: Path, n_items: int, workers: int) -> float:
    server = persona(artifacts, workers=workers)
    lengths = loads.lengths("films", 2000)
    with running(server) as started:
        load = requests(server, [[row] for row in loads.of_lengths(lengths, n_items)])
        closed_loop(started.port, load, 5)
        return proportional_bytes(started)


def resident_bytes(started: Running) -> float:
    """RSS of all processes."""
    return (
        sum(_kilobytes(f"/proc/{number}/status", "VmRSS:") for number in started.processes()) * 1024
    )


def proportional_bytes(started: Running) -> float:
    """PSS of all processes: shared pages count once."""
    files = [f"/proc/{number}/smaps_rollup" for number in started.processes()]
    return sum(_kilobytes(file, "Pss:") for file in files) * 1024


def _kilobytes(file: str, name: str) -> float:
    lines = Path(file).read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name))


def _idle_after_load(seconds: float) -> float:
    server = persona()
    with running(server) as started:
        rows = loads.histories("news", 500)
        closed_loop(started.port, requests(server, [[row] for row in rows]), 1)
        return idle_share(started, seconds)


def idle_share(started: Running, seconds: float) -> float:
    """CPU of all processes over some seconds without requests, as a share of one core."""
    time.sleep(1)
    before, since = _cpu_seconds(started), time.perf_counter()
    time.sleep(seconds)
    return (_cpu_seconds(started) - before) / (time.perf_counter() - since)


def _cpu_seconds(started: Running) -> float:
    ticks = 0
    for number in started.processes():
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # in user mode, in the kernel
    return ticks / os.sysconf("SC_CLK_TCK")
