"""Adds ids, timings, a log line and a trace to each request, if they are turned on.

Nothing here holds a history or a key: a visit only has names, times and counts.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.types import Message, Receive, Scope, Send

from service.settings import Settings
from service.visit import Visit, begin, mark, request_id

if TYPE_CHECKING:
    from service.tracing import Tracer

# Answers contain personal data: no cache may keep them, and no browser may show JSON as a page.
_SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))

access = logging.getLogger("service.access")

Inner = Callable[[Scope, Receive, Send], Awaitable[Any]]


class Border:
    """Creates a visit for each request, and reports it to the client and the operators."""

    def __init__(self, settings: Settings) -> None:
        self._always = _always(settings)
        self._echoes = settings.request_ids
        self._tells_timing = settings.server_timing
        self._logs = settings.access_log
        self._tracer = _tracer() if settings.traces else None

    @classmethod
    def where_wanted(cls, settings: Settings) -> "Border | None":
        """None if everything is turned off, so that requests do not pay for it."""
        headers = settings.keys_file or settings.safe_headers or settings.request_ids
        told = settings.server_timing or settings.access_log or settings.traces
        return cls(settings) if headers or told else None

    async def cross(self, inner: Inner, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        visit = Visit(request_id(scope["headers"]), time.perf_counter())
        begin(visit)
        status = 0

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                mark("render")
                status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(visit)]
            await send(message)

        span = self._tracer.start(visit, scope) if self._tracer is not None else None
        try:
            await inner(scope, receive, noting_send)
        finally:
            if span is not None:
                span.end(status)
            if self._logs:
                _log(visit, scope, status)

    def _headers(self, visit: Visit) -> list[tuple[bytes, bytes]]:
        headers = [*self._always]
        if self._echoes:
            headers.append((b"x-request-id", visit.request_id.encode()))
        if self._tells_timing:
            headers.append((b"server-timing", _timing(visit)))
        return headers


def tell_refusal(
    settings: Settings, headers: Iterable[tuple[bytes, bytes]], status: int, code: str
) -> list[tuple[bytes, bytes]]:
    """Logs what the connection refuses, and no application sees; headers for its answer.

    `headers` are those of the request, as far as they have come.
    """
    number = request_id(headers)
    if settings.access_log:
        facts = {"request_id": number, "status": status, "code": code}
        access.info("refused %d %s", status, code, extra={"facts": facts})
    echoed = [(b"x-request-id", number.encode())] if settings.request_ids else []
    return [*_always(settings), *echoed]


def _always(settings: Settings) -> Sequence[tuple[bytes, bytes]]:
    return _SAFE if settings.safe_headers or settings.keys_file is not None else ()


def _tracer() -> "Tracer":
    from service.tracing import Tracer  # noqa: PLC0415  # of the extra `otel`

    return Tracer.of_environment()


def _timing(visit: Visit) -> bytes:
    took = visit.milliseconds().items()
    return ", ".join([f"{stage};dur={ms:.2f}" for stage, ms in took]).encode()


def _log(visit: Visit, scope: Scope, status: int) -> None:
    seconds = time.perf_counter() - visit.started
    facts: dict[str, Any] = {
        "request_id": visit.request_id,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1000, 2),
        "stages_ms": {stage: round(ms, 2) for stage, ms in visit.milliseconds().items()},
    }
    named = {"key": visit.key, "model": visit.model, "version": visit.version}
    facts |= {name: value for name, value in named.items() if value is not None}
    if visit.trace_id is not None:
        facts["trace_id"] = visit.trace_id
    access.info("%s %s %d", scope["method"], scope["path"], status, extra={"facts": facts})
