"""Columns of a click beside its item and its time, as a manifest declares them."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal

ColumnKind = Literal["category", "number"]
MAX_COLUMNS = 8  # of a click
MAX_CATEGORIES = 10_000  # of a column that training tells apart
NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,62}")
OTHERS = {"item_id", "time", "mask"}  # what else graphs read of clicks


@dataclass(frozen=True)
class ClickColumn:
    """A column of a click, and how its values become what a graph reads.

    A graph reads the place of a category among `values`, or the one after the last: of a category
    that training did not see, or of none. It reads a number as it is, NaN where there is none.
    """

    kind: ColumnKind = "category"
    values: tuple[str, ...] = ()  # the categories
    mean: float = 0.0  # of a number, over the training clicks
    deviation: float = 1.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


def check_columns(names: Collection[str]) -> None:
    """Checks what the columns of a click are called, and how many there are.

    Raises:
        ValueError: the message names the column, or their number and the limit.
    """
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"{len(names)} columns of a click, at most {MAX_COLUMNS} are allowed")
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"no column of a click can be called {name!r:.80}: up to 63 letters, digits and "
                "'_', beginning with a letter"
            )
        if name in OTHERS:
            raise ValueError(f"the column {name!r} is read anyway, and not named among the others")
