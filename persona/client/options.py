"""The limits of a request, and the options of `recommend` and `similar`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

from persona.contract import ItemId, UnknownItems


@dataclass(frozen=True)
class Limits:
    """The size of one request; the client splits longer inputs into several requests."""

    histories: int = 1024
    full_attention_histories: int = 8  # their answer grows with the square of the length
    scores: int = 1_000_000  # histories times candidates
    recommendations: int = 100_000  # histories times recommended items
    reasons: int = 8  # histories with reasons: an embedding for each click
    items: int = 262_144  # clicks and candidates
    body_bytes: int = 8 * 2**20
    answer_bytes: int = 64 * 2**20  # of the answer, which must not be compressed


class SimilarOptions(TypedDict, total=False):
    """Keyword arguments of `Client.similar`."""

    allowed: Iterable[ItemId] | None  # only these; unknown ids are ignored
    denied: Iterable[ItemId]  # never these
    model: str | None  # by default the service's default
    version: str | None  # by default the newest


class RecommendOptions(SimilarOptions, total=False):
    """Keyword arguments of `Client.recommend`."""

    exclude_seen: bool  # leave out the items of the history
    with_reasons: bool  # also the contribution of each click to each item
    exact: bool  # search all items, even if the model has an index
    unknown_items: UnknownItems  # as for `encode`; "error" also applies to both lists
