"""What keeping histories costs a service: its latency below saturation, and its memory over time.

Sessions are replayed as in `next_click`. For the memory, no user comes back: the budget is soon
full, and every further history takes the place of others.
"""

import time
from collections.abc import Iterator
from itertools import cycle
from statistics import median
from typing import Annotated

import typer

from bench import encoders
from bench.batch import Rounds, Seconds
from bench.house import ROOT
from bench.load import Load, open_loop, requests, steady
from bench.memory import MEGABYTE, proportional_bytes
from bench.next_click import MEGABYTES, PAGE, USERS, WINDOW_STEP, Replay, connected, service
from bench.peers import Running, running
from bench.report import table, tell
from bench.results import record

SHARE = 0.6  # of the capacity without anything kept
CONNECTIONS = 64
BUDGET = 100  # megabytes, which random users fill many times over
KEPT_BYTES = "persona_kept_bytes"
OFF, ON = "nothing kept", "kept"


def kept_load(
    rounds: Rounds = 5,
    seconds: Seconds = 5.0,
    minutes: Annotated[float, typer.Option(help="Of random users.", min=0.05)] = 10.0,
) -> None:
    """Kept histories: p99 at 60 % load beside a service without, and memory with random users."""
    command = f"python -m bench kept-load --rounds {rounds} --minutes {minutes:g}"
    found = _latencies(rounds, seconds)
    ratio = median(
        kept.percentile(99) / off.percentile(99)
        for kept, off in zip(found[ON], found[OFF], strict=True)
    )
    record("next_click_p99_vs_off", round(ratio, 3), 1.0, command)
    largest, grown, answers = _memory(minutes)
    record("next_click_largest_vs_budget", round(largest / BUDGET, 4), 1.0, command)
    rows = [
        [name, *(f"{median(one.percentile(p) for one in loads):.1f}" for p in (50, 99))]
        for name, loads in found.items()
    ]
    about = (
        f"Film sessions at random times, {SHARE:.0%} of what one worker answers with nothing "
        f"kept; medians of {rounds} rounds of {seconds:g} s, both services in turn."
    )
    memory = (
        f"{answers:,} random users in {minutes:g} minutes, none of whom comes back, and a budget "
        f"of {BUDGET} MB: at most {largest:.1f} MB were kept, and the service grew by {grown:.0f} "
        "MB in all (PSS)."
    )
    head = ["latency in ms", "p50", "p99"]
    text = f"{about}\n\n{table(head, rows)}\n\n{memory}"
    tell("kept_load", "Kept histories under load", text, [PAGE])


def _latencies(rounds: int, seconds: float) -> dict[str, list[Load]]:
    """Both services answer the same requests, which go on from those of the round before."""
    artifacts = encoders.artifacts(window_step=WINDOW_STEP)
    servers = {
        OFF: service(ROOT, artifacts),
        ON: service(ROOT, artifacts, kept_megabytes=str(MEGABYTES)),
    }
    found: dict[str, list[Load]] = {OFF: [], ON: []}
    replay = Replay("films", USERS)
    with running(servers[OFF]) as off, running(servers[ON]) as kept:
        up = {OFF: off, ON: kept}
        asked = _asked(off, replay)
        rate = SHARE * steady(off.port, [next(asked) for _ in range(USERS)], 3.0, 32).per_second
        for number in range(1 + rounds):  # the first one fills what is kept
            load = [next(asked) for _ in range(int(rate * seconds) + 1)]
            for name in sorted(up, reverse=bool(number % 2)):
                answered = open_loop(up[name].port, load, rate, seconds, connections=CONNECTIONS)
                if answered.failed:
                    raise RuntimeError(f"{name}: {dict(answered.statuses)}")
                if number:
                    found[name].append(answered)
    return found


def _asked(started: Running, replay: Replay) -> Iterator[bytes]:
    while True:
        yield from requests(started.server, [[history] for history in replay.round()])


def _memory(minutes: float) -> tuple[float, float, int]:
    """The most megabytes kept, the megabytes by which the service grew, and its answers."""
    artifacts = encoders.artifacts(window_step=WINDOW_STEP)
    server = service(ROOT, artifacts, kept_megabytes=str(BUDGET))
    largest, answers, until = 0.0, 0, time.monotonic() + 60 * minutes
    with connected(server) as up:
        before = proportional_bytes(up.running)
        for seed in cycle(range(1, 1 << 30)):
            asked = Replay("films", USERS, seed).round()
            up.answers_a_second(asked)
            answers += len(asked)
            largest = max(largest, _kept_megabytes(up.running))
            if time.monotonic() > until:
                break
        grown = proportional_bytes(up.running) - before
    return largest, grown / MEGABYTE, answers


def _kept_megabytes(started: Running) -> float:
    lines = started.get("/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(KEPT_BYTES)) / MEGABYTE
