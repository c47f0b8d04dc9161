"""The output of a table: batches of histories, and broken rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from persona.contract import ItemId

SHOWN_CHARACTERS = 200


@dataclass(frozen=True, eq=False)
class Batch:
    """Users with their histories."""

    rows: Sequence[int]  # numbers from 0: of the input's rows or, of a click table, of the users
    lines: Sequence[int] | None  # from 1, within the file; None in Parquet and in click tables
    ids: Sequence[ItemId | None]
    histories: Sequence[Sequence[ItemId]]  # oldest to newest
    passed: Any  # Arrow table of passed-through columns
    times: Sequence[Sequence[float]] | None = None  # times of the clicks in seconds, if requested
    columns: Mapping[str, Sequence[Sequence[object]]] = field(default_factory=dict)  # of the clicks


@dataclass(frozen=True)
class Reject:
    """A broken row, and the reason."""

    row: int  # from 0, over all files
    line: int | None  # from 1, within the file; None in Parquet
    file: str
    user: str | None
    reason: str
    raw: str  # the row's text, shortened

    @property
    def place(self) -> str:
        """The row's place, for a message."""
        return f"line {self.line}" if self.line is not None else f"row {self.row + 1}"


class BadRow(Exception):
    """The reason why one row is broken."""


def as_history(value: object) -> list[ItemId]:
    """The value as item ids.

    Raises:
        BadRow: it is not a list of strings and integers.
    """
    if value is None:
        raise BadRow("the history is missing")
    if not isinstance(value, list):
        raise BadRow(f"the history is {kind_of(value)}, not a list")
    if not {*map(type, value)} <= {str, int}:
        position = next(i for i, item in enumerate(value) if type(item) not in (str, int))
        raise BadRow(f"click {position} is {kind_of(value[position])}, not text or an integer")
    return value


def kind_of(value: object) -> str:
    """The value's type in words, for a message."""
    kinds = {bool: "a boolean", float: "a float", int: "an integer", str: "text"}
    kinds |= {list: "a list", dict: "an object", bytes: "bytes", type(None): "null"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def shown(value: object) -> str:
    """The value as a short text."""
    if isinstance(value, bytes):
        text = value[: 4 * SHOWN_CHARACTERS].decode(errors="replace").rstrip("\r\n")
    else:
        # Shortened before writing JSON, because a history may have millions of clicks.
        value = value[:SHOWN_CHARACTERS] if isinstance(value, list) else value
        text = orjson.dumps(value, default=repr).decode()
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
