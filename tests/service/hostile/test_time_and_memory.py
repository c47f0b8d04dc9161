"""Slow clients are cut off within their limits, and what stalled clients hold is bounded."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest

from tests.service.hostile.cases import GET, LIMITS, POST, VALID
from tests.service.hostile.wire import Wire, first_reply, head, request
from tests.serving import serving, wait_until

pytestmark = pytest.mark.slow  # limits of seconds have to pass

CHUNKED = head(POST, "Host: here", "Transfer-Encoding: chunked")


@pytest.fixture(scope="module")
def client(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts, **LIMITS, max_attention_values=10**9) as client:
        yield client


@pytest.mark.parametrize(
    ("start", "drop", "status"),
    [
        (b"", b"G", 400),
        (b"", b"\r\n", 0),
        (f"{GET}\r\nHost: here\r\n".encode(), b"X: 1\r\n", 408),
        (f"{GET}\r\nX: ".encode(), b"x", 408),
        (head(POST, "Host: here", "Content-Length: 100000"), b" ", 408),
        (CHUNKED, b"1\r\n \r\n", 408),
        (CHUNKED + b"5;x=", b"x", 408),
        (CHUNKED + b"0\r\n", b"X: 1\r\n", 408),
        (request(VALID), b"\r\n", 200),
    ],
    ids=lambda value: repr(value[-12:]) if isinstance(value, bytes) else None,
)  # fmt: skip
def test_a_client_that_sends_drop_by_drop_is_cut_off(
    client: httpx.Client, start: bytes, drop: bytes, status: int
) -> None:
    with closing(Wire(client.base_url.port or 0)) as wire:
        wire.send(start)
        wire.socket.settimeout(0.05)
        reply = b""
        with suppress(ConnectionError):
            while not ended(wire.socket, received := bytearray()):
                reply += received
                wire.socket.sendall(drop)
            reply += received
    assert (int(reply.split()[1]) if reply else 0) == status
    assert client.post("/v1/encode", content=VALID).status_code == 200


def ended(connection: socket.socket, received: bytearray) -> bool:
    """Whether the server has ended its side; takes what it sends for a moment."""
    with suppress(TimeoutError):
        while data := connection.recv(65_536):
            received += data
        return True
    return False


def test_a_client_that_takes_nothing_is_cut_off(client: httpx.Client) -> None:
    body = {"histories": [["item 1"] * 12] * 1024, "attention": "full"}
    with closing(Wire(client.base_url.port or 0)) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.send(request(json.dumps(body).encode()))
        wait_until(lambda: 'cut_connections_total{cause="unread"} 0' not in cuts(client))
        received = 0
        with suppress(ConnectionError):
            while data := wire.socket.recv(1 << 20):
                received += len(data)
    assert received < 10_000_000


def cuts(client: httpx.Client) -> str:
    lines = client.get("/metrics").text.splitlines()
    found = [
        line for line in lines if line.startswith('persona_cut_connections_total{cause="unread"')
    ]
    return "".join(found) or 'cut_connections_total{cause="unread"} 0'


def test_stalled_bodies_hold_no_more_than_the_limit(client: httpx.Client) -> None:
    port = client.base_url.port or 0
    stalled = request(b" " * 190_000)[:-1]
    with ExitStack() as stack:
        wires = [stack.enter_context(closing(Wire(port))) for _ in range(8)]
        for wire in wires:
            wire.send(stalled)
        statuses = sorted(wire.reply().status for wire in wires)
    assert set(statuses) == {408, 429}
    assert client.post("/v1/encode", content=VALID).status_code == 200
    assert first_reply(port, [stalled + b" "]).status == 422


def test_time_limits_do_not_end_a_connection_that_is_in_use(client: httpx.Client) -> None:
    with closing(Wire(client.base_url.port or 0)) as wire:
        started = time.monotonic()
        while time.monotonic() < started + 1.5:  # three times as long as any limit
            wire.send(request(VALID))
            assert wire.reply().status == 200
            time.sleep(0.1)
