"""Connections that ask for another protocol, end early, wait, or come in crowds."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from tests.service.hostile.cases import GET, POST, VALID
from tests.service.hostile.wire import Wire, head, replies, request
from tests.serving import serving

LAST = request(VALID, "Connection: close")
OFFERS = [
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"),
    ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    ("Connection: keep-alive, Upgrade", "Upgrade: TLS/1.2"),
    ("Connection: Upgrade", "Upgrade: anything"),
]


@pytest.fixture(scope="module")
def client(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts, max_body_bytes=100_000, max_pipelined_requests=8) as client:
        yield client


@pytest.fixture
def port(client: httpx.Client) -> int:
    return client.base_url.port or 0


@pytest.fixture
def answer(client: httpx.Client) -> bytes:
    return client.post("/v1/encode", content=VALID).content


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer[1])
@pytest.mark.parametrize("together", [True, False], ids=["one segment", "two segments"])
def test_an_offer_of_another_protocol_is_answered_as_http(
    port: int, answer: bytes, offer: tuple[str, ...], together: bool
) -> None:
    whole = request(VALID, *offer)
    pieces = [whole] if together else [whole[: -len(VALID)], VALID]
    with closing(Wire(port)) as wire:
        for piece in pieces:
            wire.send(piece)
        reply = wire.reply()
        assert (reply.status, reply.body) == (200, answer)
        wire.send(LAST)
        assert wire.reply().body == answer


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer[1])
def test_what_is_pipelined_after_an_offer_is_answered_in_turn(
    port: int, answer: bytes, offer: tuple[str, ...]
) -> None:
    live = request(path="/health/live", method="GET")
    found = replies(port, [live + request(VALID, *offer) * 3 + live + LAST])
    assert [reply.status for reply in found] == [200] * 6
    assert [reply.body == answer for reply in found] == [False, True, True, True, False, True]


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer[1])
def test_a_body_that_looks_like_a_request_is_not_executed(
    port: int, answer: bytes, offer: tuple[str, ...]
) -> None:
    smuggled = request(path="/metrics", method="GET")
    found = replies(port, [request(smuggled, *offer), LAST])
    assert [reply.status for reply in found] == [422, 200]
    assert found[1].body == answer


def test_a_body_in_chunks_survives_an_offer(port: int, answer: bytes) -> None:
    start = head(POST, "Host: here", *OFFERS[0], "Transfer-Encoding: chunked")
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(VALID), VALID)
    assert [reply.body for reply in replies(port, [start, chunks, LAST])] == [answer] * 2


def test_a_client_that_ends_its_side_gets_its_answers(port: int, answer: bytes) -> None:
    with closing(Wire(port)) as wire:
        wire.send(request(VALID) * 3)
        wire.half_close()
        assert [wire.reply().body for _ in range(3)] == [answer] * 3
        assert wire.reply().status == 0


def test_what_cannot_be_read_after_a_request_ends_the_connection_after_its_answer(
    port: int, answer: bytes
) -> None:
    (reply,) = replies(port, [request(VALID) + b"noise\r\n\r\n"])
    assert (reply.status, reply.body, reply.headers["connection"]) == (200, answer, "close")


def test_a_broken_body_in_a_row_is_refused_in_its_turn(port: int) -> None:
    broken = head(POST, "Host: here", "Transfer-Encoding: chunked") + b"g\r\n"
    found = replies(port, [request(VALID) * 2 + broken])
    assert [reply.status for reply in found] == [200, 200, 400]


def test_more_requests_in_a_row_than_may_wait_are_cut_off(port: int) -> None:
    found = replies(port, [request(VALID) * 100])
    assert 1 <= len(found) <= 10
    assert {reply.status for reply in found} == {200}


def test_requests_in_a_row_and_a_close_log_nothing(
    client: httpx.Client, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        with closing(Wire(port)) as wire:
            wire.send(request(VALID) * 5)
    assert client.post("/v1/encode", content=VALID).status_code == 200
    assert not caplog.records


@pytest.mark.parametrize("size", [100_001, 5_000_000])
def test_a_client_that_sends_all_before_it_reads_sees_the_413(
    client: httpx.Client, size: int
) -> None:
    address = str(client.base_url.join("/v1/encode"))
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(address, data=b" " * size)
    with error.value as answer:
        assert answer.code == 413
        assert json.loads(answer.read())["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/v1/models"])
def test_head_is_answered_as_get_without_the_body(client: httpx.Client, path: str) -> None:
    found = client.head(path)
    assert (found.status_code, found.content) == (200, b"")
    assert found.headers["content-type"] == client.get(path).headers["content-type"]


def test_where_no_more_connections_fit_the_oldest_idle_one_makes_room(
    tiny_artifacts: Path,
) -> None:
    with serving(tiny_artifacts, max_connections=8) as client, ExitStack() as stack:
        port = client.base_url.port or 0
        wires = [stack.enter_context(closing(Wire(port))) for _ in range(30)]
        wires[-1].send(LAST)
        assert wires[-1].reply().status == 200
        assert wires[0].reply().status == 0
        assert client.post("/v1/encode", content=VALID).status_code == 200


def test_where_all_connections_are_at_work_one_more_is_told_so(tiny_artifacts: Path) -> None:
    with serving(tiny_artifacts, max_connections=4) as client, ExitStack() as stack:
        port = client.base_url.port or 0
        for _ in range(4):
            busy = stack.enter_context(closing(Wire(port)))
            busy.send(head(POST, "Host: here", "Content-Length: 100"), b"{")
        (reply,) = replies(port, [])
        assert (reply.status, reply.error["code"]) == (429, "overloaded")
        assert reply.headers["retry-after"] == "1"


def test_a_get_that_is_no_body_leaves_the_connection_open(port: int) -> None:
    found = replies(port, [head(GET, "Host: here") * 3, LAST])
    assert [reply.status for reply in found] == [200] * 4
