"""The formats of the output: the files of one part, and how those of all parts become one."""

import csv
import io
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from persona.scoring.scorer import FormatName

EMBEDDING = "embedding"


class Format(Protocol):
    """Writes tables of scored rows."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of the files; the first has the embeddings."""

    def files(self, table: pa.Table) -> dict[str, bytes]:
        """The contents of the files, by suffix."""

    def join(self, suffix: str, parts: Sequence[Path], file: BinaryIO, /) -> None:
        """Writes what the files of all parts hold, at least one, a part at a time."""


class Parquet:
    """Embeddings as fixed-size lists; the model stands in the schema's metadata."""

    suffixes = (".parquet",)

    def files(self, table: pa.Table) -> dict[str, bytes]:
        """As in `Format`."""
        content = io.BytesIO()
        self._write(content, table.schema, [table])
        return {".parquet": content.getvalue()}

    def join(self, _suffix: str, parts: Sequence[Path], file: BinaryIO, /) -> None:
        """As in `Format`."""
        tables = (pq.ParquetFile(part).read(use_threads=False) for part in parts)
        self._write(file, pq.read_schema(parts[0]), tables)

    def _write(self, file: BinaryIO, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        # A dictionary of embeddings would only take time: hardly two numbers are equal.
        names = [name for name in schema.names if name != EMBEDDING]
        with pq.ParquetWriter(file, schema, use_dictionary=names) as writer:
            for table in tables:
                writer.write_table(table)


class Jsonl:
    """An object a line."""

    suffixes = (".jsonl",)

    def files(self, table: pa.Table) -> dict[str, bytes]:
        """As in `Format`."""
        return {".jsonl": b"".join(map(_line, _rows(table)))}

    def join(self, _suffix: str, parts: Sequence[Path], file: BinaryIO, /) -> None:
        """As in `Format`."""
        copy(parts, file)


class Csv:
    """A header and a line a user; lists are written as JSON."""

    suffixes = (".csv",)

    def files(self, table: pa.Table) -> dict[str, bytes]:
        """As in `Format`."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(table.column_names)
        writer.writerows(map(_field, row.values()) for row in _rows(table))
        return {".csv": text.getvalue().encode()}

    def join(self, _suffix: str, parts: Sequence[Path], file: BinaryIO, /) -> None:
        """As in `Format`; all parts have the same header."""
        copy(parts[:1], file)
        for path in parts[1:]:
            with path.open("rb") as part:
                part.readline()
                shutil.copyfileobj(part, file)


class Npy:
    """One array of all embeddings, and the other columns as JSON lines beside it."""

    suffixes = (".npy", ".ids.jsonl")

    def files(self, table: pa.Table) -> dict[str, bytes]:
        """As in `Format`."""
        content = io.BytesIO()
        np.save(content, _matrix(table[EMBEDDING]))
        others = table.drop_columns(EMBEDDING)
        return {".npy": content.getvalue(), ".ids.jsonl": b"".join(map(_line, _rows(others)))}

    def join(self, suffix: str, parts: Sequence[Path], file: BinaryIO, /) -> None:
        """As in `Format`."""
        if suffix != ".npy":
            copy(parts, file)
            return
        first, length = np.load(parts[0]), sum(len(np.load(part)) for part in parts)
        header = np.lib.format.header_data_from_array_1_0(first)
        shape = (length, *first.shape[1:])
        np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
        file.writelines(np.load(part).tobytes() for part in parts)


FORMATS: Mapping[FormatName, Format] = {
    "parquet": Parquet(),
    "jsonl": Jsonl(),
    "csv": Csv(),
    "npy": Npy(),
}


def _rows(table: pa.Table) -> Iterable[dict[str, Any]]:
    """The rows; embeddings as arrays, which take a tenth of the time that lists do."""
    columns = [
        _matrix(column) if name == EMBEDDING else _values(column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python's values; times in nanoseconds, which it has none of, as text."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values


def _matrix(column: pa.ChunkedArray) -> Any:
    """Fixed-size lists as one array, (rows, width)."""
    lists = column.combine_chunks()
    return lists.flatten().to_numpy().reshape(len(lists), lists.type.list_size)


def _line(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(row, default=str, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"


def _field(value: Any) -> Any:
    if isinstance(value, list | dict | np.ndarray):
        return orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return value


def copy(parts: Iterable[Path], file: BinaryIO) -> None:
    """Writes files one behind the other."""
    for path in parts:
        with path.open("rb") as part:
            shutil.copyfileobj(part, file)
