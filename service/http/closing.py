"""Sends answers in one piece, and lets clients that are still sending read them.

Closing a socket with unread bytes resets the connection, and the reset discards the answer on its
way to the client (RFC 9112, 9.6). So our side closes first, and drops what the client still sends,
up to a limit of time and bytes.

Uvicorn writes the head and the body of an answer separately. Each would cost a system call, a
packet and a wake-up of the client, which together take as long as everything else for a short
history. So written bytes are held until the answer is complete. All answers of one turn of the
event loop are sent together: the first packet wakes the client, and the others find it awake (1.05
times the answers per second of short histories).
"""

import asyncio
from collections.abc import Callable
from typing import Any


class Outbox:
    """The connections of a worker with complete answers."""

    def __init__(self) -> None:
        self._waiting: list[ClosingTransport] = []

    def add(self, answered: "ClosingTransport", loop: asyncio.AbstractEventLoop) -> None:
        """Sends the connection's held bytes at the end of the loop's current turn."""
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append(answered)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for answered in waiting:
            answered.flush()


class ClosingTransport(asyncio.Transport):
    """Holds written bytes until `flush`; `close` lingers if the client may still send."""

    def __init__(
        self,
        transport: asyncio.Transport,
        still_sending: Callable[[], bool],
        max_bytes: int,
    ) -> None:
        super().__init__()
        self._transport = transport
        self._still_sending = still_sending
        self._max_bytes = max_bytes
        self._held: list[bytes | bytearray | memoryview[Any]] = []
        # Every request calls these; an extra method in between would cost more than the rest.
        self.write = self._held.append  # type: ignore[assignment, method-assign]  # each takes bytes
        self.is_closing = transport.is_closing  # type: ignore[method-assign]  # until it lingers

    def flush(self) -> None:
        """Sends the written bytes, unless the client has gone."""
        if self._held and not self._transport.is_closing():
            self._transport.writelines(self._held)
        self._held.clear()

    def hold_nothing(self) -> None:
        """From now on, sends written bytes at once."""
        self.flush()
        self.write = self._transport.write  # type: ignore[method-assign]  # the same method

    def pause_reading(self) -> None:
        """Leaves incoming bytes in the socket."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads again."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Facts about the connection."""
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        """Bytes that the client has not read yet."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Closes at once; unsent bytes are lost."""
        self._transport.abort()

    def let_go(self) -> None:
        """Forgets the connection, which has ended: the two would keep each other alive."""
        self._held.clear()
        self._still_sending = _no

    def close(self) -> None:
        """Sends the written bytes, then closes."""
        if self.is_closing():
            return
        self.flush()
        if self._still_sending() and self._transport.can_write_eof():
            self._linger()
        else:
            self._transport.close()

    def _linger(self) -> None:
        self.is_closing = _yes  # type: ignore[method-assign]  # as before
        self._transport.set_protocol(_Rest(self._transport, self._max_bytes))
        self._transport.write_eof()
        self._transport.resume_reading()


def _yes() -> bool:
    return True


def _no() -> bool:
    return False


class _Rest(asyncio.Protocol):
    """Drops what the client sends after the answer, up to a limit."""

    def __init__(self, transport: asyncio.Transport, max_bytes: int) -> None:
        self._transport = transport
        self._protocol = transport.get_protocol()
        self._left = max_bytes

    def data_received(self, data: bytes) -> None:
        """Drops them."""
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()

    def eof_received(self) -> None:
        """The client has read the answer, and closes."""

    def pause_writing(self) -> None:
        """The client does not read."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended."""
        self._protocol.connection_lost(error)
