"""Reads what Python callers give: lists, arrays and mappings of ids, with errors that say where."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from persona.contract import (
    ITEM_ID,
    TIME,
    Embeddings,
    InvalidRequest,
    ItemId,
    Query,
    Recommendations,
    Scores,
    UnknownItems,
)
from persona.results import History


def query_of(
    histories: Iterable[History],
    want: Embeddings | Scores | Recommendations,
    model: str | None,
    version: str | None,
    unknown_items: UnknownItems,
) -> tuple[list[ItemId | None], Query]:
    """The ids of histories, and the query of their clicks."""
    ids: list[Any] = []
    items: list[list[ItemId]] = []
    times: list[Any] = []
    now: list[Any] = []
    columns: list[Mapping[str, Any]] = []
    for number, history in enumerate(histories):
        fields = history if isinstance(history, Mapping) else {"items": history}
        ids.append(fields.get("id"))
        items.append(_items(fields.get("items"), number))
        times.append(fields.get("times"))
        now.append(fields.get("now"))
        columns.append(_mapping(fields.get("columns"), number))
    clicks: dict[str, list[list[Any]]] = {ITEM_ID: items}
    if any(one is not None for one in times):
        clicks[TIME] = [_values(one, "times", number) for number, one in enumerate(times)]
    for name in {name: None for of_one in columns for name in of_one if name not in clicks}:
        clicks[name] = [
            _values(of_one.get(name), f"column '{name}'", number)
            for number, of_one in enumerate(columns)
        ]
    return ids, Query(clicks, want, model, version, unknown_items, now=now)


def _mapping(columns: Any, number: int) -> Mapping[str, Any]:
    if not isinstance(columns, Mapping | None):
        kind = type(columns).__name__
        message = f"history {number}: its columns are a {kind}, not a mapping of lists"
        raise InvalidRequest(message, history=number)
    return columns or {}


def _values(values: Any, what: str, number: int) -> list[Any]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, Sequence | None) or isinstance(values, str):
        kind = type(values).__name__
        raise InvalidRequest(f"history {number}: {what} is a {kind}, not a list", history=number)
    return list(values or ())


def _items(items: Any, number: int) -> list[ItemId]:
    """A list of plain ids; NumPy's are turned into Python's, which match those of the catalogue."""
    if isinstance(items, np.ndarray):
        items = items.tolist()
    if not isinstance(items, Sequence) or isinstance(items, str):
        kind = type(items).__name__
        raise InvalidRequest(f"history {number} is a {kind}, not a list of ids", history=number)
    ids = _python(items)
    if (at := _wrong(ids)) is not None:
        kind = type(ids[at]).__name__
        message = f"history {number}, item {at} is a {kind}, not a string or an integer"
        raise InvalidRequest(message, history=number, click=at)
    return ids


def plain(items: Iterable[ItemId], part: str) -> list[ItemId]:
    """The ids of a list that all histories share."""
    ids = _python(items)
    if (at := _wrong(ids)) is not None:
        kind = type(ids[at]).__name__
        message = f"{part} {at} is a {kind}, not a string or an integer"
        raise InvalidRequest(message, part, candidate=at)
    return ids


def _python(items: Iterable[Any]) -> list[ItemId]:
    return [item.item() if isinstance(item, np.generic) else item for item in items]


def _wrong(ids: Sequence[Any]) -> int | None:
    """The place of the first id that is none."""
    kinds = (type(item) is str or type(item) is int for item in ids)
    return next((at for at, right in enumerate(kinds) if not right), None)


def lists(
    candidates: Sequence[ItemId] | Sequence[Sequence[ItemId]], n_histories: int
) -> list[list[ItemId]]:
    """A list of candidates for each history; histories may share one."""
    own = [one for one in candidates if not isinstance(one, str | int | np.generic)]
    if own and len(own) == len(candidates):
        return [_items(one, number) for number, one in enumerate(own)]
    return [_items(candidates, 0)] * n_histories
