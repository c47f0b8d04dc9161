"""Requests and responses as pydantic models, for validation and /openapi.json.

Responses are rendered without going through the models here; tests compare them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from persona.artifact.format import Architecture, Example, Facts
from persona.columns import MAX_COLUMNS, ClickColumn
from persona.contract import AttentionDetail, UnknownItems
from service.protocols.validation import Seconds

# Responses can return 64 bits. fail_fast: one error is enough to refuse a body; otherwise, a body
# with millions of wrong values would become millions of error objects.
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63, json_schema_extra={"format": "int64"})]
# left_to_right: JSON types distinguish the kinds; trying all of them to choose the best takes
# twice as long.
Id = Annotated[str | Integer, Field(union_mode="left_to_right")]
Value = Annotated[str | Integer | Seconds | None, Field(union_mode="left_to_right")]
# Most lists contain only strings; trying this first takes a fifth less time.
_Strings = Annotated[list[str], Field(fail_fast=True)]
_Ids = Annotated[list[Id], Field(fail_fast=True)]
Items = Annotated[SkipJsonSchema[_Strings] | _Ids, Field(union_mode="left_to_right")]

COLD = "items among these that were added after training; absent if there are none"
ModelName = Annotated[str | None, Field(description="default: the first of GET /v1/models")]


class _Strict(BaseModel):
    # Item ids repeat too rarely for pydantic's cache of strings; without it, a third less time.
    model_config = ConfigDict(extra="forbid", strict=True, cache_strings="keys")


class NamedHistory(_Strict):
    """A history with an id, which the result repeats, and with times and columns."""

    id: Id | None = None
    items: Annotated[Items, Field(description="oldest to newest")]
    times: Annotated[
        list[Seconds] | None,
        Field(description="seconds of each click; for models that read time", fail_fast=True),
    ] = None
    now: Annotated[
        Seconds | None, Field(description="time of asking; default: the newest click's time")
    ] = None
    columns: Annotated[
        dict[str, Annotated[list[Value], Field(fail_fast=True)]] | None,
        Field(
            description="further columns of the clicks, for models that read them; null: no value",
            max_length=MAX_COLUMNS,
        ),
    ] = None


History = Annotated[Items | NamedHistory, Field(union_mode="left_to_right")]


class QueryBody(_Strict):
    """The fields of every query."""

    model: ModelName = None
    version: Annotated[str | None, Field(description="default: the newest")] = None
    routing_key: Annotated[
        Id | None,
        Field(
            description="identifies the user if versions share the requests; "
            "default: the id of the only history"
        ),
    ] = None
    histories: Annotated[list[History], Field(fail_fast=True)]
    unknown_items: Annotated[
        UnknownItems,
        Field(description="token: encode as unknown; drop: leave out; error: refuse the request"),
    ] = "token"


class EncodeRequest(QueryBody):
    """Histories to turn into user embeddings."""

    attention: Annotated[
        AttentionDetail,
        Field(
            description="pooled: the weights behind the user embedding; "
            "full: the weights of every block"
        ),
    ] = "none"
    encoding: Annotated[
        Literal["float", "base64"], Field(description="base64: little-endian float32 numbers")
    ] = "float"


class ScoreRequest(QueryBody):
    """Histories and the candidates to score for them."""

    candidates: Annotated[
        Items | Annotated[list[Items], Field(fail_fast=True)],
        Field(description="one list for all histories, or one list per history"),
    ]
    attention: Annotated[
        bool, Field(description="also return the weights that each candidate gives to the clicks")
    ] = False


class _Filters(BaseModel):
    """The number of items, and filters."""

    k: Annotated[
        int, Field(ge=1, description="number of items; all of them if there are fewer")
    ] = 10
    allowed: Annotated[
        Items | None, Field(description="recommend only these; default: the whole catalogue")
    ] = None
    denied: Annotated[Items, Field(description="never recommend these")] = []


class RecommendRequest(QueryBody, _Filters):
    """Histories to recommend items for."""

    exclude_seen: Annotated[bool, Field(description="leave out the items of the history")] = False
    with_reasons: Annotated[
        bool, Field(description="also return the contribution of each click to each item's score")
    ] = False
    exact: Annotated[
        bool, Field(description="search all items, even if the model has an index")
    ] = False


class SimilarRequest(_Strict, _Filters):
    """Items to find similar items for."""

    model: ModelName = None
    version: Annotated[str | None, Field(description="default: the newest")] = None
    items: Items


class ItemsRequest(_Strict):
    """Items to look up: by id, or by a search in the names."""

    model: ModelName = None
    version: Annotated[str | None, Field(description="default: the newest")] = None
    items: Annotated[
        Items | None, Field(description="item ids; default: the results of the search")
    ] = None
    search: Annotated[
        str,
        Field(
            max_length=256,
            description="part of a name or id; empty: the first items of the catalogue",
        ),
    ] = ""
    k: Annotated[int, Field(ge=1, description="maximum number of items that a search returns")] = 10


class PooledAttention(BaseModel):
    """The weights behind the user embedding: `start[h] + sum(weights[h]) = 1`."""

    items: list[Id]  # the used clicks, oldest to newest
    weights: list[list[float]]  # (H, used)
    start: list[float]  # (H,), the start token's weight


class FullAttention(BaseModel):
    """Every block's weights (H, 1 + used, 1 + used), queries by keys; 0 is the start token."""

    items: list[Id]
    blocks: list[list[list[list[float]]]]


