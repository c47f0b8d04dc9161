"""New items under load: how soon every worker knows them, and whether `kill -9` loses them."""

import json
import os
import signal
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from bench import encoders, loads
from bench.changes import apart
from bench.load import Load, closed_loop, open_loop, requests
from bench.peers import Running, persona, running
from bench.report import machine, table, tell
from bench.results import record

WIDTH = 64
SHARE = 0.4  # of what the service can answer, as for version changes
PIECE_S = 2.0
PROBES = 40  # connections of their own, which reach every worker


def items(
    rounds: Annotated[int, typer.Option(help="Requests with new items.", min=1)] = 10,
    new: Annotated[int, typer.Option(help="Items in each of them.")] = 1000,
) -> None:
    """POST /v1/items with 1,000 items each, while two workers answer; then all are killed."""
    command = f"python -m bench items --rounds {rounds} --new {new}"
    with (
        tempfile.TemporaryDirectory(dir=encoders.CACHE) as state,
        running(persona(admin="1", state_folder=state)) as started,
        apart() as other,
    ):
        load = requests(started.server, [[row] for row in loads.histories("news", 2000)])
        rate = SHARE * closed_loop(started.port, load, 3).per_second
        without = open_loop(started.port, load, rate, PIECE_S * rounds)
        made, parts = other.submit(add, started.port, rounds, new), list[Load]()
        while not made.done():
            parts.append(open_loop(started.port, load, rate, PIECE_S, seed=1 + len(parts)))
        seconds, unseen = made.result()
        kill_workers(started)
        lost = sum(_unknown(started.port, number, new) for number in range(rounds))
    failed = sum(round(part.failed * rate * PIECE_S) for part in parts)
    record("items_visible_seconds", round(max(seconds), 3), 1.0, command)
    record("items_failed", failed + unseen, 0, command)
    record("items_lost_by_kill", lost, 0, command)
    during = np.concatenate([part.latencies_ms for part in parts])
    rows = [_row("without", without.latencies_ms), _row("with", during)]
    about = (
        f"Two workers, {loads.CATALOGUE:,} items, {rate:,.0f} requests a second. {rounds} times "
        f"{new:,} items: every worker knows them after {median(seconds):.2f} s in the median, "
        f"{max(seconds):.2f} s at most. {failed} requests failed, {unseen} of "
        f"{PROBES * rounds} probes found an item unknown; {lost} after `kill -9` of both workers. "
        f"On {machine()}."
    )
    head = ["latency in ms", "p50", "p99", "p99.9"]
    tell("items", "New items under load", f"{about}\n\n{table(head, rows)}")


def add(port: int, rounds: int, new: int) -> tuple[list[float], int]:
    """Adds items again and again; how long each took, and how many probes did not know one."""
    seconds, unseen = [], 0
    for number in range(rounds):
        body = json.dumps({"items": list(_items(number, new))}).encode()
        since = time.perf_counter()
        _post(port, "/v1/items", body)
        seconds.append(time.perf_counter() - since)
        unseen += _unknown(port, number, new)
    return seconds, unseen


def kill_workers(started: Running) -> None:
    """Kills all workers at once, and waits for those that take their place."""
    killed = _ready(started)
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    until = time.monotonic() + 120
    while len(_ready(started) - killed) < len(killed):
        if time.monotonic() > until:
            raise RuntimeError("the workers that were killed have not been replaced in 120 s")
        time.sleep(0.2)


def _ready(started: Running) -> set[int]:
    try:
        workers = json.loads(started.get("/health/ready"))["workers"]
    except (OSError, HTTPException):  # nobody answers, or the one that did was killed
        return set()
    return {worker["process_id"] for worker in workers if worker["state"] == "ready"}


def _unknown(port: int, number: int, new: int) -> int:
    """How many probes do not know the last item of a round."""
    probe = json.dumps({"histories": [[f"new {number} {new - 1}"]]}).encode()
    answers = (_post(port, "/v1/encode", probe) for _ in range(PROBES))
    return sum(answer["users"][0]["unknown"] for answer in answers)


def _items(number: int, new: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(number)
    for place in range(new):
        vector = rng.normal(scale=0.1, size=WIDTH).round(4)
        yield {"item": f"new {number} {place}", "vector": vector.tolist()}


def _post(port: int, path: str, body: bytes) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body)  # http
    with urllib.request.urlopen(request, timeout=60) as answer:  # as above
        return json.loads(answer.read())


def _row(name: str, latencies: np.ndarray) -> list[str]:
    return [name, *(f"{np.percentile(latencies, p):.1f}" for p in (50, 99, 99.9))]
