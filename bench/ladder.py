"""Every server at rising rates of open-loop load, and what it holds of memory and CPU at rest."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated

import numpy as np
import typer

from bench import loads
from bench.load import Load, closed_loop, open_loop
from bench.memory import MEGABYTE, idle_share, proportional_bytes
from bench.online import MIXES, OBJECTIVE_MS, note_silence, one_history_requests
from bench.peers import PEERS, REFERENCE, Running, persona, running
from bench.pictures import plot
from bench.report import table, tell

RATES: dict[loads.Mix, Sequence[int]] = {
    "news": (250, 500, 1000, 2000, 4000, 8000),
    "films": (125, 250, 500, 1000, 2000, 3000),
}
DROWNED = 0.5  # less than this share in time, and higher rates are left out

Rounds = Annotated[int, typer.Option(help="Rounds; all their requests count.", min=1)]
Seconds = Annotated[float, typer.Option(help="Of each rate.", min=0.1)]
Steps = dict[int, list[Load]]  # by rate, of each round


def ladder(rounds: Rounds = 3, seconds: Seconds = 2.0, peers: bool = True) -> None:
    """Open loop at rising rates: latencies and answers in time; memory, and CPU at idle."""
    others = PEERS if peers else ()
    climbed: dict[loads.Mix, dict[str, Steps]] = {mix: {} for mix in MIXES}
    rest: dict[str, list[tuple[float, float]]] = {}
    silent: dict[str, str] = {}
    for number in range(rounds):
        for server in (persona(), REFERENCE, *others):
            try:
                with running(server) as started:
                    for mix in MIXES:
                        steps = climbed[mix].setdefault(server.name, {})
                        climb(started, mix, seconds, number, steps)
                    found = proportional_bytes(started), idle_share(started, 2 * seconds)
                    rest.setdefault(server.name, []).append(found)
            except (RuntimeError, OSError) as error:  # it does not start, or answers no more
                note_silence(server.name, error, silent)
    tell("ladder", "Rising load", _section(climbed, rest, silent, rounds, seconds))


def climb(started: Running, mix: loads.Mix, seconds: float, seed: int, steps: Steps) -> None:
    """Adds a round of rising rates to `steps`, up to the first that drowns the server."""
    requests = one_history_requests(started.server, mix)
    closed_loop(started.port, requests, 1)  # warm
    for rate in RATES[mix]:
        load = open_loop(started.port, requests, rate, seconds, seed=seed)
        steps.setdefault(rate, []).append(load)
        share = load.in_time(OBJECTIVE_MS)
        typer.echo(
            f"{started.server.name:>20} {mix:>5} {rate:5} p99 {load.percentile(99):9.2f} ms, "
            f"{share:.0%} in time"
        )
        if share < DROWNED:
            return


def _section(
    climbed: Mapping[loads.Mix, Mapping[str, Steps]],
    rest: Mapping[str, Sequence[tuple[float, float]]],
    silent: Mapping[str, str],
    rounds: int,
    seconds: float,
) -> str:
    about = (
        "One history a request, Poisson arrivals at the given rate over 64 connections by a Python "
        "client on the same cores; a latency counts from when a request was due. Cells: p50 / p99 "
        f"/ p99.9 in milliseconds of the good answers, and the share of requests that had one "
        f"within {OBJECTIVE_MS:g} ms where it is below 99 %; once it is below {DROWNED:.0%} in "
        "a round, the round ends there, and at higher rates counts as no answer in time. "
        f"{rounds} rounds of {seconds:g} s, all their requests together."
    )
    parts = [about]
    for mix, servers in climbed.items():
        rows = [
            [name, *(_cell(steps, rate) for rate in RATES[mix])] for name, steps in servers.items()
        ]
        parts.append(table([f"{mix}, requests a second", *map(str, RATES[mix])], rows))
        goodput = {
            name: {rate: rate * share for rate, share in in_time(steps).items()}
            for name, steps in servers.items()
        }
        y = f"answers a second within {OBJECTIVE_MS:g} ms"
        parts.append(plot(f"ladder_{mix}", f"{mix}, requests a second", y, goodput))
    parts.append(_at_rest(rest, seconds))
    parts += [f"{name} fell silent in a round: `{why}`" for name, why in silent.items()]
    return "\n\n".join(parts)


def _at_rest(rest: Mapping[str, Sequence[tuple[float, float]]], seconds: float) -> str:
    rows = [
        [
            name,
            f"{median(size for size, _ in found) / MEGABYTE:,.0f}",
            f"{median(share for _, share in found):.1%}",
        ]
        for name, found in rest.items()
    ]
    return (
        "After that load: memory of all processes, shared pages counted once (PSS), and CPU "
        f"over {2 * seconds:g} s without requests; medians.\n\n"
        + table(["server", "MB", "CPU at idle, of a core"], rows)
    )


def _cell(steps: Steps, rate: int) -> str:
    if rate not in steps:
        return ""
    latencies = np.concatenate([load.latencies_ms for load in steps[rate]])
    if not len(latencies):
        return "none"
    told = " / ".join(f"{value:.3g}" for value in np.percentile(latencies, (50, 99, 99.9)))
    share = in_time(steps)[rate]
    return told if share >= 0.99 else f"{told}, {share:.0%}"


def in_time(steps: Steps) -> dict[int, float]:
    """By rate, the share of requests answered within the objective, none once a round has ended."""
    rounds = max(map(len, steps.values()))
    return {
        rate: sum(load.in_time(OBJECTIVE_MS) for load in loads_) / rounds
        for rate, loads_ in steps.items()
    }
