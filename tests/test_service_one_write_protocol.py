"""An ordinary answer goes out in one write, and of the others nothing is lost."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvicorn

from service.one_write_protocol import OneWriteProtocol
from tests.serving import free_port, wait_until

App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class Written:
    """A transport that keeps what is written to it, write by write."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)


def answers(*bodies: bytes, status: int = 200, **headers: str) -> App:
    """An application that answers in these pieces."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        pairs = [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        for number, body in enumerate(bodies, 1):
            more = number < len(bodies)
            await send({"type": "http.response.body", "body": body, "more_body": more})

    return app


async def fails_between(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("no body")


def talk(app: App, sent: bytes) -> tuple[list[bytes], bytes]:
    """What a server with this application writes, and what reaches a client until it is quiet."""
    writes: list[bytes] = []

    class Watched(OneWriteProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(Written(transport, writes))  # type: ignore[arg-type]  # behaves as one

    async def both() -> bytes:
        config = uvicorn.Config(
            app, port=free_port(), http=Watched, lifespan="off", log_level="critical"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await asyncio.to_thread(wait_until, lambda: server.started)
        reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
        writer.write(sent)
        received = b""
        while piece := await next_piece(reader):
            received += piece
        writer.close()
        server.should_exit = True
        await serving
        return received

    return writes, asyncio.run(both())


async def next_piece(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(65536), 0.3)
    except TimeoutError:
        return b""


@pytest.mark.parametrize("body", [b"hello", b""])
def test_head_and_body_are_one_write(body: bytes) -> None:
    writes, received = talk(answers(body, content_length=str(len(body))), GET)
    assert writes == [received]
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n" + body)


def test_a_body_may_be_left_out_where_there_is_none() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    writes, received = talk(app, GET)
    assert writes == [received]
    assert received.endswith(b"content-length: 0\r\n\r\n")


def test_what_comes_later_of_a_body_is_not_waited_for() -> None:
    writes, received = talk(answers(b"one", b"two", b"three"), GET)
    assert [write.split(b"\r\n")[-2] for write in writes[1:3]] == [b"one", b"two"]
    assert b"".join(writes) == received
    assert received.endswith(b"5\r\nthree\r\n0\r\n\r\n")


def test_the_answer_to_head_has_no_body() -> None:
    _, received = talk(answers(b"hello", content_length="5"), GET.replace(b"GET", b"HEAD"))
    assert received.endswith(b"content-length: 5\r\n\r\n")


def test_a_connection_is_closed_after_its_last_answer_is_written() -> None:
    asked = GET.replace(b"Host", b"Connection: close\r\nHost")
    _, received = talk(answers(b"hello", content_length="5"), asked)
    assert b"connection: close" in received
    assert received.endswith(b"hello")


def test_an_application_that_closes_the_connection_is_heard() -> None:
    closing = answers(b"hello", content_length="5", connection="close")
    _, received = talk(closing, GET * 2)
    assert received.count(b"HTTP/1.1") == 1
    assert received.endswith(b"hello")


def test_an_answer_that_is_shorter_than_it_says_is_not_sent_as_if_it_were_whole() -> None:
    _, received = talk(answers(b"hell", content_length="5"), GET * 2)
    assert received.count(b"HTTP/1.1") == 1


def test_requests_in_a_row_are_answered_in_their_order() -> None:
    writes, received = talk(answers(b"hello", content_length="5"), GET * 3)
    assert len(writes) == received.count(b"HTTP/1.1 200 OK") == 3
    assert all(write.endswith(b"\r\n\r\nhello") for write in writes)


def test_an_application_that_fails_before_the_body_has_not_answered_yet() -> None:
    _, received = talk(fails_between, GET)
    assert received.startswith(b"HTTP/1.1 500 ")
    assert received.count(b"HTTP/1.1") == 1
