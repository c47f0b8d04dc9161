"""Where the users, items and times of a table stand, and which of its rows count."""

from dataclasses import dataclass
from typing import Literal, get_args

from persona.columns import ColumnKind

TableFormat = Literal["csv", "jsonl", "parquet"]
FORMATS: tuple[str, ...] = get_args(TableFormat)


@dataclass(frozen=True)
class TableOptions:
    """What cannot be seen in a table itself. A column is named, or given by its number from 1."""

    format: TableFormat | None = None  # None: detected from the content
    history: str | None = None  # of lists, one user a row; None: "history", if there is one
    user: str | None = None  # None: "user", or "id" beside histories
    item: str | None = None  # None: "item"
    time: str | None = None  # None: "time", if there is one, else the rows are in click order
    where: str | None = None  # a SQL expression over the columns of a row; other rows do not count
    rating: str | None = None  # a column of numbers; rows below `min_rating` do not count
    min_rating: float | None = None
    delimiter: str | None = None  # of text, one or more characters; None: detected
    header: bool | None = None  # whether the first line names the columns; None: detected
    item_separator: str | None = None  # of histories written as text; None: detected
    columns: tuple[str, ...] = ()  # of a history table, passed through
    click_columns: tuple[tuple[str, ColumnKind], ...] = ()  # of a click table, for the model
