"""Renders results as the bytes of a response."""

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from persona.artifact.format import Manifest
from persona.contract import Floats, Result, Results
from service.protocols.native.schema import (
    EncodeRequest,
    ModelObject,
    NamedHistory,
    QueryBody,
    RecommendRequest,
    ScoreRequest,
    SimilarRequest,
)

Fields = dict[str, Any]


def render_encoded(body: EncodeRequest, results: Results) -> bytes:
    """The response of `POST /v1/encode`."""
    write = embedding_in_base64 if body.encoding == "base64" else _floats

    def add(user: Fields, result: Result) -> None:
        user["embedding"] = write(result.embedding)
        if body.attention != "none":
            user["attention"] = attention_fields(result)

    return _render(body, results, add)


def render_scored(body: ScoreRequest, results: Results) -> bytes:
    """The response of `POST /v1/score`; orjson writes the NaN of an unknown candidate as null."""

    def add(user: Fields, result: Result) -> None:
        user["scores"] = result.scores
        if (weights := result.candidate_attention) is not None:
            contiguous = np.ascontiguousarray(weights)
            user["attention"] = {"items": result.items, "weights": contiguous}

    return _render(body, results, add)


def render_recommended(body: RecommendRequest, results: Results) -> bytes:
    """The response of `POST /v1/recommend`."""

    def add(user: Fields, result: Result) -> None:
        user |= {"items": result.recommended, "scores": result.scores, **_cold(result)}
        if (weights := result.reasons) is not None:
            contiguous = np.ascontiguousarray(weights)
            base = result.base_scores
            user["reasons"] = {"items": result.items, "weights": contiguous, "base": base}

    return _render(body, results, add, {"recall": results.recall})


def render_similar(body: SimilarRequest, results: Results) -> bytes:
    """The response of `POST /v1/similar`."""
    items = [
        {"item": item, "items": result.recommended, "scores": result.scores, **_cold(result)}
        for item, result in zip(body.items, results.histories, strict=True)
    ]
    answer = {"model": results.model, "version": results.version, "items": items}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _cold(result: Result) -> Fields:
    """Items that were added after training, if there are any."""
    return {"cold": result.cold} if result.cold else {}


def _render(
    body: QueryBody,
    results: Results,
    add: Callable[[Fields, Result], None],
    facts: Mapping[str, object] = MappingProxyType({}),
) -> bytes:
    users = []
    for history, result in zip(body.histories, results.histories, strict=True):
        user: Fields = {
            "id": history.id if isinstance(history, NamedHistory) else None,
            "used": len(result.items),
            "truncated": result.truncated,
            "unknown": result.unknown,
        }
        add(user, result)
        users.append(user)
    answer = {"model": results.model, "version": results.version, **facts, "users": users}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def attention_fields(result: Result) -> Fields:
    """Pooled or full weights; orjson writes contiguous arrays only."""
    if (pooled := result.pooled_attention) is not None:  # (H, 1 + L)
        weights, start = np.ascontiguousarray(pooled[:, 1:]), np.ascontiguousarray(pooled[:, 0])
        return {"items": result.items, "weights": weights, "start": start}
    assert result.full_attention is not None  # noqa: S101  # the engine answers what was wanted
    blocks = np.ascontiguousarray(result.full_attention)  # (blocks, H, 1 + L, 1 + L)
    return {"items": result.items, "blocks": blocks}


def _floats(embedding: Floats | None) -> Floats | None:
    return embedding


def embedding_in_base64(embedding: Floats | None) -> str:
    """Its little-endian float32 numbers."""
    assert embedding is not None  # noqa: S101  # the engine answers what was wanted
    return base64.b64encode(embedding.astype("<f4", copy=False).tobytes()).decode()


def model_object(manifest: Manifest, name: str | None = None) -> ModelObject:
    """A model as OpenAI's API shows it; `name` is what the client calls it."""
    created = int(datetime.fromisoformat(manifest.created).timestamp())
    return ModelObject(id=name or manifest.name, created=created)
