"""The requests of `Client` and `AsyncClient`, as bytes; docs/http-api.md describes the protocol."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack
from urllib.parse import quote

import numpy as np
import orjson

from persona.client import answers
from persona.client.answers import ModelCard, ModelState
from persona.client.options import Limits, RecommendOptions, SimilarOptions
from persona.client.wire import Call
from persona.coded import CodedHistories
from persona.contract import AttentionDetail, InvalidRequest, ItemId
from persona.results import Encoded, History, Recommended, Scored, Similar


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
    if isinstance(histories, CodedHistories) and (body := _whole(head, histories, limits)):
        yield Call("POST", "/v1/encode", partial(answers.encoded, len(histories)), body)
        return
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


def _whole(head: bytes, histories: CodedHistories, limits: Limits) -> bytes | None:
    """The body of one request with all histories.

    It is written in a sixth of the time that one history after the other takes. None if it is too
    large, or if an id cannot be written: then the other way says which.
    """
    if len(histories) > limits.histories or histories.lengths.sum() > limits.items:
        return None
    try:
        rows = orjson.dumps(list(histories))
    except orjson.JSONEncodeError:
        return None
    body = _body(head, ["histories"], [(rows[1:-1],)])
    return body if len(body) <= limits.body_bytes else None


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
