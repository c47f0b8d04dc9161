"""HTTP by uvicorn, with a short way for posted bodies: from the parser to the queue and back.

uvicorn makes a task, an event and two messages for each request, Starlette a request and a
response, FastAPI more: a fifth and more of what a short history costs. Here a body is parsed as
soon as its last byte has come, its histories are queued, and when they are computed the answer
goes out in one write: one system call, one packet, one wake-up of the client.

What is not ordinary goes uvicorn's way to FastAPI, and gets the same answer: other routes and
methods, bodies of unknown length, what is asked before the last answer is out, slow readers,
and all while the artifacts are loading.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import ClientGone

if TYPE_CHECKING:
    from service.app import Application
    from service.models import Pending
    from service.routes import JsonRoute

OK = [(b"content-type", b"application/json")]


class DirectProtocol(HttpToolsProtocol):
    """`uvicorn --http service.direct_protocol:DirectProtocol service.app:create_app`."""

    app: Any  # `Application`, or what uvicorn was told to wrap around it
    cycle: Any  # None, uvicorn's own, or an `Exchange`

    def on_headers_complete(self) -> None:
        """Begins a request."""
        route = self._direct_route()
        if route is None:
            super().on_headers_complete()
        else:
            self.cycle = Exchange(self, route)

    def _direct_route(self) -> "JsonRoute | None":
        routes = getattr(self.app, "direct", None)
        if routes is None or (route := routes.get(self.url)) is None:
            return None
        ordinary = (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.root_path
            and not self.app.user_middleware  # it would not see the request
            and self.limit_concurrency is None
            and not self.config.access_log  # uvicorn's own cycle writes it
            and not self.flow.write_paused
            and (self.cycle is None or self.cycle.response_complete)
            and self.app.service.is_loaded
            and self._length() <= self.app.service.settings.max_body_bytes
        )
        return route if ordinary else None

    def _length(self) -> float:
        for name, value in self.headers:
            if name == b"content-length":
                return int(value)
        return float("inf")


class Exchange:
    """A posted body and its answer; towards uvicorn it behaves as a `RequestResponseCycle`."""

    def __init__(self, protocol: DirectProtocol, route: "JsonRoute") -> None:
        self._protocol = protocol
        self._app: Application = protocol.app
        self._route = route
        self._started = time.perf_counter()
        self._pending: Pending | None = None
        # What uvicorn reads, writes and calls:
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = protocol.parser.should_keep_alive()

    @property
    def message_event(self) -> "Exchange":
        """What uvicorn sets; no attribute, so that nothing refers to itself."""
        return self

    def set(self) -> None:
        """Hears from uvicorn that there is more of the body, or its end, or the connection's."""
        if self.disconnected:
            self._give_up()
        elif self.more_body:
            self._protocol.flow.resume_reading()  # uvicorn pauses it after each 64 KiB
        elif self._pending is None and not self.response_complete:
            self._begin()

    def _begin(self) -> None:
        try:
            self._pending = self._route.begin(self.body, self._app.service)
        except Exception as error:  # noqa: BLE001  # the process border: log, answer, live on
            self._refuse(error)
        else:
            self._pending.outputs.add_done_callback(self._finish)

    def _finish(self, outputs: asyncio.Future[Any]) -> None:
        if self.response_complete or self._pending is None or outputs.cancelled():
            return
        try:
            content = self._pending.finish(outputs.result())
        except Exception as error:  # noqa: BLE001  # the process border: log, answer, live on
            self._refuse(error)
        else:
            self._answer(200, OK, content)

    def _refuse(self, error: Exception) -> None:
        response = self._app.refusal(error, "POST", self._route.path)
        headers = [pair for pair in response.raw_headers if pair[0] != b"content-length"]
        self._answer(response.status_code, headers, bytes(response.body))

    def _answer(self, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        protocol, parts = self._protocol, [STATUS_LINE[status]]
        if protocol.transport.is_closing():
            self._give_up()
            return
        for name, value in (*protocol.server_state.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"content-length: %d\r\n\r\n" % len(content), content)
        protocol.transport.write(b"".join(parts))
        self.response_complete = True
        self.body, self._pending = bytearray(), None  # a connection may rest for long
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()
        self._count(status)

    def _give_up(self) -> None:
        """The client has gone: what still waits of its histories is not computed."""
        if not self.response_complete:
            self.response_complete = True
            if self._pending is not None:
                self._pending.outputs.cancel()
            self._count(ClientGone.status)

    def _count(self, status: int) -> None:
        self._app.count(self._route.path, status, time.perf_counter() - self._started)
