"""The cost of an encode by length, batch, catalogue size and workers."""

import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Annotated

import typer

from bench import loads
from bench.batch import batches
from bench.encoders import NAME, artifacts, resized
from bench.load import closed_loop, requests, steady
from bench.peers import Running, persona, running
from bench.pictures import plot
from bench.report import table, tell
from bench.results import record
from persona.artifact import open_artifact
from persona.contract import ITEM_ID
from persona.engine.session import Input, Session

LENGTHS = (10, 20, 50, 100, 200, 500, 1000)
BATCHES = (1, 4, 16, 64, 256, 1024)
ITEMS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
WORKERS = (1, 2)
LENGTH = 50  # of the histories, where the catalogue grows
COMMAND = "python -m bench curves"

Seconds = Annotated[float, typer.Option(help="Of each measurement.", min=0.1)]
Curve = dict[int, float]


def curves(
    seconds: Seconds = 3.0,
    rounds: Annotated[int, typer.Option(help="Rounds; medians count.", min=1)] = 5,
    most_items: Annotated[int, typer.Option(help="Leave out larger catalogues.")] = ITEMS[-1],
) -> None:
    """Cost by length 10 to 1,000, batch 1 to 1,024, items 10^3 to 10^7, workers 1 and 2."""
    graph, served = _by_length(seconds, rounds)
    record("length_cost_growth_10_to_100", _growth(graph, 10, 100), 12, COMMAND)
    record("length_cost_growth", _growth(graph, 100, 1000), 22, COMMAND)
    by_items = _by_items([size for size in ITEMS if size <= most_items], seconds, rounds)
    record("catalogue_cost_growth", _growth(by_items, ITEMS[0], max(by_items)), 1.3, COMMAND)
    by_batch = {mix: _by_batch(mix, seconds) for mix in ("news", "films")}
    by_workers = {mix: _by_workers(mix, seconds) for mix in ("news", "films")}
    parts = [
        _shown(
            "length", "clicks of one history", "ms an encode", {"graph": graph, "over HTTP": served}
        ),
        _shown("items", "items of the catalogue", "ms an encode", {f"{LENGTH} clicks": by_items}),
        _shown("batch", "histories a request", "users a second", by_batch),
        _shown("workers", "workers", "answers a second", by_workers),
    ]
    about = (
        "Length: the served graphs by themselves in one thread, of which the figures are, and a "
        "worker's answers over one connection. Items: answers over one connection to one worker, "
        "items drawn by 1 / rank, in turn. Batch: two workers, 8 connections. Workers: one history "
        "a request, 32 connections; the load generator shares the cores."
    )
    tell("curves", "Cost curves", "\n\n".join([about, *parts]))


def _shown(name: str, x: str, y: str, lines: Mapping[str, Curve]) -> str:
    points = next(iter(lines.values()))
    rows = [[f"{at:,}", *(_digits(line[at]) for line in lines.values())] for at in points]
    head = [x, *(f"{y}, {label}" for label in lines)]
    return f"{table(head, rows)}\n\n{plot(name, x, y, lines)}"


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _growth(curve: Curve, low: int, high: int) -> float:
    return round(curve[high] / curve[low], 3)


def _by_length(seconds: float, rounds: int) -> tuple[Curve, Curve]:
    """Milliseconds of one history: of the graph alone, and of an answer over HTTP."""
    root = artifacts(max_length=max(LENGTHS))
    session = Session(open_artifact(root / NAME / "1"))
    graph: dict[int, list[float]] = {length: [] for length in LENGTHS}
    for _ in range(rounds):
        for length in LENGTHS:
            rows = [array("q", history) for history in loads.of_lengths([length] * 20)]
            inputs = [Input({ITEM_ID: row}, length) for row in rows]
            graph[length].append(_encode_ms(session, inputs, seconds / rounds))
    with running(persona(root, workers=1)) as started:
        served = {length: _served_ms(started, [length], seconds) for length in LENGTHS}
    return {length: median(found) for length, found in graph.items()}, served


def _encode_ms(session: Session, inputs: Sequence[Input], seconds: float) -> float:
    times: list[float] = []
    session.run("embedding", inputs[:1])  # warm
    ends = time.perf_counter() + seconds
    while not times or time.perf_counter() < ends:
        for one in inputs:
            started = time.perf_counter()
            session.run("embedding", [one])
            times.append(time.perf_counter() - started)
    return median(times) * 1000


def _served_ms(
    started: Running, sizes: list[int], seconds: float, n_items: int = loads.CATALOGUE
) -> float:
    """From one answer to the next over one connection, one history each."""
    histories = loads.of_lengths(sizes * (2000 // len(sizes)), n_items)
    load = requests(started.server, [[history] for history in histories])
    closed_loop(started.port, load, seconds / 2, 1)  # warm
    return 1000 / closed_loop(started.port, load, seconds, 1).per_second


def _by_items(sizes: Sequence[int], seconds: float, rounds: int) -> Curve:
    """All catalogues are served at once and asked in turn: what drifts, drifts for all of them."""
    found: dict[int, list[float]] = {n_items: [] for n_items in sizes}
    with ExitStack() as stack:
        started = {}
        for n_items in sizes:
            root = stack.enter_context(resized(n_items))
            started[n_items] = stack.enter_context(running(persona(root, workers=1), 900))
        for _ in range(rounds):
            for n_items in sizes:
                found[n_items].append(_served_ms(started[n_items], [LENGTH], seconds, n_items))
    return {n_items: median(times) for n_items, times in found.items()}


def _by_batch(mix: str, seconds: float) -> Curve:
    curve = {}
    with running(persona()) as started:
        for size in BATCHES:
            load = requests(started.server, batches(mix, 20, size))
            curve[size] = steady(started.port, load, seconds, 8).per_second * size
    return curve


def _by_workers(mix: loads.Mix, seconds: float) -> Curve:
    curve = {}
    for workers in WORKERS:
        with running(persona(workers=workers)) as started:
            rows = loads.histories(mix, 2000)
            load = requests(started.server, [[row] for row in rows])
            closed_loop(started.port, load, seconds / 5)  # warm
            curve[workers] = closed_loop(started.port, load, seconds).per_second
    return curve
