"""Histories in Parquet, and embeddings written to it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from client.errors import FileError
from client.rows import (
    BadRow,
    Columns,
    Reader,
    Reject,
    Row,
    ScoredRows,
    Writer,
    as_history,
    no_histories,
    shown,
)

BATCH_ROWS: Final = 1024
ROW_GROUP_BYTES: Final = 16 * 2**20

_UNREADABLE: Final = object()  # stands for text that is not UTF-8


class ParquetReader(Reader):
    """A column of lists, and perhaps one of ids; row groups are read in pieces."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self._rows_read = 0
        self._file = pq.ParquetFile(path)
        schema = self._file.schema_arrow
        self._history = self._field(schema, columns.history)
        self._id = None
        if columns.id is not None or "id" in schema.names:
            self._id = self._field(schema, columns.id or "id")
        self._check_types(schema)

    def __iter__(self) -> Iterator[Row | Reject]:
        wanted = [self._history] if self._id is None else [self._history, self._id]
        try:
            for batch in self._file.iter_batches(BATCH_ROWS, columns=wanted):
                yield from self._batch_rows(batch)
        except (OSError, pa.ArrowException) as error:
            raise FileError(f"{self.path}: broken behind row {self._rows_read}: {error}") from error

    def fraction_read(self) -> float:
        """As in `Reader`."""
        return self._rows_read / max(int(self._file.metadata.num_rows), 1)

    def close(self) -> None:
        """As in `Reader`."""
        self._file.close()

    def _field(self, schema: Any, name: str) -> str:
        if schema.names.count(name) > 1:
            raise FileError(f"{self.path}: more than one column is named '{name}'")
        if name not in schema.names:
            raise no_histories(self.path, schema.names, name)
        return name

    def _check_types(self, schema: Any) -> None:
        history = schema.field(self._history).type
        if not pa.types.is_null(history) and not _is_list_of_ids(history):
            raise FileError(
                f"{self.path}: column '{self._history}' has type {history}; "
                "a history is a list of texts or integers"
            )
        if self._id is None:
            return
        id_type = _plain(schema.field(self._id).type)
        if not _is_id(id_type):
            raise FileError(
                f"{self.path}: column '{self._id}' has type {id_type}; an id is text or an integer"
            )
        self.id_type = pa.string() if pa.types.is_string_view(id_type) else id_type

    def _batch_rows(self, batch: Any) -> Iterator[Row | Reject]:
        histories = _values(batch.column(self._history))
        ids = [None] * len(histories) if self._id is None else _values(batch.column(self._id))
        for row_id, history in zip(ids, histories, strict=True):
            number, self._rows_read = self._rows_read, self._rows_read + 1
            try:
                yield Row(number, None, _readable(row_id), as_history(_readable(history)))
            except BadRow as error:
                raw = "" if history is _UNREADABLE else shown(history)
                yield Reject(number, None, str(error), raw)


class ParquetWriter(Writer):
    """A fixed-size list of float32 a user; rows are gathered to row groups of some megabytes."""

    def __init__(self, path: Path, id_type: Any, width: int) -> None:
        self._width = width
        self._schema = pa.schema(
            [
                pa.field("row", pa.int64(), nullable=False),
                pa.field("id", id_type),
                pa.field("embedding", pa.list_(pa.float32(), width), nullable=False),
                pa.field("used", pa.int32(), nullable=False),
                pa.field("truncated", pa.int32(), nullable=False),
                pa.field("unknown", pa.int32(), nullable=False),
            ]
        )
        self._file = pq.ParquetWriter(path, self._schema)
        self._gathered: list[Any] = []
        self._gathered_bytes = 0

    def write(self, scored: ScoredRows) -> None:
        """As in `Writer`."""
        batch = self._batch(scored)
        self._gathered.append(batch)
        self._gathered_bytes += batch.nbytes
        if self._gathered_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """As in `Writer`."""
        self._flush()
        self._file.close()

    def _batch(self, scored: ScoredRows) -> Any:
        ids: list[Any] = [row.id for row in scored.rows]
        if self._schema.field("id").type == pa.string():
            ids = [None if row_id is None else str(row_id) for row_id in ids]
        flat = pa.array(scored.embeddings.ravel(), pa.float32())
        arrays = [
            pa.array([row.number for row in scored.rows], pa.int64()),
            pa.array(ids, self._schema.field("id").type),
            pa.FixedSizeListArray.from_arrays(flat, self._width),
            *(
                pa.array([getattr(user, name) for user in scored.users], pa.int32())
                for name in ("used", "truncated", "unknown")
            ),
        ]
        return pa.record_batch(arrays, schema=self._schema)

    def _flush(self) -> None:
        if self._gathered:
            self._file.write_table(pa.Table.from_batches(self._gathered))
        self._gathered, self._gathered_bytes = [], 0


def _values(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]
    return values


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _UNREADABLE


def _readable(value: Any) -> Any:
    if value is _UNREADABLE:
        raise BadRow("not UTF-8")
    return value


def _plain(kind: Any) -> Any:
    """The type without the dictionary that pandas' categories are stored in."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_id(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_null(kind)
    )


def _is_list_of_ids(kind: Any) -> bool:
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and _is_id(_plain(kind.value_type))
