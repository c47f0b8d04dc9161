"""Cuts a table into parts: rows that are encoded together, and written whole or not at all.

The same table is always cut in the same places, so that a run can go on where another one ended.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from persona.contract import ItemId
from persona.tables import Batch, Reject
from persona.tables.table import Table

PART_ROWS = 20_000
PART_CLICKS = 500_000  # about 30 MB of ids in memory


@dataclass(eq=False)
class Part:
    """Rows that belong together, and the rows among them that could not be read."""

    number: int
    file: str  # of the input; empty where there are several
    rows: list[int] = field(default_factory=list)  # numbers in the input, from 0
    lines: list[int | None] = field(default_factory=list)  # in their file, from 1
    ids: list[ItemId | None] = field(default_factory=list)
    histories: list[Sequence[ItemId]] = field(default_factory=list)  # oldest to newest
    passed: list[pa.Table] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    clicks: int = 0

    @property
    def size(self) -> int:
        """All rows, rejected ones too."""
        return len(self.rows) + len(self.rejects)

    def is_full(self, max_rows: int, max_clicks: int) -> bool:
        """Whether no more rows fit in."""
        return self.size >= max_rows or self.clicks >= max_clicks

    def take(self, batch: Batch, start: int, max_rows: int, max_clicks: int) -> int:
        """Adds rows of the batch from `start` on until the part is full; returns where it ends."""
        end = start
        while end < len(batch.rows) and not self.is_full(max_rows, max_clicks):
            self.rows.append(batch.rows[end])
            self.lines.append(None if batch.lines is None else batch.lines[end])
            self.ids.append(batch.ids[end])
            self.histories.append(batch.histories[end])
            self.clicks += len(batch.histories[end])
            end += 1
        if batch.passed.num_columns:
            # A slice would travel to another process with the whole table that it lies in.
            self.passed.append(batch.passed.take(pa.array(range(start, end), pa.int64())))
        return end


def parts(table: Table, max_rows: int = PART_ROWS, max_clicks: int = PART_CLICKS) -> Iterator[Part]:
    """The parts of a table, at least one; those with long histories have fewer rows."""
    file = table.files[0] if len(table.files) == 1 else ""
    part = Part(0, file)
    for found in table:
        start = 0
        while start < (1 if isinstance(found, Reject) else len(found.rows)):
            if isinstance(found, Reject):
                part.rejects.append(found)
                start = 1
            else:
                start = part.take(found, start, max_rows, max_clicks)
            if part.is_full(max_rows, max_clicks):
                yield part
                part = Part(part.number + 1, file)
    if part.size or part.number == 0:
        yield part
