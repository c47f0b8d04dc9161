"""Parses a body, strictly and once from its bytes, into a query for the engine.

An error names the place, what was expected there, and what was found.
"""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from persona.columns import MAX_COLUMNS
from persona.contract import (
    ITEM_ID,
    TIME,
    Embeddings,
    InvalidRequest,
    ItemId,
    Query,
    Recommendations,
    Scores,
)
from service.protocols.native.errors import InvalidBody, Path
from service.protocols.native.schema import (
    EncodeRequest,
    ItemsRequest,
    NamedHistory,
    QueryBody,
    RecommendRequest,
    ScoreRequest,
    SimilarRequest,
)
from service.protocols.structure import Structure
from service.settings import Settings

Body = TypeVar("Body", bound=BaseModel)
Want = Embeddings | Scores | Recommendations


def parse(adapter: TypeAdapter[Body], raw: bytes) -> Body:
    """Validates a body from its bytes.

    Raises:
        InvalidBody: names the place, what was expected there and what was found.
    """
    try:
        return adapter.validate_json(raw)
    except ValidationError as error:
        raise _explain(error) from None  # its text may quote the body


def structure_of(settings: Settings) -> Structure:
    """The limits on the structure of a body of this protocol."""
    histories = settings.max_histories
    fields = 16  # of the request itself, with a reserve
    return Structure(
        # Values of columns count as items do.
        values=settings.max_items + (MAX_COLUMNS + 6) * histories + fields,
        # "id", "items", "times", "now", "columns" and the columns
        fields=(MAX_COLUMNS + 5) * histories + fields,
        # a history, its candidates, and most of these
        containers=(MAX_COLUMNS + 5) * histories + fields,
    )


def encode_query(body: EncodeRequest) -> Query:
    """The query of `POST /v1/encode`."""
    return _query(body, Embeddings(body.attention), _routing_key(body))


def score_query(body: ScoreRequest) -> Query:
    """The query of `POST /v1/score`; histories may share one list of candidates."""
    lists = [one for one in body.candidates if isinstance(one, list)]
    shared = [one for one in body.candidates if not isinstance(one, list)]
    candidates: Sequence[Sequence[ItemId]] = lists
    if not has_own_lists(body):
        candidates = [shared] * len(body.histories)
    return _query(body, Scores(candidates, body.attention), _routing_key(body))


def has_own_lists(body: ScoreRequest) -> bool:
    """Whether each history has its own list of candidates."""
    return bool(body.candidates) and isinstance(body.candidates[0], list)


def recommend_query(body: RecommendRequest) -> Query:
    """The query of `POST /v1/recommend`."""
    want = Recommendations(
        body.k,
        exclude_seen=body.exclude_seen,
        allowed=body.allowed,
        denied=body.denied,
        reasons=body.with_reasons,
        exact=body.exact,
    )
    return _query(body, want)


def similar_query(body: SimilarRequest) -> Query:
    """The query of `POST /v1/similar`."""
    want = Recommendations(body.k, body.items, allowed=body.allowed, denied=body.denied)
    return Query({}, want, body.model, body.version)


def place_of(error: InvalidRequest, body: QueryBody | SimilarRequest) -> Path:
    """The place of an engine's error in the body."""
    path: Path = ("histories" if error.part == "clicks" else error.part,)
    if isinstance(body, ScoreRequest) and error.part == "candidates":
        if error.candidate is None:
            return path
        own = (error.history or 0,) if has_own_lists(body) else ()
        return (*path, *own, error.candidate)
    if error.candidate is not None:
        return (*path, error.candidate)
    if error.history is None or isinstance(body, SimilarRequest):
        return path
    items = ("items",) if isinstance(body.histories[error.history], NamedHistory) else ()
    click = () if error.click is None else (error.click,)
    return (*path, error.history, *items, *click)


def _routing_key(body: QueryBody) -> ItemId | None:
    """The key that selects a version: the request's own, or the id of its only history.

    A request with several histories has no single user. It gets the version with the largest
    share, like all parts of a larger job.
    """
    if "routing_key" in body.model_fields_set or len(body.histories) != 1:
        return body.routing_key
    (history,) = body.histories
    return history.id if isinstance(history, NamedHistory) else None


def _query(body: QueryBody, want: Want, routing_key: ItemId | None = None) -> Query:
    histories = body.histories
    clicks: dict[str, Sequence[Sequence[Any]]] = {
        ITEM_ID: [one.items if isinstance(one, NamedHistory) else one for one in histories]
    }
    names = (body.model, body.version, body.unknown_items)
    if not any(isinstance(one, NamedHistory) for one in histories):
        return Query(clicks, want, *names, routing_key)
    if times := _field_of_each(body, "times"):
        clicks[TIME] = [one or () for one in times]
    if given := _field_of_each(body, "columns"):
        of_each = [one or {} for one in given]
        for name in dict.fromkeys(name for one in of_each for name in one):
            if name in clicks or name == TIME:
                raise InvalidRequest(f"columns: '{name:.60}' has a field of its own")
            clicks[name] = [one.get(name, ()) for one in of_each]
    return Query(clicks, want, *names, routing_key, _field_of_each(body, "now"))


