"""Sessions replayed: each user asks again after each click, with and without what is kept.

2,000 users are somewhere in their sessions, a long one more probably than a short one, and go on
click by click in turn. Whose session ends is followed by a new user. A request holds the whole
history. One round over all users comes before those that count, as if the replay had been going on
for long. The services are up at the same time, of one worker each, and measured in turn.
"""

import asyncio
import random
import select
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from bench import encoders, load, loads
from bench.batch import Rounds
from bench.house import ROOT, artifacts_of, check_out, of_checkout
from bench.loads import Rows
from bench.peers import Running, Server, running
from bench.report import table, tell
from bench.results import record
from persona.contract import ITEM_ID, Floats, Query
from persona.engine import Engine, Limits

USERS = 2000
CONNECTIONS = 64
MEGABYTES = 1000  # more than all users need: what is measured is what keeping is worth
WINDOW_STEP = 50  # of 200 clicks
WARM_ROUNDS = 1
LONGEST = {"films": 10_000, "news": loads.MAX_LENGTH}  # clicks of a session
TARGETS = {"films": 3.0, "news": 1.2}
BEFORE = "f979c67"  # the last commit before anything was kept
PAGE = ROOT / "docs" / "next-click.md"
DEADLINE_S = 60.0
SHUFFLE = random.Random(0)  # for no secret

Rates = Mapping[str, Sequence[float]]  # answers a second in each round, by service


@dataclass
class Session:
    """A user's clicks, and how many of them were made."""

    clicks: list[int]
    made: int


