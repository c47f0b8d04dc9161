"""Reads histories from Parquet, and writes embeddings to it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from persona.scoring.errors import FileError
from persona.scoring.rows import (
    BadRow,
    Columns,
    Reader,
    Reject,
    Row,
    ScoredRows,
    Writer,
    as_history,
    position_of,
    shown,
)

BATCH_ROWS: Final = 1024
ROW_GROUP_BYTES: Final = 16 * 2**20

_NOT_UTF8: Final = object()  # stands for text that cannot be decoded


class ParquetReader(Reader):
    """Reads a column of lists, and one of ids if there is one, a batch of rows at a time."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self._rows_read = 0
        try:
            self._file = pq.ParquetFile(path)
        except pa.ArrowException as error:
            raise FileError(f"{path}: {error}") from error
        schema = self._file.schema_arrow
        self._history, self._id = columns.history, columns.id
        if self._id is None and "id" in schema.names:
            self._id = "id"
        for name in self._wanted():
            position_of(name, schema.names, path)
        self._check_types(schema)

    def __iter__(self) -> Iterator[Row | Reject]:
        try:
            for batch in self._file.iter_batches(BATCH_ROWS, columns=self._wanted()):
                yield from self._batch_rows(batch)
        except (OSError, pa.ArrowException) as error:
            raise FileError(f"{self.path}: broken after row {self._rows_read}: {error}") from error

    def fraction_read(self) -> float:
        """As in `Reader`."""
        return self._rows_read / max(int(self._file.metadata.num_rows), 1)

    def close(self) -> None:
        """As in `Reader`."""
        self._file.close()

    def _wanted(self) -> list[str]:
        return [self._history] if self._id is None else [self._history, self._id]

    def _check_types(self, schema: Any) -> None:
        history = schema.field(self._history).type
        if not pa.types.is_null(history) and not _is_list_of_ids(history):
            raise FileError(
                f"{self.path}: column '{self._history}' has type {history}; "
                "a history is a list of strings or integers"
            )
        if self._id is None:
            return
        id_type = _value_type(schema.field(self._id).type)
        if not _is_id(id_type):
            raise FileError(
                f"{self.path}: column '{self._id}' has type {id_type}; "
                "an id is a string or an integer"
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
                raw = "" if history is _NOT_UTF8 else shown(history)
                yield Reject(number, None, str(error), raw)


class ParquetWriter(Writer):
    """Writes embeddings as fixed-size lists of float32, in row groups of some megabytes."""

    def __init__(self, path: Path, id_type: Any, width: int) -> None:
        self._width = width
        self._schema = pa.schema(
            [
                pa.field("row", pa.int64(), nullable=False),
                pa.field("id", pa.string() if id_type is None else id_type),
                pa.field("embedding", pa.list_(pa.float32(), width), nullable=False),
                pa.field("used", pa.int32(), nullable=False),
                pa.field("truncated", pa.int32(), nullable=False),
                pa.field("unknown", pa.int32(), nullable=False),
            ]
        )
        self._file = pq.ParquetWriter(path, self._schema)
        self._waiting: list[Any] = []
        self._waiting_bytes = 0

    def write(self, scored: ScoredRows) -> None:
        """As in `Writer`."""
        batch = self._batch(scored)
        self._waiting.append(batch)
        self._waiting_bytes += batch.nbytes
        if self._waiting_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """As in `Writer`."""
        self._flush()
        self._file.close()

    def _batch(self, scored: ScoredRows) -> Any:
        ids: list[Any] = [row.id for row in scored.rows]
        if self._schema.field("id").type == pa.string():
            ids = [None if row_id is None else str(row_id) for row_id in ids]
        flat = pa.array(scored.encoded.embeddings.ravel(), pa.float32())
        arrays = [
            pa.array([row.number for row in scored.rows], pa.int64()),
            pa.array(ids, self._schema.field("id").type),
            pa.FixedSizeListArray.from_arrays(flat, self._width),
            *(
                pa.array([getattr(user, name) for user in scored.encoded.users], pa.int32())
                for name in ("used", "truncated", "unknown")
            ),
        ]
        return pa.record_batch(arrays, schema=self._schema)

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.Table.from_batches(self._waiting))
        self._waiting, self._waiting_bytes = [], 0


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
        return _NOT_UTF8


def _readable(value: Any) -> Any:
    if value is _NOT_UTF8:
        raise BadRow("not UTF-8")
    return value


def _value_type(kind: Any) -> Any:
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
    return is_list and _is_id(_value_type(kind.value_type))
