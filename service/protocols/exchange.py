"""One HTTP exchange, for every protocol: reads a body, asks the engine, notices a disconnect."""

import asyncio
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Protocol

from fastapi import Request, Response
from fastapi.routing import APIRoute

from persona.contract import (
    ITEM_ID,
    DeadlineExceeded,
    InvalidRequest,
    Query,
    RequestTooLarge,
    Results,
)
from service.errors import ClientGone, UnknownEncoding
from service.lifecycle import Service
from service.settings import Settings
from service.visit import charge, mark, mark_computed

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = Iterable[tuple[bytes, bytes]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

TIMEOUT = b"x-request-timeout-ms"
CLOSE = (b"connection", b"close")

# Most answers are ready by then. A task per request that watches its connection would cost more
# than the request's place in the queue.
WATCH_AFTER_S = 0.02


@dataclass(slots=True)
class Answer:
    """A whole response."""

    body: bytes
    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = ()
    code: str = ""  # of an error
    content_type: bytes = b"application/json"

    def closing(self) -> "Answer":
        """The same answer, as the last one on its connection."""
        return replace(self, headers=(*self.headers, CLOSE))

    async def send(self, send: Send) -> None:
        """Sends the answer by ASGI."""
        headers = [
            (b"content-type", self.content_type),
            (b"content-length", b"%d" % len(self.body)),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    def response(self) -> Response:
        """The answer as a response of FastAPI."""
        headers = {name.decode(): value.decode() for name, value in self.headers}
        return Response(self.body, self.status, headers, media_type=self.content_type.decode())


class Verb(Protocol):
    """Answers posted bodies: parse, engine call, render."""

    async def answer(self, service: Service, headers: Headers, receive: Receive) -> Answer:
        """The answer to a request; expected errors become answers."""


def answered_by(find: Callable[[str, Mapping[str, str]], Verb]) -> type[APIRoute]:
    """A class of routes that FastAPI documents and a verb answers.

    `find` gets the route's path and the request's path parameters.
    """

    class Posted(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """FastAPI's hook for custom routes."""

            async def handle(request: Request) -> Response:
                verb = find(self.path, request.path_params)
                service: Service = request.app.state.service
                answer = await verb.answer(service, request.headers.raw, request.receive)
                return answer.response()

            return handle

    return Posted


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """Reads the body of a request, up to `limit` bytes.

    Raises:
        RequestTooLarge: the body is longer, or its content-length says so.
        UnknownEncoding: the body is compressed.
        ClientGone: the client disconnected before it had sent the whole body.
    """
    for name, value in headers:
        if name == b"content-length" and int(value) > limit:
            raise RequestTooLarge(f"the body has {int(value):,} bytes, limit {limit:,}")
        if name == b"content-encoding" and value.lower() != b"identity":
            raise UnknownEncoding("content-encoding: send the body as it is, not compressed")
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        return bytes(message.get("body", b""))
    chunks, size = [message.get("body", b"")], len(message.get("body", b""))
    while message.get("more_body"):
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise RequestTooLarge(f"the body has more than {limit:,} bytes, the limit")
    if message["type"] == "http.disconnect":
        raise ClientGone("the client disconnected")
    return b"".join(chunks)


class Deadline:
    """The deadline of a request: the client's, but at most the one in the settings.

    It starts at the request's last byte, and covers parsing, the queue and computing.
    """

    def __init__(self, headers: Headers, settings: Settings) -> None:
        """Reads the time from the headers.

        Raises:
            InvalidRequest: `x-request-timeout-ms` is not a whole number of at least 1.
        """
        self.ms = settings.deadline_ms
        self.body_bytes = 0  # as far as the headers say
        for name, value in headers:
            if name == TIMEOUT:
                self.ms = min(self.ms, _milliseconds(value))
            elif name == b"content-length":
                self.body_bytes = int(value)
        self._ends = perf_counter() + self.ms / 1000

    def start(self) -> None:
        """Starts the time now."""
        self._ends = perf_counter() + self.ms / 1000

    def left_s(self) -> float:
        """Seconds that are left.

        Raises:
            DeadlineExceeded: no time is left.
        """
        left = self._ends - perf_counter()
        if left <= 0:
            raise self.exceeded()
        return left

    def exceeded(self) -> DeadlineExceeded:
        """The error for a passed deadline."""
        return DeadlineExceeded(f"no result within {self.ms:,} ms")


def _milliseconds(value: bytes) -> int:
    if not (value.isdigit() and len(value) < 20 and int(value)):
        shown = value[:20].decode("latin-1")
        message = f"x-request-timeout-ms: expected a whole number of at least 1, got '{shown}'"
        raise InvalidRequest(message, "x-request-timeout-ms")
    return int(value)


async def accept(service: Service, headers: Headers, receive: Receive) -> tuple[bytes, Deadline]:
    """The body of a request that can be answered in time, and its deadline.

    Raises:
        PersonaError: as for `Deadline` and `read_body`.
        Overloaded: the answer would be late; nothing was read.
    """
    deadline = Deadline(headers, service.settings)
    service.refuse_late(deadline.ms / 1000, deadline.body_bytes)
    raw = await read_body(headers, receive, service.settings.max_body_bytes)
    deadline.start()
    mark("read")
    if service.is_loading:
        await service.loaded(deadline.left_s())
    return raw, deadline


async def ask(service: Service, query: Query, deadline: Deadline, receive: Receive) -> Results:
    """The engine's answer; cancelled if the client does not wait for it.

    Raises:
        PersonaError: one of persona/contract.py.
        ClientGone: the client disconnected.
    """
    mark("parse")
    charge(len(query.clicks.get(ITEM_ID, ())))
    engine = service.engine()
    future = engine.submit(query, deadline.left_s())
    service.timeouts.watch(future, WATCH_AFTER_S, partial(_watch, receive, future))
    try:
        results = await future
    except DeadlineExceeded:
        raise deadline.exceeded() from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if future.cancelled() and task is not None and not task.cancelling():
            raise ClientGone("the client disconnected") from None
        future.cancel()
        raise
    finally:
        service.timeouts.forget(future)
        # An error's traceback refers to this frame, and the future to the error: a circle that
        # would keep the whole request until the garbage collector comes.
        del future
    service.note_size(deadline.body_bytes, results)
    mark_computed(results.model, results.version, service.tally.turn_s(results.model))
    service.traffic.count(engine, query, results)
    return results


def _watch(receive: Receive, future: asyncio.Future[Any]) -> None:
    """Cancels the future when the client disconnects; ends with the future."""

    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        future.cancel()

    watcher = asyncio.ensure_future(wait())
    future.add_done_callback(lambda _: watcher.cancel())