def _field_of_each(body: QueryBody, field: str) -> list[Any]:
    """A field of every history; empty if no history has it."""
    found = [getattr(history, field, None) for history in body.histories]
    return found if any(one is not None for one in found) else []


_BODIES = (
    EncodeRequest,
    ScoreRequest,
    RecommendRequest,
    SimilarRequest,
    ItemsRequest,
    NamedHistory,
)
_FIELDS = {field for body in _BODIES for field in body.model_fields}
_OUT_OF_RANGE = {"greater_than_equal", "less_than"}
_ID = "a string or an integer"
_SECONDS = "seconds, a number of at most 2**53"
_EXPECTED: dict[tuple[str | type[int], ...], str] = {
    (): "an object",
    ("model",): "a string",
    ("version",): "a string",
    ("routing_key",): _ID,
    ("weights",): "an object of numbers",
    ("histories",): "a list of histories",
    ("histories", int): "a list of item ids or an object with 'items'",
    ("histories", int, "id"): _ID,
    ("histories", int, "items"): "a list of item ids",
    ("histories", int, "items", int): _ID,
    ("histories", int, "times"): "a list of seconds",
    ("histories", int, "times", int): _SECONDS,
    ("histories", int, "now"): _SECONDS,
    ("histories", int, "columns", int): "a string, a number or null",
    ("histories", int, "columns"): (
        f"an object of at most {MAX_COLUMNS} lists of strings and numbers"
    ),
    ("histories", int, int): _ID,
    ("candidates",): "a list of item ids or a list of such lists",
    ("candidates", int): _ID,
    ("candidates", int, int): _ID,
    ("items",): "a list of item ids",
    ("items", int): _ID,
    ("allowed",): "a list of item ids",
    ("allowed", int): _ID,
    ("denied",): "a list of item ids",
    ("denied", int): _ID,
    ("search",): "a string of at most 256 characters",
    ("k",): "an integer of at least 1",
}


def _explain(error: ValidationError) -> InvalidBody:
    """The last of the deepest errors.

    If a value may have several types, this error is about the intended type.
    """
    details = error.errors(include_url=False)
    path, detail = max(
        ((_path(detail["loc"], detail["type"]), detail) for detail in details),
        key=lambda pair: (len(pair[0]), _last_index(pair[0]), pair[1]["type"] in _OUT_OF_RANGE),
    )
    return InvalidBody(_message(path, detail["type"], detail), path)


def _last_index(path: Path) -> int:
    return path[-1] if path and isinstance(path[-1], int) else 0


def _path(loc: Path, kind: str) -> Path:
    """`loc` without the names that pydantic gives to the branches of a union."""
    path = tuple(part for part in loc if isinstance(part, int) or part in _FIELDS)
    return (*path, loc[-1]) if kind == "extra_forbidden" and loc[-1] not in _FIELDS else path


def _message(path: Path, kind: str, detail: Any) -> str:
    if kind == "json_invalid":
        return f"the body is not JSON: {detail['ctx']['error']}"
    if kind in {"missing", "extra_forbidden"}:
        what = "is missing" if kind == "missing" else "is not known"
        return f"{_in_words(path[:-1])}field '{_short(path[-1])}' {what}"
    expected = _EXPECTED.get(tuple(int if isinstance(part, int) else part for part in path))
    if kind in _OUT_OF_RANGE and path != ("k",):
        expected = "an integer of at most 64 bits"
    if expected is None:
        expected = detail.get("ctx", {}).get("expected", "true or false")
    return f"{_in_words(path)}expected {expected}, got {_value(detail['input'])}"


SINGULAR = {"candidates": "candidate", "items": "item", "times": "time"}


def _in_words(path: Path) -> str:
    """A path in words: `history 3, item 5: `."""
    match path:
        case ("candidates", int(number), int(candidate)):
            return f"candidates of history {number}, candidate {candidate}: "
        case (("candidates" | "items" | "allowed" | "denied") as part, int(number)):
            return f"{SINGULAR.get(part, part)} {number}: "
        case ("histories", int(number), int(item)):
            return f"history {number}, item {item}: "
        case ("histories", int(number), ("items" | "times") as part, int(at)):
            return f"history {number}, {SINGULAR[part]} {at}: "
        case ("histories", int(number), *rest):
            return ", ".join([f"history {number}", *map(str, rest)]) + ": "
    return f"{'.'.join(map(str, path))}: " if path else ""


def _value(value: object) -> str:
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
    return _short(json.dumps(value, ensure_ascii=False, default=str))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
