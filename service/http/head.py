"""Checks the head of a request for faults that the parser accepts."""

from collections.abc import Sequence

from persona.contract import PersonaError
from service.protocols.native.errors import error_answer
from service.settings import Settings

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case


class Refused(PersonaError):
    """The request is refused; the connection ends with this answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.answer = error_answer(status, code, message, close=True)


def bad_request(message: str) -> Refused:
    """The request breaks the rules of HTTP/1.1."""
    return Refused(400, "bad_request", message)


def too_large(size: str) -> Refused:
    """The head exceeds a limit."""
    return Refused(431, "headers_too_large", f"the head of the request has {size}")


def check(url: bytes, headers: Headers, version: str, settings: Settings) -> None:
    """Checks sizes, and headers on which servers disagree about the end of a request.

    Raises:
        Refused: 400 or 431.
    """
    size, hosts = len(url), 0
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise bad_request("transfer-encoding: only 'chunked' is understood")
    if len(headers) > settings.max_headers:
        raise too_large(f"{len(headers):,} headers, limit {settings.max_headers:,}")
    if size > settings.max_header_bytes:
        raise too_large(f"{size:,} bytes, limit {settings.max_header_bytes:,}")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise bad_request(f"the request has {hosts} host headers instead of 1")


def without_upgrade(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """The head without its offer to change the protocol."""
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            tokens = (token.strip() for token in value.lower().split(b","))
            lines.append(b"connection: " + b", ".join(t for t in tokens if t != b"upgrade"))
        elif name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])
