"""The service's answers, from JSON to typed values."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from client.errors import ModelChanged
from client.results import (
    Attention,
    CandidateAttention,
    Encoded,
    Floats,
    FullAttention,
    Model,
    PooledAttention,
    Scored,
    ScoredUser,
    User,
)

_NOTHING: Floats = np.empty((0, 0), np.float32)


def encoded(expected: int, answer: Any) -> Encoded:
    """The answer of `/v1/encode` to `expected` histories, with embeddings in base64."""
    users = answer["users"]
    _check_count(expected, users)
    rows = [base64.b64decode(user["embedding"], validate=True) for user in users]
    flat = np.frombuffer(b"".join(rows), "<f4")
    embeddings = flat.reshape(len(rows), -1) if rows else _NOTHING
    return Encoded(
        model=answer["model"],
        version=answer["version"],
        embeddings=embeddings.astype(np.float32),
        users=[_user(user) for user in users],
    )


def scored(expected: int, answer: Any) -> Scored:
    """The answer of `/v1/score` to `expected` histories."""
    _check_count(expected, answer["users"])
    users = [_scored_user(user) for user in answer["users"]]
    return Scored(answer["model"], answer["version"], users)


def models(answer: Any) -> list[Model]:
    """The answer of `/v1/models`."""
    return [Model(model["name"], model["version"], model) for model in answer["models"]]


def joined_encoded(parts: Sequence[Encoded]) -> Encoded:
    """The answers of a call's parts as one.

    Raises:
        ModelChanged: they come from different versions.
    """
    model, version = _same_version(parts)
    embeddings = np.concatenate([part.embeddings for part in parts if len(part)] or [_NOTHING])
    return Encoded(model, version, embeddings, [user for part in parts for user in part.users])


def joined_scored(parts: Sequence[Scored]) -> Scored:
    """The answers of a call's parts as one.

    Raises:
        ModelChanged: they come from different versions.
    """
    model, version = _same_version(parts)
    return Scored(model, version, [user for part in parts for user in part.users])


def _same_version(parts: Sequence[Encoded] | Sequence[Scored]) -> tuple[str, str]:
    model, version = parts[0].model, parts[0].version
    for part in parts:
        if (part.model, part.version) != (model, version):
            raise ModelChanged(
                f"the service went from {model} version {version} to {part.model} version "
                f"{part.version} between two parts of one call; make the call again"
            )
    return model, version


def _user(user: Any) -> User:
    attention = user.get("attention")
    return User(
        id=user.get("id"),
        used=user["used"],
        truncated=user["truncated"],
        unknown=user["unknown"],
        attention=None if attention is None else _attention(attention),
    )


def _attention(attention: Any) -> Attention:
    items = attention["items"]
    if "blocks" in attention:
        return FullAttention(items, np.asarray(attention["blocks"], np.float32))
    start = np.asarray(attention["start"], np.float32)
    weights = np.asarray(attention["weights"], np.float32).reshape(len(start), len(items))
    return PooledAttention(items, weights, start)


def _scored_user(user: Any) -> ScoredUser:
    attention = user.get("attention")
    return ScoredUser(
        id=user.get("id"),
        used=user["used"],
        truncated=user["truncated"],
        unknown=user["unknown"],
        scores=np.asarray(user["scores"], np.float32),
        attention=None if attention is None else _candidate_attention(attention),
    )


def _candidate_attention(attention: Any) -> CandidateAttention:
    weights = np.asarray(attention["weights"], np.float32)
    return CandidateAttention(attention["items"], weights)


def _check_count(expected: int, users: Any) -> None:
    if len(users) != expected:
        raise ValueError(f"{len(users)} users for {expected} histories")
