"""Tables with one user per row."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from persona.coded import CodedHistories
from persona.contract import ItemId
from persona.tables.database import Database, identifier, literal
from persona.tables.errors import TableError
from persona.tables.ids import (
    IdKind,
    arrow_type,
    check_id_type,
    id_values,
    is_id_type,
    is_integer,
    is_text_type,
    kind_of_ids,
)
from persona.tables.layout import Layout
from persona.tables.records import Records
from persona.tables.rows import BadRow, Batch, Reject, as_history, kind_of, shown
from persona.tables.table import BATCH_ROWS, Table

BLOCK_ROWS = 2**12  # of Parquet: a history may be long
SEPARATORS = (",", "|", ";")  # between items, if not a space
INTEGER = "(?:0|-?[1-9][0-9]{0,17})"  # at most 18 digits, so that it fits into 64 bits
NOT_UTF8 = object()  # replaces undecodable text


class HistoryTable(Table):
    """Histories are lists, JSON lists, or items with a separator between them."""

    kind = "histories"

    def __init__(self, records: Records, database: Database) -> None:
        super().__init__(records, database)
        layout, options = records.layout, records.options
        if options.click_columns:
            raise TableError(f"{records.name}: only a table with one click a row has their columns")
        records.block_rows = BLOCK_ROWS
        self._history = layout.position(options.history or "history")
        user = options.user or next((name for name in ("id", "user") if layout.has(name)), None)
        self._user = None if user is None else layout.position(user)
        self._passed = {name: layout.position(name) for name in options.columns}
        self._separator = options.item_separator or _separator(layout, self._history)
        self._integer_items = False  # for histories that are text
        self._id_kind: IdKind = "strings"
        records.need(self._history, self._user, records.rating, *self._passed.values())
        if layout.format == "parquet":
            self._read_types(records.types())
        else:
            self.schema = pa.schema([pa.field(name, pa.string()) for name in self._passed])
        self._survey()

    def __iter__(self) -> Iterator[Batch | Reject]:
        self.fraction_read = 0.0
        for block in self._records.blocks():
            found = self._rows(block.view)
            for first in range(0, len(found), BATCH_ROWS):
                yield from self._batch(block.file, found.slice(first, BATCH_ROWS))
            self.fraction_read = block.fraction_read

    def _rows(self, block: Any) -> Any:
        """The rows of a block that count, with their values."""
        if self.format != "parquet" or self._records.filters or self._passed:
            return self._database.table(self._sql(), block=block)
        # Nothing is to be computed.
        history, rows = self._records.value(self._history), block.column("__row")
        user = None if self._user is None else block.column(self._records.value(self._user))
        ids = pa.nulls(len(block), pa.string()) if user is None else user
        nothing = {name: pa.nulls(len(block)) for name in ("__line", "__problem", "__raw")}
        return pa.table({"__row": rows, "__history": block.column(history), "__id": ids, **nothing})

    def _sql(self) -> str:
        records = self._records
        columns = {"__history": self._cell(self._history)}
        columns["__id"] = "NULL::VARCHAR" if self._user is None else self._cell(self._user)
        in_parquet = self.format == "parquet"
        passed = records.value if in_parquet else records.text
        columns |= {name: passed(position) for name, position in self._passed.items()}
        chosen = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in columns.items())
        return (
            f"SELECT __row, __line, __problem, __raw, {chosen} FROM ({records.sql()}) "
            f"WHERE {records.kept()}"
        )

    def _cell(self, position: int) -> str:
        """The SQL of a value: as Parquet has it, as text, or as the text of JSON."""
        value = self._records.value(position)
        return f"nullif(CAST({value} AS VARCHAR), 'null')" if self.format == "jsonl" else value

    def _read_types(self, types: list[Any]) -> None:
        """Checks the types of the columns in Parquet."""
        history, source = types[self._history], self._records.name
        if not (_is_list_of_ids(history) or is_text_type(history) or pa.types.is_null(history)):
            name = self.columns[self._history]
            message = f"column {name!r} is {history}, a history is a list of strings or integers"
            raise TableError(f"{source}: {message}")
        self.id_type = pa.string()
        if self._user is not None:
            self.id_type = check_id_type(types[self._user], self.columns[self._user], source)
        passed = [pa.field(name, types[position]) for name, position in self._passed.items()]
        self.schema = pa.schema(passed)

    def _survey(self) -> None:
        """Counts the rows, and checks whether all ids and all items are integers."""
        records, in_parquet = self._records, self.format == "parquet"
        if in_parquet and not is_text_type(records.types()[self._history]):
            self.rows = None if records.filters else records.count()
            return
        items, ids = self._cell(self._history), "NULL::VARCHAR"
        if self._user is not None:
            ids = f"CAST({self._cell(self._user)} AS VARCHAR)"
        between = "\\s+" if self._separator == " " else f"\\s*{re.escape(self._separator)}\\s*"
        pattern = f"\\s*({INTEGER}({between}{INTEGER})*)?({between})?\\s*"
        integers = f"regexp_full_match(trim({items}, '\"'), {literal(pattern)})"
        # The CASE avoids matching long JSON texts.
        sql = f"""SELECT count(*) AS rows,
            bool_and(CASE WHEN {items}[1] = '[' THEN true ELSE {integers} END) AS items,
            bool_and({is_integer(ids)}) AS integers, bool_and({ids}[1] = '"') AS texts
            FROM ({records.sql()}) WHERE {records.kept()}"""
        found = [self._database.table(sql, block=b.view).to_pylist()[0] for b in records.blocks()]
        self.rows = sum(block["rows"] for block in found)
        self._integer_items, integer_ids, text_ids = (
            all(block[name] is not False for block in found)
            for name in ("items", "integers", "texts")
        )
        if not in_parquet:
            if self._user is not None:
                self._id_kind = kind_of_ids(integer_ids, text_ids, self.format)
            self.id_type = arrow_type(self._id_kind)

    def _batch(self, file: str, part: Any) -> Iterator[Batch | Reject]:
        """The rejects among some rows, then a batch of the good ones."""
        if self.format == "parquet" and (batch := self._coded_batch(part)) is not None:
            yield batch
            return
        names = ("__row", "__line", "__problem")
        numbers, lines, problems = (part.column(name).to_pylist() for name in names)
        ids, cells = self._ids(part.column("__id")), self._cells(part.column("__history"))
        kept: list[int] = []
        histories: list[list[ItemId]] = []
        for i, cell in enumerate(cells):
            try:
                histories.append(self._history_of(problems[i], ids[i], cell))
                kept.append(i)
            except BadRow as error:
                known = problems[i] is None and ids[i] not in (None, NOT_UTF8)
                user = str(ids[i]) if known else None
                raw = part.column("__raw")[i].as_py()
                text = shown(raw if raw is not None else "" if cell is NOT_UTF8 else cell)
                yield Reject(numbers[i], lines[i], file, user, str(error), text)
        if not kept:
            return
        passed = part.select(list(self._passed)).take(pa.array(kept, pa.int64()))
        places = [lines[i] for i in kept] if self.format != "parquet" else None
        yield Batch([numbers[i] for i in kept], places, [ids[i] for i in kept], histories, passed)

    def _coded_batch(self, part: Any) -> Batch | None:
        """All rows of Parquet as a batch; None where a row may be unusable."""
        try:
            histories = _coded(part.column("__history"))
            ids = id_values(part.column("__id"), "strings")
        except (UnicodeDecodeError, pa.ArrowException):  # bytes that are no text
            return None
        if histories is None:
            return None
        numbers = part.column("__row").to_numpy().tolist()
        return Batch(numbers, None, ids, histories, part.select(list(self._passed)))

    def _ids(self, column: Any) -> list[Any]:
        """The ids of rows; those from JSON are not checked yet."""
        if self.format == "jsonl":
            return id_values(column, "mixed")
        if self._id_kind == "integers":
            return [None if text is None else int(text) for text in column.to_pylist()]
        return _values(column)

    def _cells(self, column: Any) -> list[Any]:
        """The histories of rows; they are not checked yet."""
        return id_values(column, "mixed") if self.format == "jsonl" else _lists(column)

    def _history_of(self, problem: str | None, user: object, cell: object) -> list[ItemId]:
        """The history of one row.

        Raises:
            BadRow: the row cannot be used.
        """
        if problem is not None:
            raise BadRow(problem)
        if user is NOT_UTF8 or cell is NOT_UTF8:
            raise BadRow("not UTF-8")
        if user is not None and type(user) is not str and type(user) is not int:
            raise BadRow(f"the id is {kind_of(user)}, not text or an integer")
        if isinstance(cell, str) and self.format != "jsonl" and cell.lstrip().startswith("["):
            try:
                cell = orjson.loads(cell)
            except orjson.JSONDecodeError as error:
                raise BadRow(f"broken JSON: {error}") from error
        return self._items(cell) if isinstance(cell, str) else as_history(cell)

    def _items(self, text: str) -> list[ItemId]:
        """The items of a history that is text, which may end with a separator.

        Raises:
            BadRow: an item is empty.
        """
        if self._separator == " ":
            items = text.split()
        else:
            items = [item.strip() for item in text.split(self._separator)]
            items = items[:-1] if not items[-1] else items
        if self._integer_items:
            return [int(item) for item in items]
        if "" in items:
            raise BadRow(f"click {items.index('')} is empty")
        return list(items)


def _separator(layout: Layout, position: int) -> str:
    """The separator between the items of a history that is text."""
    cells = [value for value in layout.values(position) if isinstance(value, str)]
    text = "".join(cell for cell in cells if not cell.startswith("["))
    likely = max(SEPARATORS, key=text.count)
    return likely if likely in text else " "


def _lists(column: Any) -> list[Any]:
    """The values of a column; for lists, much faster than `to_pylist`."""
    if not _is_list_of_ids(column.type):
        return _values(column)
    lists = column.combine_chunks()
    lists = lists.cast(pa.large_list(lists.type.value_type))
    offsets = lists.offsets.to_pylist()
    try:
        flat = id_values(lists.values, "strings")
    except UnicodeDecodeError:
        return _values(column)
    spans = zip(offsets, offsets[1:], lists.is_valid().to_pylist(), strict=False)
    return [flat[first:end] if valid else None for first, end, valid in spans]


def _coded(column: Any) -> CodedHistories | None:
    """The histories of a column of lists; None where one of them, or a click, is missing."""
    if not _is_list_of_ids(column.type) or column.null_count:
        return None
    lists = column.combine_chunks()
    clicks = lists.flatten()
    if pa.types.is_dictionary(clicks.type):
        clicks = clicks.cast(clicks.type.value_type)
    if clicks.null_count:
        return None
    coded = clicks.dictionary_encode()
    ends = np.cumsum(pc.list_value_length(lists).to_numpy(), dtype=np.int64)
    offsets = np.concatenate(([0], ends))
    words = coded.dictionary.to_numpy(zero_copy_only=False).tolist()
    return CodedHistories(words, coded.indices.to_numpy(), offsets)


def _values(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return NOT_UTF8


def _is_list_of_ids(kind: Any) -> bool:
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and is_id_type(kind.value_type)
