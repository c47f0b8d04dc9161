"""Measures a service under faults: overload, killed workers, a large request among small ones."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bench import load, loads
from bench.load import Load, open_loop, steady
from bench.online import one_history_requests
from bench.peers import Running, persona, running
from bench.report import table, tell
from bench.results import record
from persona import AsyncClient, PersonaError

TIMES_CAPACITY = 5
HISTORIES = 16  # of a request under overload
DEADLINE_MS = 500
CONNECTIONS = 600  # at most; more than ever wait, so that what is due is sent
CLOSED = 8  # connections of the closed loop
CLIENTS = 16
KILL_EVERY_S = 5.0
SMALL_SHARE = 0.3  # of the capacity for small requests

Seconds = Annotated[float, typer.Option(help="Of the load.", min=1)]


def overload(seconds: Seconds = 60.0) -> None:
    """Five times what one worker can do, open loop, in batches."""
    with running(
        persona(workers=1, deadline_ms=str(DEADLINE_MS), keep_alive_seconds="60")
    ) as started:
        pages = loads.histories("films", 200 * HISTORIES)
        batches = [pages[at : at + HISTORIES] for at in range(0, len(pages), HISTORIES)]
        requests = load.requests(started.server, batches)
        capacity = steady(started.port, requests, min(5.0, seconds), CLOSED).per_second
        before = resident_bytes(started)
        rate = TIMES_CAPACITY * capacity
        connections = min(CONNECTIONS, round(rate))
        under = open_loop(started.port, requests, rate, seconds, connections=connections)
        recovery = seconds_to_recover(started, requests, capacity)
        growth = resident_bytes(started) / before - 1
    goodput = under.goodput(DEADLINE_MS) / capacity
    late = under.percentile(99) / DEADLINE_MS
    typer.echo(f"{goodput:.3f}, p99 {late:.2f}, {dict(under.statuses)}")
    command = f"python -m bench overload --seconds {seconds:g}"
    record("overload_goodput", round(goodput, 3), 0.9, command)
    record("overload_p99_vs_deadline", round(late, 3), 1.0, command)
    record("recovery_seconds", round(recovery, 2), 2.0, command)
    about = (
        f"One worker, {HISTORIES} histories of films a request, deadline {DEADLINE_MS:,} ms, "
        f"{TIMES_CAPACITY} times its capacity in open loop (Poisson) for {seconds:g} s. Goodput: "
        f"answers within the deadline over the capacity, which is closed loop on {CLOSED} "
        "connections. Latencies count from when a request was due. Recovered: until the closed "
        "loop is back at 90 % of the capacity."
    )
    head = ["capacity a second", "goodput", "p50 ms", "p99 ms", "statuses", "recovered", "memory"]
    row = _cells(capacity, under, goodput, recovery, growth)
    tell("overload", "Overload", f"{about}\n\n{table(head, [row])}")


def _cells(
    capacity: float, under: Load, goodput: float, recovery: float, growth: float
) -> list[str]:
    statuses = ", ".join(f"{n:,} x {status}" for status, n in sorted(under.statuses.items()))
    return [
        f"{capacity:,.0f}",
        f"{goodput:.1%}",
        f"{under.percentile(50):,.0f}",
        f"{under.percentile(99):,.0f}",
        statuses,
        f"{recovery:.1f} s",
        f"{growth:+.1%}",
    ]


def seconds_to_recover(started: Running, requests: Sequence[bytes], capacity: float) -> float:
    """From now until the closed loop does what it did before the overload."""
    began = time.perf_counter()
    while time.perf_counter() - began < 60:
        measured_from = time.perf_counter()
        if steady(started.port, requests, 0.5, CLOSED).per_second >= 0.9 * capacity:
            return measured_from - began
    return float("inf")


def resident_bytes(started: Running) -> int:
    """Resident memory of all processes, in bytes."""
    facts = (Path(f"/proc/{number}/statm").read_text() for number in started.processes())
    return sum(int(fact.split()[1]) for fact in facts) * os.sysconf("SC_PAGE_SIZE")


def kills(seconds: Seconds = 60.0) -> None:
    """`kill -9` of a worker every 5 s, under the load of clients that try again."""
    logging.getLogger("stamina").setLevel(logging.ERROR)  # it tells of each retry
    with running(persona()) as started:
        outcomes = asyncio.run(_kills(started, seconds))
    lost = outcomes.total() - outcomes["answered"]
    typer.echo(dict(outcomes))
    command = f"python -m bench kills --seconds {seconds:g}"
    record("kills_lost_with_retries", lost, 0, command)
    text = (
        f"Two workers; one of them is killed (SIGKILL) every {KILL_EVERY_S:g} s, for {seconds:g} "
        f"s. {CLIENTS} of Persona's clients, each with one request after the other, news: "
        f"{outcomes['answered']:,} requests answered, {lost} not, with the retries that the "
        "client makes by default."
    )
    tell("kills", "Killed workers", text)


async def _kills(started: Running, seconds: float) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    histories = [[f"n{row}" for row in rows] for rows in loads.histories("news", 2000)]
    numbers, until = count(), time.monotonic() + seconds

    async def ask() -> None:
        async with AsyncClient(f"http://127.0.0.1:{started.port}") as client:
            while time.monotonic() < until:
                try:
                    await client.encode([histories[next(numbers) % len(histories)]])
                except PersonaError as error:
                    outcomes[f"{type(error).__name__}: {error}"] += 1
                else:
                    outcomes["answered"] += 1

    async def kill() -> None:
        while time.monotonic() < until - KILL_EVERY_S:
            await asyncio.sleep(KILL_EVERY_S)
            with suppress(OSError):  # in a slow place, none is ready after so short a time
                answer = await asyncio.to_thread(started.get, "/health/ready")
                workers = json.loads(answer)["workers"]
                ready = [one["process_id"] for one in workers if one["state"] == "ready"]
                os.kill(ready[next(numbers) % len(ready)], signal.SIGKILL)
                typer.echo(f"killed one of {len(ready)}")

    await asyncio.gather(kill(), *(ask() for _ in range(CLIENTS)))
    return outcomes


def large(seconds: Seconds = 20.0, rounds: int = 3) -> None:
    """A request of 1,024 histories of 200 clicks amid requests of one history."""
    alone: list[Load] = []
    amid: list[Load] = []
    with running(persona()) as started:
        requests = one_history_requests(started.server, "news")
        capacity = steady(started.port, requests, 3.0, load.CONNECTIONS).per_second
        for number in range(rounds):
            for of, with_large in ((alone, False), (amid, True)):
                with _large_requests(started) if with_large else nullcontext():
                    rate = SMALL_SHARE * capacity
                    of.append(open_loop(started.port, requests, rate, seconds, seed=number))
                typer.echo(f"{'amid' if with_large else 'alone'} p99 {of[-1].percentile(99):.2f}")
    medians = [float(np.median([one.percentile(99) for one in of])) for of in (alone, amid)]
    command = f"python -m bench large --seconds {seconds:g} --rounds {rounds}"
    record("large_amid_small_p99", round(medians[1] / medians[0], 3), 2.0, command)
    rows = [
        [name, *(f"{np.median([one.percentile(p) for one in of]):.2f}" for p in (50, 99, 99.9))]
        for name, of in (("alone", alone), ("amid", amid))
    ]
    about = (
        f"Two workers; one history a request, news, open loop at {SMALL_SHARE:.0%} of the "
        f"capacity; alone, and while one request of {loads.MAX_LENGTH} clicks x 1,024 histories "
        f"is under way. Medians of {rounds} rounds of {seconds:g} s; ms."
    )
    tell("large", "A large request", f"{about}\n\n{table(['small', 'p50', 'p99', 'p99.9'], rows)}")


@contextmanager
def _large_requests(started: Running) -> Iterator[None]:
    """One after the other, from a process of its own."""
    other = subprocess.Popen([sys.executable, "-c", _LARGE, str(started.port)])
    time.sleep(2)
    try:
        yield
    finally:
        other.kill()
        other.wait()


# One large request after the other; in a process of its own, which sleeps while it waits.
_LARGE = """
import http.client, json, sys
body = json.dumps({"histories": [[f"n{(i * 7919 + j * 31) % 50000}" for j in range(200)]
                                 for i in range(1024)]})
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
while True:
    connection.request("POST", "/v1/encode", body)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
"""
