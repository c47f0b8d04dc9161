"""What training declares of the columns of clicks, and what an encoder reads of them."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.clicks.histories import Histories, pad
from model.errors import DataError
from persona.columns import MAX_CATEGORIES, ClickColumn, ColumnKind


def declared(histories: Histories, kinds: Mapping[str, ColumnKind]) -> dict[str, ClickColumn]:
    """The columns of these training clicks: their categories, and what their numbers are like.

    Of more than `MAX_CATEGORIES`, the most frequent ones are kept. All else is an unknown category.

    Raises:
        DataError: the clicks lack a column.
    """
    return {name: _declared(histories, name, kind) for name, kind in kinds.items()}


def _declared(histories: Histories, name: str, kind: ColumnKind) -> ClickColumn:
    values = _column(histories, name, kind)
    if kind == "number":
        known = values[np.isfinite(values)]
        if len(known) == 0:
            return ClickColumn(kind)
        return ClickColumn(kind, mean=float(known.mean()), deviation=float(known.std()) or 1.0)
    texts = histories.texts[name]
    counts = np.bincount(values[values >= 0], minlength=len(texts))
    found: list[int] = np.flatnonzero(counts).tolist()
    order = sorted(found, key=lambda place: (-counts[place], texts[place]))
    return ClickColumn(kind, tuple(texts[place] for place in order[:MAX_CATEGORIES]))


def _column(histories: Histories, name: str, kind: ColumnKind) -> NDArray[Any]:
    if name not in histories.columns or (kind == "category") != (name in histories.texts):
        message = f"the encoder reads the {kind} '{name}' of each click, and these clicks have none"
        raise DataError(message)
    return histories.columns[name]


def column_values(
    histories: Histories, columns: Mapping[str, ClickColumn]
) -> list[NDArray[np.int64] | NDArray[np.float32]]:
    """What an encoder reads of every click, (clicks,): rows of categories, and plain numbers.

    Raises:
        DataError: the clicks lack a column.
    """
    return [_values(histories, name, column) for name, column in columns.items()]


def _values(
    histories: Histories, name: str, column: ClickColumn
) -> NDArray[np.int64] | NDArray[np.float32]:
    values = _column(histories, name, column.kind)
    if column.kind == "number":
        return values.astype(np.float32)
    row_of = {text: row for row, text in enumerate(column.values)}
    unknown = len(column.values)
    rows = [row_of.get(text, unknown) for text in histories.texts[name]]
    found: NDArray[np.int64] = np.array([*rows, unknown], np.int64)[values]  # -1 is the last one
    return found


def given_values(
    histories: Histories, name: str, clicks: NDArray[np.int64]
) -> list[float | str | None]:
    """The values of a column at some clicks as the file had them; None where there is none."""
    values = histories.columns[name][clicks].tolist()
    if name not in histories.texts:
        return [None if math.isnan(value) else value for value in values]
    texts: list[str | None] = [*histories.texts[name], None]  # -1 is the last one
    return [texts[place] for place in values]


def column_inputs(
    histories: Histories, columns: Mapping[str, ClickColumn], max_length: int, step: int = 1
) -> list[NDArray[Any]]:
    """The same, (B, L), as `encoder_inputs` pads the item ids.

    Raises:
        DataError: the clicks lack a column.
    """
    spans = [slice(*span) for span in pairwise(histories.offsets)]
    return [
        pad([values[span] for span in spans], max_length, dtype=values.dtype, step=step)[0]
        for values in column_values(histories, columns)
    ]
