"""Limits the number of a worker's connections, the time of each step, and the bytes they hold.

No request needs a timer for this. Every `tick`, the watch checks what each connection is doing, and
ends those that have done the same for longer than its limit.
"""

import asyncio
import resource
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, Protocol

from service.http.closing import Outbox
from service.metrics import CUT
from service.settings import Settings

TICK_S = 1.0
TAKEN_BYTES = 65_536  # a slow reader must read this much within its limit
SPARE_DESCRIPTORS = 64  # for files, listening sockets and refused connections

# What a connection is doing. While a request is computed, its own deadline counts.
Phase = Literal["idle", "head", "body", "computing", "unread", "closing"]


class Watched(Protocol):
    """A connection, as the watch sees it."""

    def phase(self) -> tuple[Phase, Hashable]:
        """The current step, and a value that changes with each request."""

    def unread_bytes(self) -> int:
        """Bytes of answers that the client has not read."""

    def end(self, phase: Phase) -> None:
        """Ends the connection, whose time is up."""

    def abort(self) -> None:
        """Ends it at once."""


@dataclass(slots=True)
class _Seen:
    """The step of a connection, and since when."""

    phase: tuple[Phase, Hashable]
    since: float
    unread: int = 0


class Watch:
    """Watches the connections of one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.outbox = Outbox()
        self.body_bytes = 0  # held by incomplete bodies
        self._unread_bytes = 0  # at the last check
        self._seen: dict[Watched, _Seen] = {}  # the oldest first
        self._next_look: asyncio.TimerHandle | None = None  # none while nobody is connected
        self._max_connections = descriptors_for(settings.max_connections)
        self._limits: dict[Phase, float] = {
            "idle": settings.keep_alive_seconds,
            "head": settings.header_seconds,
            "body": settings.body_seconds,
            "unread": settings.unread_seconds,
            "closing": settings.closing_seconds,
        }
        self._tick = min(TICK_S, min(self._limits.values()) / 4)

    def admit(self, connection: Watched) -> bool:
        """Whether one more connection is accepted; if necessary, the oldest idle one is closed."""
        loop = asyncio.get_running_loop()
        if len(self._seen) >= self._max_connections:
            CUT.labels("connections").inc()
            if (oldest := self._oldest_waiting()) is None:
                return False
            self._seen.pop(oldest)
            oldest.abort()
        if self._next_look is None:
            self._next_look = loop.call_later(self._tick, self._look, loop)
        self._seen[connection] = _Seen(("head", None), loop.time())
        return True

    def forget(self, connection: Watched) -> None:
        """Removes a connection that has ended."""
        self._seen.pop(connection, None)

    def holds_too_much(self) -> bool:
        """Whether incomplete bodies and unread answers exceed the limit."""
        return self.body_bytes + self._unread_bytes > self.settings.max_held_bytes

    def _oldest_waiting(self) -> Watched | None:
        return next((one for one in self._seen if one.phase()[0] in {"idle", "head"}), None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        again = loop.call_later(self._tick, self._look, loop) if self._seen else None
        self._next_look, now = again, loop.time()
        self._unread_bytes = sum(one.unread_bytes() for one in self._seen)
        for connection, seen in list(self._seen.items()):
            phase, unread = connection.phase(), connection.unread_bytes()
            taken = phase[0] == "unread" and unread <= seen.unread - TAKEN_BYTES
            if phase != seen.phase or taken:
                seen.phase, seen.since, seen.unread = phase, now, unread
            elif now - seen.since > self._limits.get(phase[0], float("inf")):
                CUT.labels(phase[0]).inc()
                seen.phase, seen.since = ("closing", None), now
                connection.end(phase[0])
        self._end_the_slowest_readers()

    def _end_the_slowest_readers(self) -> None:
        """Drops the largest unread answers until the rest is within the limit."""
        if self._unread_bytes <= self.settings.max_held_bytes:
            return
        for connection in sorted(self._seen, key=lambda one: one.unread_bytes(), reverse=True):
            if self._unread_bytes <= self.settings.max_held_bytes:
                return
            self._unread_bytes -= connection.unread_bytes()
            CUT.labels("unread").inc()
            connection.abort()


def descriptors_for(connections: int) -> int:
    """The number of connections that file descriptors allow; first asks for more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_DESCRIPTORS
    if soft < wanted and hard != soft:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft >= wanted else max(1, soft - SPARE_DESCRIPTORS)
