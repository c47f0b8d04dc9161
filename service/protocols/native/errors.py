"""Errors in the shape of this protocol: `{"error": {"code", "message", "path"}}`.

InvalidRequest
└── InvalidBody    the body does not fit the schema
"""

from collections.abc import Mapping
from math import ceil

import orjson

from persona.contract import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    PersonaError,
    RequestTooLarge,
    VersionNotFound,
)
from service.errors import (
    ClientGone,
    Conflict,
    Forbidden,
    RateLimited,
    Unauthorized,
    UnknownEncoding,
)
from service.protocols.exchange import Answer

Path = tuple[str | int, ...]  # keys and indices that lead to a place in the request's body

STATUSES: Mapping[type[PersonaError], tuple[int, str]] = {
    InvalidRequest: (422, "invalid_request"),
    RequestTooLarge: (413, "body_too_large"),
    ModelNotFound: (404, "model_not_found"),
    VersionNotFound: (404, "model_not_found"),
    Overloaded: (429, "overloaded"),
    NotReady: (503, "not_ready"),
    DeadlineExceeded: (504, "deadline_exceeded"),
    Conflict: (409, "conflict"),
    ClientGone: (499, "client_gone"),
    UnknownEncoding: (415, "unknown_encoding"),
    Unauthorized: (401, "unauthorized"),
    Forbidden: (403, "forbidden"),
    RateLimited: (429, "rate_limited"),
}
RETRY_AFTER_S = 1
UNREAD = (RequestTooLarge, UnknownEncoding)  # not read to the end, so the connection ends


class InvalidBody(InvalidRequest):
    """The body does not fit the schema; `path` leads to the place."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message, "body")
        self.path = path


def error_answer(
    status: int,
    code: str,
    message: str,
    path: Path = (),
    *,
    close: bool = False,
    retry_after_s: float = RETRY_AFTER_S,
) -> Answer:
    """An error as an answer; `close` if the connection ends with it."""
    error = {"code": code, "message": message, "path": path}
    headers = []
    if status == 429:
        headers = retry_headers(retry_after_s)
    elif status == 401:
        headers = [(b"www-authenticate", b"Bearer")]
    if close:
        headers.append((b"connection", b"close"))
    return Answer(orjson.dumps({"error": error}), status, headers, code)


def retry_headers(seconds: float) -> list[tuple[bytes, bytes]]:
    """When to try again: in whole seconds, and in milliseconds for clients that know how."""
    whole, milliseconds = max(1, ceil(seconds)), max(1, ceil(seconds * 1000))
    return [(b"retry-after", b"%d" % whole), (b"retry-after-ms", b"%d" % milliseconds)]


def answer_to(error: PersonaError, path: Path = ()) -> Answer:
    """The answer to a request that is refused."""
    status, code = STATUSES.get(type(error), (500, "internal"))
    if isinstance(error, InvalidBody):
        (status, code), path = STATUSES[InvalidRequest], error.path
    if isinstance(error, ModelNotFound):
        path = (error.part,)
    message = str(error) if status != 500 else "internal error"
    unread = isinstance(error, UNREAD)
    retry = error.retry_after_s or RETRY_AFTER_S
    return error_answer(status, code, message, path, close=unread, retry_after_s=retry)
