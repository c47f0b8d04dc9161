"""The load: one history a request, over connections that stay open.

Closed loop: every connection sends its next request when it has its answer; what a server can do
at most. `wrk` does it where it is installed, as it takes least from the two cores that it shares
with the server. `steady` does it for large requests. Open loop: requests are due at times of their
own (Poisson), and a latency counts from when a request was due, so a server that stalls pays for
all whom it keeps waiting.
"""

import json
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.loads import Rows
from bench.peers import Server

SCRIPT = Path(__file__).parent / "servers" / "requests.lua"
CONNECTIONS = 32
PATIENCE_S = 30.0  # without any answer, the server is taken for dead


@dataclass(frozen=True)
class Load:
    """The result of a load."""

    per_second: float  # answers with status 200
    failed: float  # share of the requests
    latencies_ms: NDArray[np.float64]  # of the good answers; wrk tells p50 and p99 alone
    statuses: Mapping[int, int] = field(default_factory=dict)  # answers by status; wrk has none

    def percentile(self, percent: float) -> float:
        """Latency in milliseconds; NaN without a good answer."""
        if not len(self.latencies_ms):
            return float("nan")
        return float(np.percentile(self.latencies_ms, percent))

    def goodput(self, objective_ms: float) -> float:
        """Answers a second that came within the objective."""
        return self.per_second * float((self.latencies_ms <= objective_ms).mean())

    def in_time(self, objective_ms: float) -> float:
        """The share of the requests that had a good answer within the objective."""
        if not len(self.latencies_ms):
            return 0.0
        return (1 - self.failed) * float((self.latencies_ms <= objective_ms).mean())


def requests(server: Server, batches: Sequence[Rows]) -> list[bytes]:
    """Whole HTTP requests, one for each batch of histories."""
    made = []
    for batch in batches:
        body = server.body(batch)
        more = "".join(f"{name}: {value}\r\n" for name, value in server.headers.items())
        head = (
            f"POST {server.path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        )
        made.append(head.encode() + body)
    return made


def closed_loop(
    port: int, load: Sequence[bytes], seconds: float, connections: int = CONNECTIONS
) -> Load:
    """Sends as many requests as the server accepts over this many connections.

    Raises:
        RuntimeError: wrk failed; the message is its own.
    """
    if shutil.which("wrk") is None:
        return steady(port, load, seconds, connections)
    with tempfile.NamedTemporaryFile() as file:
        for request in load:
            file.write(b"%d\n%b" % (len(request), request))
        file.flush()
        options = f"--threads 1 --connections {connections} --timeout 30s"
        options += f" --duration {max(1, round(seconds))}s"
        words = ["wrk", *options.split(), "--script", str(SCRIPT), f"http://127.0.0.1:{port}"]
        done = subprocess.run(
            [*words, "--", file.name], check=False, capture_output=True, text=True
        )
    _, found, summary = done.stdout.partition("summary ")
    if not found:
        raise RuntimeError(f"wrk: {done.stdout}{done.stderr}")
    facts = json.loads(summary)
    good = facts["answers"] - facts["refused"]
    failed = facts["refused"] + facts["failed"]
    percentiles = np.array([facts["p50"], facts["p99"]]) / 1000
    seconds = facts["microseconds"] / 1e6
    return Load(good / seconds, failed / max(1, failed + good), percentiles)


def steady(port: int, load: Sequence[bytes], seconds: float, connections: int) -> Load:
    """Closed loop that counts the answers of a stretch of time in which all connections are busy.

    It begins a fifth of that time before, and ends with requests under way: a server's workers
    neither start together nor come to their last answers together.
    """
    warm, until = seconds / 5, seconds * 6 / 5
    return _play(port, load, np.zeros(int(until * 20_000)), connections, since=warm, until=until)


def open_loop(
    port: int,
    load: Sequence[bytes],
    rate: float,
    seconds: float,
    *,
    connections: int = 64,
    seed: int = 0,
) -> Load:
    """Requests at random times, `rate` of them a second on average."""
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, max(1, int(rate * seconds))))
    return _play(port, load, due, connections)


def _play(
    port: int,
    load: Sequence[bytes],
    due_s: NDArray[np.float64],
    connections: int,
    *,
    since: float = 0.0,
    until: float = float("inf"),
) -> Load:
    """Sends each request when it is due, or as soon as a connection is free.

    Answers count that come between `since` and `until`.
    """
    due, sent, statuses = due_s.tolist(), 0, Counter[int]()
    closed = until < float("inf")  # a request is due when there is a connection for it
    latencies: list[float] = []
    with ExitStack() as stack:
        open_ = {c.fileno(): c for c in map(stack.enter_context, connect(port, connections))}
        idle = deque(open_)  # first idle, first used: all of them in turn
        busy: dict[int, float] = {}  # and since when a request on it is due
        started = time.perf_counter()
        now = 0.0
        while now < until and (busy or sent < len(due)):
            while idle and sent < len(due) and due[sent] <= now:
                number = idle.popleft()
                open_[number].sendall(load[sent % len(load)])
                busy[number] = max(due[sent], now) if closed else due[sent]
                sent += 1
            waits = idle and sent < len(due)
            ready = _wait(list(busy), due[sent] - now if waits else PATIENCE_S)
            for number in ready:
                status = read_answer(open_[number])
                now = time.perf_counter() - started
                asked = busy.pop(number)
                if since <= now < until:
                    statuses[status] += 1
                    if status == 200:
                        latencies.append(now - asked)
                idle.append(number)
            now = time.perf_counter() - started
    answers = len(latencies)
    return Load(
        answers / (min(now, until) - since),
        1 - answers / max(1, statuses.total()),
        np.array(latencies) * 1000,
        statuses,
    )


def _wait(busy: list[int], seconds: float) -> list[int]:
    """Connections with an answer; `select`, as its timeouts are finer than a millisecond."""
    ready, _, _ = select.select(busy, [], [], max(0.0, seconds))
    if not ready and seconds >= PATIENCE_S:
        raise TimeoutError(f"no answer within {seconds} s")
    return ready


def connect(port: int, connections: int) -> Iterator[socket.socket]:
    """Opens connections to a server of this machine."""
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection
        time.sleep(0.002)  # so that each worker gets a turn to accept


def read_answer(connection: socket.socket) -> int:
    """Reads one answer to its end; its status."""
    answer = connection.recv(1 << 18)
    while (end := answer.find(b"\r\n\r\n")) < 0 and answer:
        answer += connection.recv(1 << 18)
    head = answer[:end].lower()
    _, found, rest = head.partition(b"content-length:")
    if not found:
        raise ConnectionError(f"an answer of unknown length: {head.decode(errors='replace')}")
    missing = end + 4 + int(rest.split(b"\r\n", 1)[0]) - len(answer)
    while missing > 0:
        missing -= len(connection.recv(1 << 18)) or missing
    return int(head[9:12])