class Replay:
    """An endless replay of the sessions of a mix."""

    def __init__(self, mix: str, users: int = USERS, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        found = loads.lengths(mix, 50_000, most=LONGEST[mix])  # type: ignore[arg-type]  # one of them
        self._lengths = np.maximum(found, 1)
        lengths = self._rng.choice(self._lengths, users, p=self._lengths / self._lengths.sum())
        self._sessions = [self._session(n, int(self._rng.integers(1, n + 1))) for n in lengths]

    def round(self) -> Rows:
        """A history of every user in turn: the clicks made so far."""
        asked = []
        for at, session in enumerate(self._sessions):
            asked.append(session.clicks[: session.made])
            session.made += 1
            if session.made > len(session.clicks):
                self._sessions[at] = self._session(self._rng.choice(self._lengths), 1)
        return asked

    def _session(self, length: int, made: int) -> Session:
        clicks = loads.of_lengths([length], seed=int(self._rng.integers(1 << 30)))[0]
        return Session(clicks, made)


def next_click(
    rounds: Rounds = 5,
    users: Annotated[int, typer.Option(help="Whose sessions go on.", min=1)] = USERS,
    before: Annotated[str, typer.Option(help="A commit that keeps nothing.")] = BEFORE,
) -> None:
    """Sessions replayed, each user asking again after each click: with and without what is kept."""
    artifacts = encoders.artifacts(window_step=WINDOW_STEP)
    command = f"python -m bench next-click --rounds {rounds}"
    rates = {mix: _kept_and_not(artifacts, mix, rounds, users) for mix in TARGETS}
    for mix, target in TARGETS.items():
        record(
            f"next_click_{mix}", round(_ratio(rates[mix], "kept", "not kept"), 3), target, command
        )
    off = {mix: _beside_before(before, mix, rounds, users) for mix in TARGETS}
    cost = min(_ratio(one, "after", "before") for one in off.values())
    record("next_click_off_cost", round(cost, 3), 0.98, command)
    worst, bytes_each = compare(artifacts, users=min(users, 200))
    record("next_click_worst_difference", float(f"{worst:.3g}"), 1e-5, command)
    record("next_click_bytes_a_history", round(bytes_each), None, command)
    spread = _workers(artifacts, rounds, users)
    tell("next_click", "The next click", _section(rates, off, spread, rounds, users), [PAGE])


def _kept_and_not(artifacts: Path, mix: str, rounds: int, users: int) -> Rates:
    services = {
        "not kept": service(ROOT, artifacts),
        "kept": service(ROOT, artifacts, kept_megabytes=str(MEGABYTES)),
    }
    return _in_turn(services, mix, rounds, users)


def _beside_before(commit: str, mix: str, rounds: int, users: int) -> Rates:
    """The service as it was, and as it is when it keeps nothing, on the same artifact."""
    with TemporaryDirectory() as folder:
        checkout = Path(folder) / "before"
        check_out(commit, checkout)
        services = {
            "before": service(checkout, artifacts_of(checkout)),
            "after": service(ROOT, encoders.artifacts()),
        }
        return _in_turn(services, mix, rounds, users)


def service(checkout: Path, artifacts: Path, workers: int = 1, **settings: str) -> Server:
    """A service whose connections stay open while others are measured."""
    server = of_checkout(checkout, artifacts, workers)
    settings |= {"keep_alive_seconds": "600", "header_seconds": "600"}
    variables = {f"PERSONA_{name.upper()}": value for name, value in settings.items()}
    return replace(server, variables={**server.variables, **variables})


def _in_turn(services: Mapping[str, Server], mix: str, rounds: int, users: int) -> Rates:
    rates: dict[str, list[float]] = {name: [] for name in services}
    replay = Replay(mix, users)
    with ExitStack() as stack:
        up = {name: stack.enter_context(connected(server)) for name, server in services.items()}
        for number in range(WARM_ROUNDS + rounds):
            asked = replay.round()
            # Who comes first alternates, as what comes second finds other caches.
            for name in sorted(up, reverse=bool(number % 2)):
                found = up[name].answers_a_second(asked)
                if number >= WARM_ROUNDS:
                    rates[name].append(found)
    counts = ", ".join(f"{name} {median(found):,.0f}" for name, found in rates.items())
    typer.echo(f"{mix}: {counts} answers a second")
    return rates


@dataclass
class Connected:
    """A service, and connections to it that stay open."""

    running: Running
    connections: Mapping[int, socket.socket]  # by file number

    def answers_a_second(self, asked: Rows, *, by_user: bool = True) -> float:
        """Every connection sends its next request when it has its answer.

        Seconds are of the processor time of the service, all of which a busy worker takes. What
        else runs on the machine, this side of the connections among it, does not count.

        `by_user`: the same user's come over the same connection every time.

        Raises:
            RuntimeError: a request failed.
        """
        requests = load.requests(self.running.server, [[history] for history in asked])
        if not by_user:
            SHUFFLE.shuffle(requests)
        n = len(self.connections)
        queues = {number: deque(requests[at::n]) for at, number in enumerate(self.connections)}
        before = self._processor_s()
        busy = {number for number in queues if self._send(number, queues)}
        while busy:
            for number in select.select(busy, [], [], load.PATIENCE_S)[0]:
                if (status := load.read_answer(self.connections[number])) != 200:
                    raise RuntimeError(f"an answer with status {status}")
                if not self._send(number, queues):
                    busy.remove(number)
        return len(requests) / (self._processor_s() - before)

    def _processor_s(self) -> float:
        # By the scheduler, in nanoseconds: a short round is few of the ticks that `stat` counts.
        threads = [Path(f"/proc/{number}/task") for number in self.running.processes()]
        found = [path.read_text() for folder in threads for path in folder.glob("*/schedstat")]
        return sum(int(text.split()[0]) for text in found) / 1e9

    def _send(self, number: int, queues: Mapping[int, deque[bytes]]) -> bool:
        if queues[number]:
            self.connections[number].sendall(queues[number].popleft())
            return True
        return False


@contextmanager
def connected(server: Server) -> Iterator[Connected]:
    """Starts a service and opens connections to it."""
    with running(server) as started, ExitStack() as stack:
        opened = [stack.enter_context(one) for one in load.connect(started.port, CONNECTIONS)]
        yield Connected(started, {one.fileno(): one for one in opened})


def _workers(artifacts: Path, rounds: int, users: int) -> Rates:
    """Two workers: users that stay on a connection, which one worker has, and users that do not."""
    rates: dict[str, list[float]] = {"by user": [], "at random": []}
    for name, found in rates.items():
        replay = Replay("films", users)
        settings = {"kept_megabytes": str(MEGABYTES)}
        with connected(service(ROOT, artifacts, 2, **settings)) as up:
            for number in range(WARM_ROUNDS + rounds):
                rate = up.answers_a_second(replay.round(), by_user=name == "by user")
                if number >= WARM_ROUNDS:
                    found.append(rate)
    return rates


def compare(artifacts: Path, users: int, rounds: int = 4) -> tuple[float, float]:
    """The largest difference of an embedding, and the bytes that a history takes."""
    engine = Engine.open(artifacts, limits=Limits(kept_megabytes=MEGABYTES))
    kept = engine.registry.models[0].kept
    assert kept is not None  # the artifact can
    worst = 0.0
    for mix in TARGETS:
        replay = Replay(mix, users)
        with asyncio.Runner() as runner:
            for _ in range(rounds):
                queries = [_query(history) for history in replay.round()]
                answered = runner.run(_submit(engine, queries))
                expected = [engine.run(query).histories[0].embedding for query in queries]
                difference = np.abs(np.array(answered) - np.array(expected)).max()
                worst = max(worst, float(difference))
    return worst, kept.bytes / len(kept)


def _query(history: Sequence[int]) -> Query:
    return Query({ITEM_ID: [[f"n{row}" for row in history]]})


async def _submit(engine: Engine, queries: Sequence[Query]) -> list[Floats | None]:
    found = await asyncio.gather(*[engine.submit(query, DEADLINE_S) for query in queries])
    return [one.histories[0].embedding for one in found]


def _ratio(rates: Rates, one: str, other: str) -> float:
    pairs = zip(rates[one], rates[other], strict=True)
    return median(first / second for first, second in pairs)


def _section(
    rates: Mapping[str, Rates], off: Mapping[str, Rates], spread: Rates, rounds: int, users: int
) -> str:
    rows = [
        [
            mix,
            *(f"{median(found[name]):,.0f}" for name in ("not kept", "kept")),
            f"{_ratio(found, 'kept', 'not kept'):.2f}",
        ]
        for mix, found in rates.items()
    ]
    beside = ", ".join(f"{mix} {_ratio(one, 'after', 'before'):.3f}" for mix, one in off.items())
    two = ", ".join(f"{name} {median(found):,.0f}" for name, found in spread.items())
    about = (
        f"Sessions replayed: each of {users:,} users asks again after each click, with the whole "
        f"history in the request; films as in ml-1m, news as on a news site. One worker, "
        f"{CONNECTIONS} connections, medians of {rounds} rounds; seconds of the worker's processor "
        f"time, of which a busy worker takes all. The window of longer histories "
        f"moves by {WINDOW_STEP} clicks."
    )
    rest = (
        f"Keeping nothing, beside the commit before there was anything to keep: {beside}.\n\n"
        f"Two workers, films, answers a second: {two}."
    )
    head = ["sessions of", "answers a second, nothing kept", "kept", "ratio"]
    return f"{about}\n\n{table(head, rows)}\n\n{rest}"
