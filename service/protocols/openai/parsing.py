"""Turns the body of `POST /v1/embeddings` into a query."""

from collections.abc import Sequence
from typing import Any

from persona.contract import ITEM_ID, TIME, Embeddings, InvalidRequest, ItemId, Query
from persona.engine.model import Model
from service.protocols.openai.schema import EmbeddingsRequest
from service.protocols.structure import Structure
from service.settings import Settings


def embeddings_query(body: EmbeddingsRequest, settings: Settings) -> Query:
    """The query of a body.

    Raises:
        InvalidRequest: it names `dimensions`, or its input is empty or too large.
    """
    if body.dimensions is not None:
        message = "dimensions: an embedding cannot be shortened; leave this field out"
        raise InvalidRequest(message, "dimensions")
    name, version = model_and_version(body.model)
    clicks: dict[str, Sequence[Sequence[Any]]] = {ITEM_ID: _histories(body, settings)}
    if body.times is not None:
        clicks[TIME] = body.times
    want = Embeddings(body.attention)
    return Query(clicks, want, name, version, body.unknown_items, now=body.now or ())


def refuse_columns(model: Model) -> None:
    """Refuses a model that reads columns of clicks, which a request of this protocol has not.

    Raises:
        InvalidRequest: it does.
    """
    if columns := model.manifest.columns:
        message = f"model '{model.manifest.name}' reads {', '.join(columns)} of every click"
        raise InvalidRequest(f"{message}, for which this API has no place; use /v1/encode", "model")


def structure_of(settings: Settings) -> Structure:
    """The limits on the structure of a body of this protocol."""
    histories, fields = settings.max_histories, 16  # and to spare
    values = settings.max_items + 3 * histories + fields  # times count as items do
    return Structure(values, fields, 2 * histories + fields)


def model_and_version(model: str) -> tuple[str, str | None]:
    """A model's name, and the version if `name:version` has one."""
    name, _, version = model.partition(":")
    return name, version or None


def _histories(body: EmbeddingsRequest, settings: Settings) -> Sequence[Sequence[ItemId]]:
    if isinstance(body.input, str):
        return _split([body.input], settings)
    if not body.input:
        message = "input: an empty list; an empty history is an empty string or [[]]"
        raise InvalidRequest(message, "input")
    values: Sequence[Any] = body.input  # all of one type
    match values[0]:
        case str():
            return _split(values, settings)
        case int():
            return [values]
    return values


def _split(texts: Sequence[str], settings: Settings) -> list[list[ItemId]]:
    """The ids of each text; stops at the limit of a request."""
    histories, limit = list[list[ItemId]](), settings.max_items
    left = limit
    for text in texts:
        histories.append([*text.split(None, settings.max_history_items)])
        left -= len(histories[-1])
        if left < 0:
            raise InvalidRequest(f"the request has more than {limit:,} clicks, the limit", "input")
    return histories
