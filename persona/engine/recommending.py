"""Recommendations: what a query asks of the item table, and why an item is recommended.

Where the artifact has source-target attention, a score is no product with a user embedding: every
candidate attends to the clicks. Then all candidates are scored, which is exact, and more of them
than `max_scores` are refused. A first choice by the user embedding would be quicker, but nothing in
training asks of that embedding that the best candidates are among its nearest items.

Otherwise the best items are those of the largest products with the user embedding. A reason is what
the score loses when the click is left out. What is then missing to the score less that of an empty
history, because clicks overlap or only count together, is shared equally: the value of the
egalitarian non-separable contributions of cooperative games (Moulin, Journal of Economic Theory
1985). So reasons sum to the score, and rank clicks as leaving them out does.
"""

from array import array
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from persona.artifact import Artifact
from persona.artifact.catalogue import Catalogue
from persona.contract import (
    ITEM_ID,
    Floats,
    InvalidRequest,
    ItemId,
    Query,
    Recommendations,
    Result,
    Results,
)
from persona.engine.answers import pieces_of
from persona.engine.clicks import ClickReader, UsedClicks
from persona.engine.index import Index, can_use
from persona.engine.kept import KeptHistories
from persona.engine.limits import Limits, refuse_more
from persona.engine.search import Rows, Scan, Search, Table
from persona.engine.session import Input
from persona.engine.steps import Plan, Step

NONE: Rows = np.empty(0, np.int64)


@dataclass(slots=True)
class Found:
    """The best items of each history, with their scores."""

    best: list[tuple[Rows, Floats]]
    recall: float | None = None  # of the index that was searched


