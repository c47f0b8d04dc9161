"""Uvicorn's HTTP/1.1 connection with limits; every refusal has the form of an error.

It is a subclass of uvicorn's own protocol class, set with uvicorn's setting `http`. It adds limits
on the head of a request and on the memory of an unfinished one, answers to anything that is not
HTTP/1.1, and refuses to change the protocol of a connection. `Watch` limits the time of each step.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.border import tell_refusal
from service.http import head
from service.http.closing import ClosingTransport
from service.http.head import Refused, bad_request
from service.http.unfinished import Unfinished
from service.http.watch import Phase, Watch
from service.metrics import CUT
from service.protocols.exchange import Answer, Send
from service.settings import Settings

_STOPS = (httptools.HttpParserUpgrade, httptools.HttpParserError)
HALF_CLOSED_S = 0.05  # a client that closes its side later than this after its request is gone


def limited(settings: Settings) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn's setting `http`; its connections share one `Watch`."""
    watch = Watch(settings)

    class Limited(Connection):
        def __init__(self, **options: Any) -> None:
            super().__init__(watch, **options)

    return Limited


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(self, watch: Watch, **options: Any) -> None:
        super().__init__(**options)
        self.cycle = _NoRequest()
        self._watch = watch
        self._settings = watch.settings
        self._segment = b""  # that is being parsed
        self._segment_at = 0.0
        self._unfinished: Unfinished | None = None
        self._refused = False
        self._client_ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Accepts the client, or refuses it."""
        limit = self._settings.max_discarded_bytes
        self._answers = ClosingTransport(transport, self._may_send, limit)
        super().connection_made(self._answers)
        if not self._watch.admit(self):
            self._refuse(Refused(429, "overloaded", "too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the request's task, and releases the held bytes.

        Nothing may refer to the connection in a circle: what it holds would then stay until the
        garbage collector runs. A thousand hostile connections took 15 MB that way.
        """
        self._release()
        self._watch.forget(self)
        super().connection_lost(exc)
        self._answers.let_go()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's returns nothing
        """A client that closes its side right after its request waits for the answer."""
        late = self.loop.time() - self._segment_at > HALF_CLOSED_S
        if late or self.phase()[0] == "idle":
            return False
        self._client_ended = True
        if self._still_sending():
            self._refuse(bad_request("the request ended before it was whole"))
        else:
            self.cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Parses the bytes, and counts them if they do not complete a request."""
        if self._refused:
            return
        self._segment, self._segment_at = data, self.loop.time()
        try:
            self.parser.feed_data(data)
        except _STOPS as stop:
            self._read_on(stop)
        cycle = self.cycle  # as _still_sending, which costs two calls a request
        if cycle.more_body or cycle.scope is not self.scope:
            self._count()
        elif self._unfinished is not None:
            self._release()

    def _read_on(self, stop: Exception) -> None:
        """Reads on as HTTP after an offer to change the protocol; refuses everything else."""
        try:
            while isinstance(stop, httptools.HttpParserUpgrade):
                self._segment = self._as_http() + self._segment[stop.args[0] :]
                try:
                    self.parser.feed_data(self._segment)
                except _STOPS as another:
                    stop = another
                else:
                    return
            self._refuse(_reason(stop))
        finally:
            del stop  # its traceback refers to this frame: a circle

    def _as_http(self) -> bytes:
        """The head of a request, without its offer to change the protocol.

        The parser returns the bytes after such a head as bytes of the other protocol. They are the
        body of this request and further requests, because an offer may be ignored (RFC 9110, 7.8).
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        self.parser = httptools.HttpRequestParser(self)
        return head.without_upgrade(method, self.url, version, self.headers)

    def on_headers_complete(self) -> None:
        """Starts the request, unless its head is refused."""
        if self.parser.should_upgrade():
            self._note_offer()
            return
        settings, names = self._settings, dict(self.headers)
        usual = (  # recognises ordinary heads without a call for each header
            len(self._segment) <= settings.max_header_bytes
            and self._unfinished is None
            and self.url + b" HTTP/1.1\r" in self._segment
            and len(names) == len(self.headers) <= settings.max_headers
            and b"host" in names
            and b"transfer-encoding" not in names
        )
        if not usual:
            head.check(self.url, self.headers, self._version(), settings)
        if len(self.pipeline) >= settings.max_pipelined_requests:
            waiting = f"{settings.max_pipelined_requests:,} requests wait on this connection"
            raise Refused(429, "overloaded", f"{waiting}, the limit")
        HttpToolsProtocol.on_headers_complete(self)
        if self.expect_100_continue:  # without "100 Continue" its body may never come
            self.cycle.keep_alive = False
            self._answers.hold_nothing()

    def on_response_complete(self) -> None:
        """Sends the answer, and starts the next request if one waits.

        Uvicorn would also start a timer for an idle connection, which the watch ends anyway.
        """
        self._watch.outbox.add(self._answers, self.loop)
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()

    def _note_offer(self) -> None:
        """Leaves the request for `_as_http`."""
        if self.parser.get_method() == b"CONNECT":
            raise Refused(405, "method_not_allowed", "CONNECT: method not allowed")

    def _version(self) -> str:
        """The version of HTTP, 1.1 or 1.0, as the request's first line has it.

        The parser accepts RTSP as HTTP, and versions that we do not support.

        Raises:
            Refused: neither of them.
        """
        before = bytes(self._unfinished.head) if self._unfinished is not None else b""
        for version in ("1.1", "1.0"):
            if b"%b HTTP/%b" % (self.url, version.encode()) in before + self._segment:
                return version
        raise bad_request("the request is not HTTP/1.1")

    def phase(self) -> tuple[Phase, Hashable]:
        """What the connection is doing, and with which request."""
        if self.transport.get_write_buffer_size():
            return "unread", None
        if self.transport.is_closing():
            return "closing", None
        if self._in_head():
            return "head", self.cycle
        if self.cycle.more_body:
            return "body", self.cycle
        return ("idle" if self.cycle.response_complete else "computing"), self.cycle

    def unread_bytes(self) -> int:
        """Bytes of answers that the client has not read."""
        return self.transport.get_write_buffer_size()

    def end(self, phase: Phase) -> None:
        """Ends the connection, which has taken too long."""
        settings = self._settings
        if phase == "head" and self.scope is not None:
            self._refuse(_too_slow("head", settings.header_seconds))
        elif phase == "body":
            self._refuse(_too_slow("body", settings.body_seconds))
        elif phase in {"unread", "closing"}:
            self.transport.abort()
        else:
            self.transport.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        self.transport.abort()

    def _in_head(self) -> bool:
        """Whether the newest request's head is incomplete, or nothing has arrived yet."""
        return self.cycle.scope is not self.scope

    def _still_sending(self) -> bool:
        """Whether the newest request is incomplete, or more arrives than is read."""
        return self._in_head() or self.cycle.more_body or self._refused

    def _may_send(self) -> bool:
        return self._still_sending() and not self._client_ended

    def _count(self) -> None:
        """Counts the bytes of an incomplete request, and refuses more than a limit."""
        if self._unfinished is None or self._unfinished.scope is not self.scope:
            self._release()
            self._unfinished = Unfinished(self._watch, self.scope, len(self._segment))
        try:
            if self._in_head():
                self._unfinished.add_to_head(self._segment)
            else:
                self._unfinished.add_to_body(len(self._segment), self.cycle.response_complete)
        except Refused as refusal:
            self._refuse(refusal)

    def _release(self) -> None:
        if self._unfinished is not None:
            self._unfinished.release()
            self._unfinished = None

    def _refuse(self, refusal: Refused) -> None:
        """Answers when it is this request's turn, and reads nothing more from the connection."""
        if self._refused:
            return
        CUT.labels(refusal.code).inc()
        cycle, answer = self.cycle, self._told(refusal)
        self._refused = True
        self._release()
        if cycle.response_complete and (self._in_head() or not cycle.more_body):
            self._write(answer)
        elif not cycle.more_body:  # it is answered first
            cycle.keep_alive = False
        elif self.pipeline:
            self.pipeline[0] = (cycle, _answering(answer))
        elif cycle.response_started:
            self.transport.close()
        else:
            self._write(answer)
            cycle.disconnected = True
            cycle.message_event.set()

    def _told(self, refusal: Refused) -> Answer:
        """The answer with what every answer has in its head; the refused request is the newest."""
        headers = self.headers if self.cycle.more_body or self._in_head() else None
        answer = refusal.answer
        told = tell_refusal(self._settings, headers or (), answer.status, refusal.code)
        return replace(answer, headers=(*answer.headers, *told))

    def _write(self, answer: Answer) -> None:
        status = HTTPStatus(answer.status)
        lines = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode())]
        fields = (*self.server_state.default_headers, *answer.headers)
        lines += [b"%b: %b" % pair for pair in fields]
        lines.append(b"content-type: application/json")
        lines.append(b"content-length: %d" % len(answer.body))
        self.transport.write(b"\r\n".join([*lines, b"", answer.body]))
        self.transport.close()


class _NoRequest(RequestResponseCycle):
    """The last request, as uvicorn sees it, before there was one."""

    def __init__(self) -> None:
        self.scope = {}  # type: ignore[typeddict-item]  # of no request
        self.message_event = asyncio.Event()
        self.disconnected = self.more_body = self.keep_alive = False
        self.response_started = self.response_complete = True


def _reason(stop: Exception) -> Refused:
    """Why the parser stopped."""
    if isinstance(stop.__context__, Refused):
        return stop.__context__
    return bad_request(f"the request is not valid: {stop}")


def _too_slow(what: str, seconds: float) -> Refused:
    message = f"the request's {what} did not come within {seconds:g} s"
    return Refused(408, "request_timeout", message)


def _answering(answer: Answer) -> Callable[..., Coroutine[Any, Any, None]]:
    """An application that always gives this answer."""

    async def app(_scope: object, _receive: object, send: Send) -> None:
        await answer.send(send)

    return app
