"""Writes requests and reads answers, without sending or receiving them.

`Client` and `AsyncClient` share all of this; they differ only in how they send a request.
docs/http-api.md describes the protocol.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Literal, TypeVar, Unpack
from urllib.parse import quote

import httpx
import numpy as np
import orjson

from persona.client import answers
from persona.client.answers import ModelCard, ModelState
from persona.client.errors import ChangeRefused, ServerError, UnexpectedAnswer
from persona.client.options import Limits, RecommendOptions, SimilarOptions
from persona.contract import (
    AttentionDetail,
    DeadlineExceeded,
    InvalidRequest,
    ItemId,
    ModelNotFound,
    NotReady,
    Overloaded,
    PersonaError,
    RequestTooLarge,
)
from persona.results import Encoded, History, Recommended, Scored, Similar

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


def encode_calls(
    histories: Iterable[History], limits: Limits, *, attention: AttentionDetail, **options: object
) -> Iterator[Call[Encoded]]:
    """The requests that encode `histories`, in order; at least one.

    Raises:
        InvalidRequest: a history cannot be written as JSON.
    """
    if attention == "full":
        limits = replace(limits, histories=limits.full_attention_histories)
    head = _head(options | {"attention": attention, "encoding": "base64"})
    for start, part in _parts(_rows({"histories": histories}), limits, len(_of_job(head, 1))):
        body = _body(_of_job(head, start), ["histories"], part)
        yield Call("POST", "/v1/encode", partial(answers.encoded, len(part)), body, start)


def score_calls(
    histories: Sequence[History],
    candidates: Sequence[ItemId] | Sequence[Sequence[ItemId]],
    limits: Limits,
    **options: object,
) -> Iterator[Call[Scored]]:
    """The requests that score `candidates`, in order; at least one.

    Raises:
        InvalidRequest: an id cannot be written as JSON, or the numbers of histories and of
            lists of candidates differ.
    """
    own = len(candidates) > 0 and not isinstance(candidates[0], str | int | np.integer)
    if own and len(candidates) != len(histories):
        message = f"{len(candidates)} lists of candidates for {len(histories)} histories"
        raise InvalidRequest(message, "candidates")
    head = _head(options if own else options | {"candidates": candidates})
    columns = {"histories": histories} | ({"candidates": candidates} if own else {})
    limits = _within_scores(limits, candidates, own)
    for start, part in _parts(_rows(columns), limits, len(_of_job(head, 1))):
        read_scores = partial(answers.scored, len(part))
        body = _body(_of_job(head, start), columns, part)
        yield Call("POST", "/v1/score", read_scores, body, start, own)


def recommend_calls(
    histories: Iterable[History], k: int, limits: Limits, **options: Unpack[RecommendOptions]
) -> Iterator[Call[Recommended]]:
    """The requests that recommend `k` items for each history, in order; at least one.

    Raises:
        InvalidRequest: an id cannot be written as JSON.
    """
    most = max(1, limits.recommendations // max(1, k))
    most = min(most, limits.reasons) if options.get("with_reasons") else most
    limits = replace(limits, histories=min(limits.histories, most))
    head = _head(_listed(options) | {"k": k})
    for start, part in _parts(_rows({"histories": histories}), limits, len(head)):
        body = _body(head, ["histories"], part)
        yield Call("POST", "/v1/recommend", partial(answers.recommended, len(part)), body, start)


def similar_calls(
    items: Iterable[ItemId], k: int, limits: Limits, **options: Unpack[SimilarOptions]
) -> Iterator[Call[Similar]]:
    """The requests for `k` items similar to each item, in order; at least one.

    Raises:
        InvalidRequest: an id cannot be written as JSON.
    """
    most = min(limits.histories, max(1, limits.recommendations // max(1, k)))
    head = _head(_listed(options) | {"k": k})
    for start, part in _parts(_rows({"items": items}), replace(limits, histories=most), len(head)):
        body = _body(head, ["items"], part)
        yield Call("POST", "/v1/similar", partial(answers.similar, len(part)), body, start)


def models_call() -> Call[list[ModelCard]]:
    """The request for the list of models."""
    return Call("GET", "/v1/models", answers.models)


def change_call(verb: str, model: str, **options: object) -> Call[ModelState]:
    """The request to `load`, `unload` or `share` versions of a model."""
    path = f"/v1/models/{quote(model, safe='')}/{verb}"
    return Call("POST", path, answers.model_state, _head(options))


def ready_call() -> Call[None]:
    """The request that fails with `NotReady` until the service can answer."""
    return Call("GET", "/health/ready", lambda _: None)


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


def _head(options: Mapping[str, object]) -> bytes:
    given = {name: value for name, value in options.items() if value is not None}
    return _dump(given, "the request")


def _of_job(head: bytes, start: int) -> bytes:
    """The head of a part. A part with one history must not be routed by that history's id."""
    return head[:-1] + b',"routing_key":null}' if start else head


def _listed(options: SimilarOptions) -> dict[str, object]:
    """The options with lists in place of sets, arrays and other iterables of ids."""
    lists = {name: value for name, value in options.items() if name in {"allowed", "denied"}}
    given = {name: list(ids) for name, ids in lists.items() if isinstance(ids, Iterable)}
    return {**options, **given}


def _dump(value: object, what: str, history: int | None = None) -> bytes:
    try:
        return orjson.dumps(value, _plain, orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        message = f"{what} cannot be written as JSON: {error}"
        raise InvalidRequest(message, history=history) from error


def _plain(value: object) -> object:
    """An array of texts as a list; orjson writes all other arrays itself, NaN as null."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is neither text, a number nor a list")


def _rows(columns: Mapping[str, Iterable[object]]) -> Iterator[tuple[bytes, ...]]:
    """The JSON of each history, and of its candidates where it has its own."""
    for index, values in enumerate(zip(*columns.values(), strict=True)):
        yield tuple(
            _dump(value, f"{name}[{index}]", index)
            for name, value in zip(columns, values, strict=True)
        )


def _within_scores(limits: Limits, candidates: Sequence[Any], own: bool) -> Limits:
    longest = max(map(len, candidates)) if own else len(candidates)
    most = max(1, limits.scores // max(1, longest))
    return replace(limits, histories=min(limits.histories, most))


def _parts(
    rows: Iterable[tuple[bytes, ...]], limits: Limits, head_bytes: int
) -> Iterator[tuple[int, list[tuple[bytes, ...]]]]:
    """Per request: the index of its first row, and its rows. A row too large goes alone."""
    overhead = head_bytes + len(b',"histories":[],"candidates":[]}')
    start, part, size, items = 0, list[tuple[bytes, ...]](), overhead, 0
    for index, row in enumerate(rows):
        row_bytes = sum(len(piece) + 1 for piece in row)
        row_items = sum(piece.count(b",") + 1 for piece in row)  # at most
        full = len(part) == limits.histories or items + row_items > limits.items
        if part and (full or size + row_bytes > limits.body_bytes):
            yield start, part
            start, part, size, items = index, [], overhead, 0
        part.append(row)
        size, items = size + row_bytes, items + row_items
    if part or start == 0:
        yield start, part


def _body(head: bytes, columns: Iterable[str], part: Sequence[tuple[bytes, ...]]) -> bytes:
    """The JSON object `head`, plus one key per column."""
    keys = [
        b',"%b":[%b]' % (name.encode(), b",".join(row[at] for row in part))
        for at, name in enumerate(columns)
    ]
    return head[:-1] + b"".join(keys) + b"}"


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
