"""A load of everything: all protocols, what clients do wrong, and clients that go away."""

import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from bench import encoders
from bench.batch import batches
from bench.loads import Rows
from bench.peers import persona_body
from bench.protocols import KINDS
from tests.service.hostile.cases import all_cases

# What the documentation says of requests like these; not 503, as some version always answers.
EXPECTED = {200, 400, 404, 405, 408, 413, 415, 422, 429, 504}
BATCH = 8
PATHS = (
    "/v1/models",
    "/v2",
    "/v2/models/stats",
    f"/v2/models/{encoders.NAME}",
    "/health/live",
    "/metrics",
    "/openapi.json",
    "/nowhere",
)
BROKEN = (b"{", b"[]", b'{"histories": 7}', b'{"histories": [[["n1"]]]}', b"\xff\xfe")
Request = tuple[str, str, bytes, Mapping[str, str]]  # method, path, body, headers


class MixedLoad:
    """Clients in threads, until they are stopped."""

    def __init__(self, port: int, clients: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port, self._over, self._lock = port, threading.Event(), threading.Lock()
        self._batches: list[Rows] = list(batches("news", 100, BATCH))
        self._hostile = [case.raw for case in all_cases()]
        self._threads = [
            threading.Thread(target=self._play, args=(seed,)) for seed in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Waits for the last answers."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def unexpected(self) -> dict[str, int]:
        """Outcomes that no client should see."""
        expected = {str(status) for status in EXPECTED} | {"went away", "hostile"}
        return {name: count for name, count in self.outcomes.items() if name not in expected}

    def _play(self, seed: int) -> None:
        draw, connection = random.Random(seed), self._connection()
        while not self._over.is_set():
            kind = draw.random()
            if kind < 0.05:
                self._go_away(draw)
            elif kind < 0.1:
                self._be_hostile(draw)
            else:
                outcome, connection = self._ask(connection, self._draw_request(draw))
                self._count(outcome)
        connection.close()

    def _count(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)

    def _draw_request(self, draw: random.Random) -> Request:
        rows = draw.choice(self._batches)
        return draw.choice(_REQUESTS)(rows, draw)

    def _ask(
        self, connection: http.client.HTTPConnection, request: Request
    ) -> tuple[str, http.client.HTTPConnection]:
        method, path, body, headers = request
        try:
            connection.request(method, path, body or None, dict(headers))
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return f"{path}: {error!r}", self._connection()
        return str(answer.status), connection

    def _go_away(self, draw: random.Random) -> None:
        """Sends a whole request or half of one, and does not wait for the answer."""
        body = persona_body(draw.choice(self._batches))
        head = b"POST /v1/encode HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        raw = head % len(body) + body
        self._raw(raw if draw.random() < 0.5 else raw[: draw.randrange(len(raw))], wait_s=0)
        self._count("went away")

    def _be_hostile(self, draw: random.Random) -> None:
        self._raw(draw.choice(self._hostile), wait_s=0.5)
        self._count("hostile")

    def _raw(self, content: bytes, wait_s: float) -> None:
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection,
        ):
            connection.sendall(content)
            if wait_s:
                connection.settimeout(wait_s)
                connection.recv(1 << 16)
        time.sleep(0.001)


def _posted(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Request:
    return "POST", path, body, headers or {}


def _of_protocol(kind: str) -> Callable[[Rows, random.Random], Request]:
    path, make = KINDS[kind]

    def request(rows: Rows, _draw: random.Random) -> Request:
        posted = make(rows)
        return _posted(path, posted.body, {name: str(n) for name, n in posted.headers.items()})

    return request


def _json(path: str, **fields: object) -> Request:
    return _posted(path, json.dumps(fields).encode())


def _ids(rows: Rows) -> list[list[str]]:
    return [[f"n{row}" for row in history] for history in rows]


def _score(rows: Rows, _draw: random.Random) -> Request:
    return _json("/v1/score", histories=_ids(rows), candidates=["n1", "n2", "no such item"])


def _recommend(rows: Rows, draw: random.Random) -> Request:
    reasons = draw.random() < 0.2
    return _json("/v1/recommend", histories=_ids(rows[:2]), k=10, with_reasons=reasons)


def _similar(rows: Rows, _draw: random.Random) -> Request:
    return _json("/v1/similar", items=[item for history in _ids(rows) for item in history][:3], k=5)


def _attention(rows: Rows, _draw: random.Random) -> Request:
    return _json("/v1/encode", histories=_ids(rows), attention="full")


def _late(rows: Rows, _draw: random.Random) -> Request:
    return _posted("/v1/encode", persona_body(rows * 8), {"x-request-timeout-ms": "1"})


def _broken(_rows: Rows, draw: random.Random) -> Request:
    return _posted(draw.choice(["/v1/encode", "/v1/embeddings", "/v1/score"]), draw.choice(BROKEN))


def _unknown(_rows: Rows, draw: random.Random) -> Request:
    items = [f"unknown {draw.randrange(10**9)}" for _ in range(20)]
    return _json("/v1/encode", histories=[items], unknown_items=draw.choice(["token", "error"]))


def _asked(_rows: Rows, draw: random.Random) -> Request:
    return draw.choice(["GET", "HEAD"]), draw.choice(PATHS), b"", {}


_REQUESTS: Sequence[Callable[[Rows, random.Random], Request]] = (
    *map(_of_protocol, KINDS),
    _score,
    _recommend,
    _similar,
    _attention,
    _late,
    _broken,
    _unknown,
    _asked,
)
