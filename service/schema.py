"""Requests and responses, as pydantic models: what is validated and what /openapi.json says.

A body is parsed once, strictly, from its bytes by pydantic's compiled parser. Responses are
written by `service.encode` and `service.score` without going through the models here; a test
holds them to these.
"""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.json_schema import SkipJsonSchema

from service.artifact import Architecture, Facts
from service.errors import InvalidRequest, Place

# 64 bits are what the response can echo. fail_fast: one error is enough to refuse a body, and a
# body of millions of wrong values would otherwise become millions of error objects.
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
# left_to_right: the kinds are told apart by their JSON type, and trying all of them to choose the
# best takes twice as long.
Id = Annotated[str | Integer, Field(union_mode="left_to_right")]
if TYPE_CHECKING:
    Items = list[Id]
else:
    # Most lists hold strings alone: to try nothing else for each item takes a fifth less time.
    _Texts = Annotated[list[str], Field(fail_fast=True)]
    _Ids = Annotated[list[Id], Field(fail_fast=True)]
    Items = Annotated[SkipJsonSchema[_Texts] | _Ids, Field(union_mode="left_to_right")]

ModelName = Annotated[str | None, Field(description="default: the first of GET /v1/models")]


class _Request(BaseModel):
    # Item ids repeat too rarely for pydantic's cache of strings: without it a third less time.
    model_config = ConfigDict(extra="forbid", strict=True, cache_strings="keys")


class NamedHistory(_Request):
    """A history with an id that comes back beside its result."""

    id: Id | None = None
    items: Annotated[Items, Field(description="oldest to newest")]


History = Annotated[Items | NamedHistory, Field(union_mode="left_to_right")]


class EncodeRequest(_Request):
    """Histories to turn into user embeddings."""

    model: ModelName = None
    histories: Annotated[list[History], Field(fail_fast=True)]
    attention: Annotated[
        Literal["none", "pooled", "full"],
        Field(
            description="pooled: the weights that the embedding is read from; "
            "full: every block's weights"
        ),
    ] = "none"
    encoding: Annotated[
        Literal["float", "base64"], Field(description="base64: of little-endian float32")
    ] = "float"
    unknown_items: Annotated[
        Literal["token", "drop", "error"],
        Field(description="token: encode as an unknown item; drop: leave out; error: refuse"),
    ] = "token"


class ScoreRequest(_Request):
    """Histories and the candidates to score for them."""

    model: ModelName = None
    histories: Annotated[list[History], Field(fail_fast=True)]
    candidates: Annotated[
        Items | Annotated[list[Items], Field(fail_fast=True)],
        Field(description="one list for all histories, or a list for each"),
    ]
    attention: Annotated[
        bool, Field(description="also return how much each click speaks for each candidate")
    ] = False
    unknown_items: Literal["token", "drop", "error"] = "token"


class PooledAttention(BaseModel):
    """The weights that the embedding is read from: `start[h] + sum(weights[h]) = 1`."""

    items: list[Id]  # the used clicks, oldest to newest
    weights: list[list[float]]  # (H, used)
    start: list[float]  # (H,), the start token's share


class FullAttention(BaseModel):
    """Every block's weights (H, 1 + used, 1 + used), queries by keys; 0 is the start token."""

    items: list[Id]
    blocks: list[list[list[list[float]]]]


class CandidateAttention(BaseModel):
    """How much each used click speaks for each candidate: (N, H, used)."""

    items: list[Id]
    weights: list[list[list[float]]]


class _User(BaseModel):
    id: Id | None
    used: Annotated[int, Field(description="clicks that the encoder read")]
    truncated: Annotated[int, Field(description="older clicks, beyond the model's max_length")]
    unknown: Annotated[
        int, Field(description="clicks of unknown items: among the used, or dropped")
    ]


class EncodedUser(_User):
    """One history's result."""

    embedding: list[float] | str
    attention: PooledAttention | FullAttention | None = None


class EncodeResponse(BaseModel):
    """A result for each history, in the request's order."""

    model: str
    version: str
    users: list[EncodedUser]


class ScoredUser(_User):
    """One history's scores, in the order of its candidates."""

    scores: list[float]
    attention: CandidateAttention | None = None


