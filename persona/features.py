"""Features of items: what is known about an item before its first click.

An item's features become one row of numbers, and a projection turns them into an item vector.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from persona.contract import Floats, InvalidRequest, ItemId

Values = Mapping[str, object]  # of one item, by column; absent or None: not known
LARGEST = 5.0  # limit of a scaled number


@dataclass(frozen=True)
class FeatureColumn:
    """A column of features, and how its values become numbers.

    A category is one or several texts; unlisted texts share one number. A number is scaled, and a
    1 marks it as known. A vector is used as it is.
    """

    name: str
    kind: Literal["category", "number", "vector"]
    values: tuple[str, ...] = ()  # of a category
    log: bool = False  # scale log(1 + number) instead
    mean: float = 0.0  # in training, after the logarithm
    deviation: float = 1.0
    length: int = 0  # of a vector

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    @property
    def width(self) -> int:
        """Number of numbers that a value becomes."""
        return {"category": len(self.values) + 1, "number": 2, "vector": self.length}[self.kind]


def width_of(columns: Iterable[FeatureColumn]) -> int:
    """F, the number of numbers that an item's features become. The last one is always 1."""
    return sum(column.width for column in columns) + 1


def encode(columns: Sequence[FeatureColumn], items: Sequence[tuple[ItemId, Values]]) -> Floats:
    """The features of some items as numbers, (N, F).

    Raises:
        InvalidRequest: a column is not known, or a value is not of its kind.
    """
    known = {column.name for column in columns}
    places = [
        dict(zip(column.values, range(len(column.values)), strict=True)) for column in columns
    ]
    found = np.zeros((len(items), width_of(columns)), np.float32)
    found[:, -1] = 1
    for row, (item_id, values) in zip(found, items, strict=True):
        if unknown := [name for name in values if name not in known]:
            message = f"no feature '{unknown[0]:.60}', only {', '.join(sorted(known)) or 'none'}"
            raise InvalidRequest(f"item {item_id!r:.60}: {message}", "items")
        start = 0
        for column, own in zip(columns, places, strict=True):
            if (value := values.get(column.name)) is not None:
                try:
                    _write(row[start : start + column.width], column, own, value)
                except (TypeError, ValueError):
                    message = (
                        f"feature '{column.name}' is {_shown(value)}, expected {_kind(column)}"
                    )
                    raise InvalidRequest(f"item {item_id!r:.60}: {message}", "items") from None
            start += column.width
    return found


def _write(row: Floats, column: FeatureColumn, places: Mapping[str, int], value: object) -> None:
    if column.kind == "category":
        texts = [value] if isinstance(value, str | int) else list(value)  # type: ignore[call-overload]  # TypeError says so
        for text in texts:
            row[places.get(str(text), len(places))] += 1 / len(texts)
    elif column.kind == "number":
        row[:] = scaled(column, _number(value)), 1
    else:
        vector = np.asarray(value, np.float32)
        if vector.shape != (column.length,) or not np.isfinite(vector).all():
            raise ValueError
        row[:] = vector


def scaled(column: FeatureColumn, number: float) -> float:
    """The number in standard deviations from the mean in training.

    Raises:
        ValueError: it is negative, but its logarithm is needed.
    """
    number = math.log1p(number) if column.log else number
    return max(-LARGEST, min(LARGEST, (number - column.mean) / column.deviation))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _kind(column: FeatureColumn) -> str:
    if column.kind == "category":
        return "a text or a list of texts"
    if column.kind == "number":
        return "a number of at least 0" if column.log else "a number"
    return f"{column.length} numbers"


def _shown(value: object) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return f"{len(value)} values"
    return f"{value!r:.60}"
