"""Posted bodies, byte by byte: whatever way a request takes, its answer is the same."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.middleware.gzip import GZipMiddleware

from service.app import Application, create_app
from service.direct_protocol import DirectProtocol
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


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The way that each request took."""
    taken: list[str] = []
    begin = DirectProtocol.on_headers_complete

    def noting(protocol: DirectProtocol) -> None:
        begin(protocol)
        taken.append(type(protocol.cycle).__name__)

    monkeypatch.setattr(DirectProtocol, "on_headers_complete", noting)
    return taken


DIRECT, FASTAPI = "Exchange", "RequestResponseCycle"
CHUNKED = (
    b"POST /v1/encode HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
)


@pytest.mark.parametrize(
    ("request_", "way"),
    [
        (post(), DIRECT),
        (post(path="/v1/encode?why=not"), FASTAPI),
        (CHUNKED, FASTAPI),
        (post(BODY, "Connection: close"), DIRECT),
        (post(BODY, "Expect: 100-continue"), FASTAPI),
        (post(BODY, "Connection: keep-alive", version="1.0"), FASTAPI),
    ],
    ids=["as usual", "a query", "chunks", "the last", "100-continue", "HTTP/1.0"],
)
def test_every_way_gives_the_same_answer(
    client: httpx.Client, ways: list[str], connection: Connection, request_: bytes, way: str
) -> None:
    connection.socket.sendall(request_)
    status, headers, body = connection.answer()
    if status == 100:
        status, headers, body = connection.answer()
    assert (status, ways) == (200, [way])
    assert body == client.post("/v1/encode", content=BODY).content
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 422), (b'{"histories": [], "model": "none"}', 404), (b" " * 200_001, 413), (b"", 422)],
    ids=["no JSON", "no such model", "too large", "nothing"],
)
def test_what_is_refused_leaves_the_connection_fit_for_more(
    connection: Connection, body: bytes, status: int
) -> None:
    refused, headers, content = connection.ask(post(body))
    assert refused == status
    assert headers["content-type"] == "application/json"
    assert json.loads(content)["error"].keys() == {"code", "message", "path"}
    assert connection.ask(post())[0] == 200


def test_middleware_sees_every_request(
    tiny_artifacts: Path, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_middleware(settings: Settings) -> Application:
        app = create_app(settings)
        app.add_middleware(GZipMiddleware, minimum_size=1)
        return app

    monkeypatch.setattr("tests.serving.create_app", with_middleware)
    with serving(tiny_artifacts) as client:
        answer = client.post("/v1/encode", content=BODY)
    assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip")
    assert ways[-1] == FASTAPI


def test_a_body_may_come_in_any_pieces(ways: list[str], connection: Connection) -> None:
    history = ["item 1"] * 12_000  # more than uvicorn reads before it wants to be asked
    body = json.dumps({"histories": [history]}).encode()
    whole = post(body)
    pieces = [whole[at : at + 40_001] for at in range(0, len(whole), 40_001)]
    status, _, content = connection.ask(whole[:7], whole[7:120], whole[120:])
    assert status == 422  # it has more items than a history may have
    assert connection.ask(*pieces)[::2] == (status, content)
    assert ways == [DIRECT, DIRECT]


def test_requests_in_a_row_are_answered_in_their_order(
    ways: list[str], connection: Connection
) -> None:
    bodies = [json.dumps({"histories": [[f"item {n}"] * (n + 1)]}).encode() for n in range(5)]
    connection.socket.sendall(b"".join(map(post, bodies)))
    users = [json.loads(connection.answer()[2])["users"][0] for _ in bodies]
    assert [user["used"] for user in users] == [1, 2, 3, 4, 5]
    assert ways == [DIRECT, *[FASTAPI] * 4]
    assert connection.ask(post())[0] == 200


def test_the_last_answer_says_so_and_the_connection_ends(connection: Connection) -> None:
    _, headers, _ = connection.ask(post(BODY, "Connection: close"))
    assert headers["connection"] == "close"
    assert connection.answer()[0] == 0


def test_head_and_body_are_one_write(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    made = DirectProtocol.connection_made
    monkeypatch.setattr(
        DirectProtocol,
        "connection_made",
        lambda self, transport: made(self, Written(transport, writes)),  # type: ignore[arg-type]  # behaves as one
    )
    with closing(Connection(client.base_url.port or 0)) as connection:
        answer = connection.ask(post())
    (write,) = writes
    assert write.startswith(b"HTTP/1.1 200 OK\r\n")
    assert write.endswith(b"\r\n\r\n" + answer[2])


class Written:
    """A transport that keeps what is written to it, write by write."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)


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
        patch.setattr("service.routes.encode", fail)
        status, _, content = connection.ask(post(path=path))
    assert (status, json.loads(content)["error"]["message"]) == (500, "internal error")
    wait_until(lambda: "ValueError" in caplog.text)
    assert "POST /v1/encode failed" in caplog.text
    assert secret not in caplog.text
    assert connection.ask(post())[0] == 200
