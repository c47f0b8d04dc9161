"""The options for reading a table: its columns, and the rows that count."""

from dataclasses import dataclass
from typing import Literal, get_args

from persona.columns import ColumnKind

TableFormat = Literal["csv", "jsonl", "parquet"]
FORMATS: tuple[str, ...] = get_args(TableFormat)


@dataclass(frozen=True)
class TableOptions:
    """The options for reading a table. A column is a name, or a number from 1."""

    format: TableFormat | None = None  # None: detected from the content
    history: str | None = None  # of lists, one user per row; None: "history", if it exists
    user: str | None = None  # None: "user", or "id" if there are histories
    item: str | None = None  # None: "item"
    time: str | None = None  # None: "time" if it exists, otherwise rows are in click order
    where: str | None = None  # SQL expression over the columns of a row; other rows are ignored
    rating: str | None = None  # column of numbers; rows below `min_rating` are ignored
    min_rating: float | None = None
    delimiter: str | None = None  # of text columns, one or more characters; None: detected
    header: bool | None = None  # whether the first line names the columns; None: detected
    item_separator: str | None = None  # of histories written as text; None: detected
    columns: tuple[str, ...] = ()  # columns of a history table to pass through
    click_columns: tuple[
        tuple[str, ColumnKind], ...
    ] = ()  # columns of a click table that the model reads
