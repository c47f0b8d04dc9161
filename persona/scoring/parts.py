"""Cuts a table into parts: rows that are encoded together, and written whole or not at all.

The same table is always cut in the same places, so that a run can go on where another one ended.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from persona.coded import CodedHistories
from persona.contract import ItemId
from persona.results import History
from persona.tables.rows import Batch, Reject

if TYPE_CHECKING:
    from persona.tables.table import Table  # a worker needs no database

PART_ROWS = 20_000
PART_CLICKS = 400_000  # more would share more ids, and take more memory
REJECTS_AHEAD = 4096  # as many as a table of histories yields before the rows between them


@dataclass(eq=False)
class Part:
    """Rows that belong together, and the rows among them that could not be read."""

    number: int
    file: str  # of the input; empty where there are several
    rows: list[int] = field(default_factory=list)  # numbers in the input, from 0
    lines: list[int | None] = field(default_factory=list)  # in their file, from 1
    ids: list[ItemId | None] = field(default_factory=list)
    histories: CodedHistories = field(default_factory=partial(CodedHistories.joined, ()))
    times: list[Sequence[float]] = field(default_factory=list)  # of their clicks, where kept
    columns: dict[str, list[Sequence[object]]] = field(default_factory=dict)  # others, likewise
    passed: list[pa.Table] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    pieces: list[CodedHistories] = field(default_factory=list)  # of the histories, until `whole`
    clicks: int = 0

    @property
    def asked(self) -> Sequence[History]:
        """The histories as a model is asked for them."""
        if not self.times and not self.columns:
            return self.histories
        return [self._asked(at) for at in range(len(self.histories))]

    def _asked(self, at: int) -> Mapping[str, object]:
        fields: dict[str, object] = {"items": self.histories[at]}
        if self.times:
            fields["times"] = self.times[at]
        if self.columns:
            fields["columns"] = {name: values[at] for name, values in self.columns.items()}
        return fields

    @property
    def size(self) -> int:
        """All rows, rejected ones too."""
        return len(self.rows) + len(self.rejects)

    def is_full(self, max_rows: int, max_clicks: int) -> bool:
        """Whether no more rows fit in."""
        return self.size >= max_rows or self.clicks >= max_clicks

    def take(self, run: "Run", start: int, max_rows: int, max_clicks: int) -> int:
        """Adds the run's rows from `start` on until the part is full; returns where it ends."""
        batch, offsets = run.batch, run.histories.offsets
        end = min(run.end, start + max_rows - self.size)
        most = offsets[start] + max_clicks - self.clicks
        # The row that reaches the limit is the last one.
        end = min(end, start + 1 + int(np.searchsorted(offsets[start + 1 : end + 1], most)))
        self.rows += batch.rows[start:end]
        self.lines += [None] * (end - start) if batch.lines is None else batch.lines[start:end]
        self.ids += batch.ids[start:end]
        self.pieces.append(run.histories[start:end])
        if batch.times is not None:
            self.times += batch.times[start:end]
        for name, values in batch.columns.items():
            self.columns.setdefault(name, []).extend(values[start:end])
        self.clicks += int(offsets[end] - offsets[start])
        if batch.passed.num_columns:
            # A slice would travel to another process with the whole table that it lies in.
            self.passed.append(batch.passed.take(pa.array(range(start, end), pa.int64())))
        return end

    def whole(self) -> Self:
        """The part, when no more rows are to come."""
        self.histories, self.pieces = CodedHistories.joined(self.pieces), []
        return self


@dataclass(frozen=True, eq=False)
class Run:
    """Rows of a batch that follow each other in the input."""

    batch: Batch
    histories: CodedHistories  # of the whole batch
    start: int
    end: int


def parts(
    table: "Table", max_rows: int = PART_ROWS, max_clicks: int = PART_CLICKS
) -> Iterator[Part]:
    """The parts of a table, at least one; those with long histories have fewer rows."""
    file = table.files[0] if len(table.files) == 1 else ""
    part = Part(0, file)
    for found in _in_order(table):
        start, end = (0, 1) if isinstance(found, Reject) else (found.start, found.end)
        while start < end:
            if isinstance(found, Reject):
                part.rejects.append(found)
                start += 1
            else:
                start = part.take(found, start, max_rows, max_clicks)
            if part.is_full(max_rows, max_clicks):
                yield part.whole()
                part = Part(part.number + 1, file)
    if part.size or part.number == 0:
        yield part.whole()


def _in_order(table: "Table") -> Iterator[Run | Reject]:
    """The rejects of a table of histories between the rows where they stood."""
    waiting = deque[Reject]()
    for found in table:
        if isinstance(found, Reject):
            waiting.append(found)
            # Those of a table of clicks all come first.
            if table.kind == "clicks" or len(waiting) > REJECTS_AHEAD:
                yield waiting.popleft()
            continue
        start, histories = 0, CodedHistories.of(found.histories)
        while start < len(found.rows):
            end = bisect_left(found.rows, waiting[0].row) if waiting else len(found.rows)
            if end > start:
                yield Run(found, histories, start, end)
            if end < len(found.rows):
                yield waiting.popleft()
            start = end
    yield from waiting
