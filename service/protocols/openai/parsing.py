"""Turns the body of `POST /v1/embeddings` into a query."""

from collections.abc import Sequence
from typing import Any

from persona.contract import ITEM_ID, Embeddings, InvalidRequest, ItemId, Query
from service.protocols.openai.schema import EmbeddingsRequest


def embeddings_query(body: EmbeddingsRequest) -> Query:
    """The query that a body asks.

    Raises:
        InvalidRequest: it asks for a number of dimensions, or its input says nothing.
    """
    if body.dimensions is not None:
        message = "dimensions: an embedding cannot be shortened; leave this field out"
        raise InvalidRequest(message, "dimensions")
    name, version = model_and_version(body.model)
    clicks = {ITEM_ID: _histories(body)}
    return Query(clicks, Embeddings(body.attention), name, version, body.unknown_items)


def model_and_version(model: str) -> tuple[str, str | None]:
    """A model's name, and the version where `name:version` has one."""
    name, _, version = model.partition(":")
    return name, version or None


def _histories(body: EmbeddingsRequest) -> Sequence[Sequence[ItemId]]:
    if isinstance(body.input, str):
        return [body.input.split()]
    if not body.input:
        message = "input: an empty list; an empty history is an empty string or [[]]"
        raise InvalidRequest(message, "input")
    values: Sequence[Any] = body.input  # all of one kind
    match values[0]:
        case str():
            return [text.split() for text in values]
        case int():
            return [values]
    return values
