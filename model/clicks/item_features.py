"""Features of the items of a catalogue, from a file: its columns, and the numbers they become."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import DataError
from persona.contract import Floats, InvalidRequest, ItemId
from persona.features import FeatureColumn, encode
from persona.tables import checksum
from persona.tables.items import ITEM_ID, read_items

FOR_PEOPLE = ("name", "link")  # columns that `persona items add` reads beside the features
FEWEST_ITEMS = 3  # of a category; rarer ones share a place, which new categories get too
MOST_CATEGORIES = 1_000  # of a column


@dataclass(frozen=True)
class ItemFeatures:
    """What is known of the items of a catalogue beside their clicks."""

    file: str  # name, without its folder
    sha256: str
    columns: Sequence[FeatureColumn]
    matrix: Floats  # (n_items, F)


def read_item_features(
    path: Path,
    item_ids: Sequence[ItemId],
    *,
    categories: Iterable[str] = (),
    columns: Sequence[FeatureColumn] | None = None,
) -> ItemFeatures:
    """Reads the features of a catalogue's items. An item that the file lacks has none.

    Args:
        path: Parquet, JSON Lines or CSV with a column `item_id` and one for each feature: texts,
            lists of texts, numbers, or lists of numbers, all of one length.
        item_ids: the catalogue; ids are compared as texts.
        categories: columns whose numbers are names, such as the number of a brand.
        columns: as an earlier run reads them; by default they are made from the file.

    Raises:
        DataError: the file has no features of these items, or a column is of no kind.
        TableError: the file cannot be read.
    """
    rows = _by_id(path)
    known = [_features(rows.get(str(item_id), {})) for item_id in item_ids]
    if not any(known):
        raise DataError(f"{path}: no feature of any of the {len(item_ids):,} items of the clicks")
    try:
        made = columns or _columns(known, set(categories))
        matrix = encode(made, list(zip(item_ids, known, strict=True)))
    except (DataError, InvalidRequest) as error:
        raise DataError(f"{path}: {error}") from None
    return ItemFeatures(path.name, checksum(path), made, matrix)


def _by_id(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in read_items(path):
        item_id = row.pop(ITEM_ID)
        if found.setdefault(str(item_id), row) is not row:
            raise DataError(f"{path}: item {item_id!r:.60} is there more than once")
    return found


def _features(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if v is not None and k not in FOR_PEOPLE}


def _columns(known: Sequence[Mapping[str, Any]], categories: set[str]) -> list[FeatureColumn]:
    names = list(dict.fromkeys(chain.from_iterable(known)))
    if missing := categories - set(names):
        raise DataError(f"no column '{min(missing)}', only {', '.join(names)}")
    return [
        _column(name, [row[name] for row in known if name in row], name in categories)
        for name in names
    ]


def _column(name: str, values: Sequence[Any], names: bool) -> FeatureColumn:
    """A column of one kind. `names`: whether its numbers are names."""
    single = list(chain.from_iterable(v if isinstance(v, list) else [v] for v in values))
    if names or all(isinstance(one, str | bool) for one in single):
        items = Counter(chain.from_iterable(_texts(value) for value in values))
        often = [text for text, n in items.most_common(MOST_CATEGORIES) if n >= FEWEST_ITEMS]
        return FeatureColumn(name, "category", tuple(sorted(often)))
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in single):
        raise DataError(f"column '{name}' has neither texts nor finite numbers alone")
    if not any(isinstance(value, list) for value in values):
        return _number(name, np.array(values, np.float64))
    lengths = {len(value) if isinstance(value, list) else 1 for value in values}
    if len(lengths) > 1:
        raise DataError(f"column '{name}' has vectors of {min(lengths)} and {max(lengths)} numbers")
    return FeatureColumn(name, "vector", length=lengths.pop())


def _texts(value: Any) -> set[str]:
    return {str(one) for one in (value if isinstance(value, list) else [value])}


def _number(name: str, values: Floats) -> FeatureColumn:
    """A number, by its logarithm where that is the more even one, as of prices."""
    log = bool(values.min() >= 0 and abs(_skew(np.log1p(values))) < abs(_skew(values)))
    scaled = np.log1p(values) if log else values
    deviation = float(scaled.std()) or 1.0
    return FeatureColumn(name, "number", log=log, mean=float(scaled.mean()), deviation=deviation)


def _skew(values: Floats) -> float:
    deviation = values.std()
    return float(((values - values.mean()) ** 3).mean() / deviation**3) if deviation else 0.0