class Recommender:
    """Plans the steps from histories to recommended items, and from items to their like."""

    def __init__(
        self, artifact: Artifact, catalogue: Catalogue, reader: ClickReader, limits: Limits
    ) -> None:
        self._name, self._version = artifact.manifest.name, artifact.manifest.version
        self._by_attention = "score" in artifact.manifest.graphs
        self._table = Table(artifact.item_embeddings()[:-1])
        self._search = Search(self._table)
        fact = artifact.manifest.index
        self._index = None if fact is None else Index(artifact, fact)
        changes = artifact.changes
        self._trained = changes.trained
        rows = np.frombuffer(catalogue.rows(changes.hidden), np.int64)
        self._hidden = np.unique(rows[rows < catalogue.n_items])
        self._catalogue = catalogue
        self._reader = reader
        self._limits = limits

    def plan(
        self, query: Query, want: Recommendations, kept: KeptHistories | None = None
    ) -> tuple[Plan[Results], int]:
        """The steps that answer a query, and about how many tokens they have together.

        Raises:
            InvalidRequest: a value is wrong, or too much is wanted.
        """
        if want.k < 1:
            raise InvalidRequest(f"k is {want.k}, it must be at least 1", "k")
        if want.k > self._limits.max_k:
            raise InvalidRequest(f"k is {want.k:,}, limit {self._limits.max_k:,}", "k")
        filters = Filters(self._catalogue, query, want, self._hidden)
        k = min(want.k, self._table.n_items)
        if want.items is not None:
            n = len(want.items)
            refuse_more("the request", n, self._limits.max_histories, "items", "items")
            self._refuse_many(n * k)
            return self._similar(want.items, k, filters), self._search_tokens(n, filters)
        histories = self._reader.read(query, kept)
        self._refuse_many(len(histories) * k)
        clicks = sum(history.length for history in histories)
        if want.reasons:
            limit = self._limits.max_attention_values
            refuse_more("the response", k * clicks, limit, "reasons", "with_reasons")
        tokens = sum(history.tokens for history in histories)
        if want.reasons and not self._by_attention:
            tokens += sum(history.length * (history.length + 1) for history in histories)
        tokens += self._search_tokens(len(histories), filters)
        return self._recommended(histories, k, filters, want), tokens

    def _recommended(
        self,
        histories: Sequence[UsedClicks],
        k: int,
        filters: "Filters",
        want: Recommendations,
    ) -> Plan[Results]:
        if self._by_attention:
            found = yield from self._best_by_attention(histories, k, filters)
        else:
            found = yield from self._best_by_product(histories, k, filters, exact=want.exact)
        results = []
        for history, (rows, scores) in zip(histories, found.best, strict=True):
            result = history.result()
            result.recommended, result.scores = self._catalogue.ids(rows), scores
            result.cold = self._cold(rows)
            if want.reasons and self._by_attention:
                yield from self._shares(history, rows, result)
            elif want.reasons:
                yield from self._losses(history, rows, result)
            results.append(result)
        return Results(self._name, self._version, results, found.recall)

    def _best_by_product(
        self, histories: Sequence[UsedClicks], k: int, filters: "Filters", *, exact: bool
    ) -> Plan[Found]:
        outputs = yield Step("embedding", histories, [one.tokens for one in histories])
        scans = [
            Scan(self._table, output["user_embedding"], k, filters.excluded(number))
            for number, output in enumerate(outputs)
        ]
        recall = None
        if filters.allowed is not None:
            yield from self._search.listed(scans, filters.allowed)
        elif self._index is not None and not exact and can_use(scans):
            yield from self._search.indexed(scans, self._index)
            recall = self._index.recall
        else:
            yield from self._search.whole(scans)
        return Found([(scan.rows, scan.scores) for scan in scans], recall)

    def _best_by_attention(
        self, histories: Sequence[UsedClicks], k: int, filters: "Filters"
    ) -> Plan[Found]:
        every = np.arange(self._table.n_items) if filters.allowed is None else filters.allowed
        limit = self._limits.max_scores
        refuse_more("the search", len(histories) * len(every), limit, "scores", "allowed")
        inputs = [
            history.with_candidates({ITEM_ID: piece})
            for history in histories
            for piece in pieces_of(array("q", every.tobytes()))
        ]
        outputs = yield Step("score", inputs, _tokens(inputs))
        per_history = len(inputs) // max(1, len(histories))
        found = Found([])
        for number in range(len(histories)):
            own = outputs[number * per_history : (number + 1) * per_history]
            scores = np.concatenate([np.empty(0, np.float32), *(one["scores"] for one in own)])
            scores = scores[: len(every)].copy()
            left = np.flatnonzero(~np.isin(every, filters.excluded(number)))
            best = left[np.argsort(-scores[left], kind="stable")[:k]]
            found.best.append((every[best], scores[best]))
        return found

    def _shares(self, history: UsedClicks, rows: Rows, result: Result) -> Plan[None]:
        """The attention of each recommended item, mean over the heads."""
        pieces = pieces_of(array("q", rows.tobytes()))
        inputs = [history.with_candidates({ITEM_ID: piece}) for piece in pieces]
        outputs = yield Step("score", inputs, _tokens(inputs))
        weights = [one["candidate_attention"][..., : history.length].mean(1) for one in outputs]
        nothing = np.empty((0, history.length), np.float32)
        shares: Floats = np.concatenate([nothing, *weights])
        result.reasons = shares[: len(rows)]  # (N, L)

    def _losses(self, history: UsedClicks, rows: Rows, result: Result) -> Plan[None]:
        """What the product of each recommended item loses without a click, and an equal share."""
        length = history.length
        parts = [_without(history, range(length)), history]
        parts += [_without(history, [click]) for click in range(length)]
        outputs = yield Step("embedding", parts, [1 + part.length for part in parts])
        embeddings = np.stack([output["user_embedding"] for output in outputs])  # (2 + L, D)
        empty, whole, left_out = embeddings[0], embeddings[1], embeddings[2:]
        lost = whole - left_out  # (L, D)
        shared = (whole - empty - lost.sum(axis=0)) / max(1, length)  # (D,)
        items = self._table.embeddings[rows]  # (N, D)
        result.reasons = items @ (lost + shared).T.astype(np.float32)  # (N, L)
        result.base_scores = items @ empty  # (N,)

    def _similar(self, items: Sequence[ItemId], k: int, filters: "Filters") -> Plan[Results]:
        rows = np.frombuffer(self._catalogue.rows(items), np.int64)
        scans = {
            at: Scan(self._table, self._table.embeddings[row], k, filters.without(row), cosine=True)
            for at, row in enumerate(rows)
            if row < self._table.n_items
        }
        if filters.allowed is None:
            yield from self._search.whole(list(scans.values()))
        else:
            yield from self._search.listed(list(scans.values()), filters.allowed)
        results = []
        for at, item in enumerate(items):
            result = Result([item], 0, int(at not in scans), scores=np.empty(0, np.float32))
            if at in scans:
                result.recommended = self._catalogue.ids(scans[at].rows)
                result.cold = self._cold(scans[at].rows)
                result.scores = scans[at].scores
            results.append(result)
        return Results(self._name, self._version, results)

    def _cold(self, rows: Rows) -> Sequence[ItemId]:
        """Those of the items that were added after training."""
        if self._trained == self._table.n_items:
            return ()
        return self._catalogue.ids(rows[rows >= self._trained])

    def _search_tokens(self, n_scans: int, filters: "Filters") -> int:
        n_items = self._table.n_items if filters.allowed is None else len(filters.allowed)
        return n_scans * self._search.tokens(n_items)

    def _refuse_many(self, n: int) -> None:
        limit = self._limits.max_recommendations
        refuse_more("the response", n, limit, "recommended items", "k")


