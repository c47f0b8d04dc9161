"""What tests read from a table."""

from pathlib import Path
from typing import Any

from persona.contract import ItemId
from persona.tables import Batch, Reject, TableOptions, open_table

Row = tuple[ItemId | None, list[ItemId]]


def read(source: str | Path, **options: Any) -> tuple[list[Row], list[Reject]]:
    """Ids with histories, in order, and the rejects."""
    return read_with(source, TableOptions(**options))


def read_with(
    source: str | Path, options: TableOptions, **more: Any
) -> tuple[list[Row], list[Reject]]:
    """The same, with arguments of `open_table`."""
    rows: list[Row] = []
    rejects: list[Reject] = []
    with open_table(source, options, **more) as table:
        for part in table:
            if isinstance(part, Reject):
                rejects.append(part)
            else:
                rows += pairs(part)
    return rows, rejects


def pairs(batch: Batch) -> list[Row]:
    return [(user, list(history)) for user, history in zip(batch.ids, batch.histories, strict=True)]
