"""Raw bytes to a server, and what comes back."""

import json
import socket
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 30  # only ends a test that hangs


@dataclass(frozen=True)
class Reply:
    """One answer; status 0 where the connection ended without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error in the documented shape."""
        document = json.loads(self.body)
        assert document.keys() == {"error"}
        error: dict[str, Any] = document["error"]
        assert error.keys() == {"code", "message", "path"}
        return error


class Wire:
    """A connection that reads one answer after the other."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._file = self.socket.makefile("rb")

    def send(self, *pieces: bytes) -> None:
        """Sends as much as the server takes."""
        with suppress(ConnectionError):
            for piece in pieces:
                self.socket.sendall(piece)

    def half_close(self) -> None:
        """Says that nothing more comes."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reply(self) -> Reply:
        """The next answer."""
        try:
            return self._read()
        except ConnectionError:
            return Reply(0, {}, b"")

    def _read(self) -> Reply:
        line = self._file.readline()
        if not line:
            return Reply(0, {}, b"")
        assert line.startswith(b"HTTP/1.1 "), line[:100]
        headers = {}
        while pair := self._file.readline().strip().decode():
            name, _, value = pair.partition(": ")
            headers[name.lower()] = value
        body = self._file.read(int(headers.get("content-length", 0)))
        return Reply(int(line.split()[1]), headers, body)

    def close(self) -> None:
        """Ends the connection."""
        self._file.close()
        self.socket.close()


def replies(port: int, pieces: Iterable[bytes]) -> list[Reply]:
    """Every answer to the pieces until the server ends the connection."""
    with closing(Wire(port)) as wire:
        wire.send(*pieces)
        found = [wire.reply()]
        while found[-1].status:
            found.append(wire.reply())
    return found[:-1]


def first_reply(port: int, pieces: Iterable[bytes], *, half_close: bool = False) -> Reply:
    """The first answer to the pieces."""
    with closing(Wire(port)) as wire:
        wire.send(*pieces)
        if half_close:
            wire.half_close()
        return wire.reply()


def request(
    body: bytes = b"", *headers: str, method: str = "POST", path: str = "/v1/encode"
) -> bytes:
    """A request as it should be, and further headers."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def head(*lines: str | bytes) -> bytes:
    """Lines with their ends, and the empty line."""
    raw = [line.encode("latin-1") if isinstance(line, str) else line for line in lines]
    return b"\r\n".join([*raw, b"", b""])