class Filters:
    """Which items may be recommended; unknown ids have nothing to say."""

    def __init__(
        self, catalogue: Catalogue, query: Query, want: Recommendations, hidden: Rows
    ) -> None:
        """Reads the ids; the hidden rows are never recommended.

        Raises:
            InvalidRequest: one is unknown, and `unknown_items` is "error".
        """
        self._catalogue = catalogue
        self._unknown_items = query.unknown_items
        self._seen = query.clicks[ITEM_ID] if want.exclude_seen else None
        self._denied = np.union1d(self._rows(want.denied, "denied"), hidden)
        self.allowed = None if want.allowed is None else self._rows(want.allowed, "allowed")

    def excluded(self, number: int) -> Rows:
        """What may not be recommended to a history."""
        if self._seen is None:
            return self._denied
        seen: Any = self._seen[number]  # all of it, not only the used clicks
        return self._known(self._catalogue.rows(seen), self._denied)

    def without(self, row: int) -> Rows:
        """What may not be recommended as like the item of a row."""
        return np.union1d(self._denied, [row])

    def _rows(self, ids: Sequence[ItemId], part: str) -> Rows:
        rows = self._catalogue.rows(ids)
        if self._unknown_items == "error" and self._catalogue.n_items in rows:
            at = rows.index(self._catalogue.n_items)
            raise InvalidRequest(f"{part} {at}: unknown item {ids[at]!r:.60}", part, candidate=at)
        return self._known(rows)

    def _known(self, rows: "array[int]", more: Rows = NONE) -> Rows:
        """Known rows, sorted and distinct."""
        sorted_rows = np.unique(np.concatenate([np.frombuffer(rows, np.int64), more]))
        return sorted_rows[sorted_rows < self._catalogue.n_items]


def _without(history: UsedClicks, clicks: Container[int]) -> Input:
    kept = [click for click in range(history.length) if click not in clicks]
    columns = {
        column: array(values.typecode, [values[click] for click in kept])
        for column, values in history.clicks.items()
    }
    return Input(columns, len(kept), history.now)


def _tokens(inputs: Sequence[Input]) -> list[int]:
    return [1 + one.length + len(one.candidates[ITEM_ID]) for one in inputs]
