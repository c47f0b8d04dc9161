"""HTTP by uvicorn, but for one thing: an ordinary answer goes out in one write.

ASGI sends a response's head and body apart, and uvicorn looks at each header and hands head and
body to the kernel as they come. Here the head waits for the body: one system call, one packet and
one wake-up of the client in place of two. Whatever is not ordinary is left to uvicorn.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)


class OneWriteProtocol(HttpToolsProtocol):
    """`uvicorn --http service.one_write_protocol:OneWriteProtocol`."""

    def on_headers_complete(self) -> None:
        """Begins a request; its task has not run yet, and so nothing has been sent."""
        super().on_headers_complete()
        if isinstance(self.cycle, RequestResponseCycle):
            self.cycle.__class__ = _Cycle


class _Cycle(RequestResponseCycle):
    _head: Any = None  # the message that waits

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start" and not self.response_started:
            self._head = message  # after a failure, that of the error in its place
        elif self._head is None or self.response_started:
            await super().send(message)
        elif self._is_ordinary(message):
            self._write(message.get("body", b""))
        else:
            await super().send(self._head)
            await super().send(message)

    def _is_ordinary(self, message: Any) -> bool:
        """Whether it is all there, as long as it says, and the connection stays open."""
        headers = self._head["headers"]
        return (
            (b"content-length", b"%d" % len(message.get("body", b""))) in headers
            and not any(name == b"connection" for name, _ in headers)
            and not message.get("more_body", False)
            and self.keep_alive
            and not self.disconnected
            and not self.flow.write_paused
            and self.scope["method"] != "HEAD"
        )

    def _write(self, body: bytes) -> None:
        parts = [STATUS_LINE[self._head["status"]]]
        for name, value in (*self.default_headers, *self._head["headers"]):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n", body)
        self.transport.write(b"".join(parts))
        self.waiting_for_100_continue = False
        self.response_started = self.response_complete = True
        self.message_event.set()
        self.on_response()
