"""What a request is, and how its answer is read, without sending or receiving either.

`Client` and `AsyncClient` share this and `requests`; they differ only in how they send.
"""

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import httpx
import orjson

from persona.client import answers
from persona.client.errors import ChangeRefused, ServerError, UnexpectedAnswer
from persona.client.options import Limits
from persona.contract import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    PersonaError,
    RequestTooLarge,
)

T = TypeVar("T")

ERRORS: dict[int, type[PersonaError]] = {
    403: ChangeRefused,
    404: ModelNotFound,
    409: ChangeRefused,
    413: RequestTooLarge,
    422: InvalidRequest,
    429: Overloaded,
    500: ServerError,
    502: NotReady,  # from a proxy whose server is down or restarting
    503: NotReady,
    504: DeadlineExceeded,
}


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how to read its answer."""

    method: Literal["GET", "POST"]
    path: str
    read: Callable[[Any], T]  # reads the answer's JSON
    content: bytes | None = None
    start: int = 0  # index of the request's first history in the whole input
    own_candidates: bool = False  # one list of candidates per history


class Answer:
    """Collects the bytes of an answer, up to a limit.

    It refuses compressed answers, because a few bytes could expand to gigabytes.
    """

    def __init__(self, response: httpx.Response, limits: Limits) -> None:
        self._response, self._limit = response, limits.answer_bytes
        self._content = bytearray()
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise self._unexpected(f"compressed with {encoding}, which was not asked for")

    def add(self, piece: bytes) -> None:
        """Adds the next bytes.

        Raises:
            UnexpectedAnswer: the answer exceeds the limit.
        """
        self._content += piece
        if len(self._content) > self._limit:
            raise self._unexpected(f"more than {self._limit:,} bytes")

    def complete(self) -> httpx.Response:
        """The complete answer."""
        got = self._response
        return httpx.Response(
            got.status_code,
            headers=got.headers,
            content=bytes(self._content),
            request=got.request,
        )

    def _unexpected(self, what: str) -> UnexpectedAnswer:
        request = self._response.request
        return UnexpectedAnswer(f"{request.method} {request.url}: the answer is {what}")


def read(call: Call[T], response: httpx.Response) -> T:
    """The answer's value.

    Raises:
        PersonaError: the error for the answer's status, or `UnexpectedAnswer`.
    """
    if response.status_code != 200:
        raise _error(call, response)
    try:
        return call.read(_json(response))
    except answers.Malformed as error:
        message = f"{call.method} {response.url}: cannot read the answer: {error}"
        raise UnexpectedAnswer(message) from error


def _json(response: httpx.Response) -> Any:
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise answers.Malformed(f"it is not JSON: {error}") from error


def _error(call: Call[Any], response: httpx.Response) -> PersonaError:
    code, message, path = _error_fields(response)
    kind = ERRORS.get(response.status_code, UnexpectedAnswer)
    if kind is ModelNotFound and code != "model_not_found":
        kind = UnexpectedAnswer  # another server, or a prefix is missing in the address
    if not message:
        text = response.text[:200].strip()
        message = f"{call.method} {response.url} answers {response.status_code}: {text}"
    error = _invalid(call, message, path) if kind is InvalidRequest else kind(message)
    error.retry_after_s = _retry_after_s(response)
    return error


def _error_fields(response: httpx.Response) -> tuple[str, str, list[Any]]:
    """Code, message and path; empty if the body is not an error of the service."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return "", "", []
    match body:
        case {"error": {"code": str(code), "message": str(message), "path": list(path)}}:
            return code, message, path
    return "", "", []


def _invalid(call: Call[Any], message: str, path: Sequence[Any]) -> InvalidRequest:
    """The error, with the history's index in the whole call instead of this request."""
    part = str(path[0]) if path and path[0] != "histories" else "clicks"
    place = _place(call, path)
    if "history" in place:
        inside, place["history"] = place["history"], call.start + place["history"]
        message = re.sub(rf"^history {inside}\b", f"history {place['history']}", message)
    return InvalidRequest(message, part, **place)


def _place(call: Call[Any], path: Sequence[Any]) -> dict[str, int]:
    """History, click and candidate that the path in the request leads to."""
    steps = [step for step in path if step != "items"]  # of {"id": ..., "items": [...]}
    match (call.own_candidates, *steps):
        case (_, "histories", int(history), int(click), *_):
            return {"history": history, "click": click}
        case (_, "histories", int(history), *_):
            return {"history": history}
        case (True, "candidates", int(history), int(candidate), *_):
            return {"history": history, "candidate": candidate}
        case (True, "candidates", int(history), *_):
            return {"history": history}
        case (False, "candidates", int(candidate), *_) | (
            _,
            "allowed" | "denied",
            int(candidate),
            *_,
        ):
            return {"candidate": candidate}
    return {}


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds to wait; None if the header is a date, which only proxies send."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(ValueError):
            seconds = unit_s * float(response.headers.get(name, ""))
            if math.isfinite(seconds) and seconds > 0:
                return seconds
    return None
