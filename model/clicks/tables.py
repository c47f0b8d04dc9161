"""Histories from tables of clicks, or of histories, of any format that `persona.tables` reads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.clicks.grouping import ReadReport, count_repeated_rows, sorted_catalogue
from model.clicks.histories import Histories
from persona.columns import ColumnKind
from persona.contract import TIME, ItemId
from persona.tables import Reject, TableOptions, open_table
from persona.tables.clicks import ClickTable
from persona.tables.ids import id_values
from persona.tables.table import Table


class Catalogue:
    """Distinct items, numbered in order of appearance."""

    def __init__(self) -> None:
        self.index: dict[ItemId, int] = {}

    def codes(self, names: list[ItemId]) -> NDArray[np.int32]:
        """The numbers of some items; new ones are added."""
        index = self.index
        return np.array([index.setdefault(name, len(index)) for name in names], np.int32)


class _Column:
    """A column of all clicks beside item and time."""

    def __init__(self, kind: ColumnKind) -> None:
        self.kind = kind
        self._catalogue, self._parts = Catalogue(), list[NDArray[Any]]()

    @property
    def texts(self) -> list[str]:
        """The categories."""
        return list(map(str, self._catalogue.index))

    def add(self, column: Any) -> None:
        """Adds the clicks that come next, an Arrow array."""
        if self.kind == "number":
            self._parts.append(column.to_numpy(zero_copy_only=False))
            return
        encoded = column.dictionary_encode()
        codes = np.append(self._catalogue.codes(encoded.dictionary.to_pylist()), np.int32(-1))
        self._parts.append(codes[np.asarray(encoded.indices.fill_null(len(codes) - 1))])

    def values(self) -> NDArray[Any]:
        """(clicks,) float64, NaN where there is none; or int32 places of texts, -1 likewise."""
        dtype: Any = np.float64 if self.kind == "number" else np.int32
        return np.concatenate([np.zeros(0, dtype), *self._parts])


def read_table(
    source: str | Path, options: TableOptions, limit: int | None, report: ReadReport
) -> Histories:
    """One click or one user a row. Users of clicks are sorted, others stay in their order."""
    with open_table(source, options, limit=limit) as table:
        report.format = table.format
        if isinstance(table, ClickTable):
            histories = _from_clicks(table, options, report)
        else:
            histories = _from_histories(table, report)
        report.rows = table.rows or report.broken_rows + len(histories)
    return histories


def _from_clicks(table: ClickTable, options: TableOptions, report: ReadReport) -> Histories:
    for reject in table.rejects():
        _report(reject, table, report)
    catalogue, users = Catalogue(), list[ItemId]()
    items, times, lengths = list[Any](), list[Any](), list[int]()
    others = {name: _Column(kind) for name, kind in options.click_columns}
    for batch in table.sorted_clicks():
        encoded = batch.column("item").dictionary_encode()
        codes = catalogue.codes(id_values(encoded.dictionary, table.item_kind))
        items.append(codes[np.asarray(encoded.indices)])
        if table.timed:
            times.append(np.asarray(batch.column("time")))
        for number, other in enumerate(others.values()):
            other.add(batch.column(f"value{number}"))
        runs = pc.run_end_encode(batch.column("user"))
        found, counts = id_values(runs.values, table.id_kind), np.diff(runs.run_ends, prepend=0)
        if users and found and users[-1] == found[0]:
            # The clicks of this user began in the batch before.
            lengths[-1] += int(counts[0])
            found, counts = found[1:], counts[1:]
        users += found
        lengths += counts.tolist()
    columns = {TIME: np.concatenate(times)} if times else {}
    columns |= {name: other.values() for name, other in others.items()}
    histories = _histories(users, catalogue, items, lengths, columns)
    if table.timed:
        user = np.repeat(np.arange(len(users)), lengths)
        count_repeated_rows(user, histories.items.astype(np.int64), columns[TIME], report)
        if table.time_unit_s != 1:
            columns[TIME] = columns[TIME] * table.time_unit_s
    texts = {name: other.texts for name, other in others.items() if other.kind == "category"}
    return replace(histories, texts=texts)


def _from_histories(table: Table, report: ReadReport) -> Histories:
    catalogue, users = Catalogue(), list[ItemId]()
    items, lengths = list[Any](), list[int]()
    for part in table:
        if isinstance(part, Reject):
            _report(part, table, report)
            continue
        numbered = zip(part.ids, part.rows, strict=True)
        users += [row + 1 if user is None else user for user, row in numbered]
        items.append(catalogue.codes([item for history in part.histories for item in history]))
        lengths += map(len, part.histories)
    return _histories(users, catalogue, items, lengths, {})


def _histories(
    users: list[ItemId],
    catalogue: Catalogue,
    items: list[Any],
    lengths: list[int],
    columns: dict[str, NDArray[Any]],
) -> Histories:
    found = np.concatenate([np.zeros(0, np.int64), *items])
    codes, item_ids = sorted_catalogue(found, list(catalogue.index))
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Histories(users, item_ids, codes.astype(np.int32), offsets, columns)


def _report(reject: Reject, table: Table, report: ReadReport) -> None:
    file = Path(reject.file).name if len(table.files) > 1 else ""
    report.reject(reject.row + 1 if reject.line is None else reject.line, reject.reason, file)
