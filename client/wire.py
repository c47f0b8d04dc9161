"""The HTTP contract without any input or output: calls to send, answers to read, errors to raise.

`Client` and `AsyncClient` share all of this; they differ only in how a call travels.
Described for users in docs/http-api.md.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray

from client import answers
from client.errors import (
    BodyTooLarge,
    ClientError,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    PathToValue,
    ServerError,
    UnexpectedAnswer,
)
from client.results import Encoded, ItemId, Model, Scored

T = TypeVar("T")
# Item ids from oldest to newest, or {"id": ..., "items": [...]}.
History = Sequence[ItemId] | NDArray[Any] | Mapping[str, object]
AttentionDetail = Literal["none", "pooled", "full"]
UnknownItems = Literal["token", "drop", "error"]

ERRORS: dict[int, type[ClientError]] = {
    404: ModelNotFound,
    413: BodyTooLarge,
    422: InvalidRequest,
    429: Overloaded,
    500: ServerError,
    503: NotReady,
    504: DeadlineExceeded,
}


@dataclass(frozen=True)
class Limits:
    """How much one request may carry; longer inputs travel as several requests."""

    histories: int = 1024
    full_attention_histories: int = 8  # their answer grows with the square of the length
    scores: int = 1_000_000  # histories times candidates
    body_bytes: int = 16 * 2**20


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how to read its answer."""

    method: Literal["GET", "POST"]
    path: str
    read: Callable[[Any], T]  # from the answer's JSON
    content: bytes | None = None
    start: int = 0  # the whole input's index of this part's first history
    by_history: tuple[str, ...] = ("histories",)  # the lists that are counted from `start`


def encode_calls(
    histories: Iterable[History],
    limits: Limits,
    *,
    model: str | None,
    attention: AttentionDetail,
    unknown_items: UnknownItems,
) -> Iterator[Call[Encoded]]:
    """The requests that encode `histories`, in order; at least one.

    Raises:
        InvalidRequest: a history cannot be written as JSON.
    """
    options = _with_model(model, attention=attention, unknown_items=unknown_items)
    if attention == "full":
        limits = replace(limits, histories=limits.full_attention_histories)
    head = _dump(options | {"encoding": "base64"}, ())
    for start, part in _parts(_rows({"histories": histories}), limits, len(head)):
        body = _body(head, {"histories": [row[0] for row in part]})
        yield Call("POST", "/v1/encode", partial(answers.encoded, len(part)), body, start)


def score_calls(
    histories: Sequence[History],
    candidates: Sequence[ItemId] | Sequence[Sequence[ItemId]],
    limits: Limits,
    *,
    model: str | None,
    attention: bool,
    unknown_items: UnknownItems,
) -> Iterator[Call[Scored]]:
    """The requests that score `candidates`, in order; at least one.

    Raises:
        InvalidRequest: an id cannot be written as JSON, or the numbers of histories and of
            lists of candidates differ.
    """
    own_lists = len(candidates) > 0 and not isinstance(candidates[0], str | int | np.integer)
    if own_lists and len(candidates) != len(histories):
        message = f"{len(candidates)} lists of candidates for {len(histories)} histories"
        raise InvalidRequest(message, path=("candidates",))
    options = _with_model(model, attention=attention, unknown_items=unknown_items)
    head = _dump(options if own_lists else options | {"candidates": candidates}, ("candidates",))
    columns = {"histories": histories} | ({"candidates": candidates} if own_lists else {})
    for start, part in _parts(
        _rows(columns), _within_scores(limits, candidates, own_lists), len(head)
    ):
        lists = zip(*part, strict=True) if part else ((),) * len(columns)
        body = _body(head, dict(zip(columns, lists, strict=True)))
        read_scores = partial(answers.scored, len(part))
        yield Call("POST", "/v1/score", read_scores, body, start, tuple(columns))


def models_call() -> Call[list[Model]]:
    """The request for the models on offer."""
    return Call("GET", "/v1/models", answers.models)


def ready_call() -> Call[None]:
    """The request that fails with `NotReady` until the service can answer."""
    return Call("GET", "/health/ready", lambda _: None)


def read(call: Call[T], response: httpx.Response) -> T:
    """The answer's value.

    Raises:
        ClientError: the one of `client.errors` that the answer stands for.
    """
    if response.status_code != 200:
        raise _error(call, response)
    try:
        return call.read(orjson.loads(response.content))
    except (KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        message = f"{call.method} {response.url}: cannot read the answer ({what})"
        raise UnexpectedAnswer(message) from error


def _with_model(model: str | None, **options: object) -> dict[str, object]:
    return options if model is None else {"model": model, **options}


def _dump(value: object, path: PathToValue) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        where = " ".join(str(step) for step in path) or "the request"
        raise InvalidRequest(f"{where} cannot be written as JSON: {error}", path=path) from error


def _rows(columns: Mapping[str, Iterable[object]]) -> Iterator[tuple[bytes, ...]]:
    """The JSON of each history and of what belongs to it."""
    for index, values in enumerate(zip(*columns.values(), strict=True)):
        yield tuple(
            _dump(value, (name, index)) for name, value in zip(columns, values, strict=True)
        )


def _within_scores(limits: Limits, candidates: Sequence[Any], own_lists: bool) -> Limits:
    longest = max((len(own) for own in candidates), default=1) if own_lists else len(candidates)
    most = max(1, limits.scores // max(1, longest))
    return replace(limits, histories=min(limits.histories, most))


def _parts(
    rows: Iterable[tuple[bytes, ...]], limits: Limits, head_bytes: int
) -> Iterator[tuple[int, list[tuple[bytes, ...]]]]:
    """Index of the first row and the rows of each request; a row too large goes alone."""
    overhead = head_bytes + len(b',"histories":[],"candidates":[]}')
    start, part, size = 0, list[tuple[bytes, ...]](), overhead
    for index, row in enumerate(rows):
        row_bytes = sum(len(piece) + 1 for piece in row)
        if part and (len(part) == limits.histories or size + row_bytes > limits.body_bytes):
            yield start, part
            start, part, size = index, [], overhead
        part.append(row)
        size += row_bytes
    if part or start == 0:
        yield start, part


def _body(head: bytes, lists: Mapping[str, Sequence[bytes]]) -> bytes:
    """The object `head` with one more key a list, whose values are JSON already."""
    keys = (b',"%b":[%b]' % (name.encode(), b",".join(lists[name])) for name in lists)
    return head[:-1] + b"".join(keys) + b"}"


def _error(call: Call[Any], response: httpx.Response) -> ClientError:
    code, message, path = _error_fields(response)
    kind = ERRORS.get(response.status_code, UnexpectedAnswer)
    if kind is ModelNotFound and code != "model_not_found":
        kind = UnexpectedAnswer  # another server, or a prefix is missing from the address
    if not message:
        text = response.text[:200].strip()
        message = f"{call.method} {response.url} answers {response.status_code}: {text}"
    if call.start and len(path) > 1 and path[0] in call.by_history:
        message += f" (counted within the part that begins at history {call.start})"
        path = (path[0], call.start + int(path[1]), *path[2:])
    return kind(message, path=path, retry_after=_retry_after(response))


def _error_fields(response: httpx.Response) -> tuple[str, str, PathToValue]:
    """Code, message and path; empty where the body is not in the service's error shape."""
    try:
        error = orjson.loads(response.content)["error"]
        return error["code"], error["message"], tuple(error["path"])
    except (KeyError, TypeError, ValueError):
        return "", "", ()


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds; the header's other form, a date, is what proxies send and counts as none."""
    try:
        seconds = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
