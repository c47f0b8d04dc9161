"""Exact search: the items of the largest dot products with a vector, or of the largest cosines.

The item table is read in blocks that stay in the processor's caches while all vectors of a run are
multiplied with them. Of a block, only the items remain that may be among the best `k`: those not
below the k-th best so far. So nothing is sorted but a few hundred items a vector.

A product's last digits depend on the block and on its batch mates. What counts is therefore the
product in double precision, rounded to float32, which is computed for the items that remain; ties
go by row. The single precision decides only what cannot remain, with room for its rounding errors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from persona.contract import Floats
from persona.engine.steps import Computation, Plan, Step

Rows = NDArray[np.int64]

BLOCK_VALUES = 2**20  # numbers of a block: 4 MB
# A core takes 50 to 190 µs to search a block of so many numbers, for one vector of a batch (128 to
# 8 vectors, AMD), and 4 µs for a token of an encoder of width 64.
VALUES_A_TOKEN = 40_000
ROUNDING = 2.0**-24  # of float32, relative
LOWEST = float(np.finfo(np.float32).min)  # what is excluded is below it
SCANS_AT_ONCE = 32  # of a query that lists the items


class Table:
    """The mapped item table, and what a search needs to know of it."""

    def __init__(self, embeddings: Floats) -> None:
        """Takes (n_items, D), without the row of unknown items."""
        self.embeddings = embeddings
        self.n_items: int = embeddings.shape[0]
        self.width: int = embeddings.shape[1]
        self.block_rows = max(1, BLOCK_VALUES // self.width)
        norms = np.empty(self.n_items, np.float32)
        for start in range(0, self.n_items, self.block_rows):
            block = embeddings[start : start + self.block_rows]  # (R, D)
            norms[start : start + self.block_rows] = np.sqrt(np.einsum("rd,rd->r", block, block))
        self.largest_norm = float(norms.max())
        with np.errstate(divide="ignore"):
            self.inverse_norms = np.where(norms > 0, 1 / norms, 0).astype(np.float32)  # (n_items,)

    def scores(self, vector: Floats, rows: Rows, *, cosine: bool) -> Floats:
        """Exact products of a vector with some items, or cosines: (N,)."""
        items = self.embeddings[rows].astype(np.float64)  # (N, D)
        scores = items @ vector.astype(np.float64)  # (N,)
        if cosine:
            lengths = np.linalg.norm(items, axis=1) * np.linalg.norm(vector.astype(np.float64))
            scores = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)
        return scores.astype(np.float32)


@dataclass(slots=True, eq=False)
class Scan:
    """The search of one vector: the best items so far."""

    table: Table
    vector: Floats  # (D,)
    k: int
    excluded: Rows  # sorted
    cosine: bool = False
    rows: Rows = field(default_factory=lambda: np.empty(0, np.int64))  # the best first
    scores: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    threshold: float = LOWEST  # below it nothing can be among the best
    pending: list[Rows] = field(default_factory=list)

    def look(self, scores: Floats, rows: Rows | int) -> None:
        """Notes which of some items may be among the best.

        Args:
            scores: (N,) products in single precision; overwritten where an item is excluded.
            rows: (N,) of the items; or the first row of consecutive ones.
        """
        if isinstance(rows, int):
            first, last = np.searchsorted(self.excluded, (rows, rows + len(scores)))
            scores[self.excluded[first:last] - rows] = -np.inf
        else:
            scores[np.isin(rows, self.excluded)] = -np.inf
        found = np.flatnonzero(scores >= self.threshold)
        if len(found) > 2 * self.k:
            least = np.partition(scores[found], -self.k)[-self.k] - 2 * self.margin()
            found = found[scores[found] >= least]
        self.add(found + rows if isinstance(rows, int) else rows[found])

    def add(self, rows: Rows) -> None:
        """Adds items that may be among the best."""
        if len(rows):
            self.pending.append(rows)
            if sum(map(len, self.pending)) >= self.k:
                self.settle()

    def settle(self) -> None:
        """Computes the exact scores of what was added, and keeps the best."""
        rows = np.unique(np.concatenate([self.rows, *self.pending]))  # sorted: ties go by row
        scores = self.table.scores(self.vector, rows, cosine=self.cosine)
        best = np.argsort(-scores, kind="stable")[: self.k]
        self.rows, self.scores, self.pending = rows[best], scores[best], []
        if len(best) == self.k:
            self.threshold = float(self.scores[-1]) - self.margin()

    def direction(self) -> Floats:
        """What the items are multiplied with: for cosines of length 1."""
        length = np.linalg.norm(self.vector) if self.cosine else np.float32(1)
        return self.vector / length if length > 0 else self.vector

    def margin(self) -> float:
        """The most by which a product in single precision can be wrong."""
        bound = 1.0
        if not self.cosine:
            bound = float(np.linalg.norm(self.vector)) * self.table.largest_norm
        return 2.0 * (self.table.width + 4) * ROUNDING * bound


@dataclass(frozen=True)
class BlockSearch:
    """Searches one block of the table; its inputs are scans of one kind."""

    table: Table
    start: int
    cosine: bool

    def compute(self, scans: Sequence[Scan]) -> list[None]:
        """One product of the block and all vectors."""
        rows = slice(self.start, self.start + self.table.block_rows)
        scores = directions(scans) @ self.table.embeddings[rows].T  # (B, R)
        if self.cosine:
            scores *= self.table.inverse_norms[rows]
        for scan, own in zip(scans, scores, strict=True):
            scan.look(own, self.start)
        return [None] * len(scans)


@dataclass(slots=True, eq=False)
class Listed:
    """Some of the items that a query allows, for some of its scans."""

    scans: Sequence[Scan]
    rows: Rows

    def search(self) -> None:
        """One product of these items and all vectors."""
        table = self.scans[0].table
        scores = directions(self.scans) @ table.embeddings[self.rows].T  # (B, R)
        if self.scans[0].cosine:
            scores *= table.inverse_norms[self.rows]
        for scan, own in zip(self.scans, scores, strict=True):
            scan.look(own, self.rows)


@dataclass(frozen=True)
class ListedSearch:
    """Searches listed items; no two queries have the same."""

    def compute(self, inputs: Sequence[Listed]) -> list[None]:
        """One after the other."""
        for listed in inputs:
            listed.search()
        return [None] * len(inputs)


@dataclass(frozen=True)
class Settling:
    """The last step of scans."""

    def compute(self, scans: Sequence[Scan]) -> list[None]:
        """Their best items, in order."""
        for scan in scans:
            scan.settle()
        return [None] * len(scans)


class IndexStep(Computation, Protocol):
    """The step that searches an index."""

    tokens: int  # of a scan


class Search:
    """The steps of searches, each small enough to let other queries go between any two of them."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._block = 0  # where the searches are that are under way

    def whole(self, scans: Sequence[Scan]) -> Plan[None]:
        """Searches all items.

        A search begins at the block where others are, and goes round: they share their runs.
        """
        size, n_items = self.table.block_rows, self.table.n_items
        tokens = [self.tokens(min(size, n_items))] * len(scans)
        n_blocks = -(-n_items // size)
        first = self._block
        for number in range(first, first + n_blocks if scans else first):
            self._block = number % n_blocks
            block = BlockSearch(self.table, self._block * size, scans[0].cosine)
            yield Step(block, scans, tokens)
        yield self._last(scans)

    def listed(self, scans: Sequence[Scan], rows: Rows) -> Plan[None]:
        """Searches some items."""
        pieces = list(self._pieces(scans, rows))
        tokens = [len(one.scans) * self.tokens(len(one.rows)) for one in pieces]
        yield Step(ListedSearch(), pieces, tokens)
        yield self._last(scans)

    def indexed(self, scans: Sequence[Scan], index: IndexStep) -> Plan[None]:
        """Searches the index, and all items for scans of which it finds too few."""
        yield Step(index, scans, [index.tokens] * len(scans))
        yield self._last(scans)
        all_items = self.table.n_items
        short = [s for s in scans if len(s.rows) < min(s.k, all_items - len(s.excluded))]
        if short:
            yield from self.whole(short)

    def _last(self, scans: Sequence[Scan]) -> Step:
        return Step(Settling(), scans, [1 + scan.k // 16 for scan in scans])

    def tokens(self, n_items: int) -> int:
        """How many tokens of an encoder take as long as the search of so many items."""
        return 1 + n_items * self.table.width // VALUES_A_TOKEN

    def _pieces(self, scans: Sequence[Scan], allowed: Rows) -> Iterator[Listed]:
        for first in range(0, len(scans), SCANS_AT_ONCE):
            for start in range(0, len(allowed), self.table.block_rows):
                rows = allowed[start : start + self.table.block_rows]
                yield Listed(scans[first : first + SCANS_AT_ONCE], rows)


def directions(scans: Sequence[Scan]) -> Floats:
    """What the items are multiplied with."""
    return np.stack([scan.direction() for scan in scans])  # (B, D)
