"""`POST /v1/encode`: from validated histories to the bytes of the response."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.artifact import GraphName, ItemId
from service.errors import InvalidRequest, Place
from service.histories import MappedHistory, UnknownItems
from service.models import Asked, Model, Pending
from service.schema import EncodeRequest, History, NamedHistory
from service.session import Outputs
from service.settings import Settings

GRAPHS: dict[str, GraphName] = {
    "none": "embedding",
    "pooled": "attention",
    "full": "attention_full",
}

Fields = dict[str, Any]


def encode(request: EncodeRequest, model: Model, settings: Settings) -> Pending:
    """Asks for the embeddings of the histories; the response is JSON.

    Raises:
        InvalidRequest: a history is too long, an item unknown, or the response too large.
        Overloaded: the queue is full.
    """
    graph = GRAPHS[request.attention]
    model.require(graph, f"attention '{request.attention}'")
    ids, histories = map_histories(request.histories, request.unknown_items, model, settings)
    _refuse_large_attention(graph, histories, model, settings)
    write = _base64 if request.encoding == "base64" else _as_it_is

    def finish(outputs: list[Outputs]) -> bytes:
        users = []
        for user_id, history, row in zip(ids, histories, outputs, strict=True):
            user = user_fields(user_id, history)
            user["embedding"] = write(row[0])
            if len(row) > 1:
                user["attention"] = _attention_fields(graph, history, row[1])
            users.append(user)
        return orjson.dumps(model.answer(users), option=orjson.OPT_SERIALIZE_NUMPY)

    return Pending(model.compute(graph, [Asked(history) for history in histories]), finish)


def map_histories(
    histories: Sequence[History], unknown_items: UnknownItems, model: Model, settings: Settings
) -> tuple[list[ItemId | None], list[MappedHistory]]:
    """The ids and the mapped clicks of a request's histories.

    Raises:
        InvalidRequest: there are too many histories, one is too long, or an item is unknown.
    """
    refuse_more("the request", len(histories), settings.max_histories, "histories")
    ids: list[ItemId | None] = []
    clicks: list[list[ItemId]] = []
    for history in histories:
        if isinstance(history, NamedHistory):
            ids.append(history.id)
            clicks.append(history.items)
        else:
            ids.append(None)
            clicks.append(history)

    def path(number: int) -> Place:
        items = ("items",) if isinstance(histories[number], NamedHistory) else ()
        return ("histories", number, *items)

    limit = settings.max_history_items
    for number, items in enumerate(clicks):
        if len(items) > limit:
            refuse_more(f"history {number}", len(items), limit, "items", path(number))
    return ids, model.index.map_histories(clicks, unknown_items, path)


def refuse_more(
    place: str, value: int, limit: int, unit: str, path: Place = ("histories",)
) -> None:
    """Holds a limit.

    Raises:
        InvalidRequest: `value` is above `limit`.
    """
    if value > limit:
        raise InvalidRequest(f"{place} has {value:,} {unit}, limit {limit:,}", path=path)


def user_fields(user_id: ItemId | None, history: MappedHistory) -> Fields:
    """What every result says about its history."""
    return {
        "id": user_id,
        "used": len(history.items),
        "truncated": history.truncated,
        "unknown": history.unknown,
    }


def _refuse_large_attention(
    graph: GraphName, histories: Sequence[MappedHistory], model: Model, settings: Settings
) -> None:
    architecture = model.artifact.manifest.architecture
    sizes = [1 + len(history.items) for history in histories]
    if graph == "attention":
        values = architecture.heads * sum(sizes)
    elif graph == "attention_full":
        values = architecture.blocks * architecture.heads * sum(size * size for size in sizes)
    else:
        return
    limit = settings.max_attention_values
    refuse_more("the attention of the response", values, limit, "values", ("attention",))


def _attention_fields(
    graph: GraphName, history: MappedHistory, weights: NDArray[np.float32]
) -> Fields:
    """The attention without its padding; orjson writes whole contiguous arrays only."""
    used = 1 + len(history.items)
    if graph == "attention":
        pooled = weights[:, :used]  # (H, 1 + used)
        clicks, start = np.ascontiguousarray(pooled[:, 1:]), np.ascontiguousarray(pooled[:, 0])
        return {"items": history.items, "weights": clicks, "start": start}
    blocks = np.ascontiguousarray(weights[:, :, :used, :used])  # (blocks, H, 1 + used, 1 + used)
    return {"items": history.items, "blocks": blocks}


def _as_it_is(embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    return embedding


def _base64(embedding: NDArray[np.float32]) -> str:
    return base64.b64encode(embedding.astype("<f4", copy=False).tobytes()).decode()
