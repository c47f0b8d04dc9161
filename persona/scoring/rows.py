"""Rows of a table of histories, and what reads, writes and rejects them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from persona.contract import ItemId
from persona.results import Encoded
from persona.scoring.errors import FileError, NoHistories

SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Columns:
    """Names of the columns with the histories and, where there is one, the users' ids."""

    history: str = "history"
    id: str | None = None  # None: the column "id", if there is one


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
    raw: str  # the row's text, shortened


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Rows with their embeddings, in the same order."""

    rows: Sequence[Row]
    encoded: Encoded


class BadRow(Exception):
    """Why one row cannot be used; a reader turns it into a `Reject`."""


class _File(ABC):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Writes what is left, and closes the file."""


class Reader(_File):
    """A table that is read. Each row comes out exactly once, as a `Row` or as a `Reject`."""

    id_type: Any = None  # Arrow type of the ids; None: text

    @abstractmethod
    def __iter__(self) -> Iterator[Row | Reject]:
        """All rows, in order; works once."""

    @abstractmethod
    def fraction_read(self) -> float:
        """How much of the file is read, 0 to 1."""


class Writer(_File):
    """A table that is written."""

    @abstractmethod
    def write(self, scored: ScoredRows) -> None:
        """Appends rows."""


def as_history(value: object) -> list[ItemId]:
    """The value as item ids.

    Raises:
        BadRow: it is not a list of strings and integers.
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
    kinds = {bool: "a boolean", float: "a float", int: "an integer", str: "text"}
    kinds |= {list: "a list", dict: "an object", bytes: "bytes", type(None): "null"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def shown(value: object) -> str:
    """The value as a short text, for the rejects file."""
    if isinstance(value, bytes):
        text = value[: 4 * SHOWN_CHARACTERS].decode(errors="replace").rstrip("\r\n")
    else:
        # Cut before it is written as JSON: a history may have millions of clicks.
        value = value[:SHOWN_CHARACTERS] if isinstance(value, list) else value
        text = orjson.dumps(value, default=repr).decode()
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def position_of(name: str, names: Sequence[str], path: Path) -> int:
    """The position of the column `name`.

    Raises:
        FileError: there is more than one such column.
        NoHistories: there is none.
    """
    if names.count(name) > 1:
        raise FileError(f"{path}: more than one column is named '{name}'")
    if name not in names:
        raise NoHistories(
            f"{path}: no column '{name}'; the columns are {', '.join(names) or 'none'}. "
            "Each row must be one user with a list of clicks. If each row is one click, first "
            f"run: persona data convert {path} {path.with_name('users.parquet')}. "
            "If the column has another name, give it with --history-column or --id-column."
        )
    return names.index(name)
