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
        elif (answer := self._ordinary(message)) is not None:
            self.transport.write(answer)
            self.waiting_for_100_continue = False
            self.response_started = self.response_complete = True
            self.message_event.set()
            self.on_response()
        else:
            await super().send(self._head)
            await super().send(message)

    def _ordinary(self, message: Any) -> bytes | None:
        """The whole answer, if it is all there and the connection stays open."""
        if (
            message.get("more_body", False)
            or not self.keep_alive
            or self.disconnected
            or self.flow.write_paused
            or self.scope["method"] == "HEAD"
        ):
            return None
        body, said = message.get("body", b""), b""
        parts = [STATUS_LINE[self._head["status"]]]
        for name, value in (*self.default_headers, *self._head["headers"]):
            if name == b"connection":
                return None
            if name == b"content-length":
                said = value
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n", body)
        return b"".join(parts) if said == b"%d" % len(body) else None
