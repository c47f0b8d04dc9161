"""Requests and responses as pydantic models: OpenAI's fields, and Persona's additions."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from persona.contract import AttentionDetail, UnknownItems
from service.protocols.native.schema import FullAttention, Id, Integer, PooledAttention
from service.protocols.validation import Seconds

# fail_fast and left_to_right: see native/schema.py.
_Texts = Annotated[list[str], Field(fail_fast=True)]
_Ids = Annotated[list[Integer], Field(fail_fast=True, min_length=1)]
_Histories = Annotated[
    list[Annotated[list[Id], Field(fail_fast=True)]], Field(fail_fast=True, min_length=1)
]


class EmbeddingsRequest(BaseModel):
    """Histories to turn into user embeddings."""

    model_config = ConfigDict(extra="forbid", strict=True, cache_strings="keys")

    model: Annotated[str, Field(description="the name of a model, or name:version")]
    input: Annotated[
        str | _Texts | _Ids | _Histories,
        Field(
            union_mode="left_to_right",
            description="strings: one history each, with ids separated by whitespace; "
            "integers: one history of integer ids; lists of ids: one history each",
        ),
    ]
    encoding_format: Annotated[
        Literal["float", "base64"], Field(description="base64: little-endian float32 numbers")
    ] = "float"
    dimensions: Annotated[
        int | None, Field(description="refused, because an embedding cannot be shortened")
    ] = None
    user: Annotated[str | None, Field(description="ignored")] = None
    attention: Annotated[
        AttentionDetail, Field(description="Persona's own: attention weights to return")
    ] = "none"
    unknown_items: Annotated[
        UnknownItems,
        Field(
            description="Persona's own: encode unknown items as unknown, leave them out, or refuse"
        ),
    ] = "token"
    times: Annotated[
        list[Annotated[list[Seconds], Field(fail_fast=True)]] | None,
        Field(
            description="Persona's own: seconds of the clicks, one list per history", fail_fast=True
        ),
    ] = None
    now: Annotated[
        list[Seconds | None] | None,
        Field(description="Persona's own: times of asking, one per history", fail_fast=True),
    ] = None


class Embedding(BaseModel):
    """One history's user embedding."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    attention: PooledAttention | FullAttention | None = None


class Usage(BaseModel):
    """The clicks that the encoder read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """An embedding for each history, in the request's order."""

    object: Literal["list"]
    model: str
    version: str
    data: list[Embedding]
    usage: Usage


class OpenAIError(BaseModel):
    """An error, and the field of the request that caused it."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str


class OpenAIErrorResponse(BaseModel):
    """The shape of every error of these routes."""

    error: OpenAIError
