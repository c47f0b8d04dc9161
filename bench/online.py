"""One history a request: Persona against the reference loop, mosec and the Python servers."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from bench import load, loads
from bench.load import Load, closed_loop, open_loop
from bench.peers import (
    MOSEC,
    MOSEC_BATCHING,
    OTHERS,
    PEERS,
    REFERENCE,
    WITHOUT_SUBNORMALS,
    Running,
    Server,
    persona,
    persona_body,
    running,
)
from bench.report import table, tell
from bench.results import record

MIXES: tuple[loads.Mix, ...] = ("news", "films")
REQUESTS = 2000  # different ones, played in turn
SHARE = 0.6  # of the reference loop's capacity, in open loop
OBJECTIVE_MS = 10.0
PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"

Rounds = Annotated[int, typer.Option(help="Rounds; medians count.", min=1)]
Seconds = Annotated[float, typer.Option(help="Of each measurement.", min=0.1)]
Series = dict[str, list[Load]]


@dataclass(frozen=True)
class Compared:
    """A figure: Persona's median over that of a server, or of the best of some."""

    figure: str
    servers: Sequence[str]
    target: float


PERSONA = "Persona"
MOSECS = [MOSEC.name, MOSEC_BATCHING.name]
COMPARED = (
    Compared("online_vs_reference", [REFERENCE.name], 1.0),
    Compared("online_vs_mosec_news", MOSECS, 1.5),
    Compared("online_vs_mosec_films", MOSECS, 2.0),
    Compared("online_vs_best_python_peer", [server.name for server in OTHERS], 7.0),
)


def online(rounds: Rounds = 5, seconds: Seconds = 5.0, peers: bool = True) -> None:
    """Closed loop, 32 connections: answers a second."""
    others = PEERS + WITHOUT_SUBNORMALS if peers else ()
    series, silent = closed_rounds((persona(), REFERENCE, *others), rounds, seconds)
    command = f"python -m bench online --rounds {rounds} --seconds {seconds:g}"
    for mix in MIXES:
        of = {name: rates(loads_) for name, loads_ in series[mix].items()}
        for figure, (value, target) in ratios(of, mix).items():
            record(figure, value, target, command)
    text = _section(series, silent, rounds, seconds)
    tell("online", "One history a request", text, [PAGE])


def closed_rounds(
    servers: Sequence[Server], rounds: int, seconds: float
) -> tuple[dict[loads.Mix, Series], dict[str, str]]:
    """Every server in turn, in every round; what each mix gave, and who did not answer and why.

    All are up from the beginning: what the machine loses or gains from one minute to the next, it
    loses or gains for all of them.
    """
    series: dict[loads.Mix, Series] = {mix: {} for mix in MIXES}
    silent: dict[str, str] = {}
    with ExitStack() as stack:
        up: dict[str, Running] = {}
        for server in servers:
            try:
                up[server.name] = stack.enter_context(running(server))
            except RuntimeError as error:
                note_silence(server.name, error, silent)
        for _ in range(rounds):
            for mix in MIXES:
                for name, started in up.items():
                    try:
                        measured = closed(started, mix, seconds)
                    except (RuntimeError, OSError) as error:
                        note_silence(name, error, silent)
                    else:
                        series[mix].setdefault(name, []).append(measured)
    return series, silent


def note_silence(name: str, error: Exception, silent: dict[str, str]) -> None:
    """A peer may fall silent, and the table says so; without ours there is nothing to compare."""
    if name in {PERSONA, REFERENCE.name}:
        raise error
    words = [line for line in str(error).splitlines() if any(map(str.isalpha, line))]
    silent[name] = words[-1].strip() if words else repr(error)


def closed(started: Running, mix: loads.Mix, seconds: float) -> Load:
    """A server's closed loop, one history a request, after a warm-up."""
    requests = one_history_requests(started.server, mix)
    closed_loop(started.port, requests, seconds / 5)  # warm
    measured = closed_loop(started.port, requests, seconds)
    typer.echo(f"{started.server.name:>16} {mix:>5} {measured.per_second:9,.0f} a second")
    return measured


def one_history_requests(server: Server, mix: loads.Mix) -> list[bytes]:
    """HTTP requests of a mix, to be played in turn."""
    return load.requests(server, [[history] for history in loads.histories(mix, REQUESTS)])


def rates(loads_: Sequence[Load]) -> list[float]:
    """Answers a second of each round."""
    return [load_.per_second for load_ in loads_]


