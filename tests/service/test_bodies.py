"""Posted bodies, byte by byte: however a request arrives, its answer is the same."""

import asyncio
import json
import resource
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from service.app import create_app
from service.protocols.exchange import read_body
from service.settings import Settings
from tests.serving import serving, wait_until

BODY = json.dumps({"histories": [["item 1", "item 2"]]}).encode()


def post(
    body: bytes = BODY, *headers: str, path: str = "/v1/encode", version: str = "1.1"
) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: here", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """A socket that reads one answer after the other."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self._file = self.socket.makefile("rb")

    def ask(self, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
        for piece in pieces:
            self.socket.sendall(piece)
        return self.answer()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body; status 0 where the connection ends."""
        line = self._file.readline()
        if not line:
            return 0, {}, b""
        headers = {}
        while pair := self._file.readline().strip().decode():
            name, _, value = pair.partition(": ")
            headers[name] = value
        length = int(headers.get("content-length", 0))
        return int(line.split()[1]), headers, self._file.read(length)


@pytest.fixture(scope="module")
def client(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts, max_body_bytes=200_000) as client:
        yield client


@pytest.fixture
def connection(client: httpx.Client) -> Iterator[Connection]:
    with closing(Connection(client.base_url.port or 0)) as connection:
        yield connection


CHUNKED = (
    b"POST /v1/encode HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
)


@pytest.mark.parametrize(
    "request_",
    [
        post(),
        post(path="/v1/encode?why=not"),
        CHUNKED,
        post(BODY, "Connection: close"),
        post(BODY, "Expect: 100-continue"),
        post(BODY, "Connection: keep-alive", version="1.0"),
    ],
    ids=["as usual", "a query", "chunks", "the last", "100-continue", "HTTP/1.0"],
)
def test_however_a_request_arrives_its_answer_is_the_same(
    client: httpx.Client, connection: Connection, request_: bytes
) -> None:
    connection.socket.sendall(request_)
    status, headers, body = connection.answer()
    if status == 100:
        status, headers, body = connection.answer()
    assert status == 200
    assert body == client.post("/v1/encode", content=BODY).content
    assert headers["content-type"] == "application/json"


def test_middleware_sees_every_request_and_the_answer_is_the_same(
    client: httpx.Client, tiny_artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_middleware(settings: Settings) -> FastAPI:
        app = create_app(settings)
        app.add_middleware(GZipMiddleware, minimum_size=1)
        return app

    monkeypatch.setattr("tests.serving.create_app", with_middleware)
    with serving(tiny_artifacts) as zipped:
        answer = zipped.post("/v1/encode", content=BODY)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == client.post("/v1/encode", content=BODY).content


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 422), (b'{"histories": [], "model": "none"}', 404), (b"", 422)],
    ids=["no JSON", "no such model", "nothing"],
)
def test_what_is_refused_leaves_the_connection_fit_for_more(
    connection: Connection, body: bytes, status: int
) -> None:
    refused, headers, content = connection.ask(post(body))
    assert refused == status
    assert headers["content-type"] == "application/json"
    assert json.loads(content)["error"].keys() == {"code", "message", "path"}
    assert connection.ask(post())[0] == 200


def test_a_body_may_come_in_any_pieces(connection: Connection) -> None:
    history = ["item 1"] * 12_000  # more than uvicorn reads before it wants to be asked
    whole = post(json.dumps({"histories": [history]}).encode())
    pieces = [whole[at : at + 40_001] for at in range(0, len(whole), 40_001)]
    status, _, content = connection.ask(whole[:7], whole[7:120], whole[120:])
    assert status == 422  # it has more items than a history may have
    assert connection.ask(*pieces)[::2] == (status, content)


def test_requests_in_a_row_are_answered_in_their_order(connection: Connection) -> None:
    bodies = [json.dumps({"histories": [[f"item {n}"] * (n + 1)]}).encode() for n in range(5)]
    connection.socket.sendall(b"".join(map(post, bodies)))
    users = [json.loads(connection.answer()[2])["users"][0] for _ in bodies]
    assert [user["used"] for user in users] == [1, 2, 3, 4, 5]
    assert connection.ask(post())[0] == 200


class Piece(bytes):
    """A piece of a body that notices when it is appended to what came before it."""

    def __radd__(self, _before: bytes) -> bytes:
        raise AssertionError("all that came before is copied once more for every piece")


def test_a_body_in_many_pieces_is_joined_once() -> None:
    messages = [
        {"type": "http.request", "body": Piece(b"x"), "more_body": n < 99} for n in range(100)
    ]

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    assert asyncio.run(read_body({}, receive, 1_000)) == b"x" * 100


def test_uploads_that_are_given_up_leave_no_memory_behind(tiny_artifacts: Path) -> None:
    size = 4_000_000
    head = f"POST /v1/encode HTTP/1.1\r\nHost: here\r\nContent-Length: {2 * size}\r\n\r\n".encode()

    def give_up(port: int) -> None:
        with closing(Connection(port)) as connection:
            connection.socket.sendall(head + b" " * size)

    with serving(tiny_artifacts) as client:
        port = client.base_url.port or 0
        for _ in range(10):
            give_up(port)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(60):
            give_up(port)
        wait_until(lambda: client.get("/health/live").status_code == 200)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 20 * size  # all of it would be 60 times as much


@pytest.mark.parametrize("path", ["/v1/encode", "/v1/encode?another=way"])
def test_a_failure_is_500_says_nothing_and_is_logged_without_its_message(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    secret = "item 1 and item 2"  # in a name, as the log quotes the line that raises

    def fail(*_: object) -> None:
        raise ValueError(secret)

    with monkeypatch.context() as patch:
        patch.setattr("persona.engine.model.Model.submit", fail)
        status, _, content = connection.ask(post(path=path))
    assert (status, json.loads(content)["error"]["message"]) == (500, "internal error")
    wait_until(lambda: "ValueError" in caplog.text)
    assert "POST /v1/encode failed" in caplog.text
    assert secret not in caplog.text
    assert connection.ask(post())[0] == 200
