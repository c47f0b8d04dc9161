"""The upper limit of the rate: the fp32 graph alone and HTTP alone, one after the other.

Both share the same cores. So as long as neither gets faster, an answer takes what the graph takes
in the ideal loop, which is handed 256 histories at a time, and what HTTP and JSON take in a loop
that computes nothing. HTTP outside of Python has a ceiling of its own.
"""

from dataclasses import replace
from statistics import median
from typing import Annotated

import typer

from bench import encoders
from bench.batch import RUN_SIZES, ideal
from bench.online import MIXES, closed
from bench.peers import LITSERVE, REFERENCE, running
from bench.report import table, tell
from bench.results import record

BARE = replace(REFERENCE, name="HTTP alone", variables={"BENCH_GRAPH": "0"})
TIMES = 7.0  # as many answers as the best of the Python servers: the target of `online`

Rounds = Annotated[int, typer.Option(help="Rounds; medians count.", min=1)]
Seconds = Annotated[float, typer.Option(help="Of each measurement.", min=0.1)]


def ceiling(rounds: Rounds = 5, seconds: Seconds = 3.0) -> None:
    """The most answers a second that the graph and HTTP leave, over those of LitServe."""
    command = f"python -m bench ceiling --rounds {rounds} --seconds {seconds:g}"
    rows = []
    encoders.artifacts()  # made once, before two processes ask for it
    for mix in MIXES:
        size = max(RUN_SIZES, key=lambda size, mix=mix: ideal(mix, size, 0.5))  # type: ignore[misc]  # its default
        graph: list[float] = []
        http: list[float] = []
        peer: list[float] = []
        for _ in range(rounds):
            graph.append(ideal(mix, size, seconds))
            for server, rates in ((BARE, http), (LITSERVE, peer)):
                with running(server) as started:
                    rates.append(closed(started, mix, seconds).per_second)
        most = together(median(graph), median(http))
        ratio = most / median(peer)
        record(f"online_ceiling_vs_litserve_{mix}", round(ratio, 3), None, command)
        counts = (median(graph), median(http), most, median(peer), TIMES * median(peer))
        rows.append([mix, *(f"{count:,.0f}" for count in counts), f"{ratio:.1f}"])
        typer.echo(rows[-1])
    head = ["histories", "graph alone", BARE.name, "both", LITSERVE.name, f"{TIMES:g} x", "ceiling"]
    about = (
        "Histories a second: of the ideal loop in batches of 256, of a bare ASGI loop that answers "
        "zeros, one history a request over 32 connections, and of one after the other on the same "
        "two cores: the most that is left of this graph in fp32 behind uvicorn. The "
        f"ceiling is that over {LITSERVE.name}, of which the target is {TIMES:g} times as many. "
        f"Medians of {rounds} rounds of {seconds:g} s."
    )
    tell("ceiling", "The ceiling of one history a request", f"{about}\n\n{table(head, rows)}")


def together(*rates: float) -> float:
    """The rate of doing one thing after the other, of the rates of each.

    >>> together(3.0, 6.0)
    2.0
    """
    return 1 / sum(1 / rate for rate in rates)