def ratios(of: Mapping[str, Sequence[float]], mix: loads.Mix) -> dict[str, tuple[float, float]]:
    """Figures of a mix with their targets, from each server's answers a second in every round."""
    found: dict[str, tuple[float, float]] = {}
    for compared in COMPARED:
        name = compared.figure if compared.figure.endswith(MIXES) else f"{compared.figure}_{mix}"
        medians = [median(of[server]) for server in compared.servers if server in of]
        if not medians or not name.endswith(mix):
            continue
        found[name] = round(median(of[PERSONA]) / max(medians), 3), compared.target
    return found


def _section(
    series: Mapping[loads.Mix, Series], silent: Mapping[str, str], rounds: int, seconds: float
) -> str:
    generator = "wrk" if shutil.which("wrk") else "a Python client"
    about = (
        f"Answers per second, median of {rounds} rounds of {seconds:g} s [least to most], and the "
        f"share of failed requests, over {load.CONNECTIONS} connections, closed loop by "
        f"{generator} on the same cores. All servers are up; one is asked at a time. The others "
        "run the same encoder as plain fp32 ONNX, receive rows of the item table instead of item "
        "ids, and check only what their framework checks. ONNX Runtime has one thread per worker, "
        "except in the naive FastAPI and where threads are unset. Rows 'subnormals 0' set "
        "`session.set_denormal_as_zero`, as Persona does; no target uses them."
    )
    missing = (f"\n{name} did not answer: `{why}`" for name, why in silent.items())
    return "\n".join([about, "", table(["server", *MIXES], _rows(series)), *missing])


def _rows(series: Mapping[loads.Mix, Series]) -> list[list[str]]:
    names = list(series[MIXES[0]])
    return [[name, *(_cell(series[mix].get(name, [])) for mix in MIXES)] for name in names]


def _cell(loads_: Sequence[Load]) -> str:
    if not loads_:
        return ""
    of = rates(loads_)
    failed = median(load_.failed for load_ in loads_)
    cell = f"{median(of):,.0f} [{min(of):,.0f} to {max(of):,.0f}]"
    return f"{cell}, {failed:.1%} failed" if failed else cell


def latency(rounds: Rounds = 5, seconds: Seconds = 5.0) -> None:
    """Open loop at 60 % of the reference loop's capacity: latencies from the due time."""
    base64 = persona(body=lambda histories: persona_body(histories, encoding="base64"))
    servers = {REFERENCE.name: REFERENCE, "Persona": persona(), "Persona, base64": base64}
    series: dict[loads.Mix, Series] = {mix: {name: [] for name in servers} for mix in MIXES}
    at = dict.fromkeys(MIXES, 0.0)
    for number in range(rounds):
        for name, server in servers.items():
            with running(server) as started:
                for mix in MIXES:
                    capacity = closed(started, mix, seconds).per_second
                    if server is REFERENCE:
                        at[mix] = SHARE * capacity
                    requests = one_history_requests(server, mix)
                    opened = open_loop(started.port, requests, at[mix], seconds, seed=number)
                    typer.echo(f"{name:>16} {mix:>5} p99 {opened.percentile(99):.2f} ms")
                    series[mix][name].append(opened)
    command = f"python -m bench latency --rounds {rounds} --seconds {seconds:g}"
    for mix in MIXES:
        ours, theirs = (_median_p(series[mix][name], 99) for name in ("Persona", REFERENCE.name))
        record(f"p99_vs_reference_{mix}", round(ours / theirs, 3), 1.2, command)
    tell("latency", "Latency under load", _latency_section(series, rounds, seconds))


def _median_p(loads_: Sequence[Load], percent: float) -> float:
    return median(load_.percentile(percent) for load_ in loads_)


def _latency_section(series: Mapping[loads.Mix, Series], rounds: int, seconds: float) -> str:
    head = ["mix", "server", "asked a second", "p50 ms", "p99 ms", "p99.9 ms"]
    rows = [
        [
            mix,
            name,
            f"{median(rates(loads_)):,.0f}",
            *(f"{_median_p(loads_, percent):.2f}" for percent in (50, 99, 99.9)),
            f"{median(load_.goodput(OBJECTIVE_MS) for load_ in loads_):,.0f}",
        ]
        for mix, of in series.items()
        for name, loads_ in of.items()
    ]
    return (
        f"Open loop, Poisson arrivals at {SHARE:.0%} of what the reference loop answered in closed "
        "loop in the same round, the same for both servers; a latency counts from when a request "
        f"was due. Medians of {rounds} rounds of {seconds:g} s.\n\n"
        + table([*head, f"a second within {OBJECTIVE_MS:g} ms"], rows)
    )
