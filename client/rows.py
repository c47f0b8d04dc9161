"""Rows of a table of histories, on their way in, out, or to the rejects."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson
import pyarrow as pa

from client.errors import NoHistories
from client.results import Floats, ItemId, User

SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the histories and, where there is one, the users' ids."""

    history: str = "history"
    id: str | None = None  # None: "id", where there is such a column


@dataclass(frozen=True)
class Row:
    """One usable row of the input."""

    number: int  # counted from 0
    line: int | None  # counted from 1; None in Parquet
    id: ItemId | None
    history: Sequence[ItemId]  # oldest to newest


@dataclass(frozen=True)
class Reject:
    """One row that cannot be scored, and why."""

    number: int
    line: int | None
    reason: str
    raw: str  # what stood there, shortened


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Rows with their embeddings, in order."""

    rows: Sequence[Row]
    embeddings: Floats  # (rows, D)
    users: Sequence[User]


class BadRow(Exception):
    """Why one row cannot be used; becomes a `Reject` and never leaves this package."""


class _File(ABC):
    """Something to be closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Finishes and closes the file."""


class Reader(_File):
    """A table being read. Each row comes out exactly once, as a `Row` or as a `Reject`."""

    id_type: Any = pa.string()  # Arrow type of the ids

    @abstractmethod
    def __iter__(self) -> Iterator[Row | Reject]:
        """All rows, in order; to be iterated once."""

    @abstractmethod
    def fraction_read(self) -> float:
        """How far the reading has come, 0 to 1."""


class Writer(_File):
    """A table being written."""

    @abstractmethod
    def write(self, scored: ScoredRows) -> None:
        """Appends rows."""


def as_history(value: object) -> list[ItemId]:
    """The value as item ids.

    Raises:
        BadRow: it is no list of texts and integers.
    """
    if value is None:
        raise BadRow("the history is missing")
    if not isinstance(value, list):
        raise BadRow(f"the history is {kind_of(value)}, not a list")
    for position, item in enumerate(value):
        if type(item) is not str and type(item) is not int:
            raise BadRow(f"click {position} is {kind_of(item)}, not text or an integer")
    return value


def kind_of(value: object) -> str:
    """The value's type in words, for a message."""
    kinds = {bool: "a truth value", float: "a fraction", int: "an integer", str: "text"}
    kinds |= {list: "a list", dict: "an object", bytes: "bytes", type(None): "null"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def shown(value: object) -> str:
    """The value as a short text, for the rejects file."""
    if isinstance(value, bytes):
        text = value[: 4 * SHOWN_CHARACTERS].decode(errors="replace").rstrip("\r\n")
    else:
        # A history of millions of clicks is cut before it is written out, not after.
        value = value[:SHOWN_CHARACTERS] if isinstance(value, list) else value
        text = orjson.dumps(value, default=repr).decode()
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def no_histories(path: Path, names: Sequence[str], missing: str) -> NoHistories:
    """The error for a table without the column `missing`, with the way out."""
    return NoHistories(
        f"{path}: no column '{missing}'; there are {', '.join(names) or 'no columns'}. "
        "A row here is one user with a list of clicks. If a row of this file is one click, "
        f"first run: persona data convert {path} {path.with_name('users.parquet')}. "
        "If the column has another name, say so (--history-column, --id-column)."
    )
