"""`POST /v1/score`: how well each candidate item suits each history, and which clicks say so.

An artifact with the graph `score` (source-target attention) is asked for each pair of history
and candidate; any other scores a candidate by the dot product of its embedding and the user's.
"""

import asyncio
from array import array
from collections.abc import Callable, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from service.artifact import ItemId
from service.encode import Fields, map_histories, refuse_more, user_fields
from service.errors import InvalidRequest
from service.histories import MappedHistory
from service.models import Asked, Model, Pending
from service.schema import ScoreRequest
from service.session import Outputs
from service.settings import Settings

# The graph compares every candidate with every click; pieces bound the memory that takes.
PIECE = 256
Results = tuple[asyncio.Future[list[Outputs]], Callable[[list[Outputs]], list[Fields]]]


def score(request: ScoreRequest, model: Model, settings: Settings) -> Pending:
    """Asks for the scores of the candidates; the response is JSON.

    Raises:
        InvalidRequest: a history is too long, an item unknown, or the response too large.
        Overloaded: the queue is full.
    """
    if request.attention:
        model.require("score", "attention of candidates")
    ids, histories = map_histories(request.histories, request.unknown_items, model, settings)
    candidates = _map_candidates(request.candidates, len(histories), model, settings)
    if request.attention:
        _refuse_large_attention(histories, candidates, model, settings)
    with_graph = "score" in model.artifact.manifest.graphs
    ask = _source_target if with_graph else _dot_products
    outputs, read = ask(histories, candidates, model)

    def finish(found: list[Outputs]) -> bytes:
        results = read(found)
        if not request.attention:
            results = [{"scores": result["scores"]} for result in results]
        users = [
            user_fields(user_id, history) | result
            for user_id, history, result in zip(ids, histories, results, strict=True)
        ]
        return orjson.dumps(model.answer(users), option=orjson.OPT_SERIALIZE_NUMPY)

    return Pending(outputs, finish)


def _map_candidates(
    candidates: Sequence[ItemId] | Sequence[list[ItemId]],
    n_histories: int,
    model: Model,
    settings: Settings,
) -> list["array[int]"]:
    """A list of item rows for each history."""
    shared = [item for item in candidates if not isinstance(item, list)]
    own = [items for items in candidates if isinstance(items, list)]
    if own and len(own) != n_histories:
        raise InvalidRequest(
            f"the request has {len(own):,} lists of candidates and {n_histories:,} histories",
            path=("candidates",),
        )
    scores = sum(map(len, own)) if own else len(shared) * n_histories
    refuse_more("the response", scores, settings.max_scores, "scores", ("candidates",))
    if not own:
        return [model.index.map_candidates(shared, ("candidates",))] * n_histories
    return [
        model.index.map_candidates(items, ("candidates", number))
        for number, items in enumerate(own)
    ]


def _dot_products(
    histories: Sequence[MappedHistory], candidates: Sequence["array[int]"], model: Model
) -> Results:
    def read(outputs: list[Outputs]) -> list[Fields]:
        return [
            {"scores": model.item_embeddings[wanted] @ embedding}  # (N, D) @ (D,) -> (N,)
            for wanted, (embedding, *_) in zip(candidates, outputs, strict=True)
        ]

    return model.compute("embedding", [Asked(history) for history in histories]), read


def _source_target(
    histories: Sequence[MappedHistory], candidates: Sequence["array[int]"], model: Model
) -> Results:
    pieces = [
        [Asked(history, wanted[at : at + PIECE]) for at in range(0, len(wanted), PIECE)]
        for history, wanted in zip(histories, candidates, strict=True)
    ]

    def read(outputs: list[Outputs]) -> list[Fields]:
        rest = iter(outputs)
        return [
            _join(history, [_cut(one, next(rest)) for one in piece])
            for history, piece in zip(histories, pieces, strict=True)
        ]

    return model.compute("score", [one for piece in pieces for one in piece]), read


def _cut(asked: Asked, output: Outputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores (N,) and attention (N, H, used) without the padding of the run."""
    scores, attention = output
    n = len(asked.candidates)
    return scores[:n], attention[:n, :, : len(asked.history.items)]


def _join(
    history: MappedHistory, pieces: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]
) -> Fields:
    if not pieces:
        return {"scores": [], "attention": {"items": history.items, "weights": []}}
    scores, weights = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return {"scores": scores, "attention": {"items": history.items, "weights": weights}}


def _refuse_large_attention(
    histories: Sequence[MappedHistory],
    candidates: Sequence["array[int]"],
    model: Model,
    settings: Settings,
) -> None:
    pairs = zip(histories, candidates, strict=True)
    values = sum(len(wanted) * len(history.items) for history, wanted in pairs)
    values *= model.artifact.manifest.architecture.heads
    limit = settings.max_attention_values
    refuse_more("the attention of the response", values, limit, "values", ("attention",))
