"""Reads the tensors that carry columns of clicks."""

from collections.abc import Sequence

import numpy as np

from persona.columns import ClickColumn
from persona.contract import InvalidRequest
from service.protocols.v2.tensors import Values


def check_column(name: str, tensor: Values, column: ClickColumn, shape: Sequence[int]) -> None:
    """Checks the datatype and the shape of a column, which is that of the item ids.

    Raises:
        InvalidRequest: one of them is another.
    """
    kinds, wanted = ("Oi", "BYTES or INT64") if column.kind == "category" else ("f", "FP32")
    if tensor.dtype.kind not in kinds or tensor.shape != tuple(shape):
        message = f"input '{name}' must be {wanted} of shape {list(shape)}, as 'item_ids'"
        raise InvalidRequest(message)


def column_values(name: str, values: Values, column: ClickColumn) -> list[float | str | None]:
    """The values of clicks (N,) as the engine takes them.

    A category is a text, or an integer: its place in the manifest, one more than the last for an
    unknown one.

    Raises:
        InvalidRequest: a place is none.
    """
    places: list[str | None] = [*column.values, None]
    if values.dtype.kind != "i":
        return list(values.tolist())
    if len(values) and not 0 <= values.min() <= values.max() < len(places):
        wrong = int(values.min()) if values.min() < 0 else int(values.max())
        raise InvalidRequest(
            f"input '{name}' has place {wrong}; places go from 0 to {len(places) - 2}, and "
            f"{len(places) - 1} is an unknown category"
        )
    return list(np.array(places, np.object_)[values].tolist())
