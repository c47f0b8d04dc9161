"""Reads the service's answers: from JSON to arrays and dataclasses."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from persona.client.errors import UnexpectedAnswer
from persona.contract import Floats, ItemId
from persona.results import (
    CandidateAttention,
    Encoded,
    FullAttention,
    PooledAttention,
    Reasons,
    Recommended,
    RecommendedUser,
    Scored,
    ScoredUser,
    Similar,
    SimilarItem,
    User,
    check_same_version,
)

T = TypeVar("T")
LARGEST_COUNT = 2**31 - 1


class Malformed(Exception):
    """A part of the answer is missing or has the wrong type; `wire.read` adds the address."""


@dataclass(frozen=True)
class ModelCard:
    """A model that the service offers."""

    name: str
    version: str
    facts: dict[str, object]  # everything that `GET /v1/models` says about it


@dataclass(frozen=True)
class ModelState:
    """The state of a model in all workers of the service."""

    model: str
    shares: dict[str, float]  # version -> share of the requests that name no version
    loaded: list[str]
    refused: dict[str, str]  # version -> reason


def encoded(expected: int, answer: Any) -> Encoded:
    """The answer of `/v1/encode` to `expected` histories, with embeddings in base64."""
    users = _users(expected, answer)
    model, version = _get(answer, "model", str), _get(answer, "version", str)
    return Encoded(model, version, _embeddings(users), [_user(user) for user in users])


def scored(expected: int, answer: Any) -> Scored:
    """The answer of `/v1/score` to `expected` histories."""
    users = [_scored_user(user) for user in _users(expected, answer)]
    return Scored(_get(answer, "model", str), _get(answer, "version", str), users)


def recommended(expected: int, answer: Any) -> Recommended:
    """The answer of `/v1/recommend` to `expected` histories."""
    users = [_recommended_user(user) for user in _users(expected, answer)]
    model, version = _get(answer, "model", str), _get(answer, "version", str)
    return Recommended(model, version, users, answer.get("recall"))


def similar(expected: int, answer: Any) -> Similar:
    """The answer of `/v1/similar` to `expected` items."""
    found = _get(answer, "items", list)
    if len(found) != expected:
        raise Malformed(f"{len(found)} results for {expected} items")
    items = [
        SimilarItem(one.get("item"), _get(one, "items", list), _floats(one, "scores"), _cold(one))
        for one in found
    ]
    return Similar(_get(answer, "model", str), _get(answer, "version", str), items)


def models(answer: Any) -> list[ModelCard]:
    """The answer of `/v1/models`."""
    return [
        ModelCard(_get(model, "name", str), _get(model, "version", str), model)
        for model in _get(answer, "models", list)
    ]


def model_state(answer: Any) -> ModelState:
    """The answer to a change of versions."""
    shares, loaded = _get(answer, "shares", dict), _get(answer, "loaded", list)
    return ModelState(_get(answer, "model", str), shares, loaded, _get(answer, "refused", dict))


def joined_encoded(parts: Sequence[Encoded]) -> Encoded:
    """The answers to the parts of one call, at least one, as one.

    Raises:
        ModelChanged: they come from different versions.
        UnexpectedAnswer: their embeddings have different widths.
    """
    first = parts[0]
    for part in parts:
        check_same_version(first, part)
        check_width(part, first.embeddings.shape[1])
    embeddings = np.concatenate([part.embeddings for part in parts])
    users = [user for part in parts for user in part.users]
    return Encoded(first.model, first.version, embeddings, users)


def check_width(answer: Encoded, width: int) -> None:
    """Raises `UnexpectedAnswer` if the embeddings do not have `width` numbers."""
    if answer.embeddings.shape[1] != width:
        raise UnexpectedAnswer(
            f"{answer.model} version {answer.version} answered with embeddings of {width} numbers, "
            f"and then of {answer.embeddings.shape[1]}"
        )


def joined_scored(parts: Sequence[Scored]) -> Scored:
    """The answers to the parts of one call, at least one, as one.

    Raises:
        ModelChanged: they come from different versions.
    """
    first = parts[0]
    for part in parts:
        check_same_version(first, part)
    return Scored(first.model, first.version, [user for part in parts for user in part.users])


def joined_recommended(parts: Sequence[Recommended]) -> Recommended:
    """The answers to the parts of one call, at least one, as one.

    Raises:
        ModelChanged: they come from different versions.
    """
    first = parts[0]
    for part in parts:
        check_same_version(first, part)
    users = [user for part in parts for user in part.users]
    return Recommended(first.model, first.version, users, first.recall)


def joined_similar(parts: Sequence[Similar]) -> Similar:
    """The answers to the parts of one call, at least one, as one.

    Raises:
        ModelChanged: they come from different versions.
    """
    first = parts[0]
    for part in parts:
        check_same_version(first, part)
    return Similar(first.model, first.version, [item for part in parts for item in part.items])


def _users(expected: int, answer: Any) -> list[Any]:
    users = _get(answer, "users", list)
    if len(users) != expected:
        raise Malformed(f"{len(users)} users for {expected} histories")
    return users


def _embeddings(users: Sequence[Any]) -> Floats:
    rows = [_embedding(user) for user in users]
    if len({row.size for row in rows}) > 1:
        raise Malformed("'embedding': the embeddings have different widths")
    found = np.array(rows, np.float32).reshape(len(rows), -1 if rows else 0)
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        raise Malformed(f"'embedding' of history {int(finite.argmin())}: NaN or infinite")
    return found


def _embedding(user: Any) -> Floats:
    try:
        return np.frombuffer(base64.b64decode(_get(user, "embedding", str), validate=True), "<f4")
    except ValueError as error:
        raise Malformed(f"'embedding': {error}") from error


def _user(user: Any) -> User:
    return User(**_counts(user), attention=_attention(user.get("attention")))


def _scored_user(user: Any) -> ScoredUser:
    scores = _floats(user, "scores")
    attention = _candidate_attention(user.get("attention"), len(scores))
    return ScoredUser(**_counts(user), scores=scores, attention=attention)


def _recommended_user(user: Any) -> RecommendedUser:
    items, scores = _get(user, "items", list), _floats(user, "scores")
    reasons = _reasons(user.get("reasons"), len(items))
    return RecommendedUser(
        **_counts(user), items=items, scores=scores, reasons=reasons, cold=_cold(user)
    )


def _cold(answer: Any) -> list[ItemId]:
    """Items that were added after training; an answer without any does not mention them."""
    return _get(answer, "cold", list) if "cold" in answer else []


def _reasons(reasons: Any, recommended: int) -> Reasons | None:
    if reasons is None:
        return None
    items = _get(reasons, "items", list)
    axes = 2 if recommended else 1
    weights = _weights(reasons, "weights", axes).reshape(recommended, len(items))
    base = None if reasons.get("base") is None else _floats(reasons, "base")
    return Reasons(items, weights, base)


def _counts(user: Any) -> dict[str, Any]:
    counts = {name: _count(user, name) for name in ("used", "truncated", "unknown")}
    if not isinstance(user.get("id"), str | int | None):
        raise Malformed(f"'id' is a {type(user['id']).__name__}")
    return {"id": user.get("id"), **counts}


def _count(user: Any, name: str) -> int:
    value = _get(user, name, int)
    if isinstance(value, bool) or not 0 <= value <= LARGEST_COUNT:
        raise Malformed(f"'{name}' is {value}, not a count")
    return value


def _attention(attention: Any) -> PooledAttention | FullAttention | None:
    if attention is None:
        return None
    items = _get(attention, "items", list)
    if "blocks" in attention:
        return FullAttention(items, _weights(attention, "blocks", 4))
    weights, start = _weights(attention, "weights", 2), _weights(attention, "start", 1)
    return PooledAttention(items, weights, start)


def _candidate_attention(attention: Any, candidates: int) -> CandidateAttention | None:
    if attention is None:
        return None
    items = _get(attention, "items", list)
    if candidates == 0:
        return CandidateAttention(items, np.empty((0, 0, len(items)), np.float32))
    return CandidateAttention(items, _weights(attention, "weights", 3))


def _weights(fields: Any, name: str, axes: int) -> Floats:
    weights = _floats(fields, name, axes)
    if np.isnan(weights).any():
        raise Malformed(f"'{name}' has a number that is missing")
    return weights


def _floats(fields: Any, name: str, axes: int = 1) -> Floats:
    """Numbers with that many axes; null, the score of an unknown item, becomes NaN."""
    values = _get(fields, name, list)
    try:
        with np.errstate(over="ignore"):
            found = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise Malformed(f"'{name}': {error}") from error
    if found.ndim != axes or np.isinf(found).any():
        raise Malformed(f"'{name}' is not finite numbers with {axes} axes")
    return found


def _get(fields: Any, name: str, kind: type[T]) -> T:
    value = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(value, kind):
        raise Malformed(f"'{name}' is missing or not of type {kind.__name__}")
    return value
