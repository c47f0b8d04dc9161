"""A table of histories, or of clicks that become histories."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa

from persona.tables.database import Database
from persona.tables.options import TableFormat
from persona.tables.records import Records
from persona.tables.rows import Batch, Reject

BATCH_ROWS = 4096


class Table(ABC):
    """Histories of users, batch by batch, and broken rows.

    Every iteration gives the same rows in the same order. Memory stays within the limit given to
    `open_table`, for any size of input.
    """

    kind: Literal["histories", "clicks"]  # one user per row, or one click per row
    id_type: Any  # Arrow type of the ids; string if they are mixed or absent
    schema: Any  # Arrow schema of passed-through columns
    rows: int | None = None  # rows of the input, if known
    fraction_read: float = 0.0  # progress of the last iteration, 0 to 1
    timed: bool = False  # whether the clicks have times
    keep_times: bool = False  # whether batches include them

    def __init__(self, records: Records, database: Database) -> None:
        self._records, self._database = records, database
        self.schema = pa.schema([])

    @property
    def format(self) -> TableFormat:
        """csv, jsonl or parquet."""
        return self._records.layout.format

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self._records.layout.columns

    @property
    def files(self) -> tuple[str, ...]:
        """The files, in reading order."""
        return self._records.files.paths

    @property
    def states(self) -> dict[str, str]:
        """By file, a state that differs when the file has changed."""
        files = self._records.files
        return {
            path: f"{size} bytes, changed at {changed:.6f}"
            for path, size, changed in zip(files.paths, files.sizes, files.changed, strict=True)
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the scratch files."""
        self._database.close()

    @abstractmethod
    def __iter__(self) -> Iterator[Batch | Reject]:
        """All rows. Histories come in the order of the files, clicks by user id.

        In a table of histories, the rejects among some thousand rows come before the batch of good
        rows. In a table of clicks, all rejects come first.
        """


def file_of(path: str) -> str:
    """The name of a file, without its folder."""
    return Path(path).name