class ScoreResponse(BaseModel):
    """A result for each history, in the request's order."""

    model: str
    version: str
    users: list[ScoredUser]


class ModelCard(BaseModel):
    """A model that this service answers for."""

    name: str
    version: str
    description: str
    licence: str
    created: str
    n_items: int
    width: int
    max_length: int
    architecture: Architecture
    metrics: Facts


class Models(BaseModel):
    """All loaded models; the first is the default."""

    models: list[ModelCard]


class Health(BaseModel):
    """The state of this worker."""

    status: Literal["live", "ready"]


class Error(BaseModel):
    """What went wrong, and where in the request."""

    code: str
    message: str
    path: list[str | int]


class ErrorResponse(BaseModel):
    """The shape of every error."""

    error: Error


Body = TypeVar("Body", bound=BaseModel)


def parse(adapter: TypeAdapter[Body], body: bytes | bytearray) -> Body:
    """Validates a body from its bytes.

    Raises:
        InvalidRequest: names the place, what was expected there and what was found.
    """
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise _explain(error) from None  # its text quotes the body


_FIELDS = {*EncodeRequest.model_fields, *ScoreRequest.model_fields, *NamedHistory.model_fields}
_OUT_OF_RANGE = {"greater_than_equal", "less_than"}
_ID = "a string or an integer"
_EXPECTED: dict[tuple[str | type[int], ...], str] = {
    (): "an object",
    ("model",): "a string",
    ("histories",): "a list of histories",
    ("histories", int): "a list of item ids or an object with 'items'",
    ("histories", int, "id"): _ID,
    ("histories", int, "items"): "a list of item ids",
    ("histories", int, "items", int): _ID,
    ("histories", int, int): _ID,
    ("candidates",): "a list of item ids or a list of such lists",
    ("candidates", int): _ID,
    ("candidates", int, int): _ID,
}


def _explain(error: ValidationError) -> InvalidRequest:
    """The deepest error, and the last one there.

    Where a value may be of several kinds, it is that of the kind which was meant.
    """
    details = error.errors(include_url=False)
    path, detail = max(
        ((_path(detail["loc"], detail["type"]), detail) for detail in details),
        key=lambda pair: (len(pair[0]), _number(pair[0]), pair[1]["type"] in _OUT_OF_RANGE),
    )
    return InvalidRequest(_message(path, detail["type"], detail), path=path)


def _number(path: Place) -> int:
    """Of the item that a path ends at."""
    return path[-1] if path and isinstance(path[-1], int) else 0


def _path(loc: Place, kind: str) -> Place:
    """`loc` without the names that pydantic gives to the branches of a union."""
    path = tuple(part for part in loc if isinstance(part, int) or part in _FIELDS)
    return (*path, loc[-1]) if kind == "extra_forbidden" and loc[-1] not in _FIELDS else path


def _message(path: Place, kind: str, detail: Any) -> str:
    if kind == "json_invalid":
        return f"the body is not JSON: {detail['ctx']['error']}"
    if kind in {"missing", "extra_forbidden"}:
        what = "is missing" if kind == "missing" else "is not known"
        return f"{place(path[:-1])}field '{_short(path[-1])}' {what}"
    expected = _EXPECTED.get(tuple(int if isinstance(part, int) else part for part in path))
    if kind in _OUT_OF_RANGE:
        expected = "an integer of at most 64 bits"
    if expected is None:
        expected = detail.get("ctx", {}).get("expected", "true or false")
    return f"{place(path)}expected {expected}, got {_value(detail['input'])}"


def place(path: Place) -> str:
    """A path in words: `history 3, item 5: `."""
    words = {"histories": "history", "candidates": "candidate", "items": "item"}
    match path:
        case ():
            return ""
        case ("candidates", int(number), int(candidate)):
            return f"candidates of history {number}, candidate {candidate}: "
        case ("histories", int(number), int(item)) | ("histories", int(number), "items", int(item)):
            return f"history {number}, item {item}: "
        case ("histories" | "candidates" as field, int(number)):
            return f"{words[field]} {number}: "
        case ("histories", int(number), *rest):
            return f"history {number}, {'.'.join(map(str, rest))}: "
    return f"{'.'.join(map(str, path))}: "


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
