"""Golden pairs: histories of every kind, and the embeddings that PyTorch gives them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.clicks.histories import Histories
from model.evaluation.scorer import user_embeddings
from model.network.encoder import UserEncoder
from persona.artifact.format import GoldenPair
from persona.columns import ClickColumn
from persona.contract import TIME, ItemId

Values = dict[str, list[float | str | None]]  # of a history's clicks, by column
CATEGORIES = 3  # of a column, that golden pairs have


def golden_pairs(
    encoder: UserEncoder, item_ids: Sequence[ItemId], examples: Sequence[Sequence[ItemId]]
) -> Iterator[GoldenPair]:
    """Pairs with an empty history, short ones, unknown items, too many clicks, and the examples.

    Where the encoder reads columns, there are known values, unknown categories and missing values.
    """
    first, last = item_ids[0], item_ids[-1]
    too_long = [item_ids[i % len(item_ids)] for i in range(encoder.config.max_length + 5)]
    unknown = [_not_among(item_ids), last]
    row_of = {item_id: row for row, item_id in enumerate(item_ids)}
    timed = encoder.config.time != "none"
    for history in ([], [first], [last, first, last], unknown, too_long, *map(list, examples)):
        rows = np.array([row_of.get(item_id, encoder.n_items) for item_id in history], np.int32)
        times, now = _times(len(history))
        values = _values(encoder.config.columns, len(history))
        arrays, texts = _arrays(values, encoder.config.columns)
        columns = {TIME: times, **arrays}
        one = Histories([0], item_ids, rows, np.array([0, len(rows)]), columns, now, texts)
        with torch.no_grad():
            embedding = user_embeddings(encoder, one)[0]  # (D,)
        yield GoldenPair(
            history=history,
            user_embedding=embedding.tolist(),
            columns=({TIME: times.tolist()} if timed else {}) | values,
            now=int(now[0]) if timed else None,
        )


def _times(length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Times of so many clicks, ever further apart, and of asking, a day after the newest."""
    times = 1_700_000_000 + 60 * np.arange(length, dtype=np.int64) ** 2
    return times, np.array([times[-1] + 86_400 if length else 1_700_000_000])


def _values(columns: Mapping[str, ClickColumn], length: int) -> Values:
    """As many values of each column."""
    found = Values()
    for name, column in columns.items():
        some: Sequence[float | str | None]
        if column.kind == "category":
            some = [*column.values[:CATEGORIES], str(_not_among(column.values)), None]
        else:
            some = [*(column.mean + by * column.deviation for by in (0.0, 1.0, -2.0)), None]
        found[name] = list(islice(cycle(some), length))
    return found


def _arrays(
    values: Values, columns: Mapping[str, ClickColumn]
) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]]]:
    """The values as `Histories` has them: numbers, and places among texts."""
    arrays, texts = dict[str, NDArray[Any]](), dict[str, list[str]]()
    for name, given in values.items():
        if columns[name].kind == "number":
            arrays[name] = np.array(given, np.float64)  # None becomes NaN
            continue
        texts[name] = sorted({text for text in given if isinstance(text, str)})
        places = [-1 if text is None else texts[name].index(str(text)) for text in given]
        arrays[name] = np.array(places, np.int32)
    return arrays, texts


def _not_among(known: Iterable[ItemId]) -> ItemId:
    """An id or a category that training did not see."""
    seen = set(known)
    integers = [one for one in seen if isinstance(one, int)]
    if integers:
        return max(integers) + 1
    candidate = "unknown item"
    while candidate in seen:
        candidate += "?"
    return candidate
