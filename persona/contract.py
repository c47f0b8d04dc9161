"""The contract between protocols and engine: queries, results and errors.

A protocol parses a `Query`, calls `Engine.submit(query, deadline_s)` and renders the `Results`.

PersonaError             root of everything that the library raises; the message is for the user
├── InvalidRequest       a value is wrong: `part`, `history`, `click` and `candidate` say where
├── RequestTooLarge      more bytes than one request may have
├── ModelNotFound        no model of that name
│   └── VersionNotFound  no such version of it
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
ITEM_ID, TIME = "item_id", "time"  # columns of a click; time in seconds, as in training


@dataclass(frozen=True, slots=True)
class Embeddings:  # wanted: a user embedding per history, and attention weights
    attention: AttentionDetail = "none"


@dataclass(frozen=True, slots=True)
class Scores:  # wanted: a score per candidate
    candidates: Sequence[Sequence[ItemId]]  # one list per history
    attention: bool = False  # also the weight of each click for each candidate


@dataclass(frozen=True, slots=True)
class Recommendations:  # wanted: the best items per history
    k: int
    items: Sequence[ItemId] | None = None  # wanted: items similar to each of these; no histories
    exclude_seen: bool = False  # the items of the history
    allowed: Sequence[ItemId] | None = None  # None: all
    denied: Sequence[ItemId] = ()
    reasons: bool = False  # also each click's contribution to each item
    exact: bool = False  # search all items, even if there is an index


@dataclass(frozen=True, slots=True)
class Query:
    clicks: Mapping[str, Sequence[Sequence[ItemId | float]]]  # column -> one list per history
    want: Embeddings | Scores | Recommendations = Embeddings()
    model: str | None = None  # None: the default model
    version: str | None = None  # None: the newest version
    unknown_items: UnknownItems = "token"
    routing_key: ItemId | None = None  # identifies the user when versions share the traffic
    now: Sequence[float | None] = ()  # time of asking per history; none: the newest click's


@dataclass(slots=True)
class Result:  # the answer to one history; position 0 of an axis of 1 + L is the start token
    items: Sequence[ItemId]  # of the L used clicks, oldest to newest
    truncated: int  # older clicks than the model reads
    unknown: int  # clicks on unknown items: used with "token", left out with "drop"
    embedding: Floats | None = None  # (D,)
    pooled_attention: Floats | None = None  # (H, 1 + L)
    full_attention: Floats | None = None  # (blocks, H, 1 + L, 1 + L)
    recommended: Sequence[ItemId] = ()  # N, the best first
    cold: Sequence[ItemId] = ()  # those that were added after training
    scores: Floats | None = None  # (N,), NaN for an unknown candidate
    candidate_attention: Floats | None = None  # (N, H, L), 0 for an unknown candidate
    reasons: Floats | None = None  # (N, L); with `base_scores` they sum to the scores, else to 1
    base_scores: Floats | None = None  # (N,) of an empty history


@dataclass(slots=True)
class Results:
    model: str
    version: str  # one version answers all histories of a query
    histories: list[Result]  # in the query's order
    recall: float | None = None  # recall at 100 of the index; None: exact search


class PersonaError(Exception):
    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s  # when to try again, if known


class InvalidRequest(PersonaError):
    def __init__(self, message: str, part: str = "clicks", **place: int | None) -> None:  # from 0
        super().__init__(message)
        self.part = part
        self.history, self.click, self.candidate = map(place.get, ("history", "click", "candidate"))


# fmt: off
class ModelNotFound(PersonaError):
    part = "model"
class VersionNotFound(ModelNotFound):
    part = "version"
class RequestTooLarge(PersonaError): ...
class Overloaded(PersonaError): ...
class NotReady(PersonaError): ...
class DeadlineExceeded(PersonaError): ...
