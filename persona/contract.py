"""What is asked of an encoder, what it answers, and what can go wrong.

A protocol parses a `Query`, calls `Engine.submit(query, deadline_s)` and renders the `Results`.

PersonaError             root of everything that the library raises; the message is for the user
├── InvalidRequest       a value is wrong: `history`, `click` and `candidate` say where
├── RequestTooLarge      more bytes than one request may have
├── ModelNotFound        no model of that name, or no such version of it
├── Overloaded           too much now; try again
├── NotReady             starting, shutting down or broken; try again
└── DeadlineExceeded     the deadline passed before the result was there; try again
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ItemId = str | int
UnknownItems = Literal["token", "drop", "error"]  # encode as unknown, leave out, refuse
AttentionDetail = Literal["none", "pooled", "full"]
Floats = NDArray[np.float32]
ITEM_ID = "item_id"  # the column of a click that every model reads


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Wanted: a user embedding for each history, and what it looked at."""

    attention: AttentionDetail = "none"


@dataclass(frozen=True, slots=True)
class Scores:
    """Wanted: scores of candidates, and with attention how much each click speaks for each."""

    candidates: Sequence[Sequence[ItemId]]  # one list a history
    attention: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    clicks: Mapping[str, Sequence[Sequence[ItemId | float]]]  # column -> a list a history
    want: Embeddings | Scores = Embeddings()
    model: str | None = None  # None: the default model
    version: str | None = None  # None: the newest version
    unknown_items: UnknownItems = "token"
    routing_key: ItemId | None = None  # whose request it is, where versions share the requests


@dataclass(slots=True)
class Result:
    """The answer to one history. Position 0 of an axis of 1 + L is the start token."""

    items: Sequence[ItemId]  # of the L used clicks, oldest to newest
    truncated: int  # older clicks than the model reads
    unknown: int  # clicks of unknown items: used ones with "token", left out with "drop"
    embedding: Floats | None = None  # (D,)
    pooled_attention: Floats | None = None  # (H, 1 + L)
    full_attention: Floats | None = None  # (blocks, H, 1 + L, 1 + L)
    scores: Floats | None = None  # (N,), NaN for an unknown candidate
    candidate_attention: Floats | None = None  # (N, H, L), 0 for an unknown candidate


@dataclass(slots=True)
class Results:
    model: str
    version: str  # one version answers all histories of a query
    histories: list[Result]  # in the query's order


class PersonaError(Exception):
    retry_after_s: float | None = None  # when trying again makes sense, where that is known


class InvalidRequest(PersonaError):
    """A value in `part` of the query ("clicks", "candidates", ...) is wrong; numbers are from 0."""

    def __init__(self, message: str, part: str = "clicks", **place: int | None) -> None:
        super().__init__(message)
        self.part = part
        self.history, self.click, self.candidate = map(place.get, ("history", "click", "candidate"))


class RequestTooLarge(PersonaError): ...


class ModelNotFound(PersonaError):
    part: str = "model"  # or "version"


class Overloaded(PersonaError): ...


class NotReady(PersonaError): ...


class DeadlineExceeded(PersonaError): ...