class CandidateAttention(BaseModel):
    """The weight that each candidate gives to each used click: (N, H, used)."""

    items: list[Id]
    weights: list[list[list[float]]]


class _User(BaseModel):
    id: Id | None
    used: Annotated[int, Field(description="clicks that the encoder read")]
    truncated: Annotated[int, Field(description="older clicks, beyond the model's max_length")]
    unknown: Annotated[
        int, Field(description="clicks on unknown items: used ones, or dropped ones")
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

    scores: list[float | None]  # null for an unknown candidate
    attention: CandidateAttention | None = None


class ScoreResponse(BaseModel):
    """A result for each history, in the request's order."""

    model: str
    version: str
    users: list[ScoredUser]


class Reasons(BaseModel):
    """The contribution of each used click to each recommended item: (N, used)."""

    items: list[Id]  # the used clicks, oldest to newest
    weights: list[list[float]]
    base: Annotated[
        list[float] | None,
        Field(
            description="scores of an empty history: base + sum of weights = score; "
            "null where the weights are shares of attention, which sum to 1"
        ),
    ]


class RecommendedUser(_User):
    """One history's recommended items, the best first."""

    items: list[Id]
    scores: list[float]
    cold: list[Id] = Field(default=[], description=COLD)
    reasons: Reasons | None = None


class RecommendResponse(BaseModel):
    """A result for each history, in the request's order."""

    model: str
    version: str
    recall: Annotated[
        float | None, Field(description="recall at 100 of the index; null: exact search")
    ]
    users: list[RecommendedUser]


class SimilarItem(BaseModel):
    """The items most similar to one item; none if it is unknown."""

    item: Id
    items: list[Id]
    scores: Annotated[list[float], Field(description="cosines of the item embeddings")]
    cold: list[Id] = Field(default=[], description=COLD)


class SimilarResponse(BaseModel):
    """A result for each item, in the request's order."""

    model: str
    version: str
    items: list[SimilarItem]


class TitledItem(BaseModel):
    """The name and link of an item; without a name, the id is the name."""

    item: Id
    name: str
    link: str | None
    known: Annotated[bool, Field(description="whether the model knows the item")]


class ItemsResponse(BaseModel):
    """The items in the request's order; for a search, the closest first."""

    model: str
    version: str
    items: list[TitledItem]


class ModelCard(BaseModel):
    """A loaded version of a model."""

    name: str
    version: str
    share: float  # share of the requests that name this model but no version
    checksum: str  # SHA-256 of the artifact's manifest
    description: str
    licence: str
    created: str
    n_items: int
    width: int
    max_length: int
    architecture: Architecture
    columns: dict[str, ClickColumn] = Field(
        default={}, description="of every click, that the model reads beside item and time"
    )
    metrics: Facts
    examples: list[Example]  # example histories


class ModelObject(BaseModel):
    """A model as OpenAI's API shows it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "persona"


class Models(BaseModel):
    """All loaded versions, the default first, for Persona's clients and for OpenAI's."""

    models: list[ModelCard]
    object: Literal["list"] = "list"
    data: Annotated[list[ModelObject], Field(description="the same models, as OpenAI lists them")]


class Error(BaseModel):
    """An error, and its place in the request."""

    code: str
    message: str
    path: list[str | int]


class ErrorResponse(BaseModel):
    """The shape of every error."""

    error: Error
