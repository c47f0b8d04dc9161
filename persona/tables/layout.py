"""Detects the layout of a table from its first lines: format, delimiter, header and columns."""

import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from persona.tables.errors import NoSuchColumn, TableError
from persona.tables.files import PARQUET, Files, named
from persona.tables.lines import read_lines
from persona.tables.options import TableFormat, TableOptions

SAMPLE_BYTES, SAMPLE_LINES = 2**16, 200
ENDINGS: dict[str, TableFormat] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
DELIMITERS = ("::", "\t", ";", ",", "|", " ")
QUOTED = re.compile(r'"(?:[^"]|"")*"')
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
VALUE = re.compile(r"[-+]?[\d.]+|[\d\s,;|]+|\d{4}-\d\d-\d\d.*|\[.*")  # not a column name
TYPED_NAME = re.compile(r"(.+):(?:token|float|token_seq|float_seq)")  # RecBole
Sample = Sequence[Sequence[object]]  # rows of values, as many as there are columns


@dataclass(frozen=True)
class Layout:
    """The layout of a table."""

    format: TableFormat
    columns: tuple[str, ...]
    delimiter: str = ""  # for CSV; empty: a line is one value
    header: bool = False
    sample: Sample = ()

    def position(self, column: str) -> int:
        """The index of a column, given its name or its number from 1.

        Raises:
            NoSuchColumn: there is no such column, or there are two.
        """
        if self.columns.count(column) > 1:
            raise NoSuchColumn(f"more than one column is named {column!r}")
        if column in self.columns:
            return self.columns.index(column)
        if column.isdecimal() and 1 <= int(column) <= len(self.columns):
            return int(column) - 1
        raise NoSuchColumn(f"no column {column!r} among {', '.join(map(repr, self.columns))}")

    def has(self, column: str) -> bool:
        """Whether there is a column of that name or number."""
        with suppress(NoSuchColumn):
            return self.position(column) >= 0
        return False

    def values(self, position: int) -> list[object]:
        """The values of a column in the sample."""
        return [row[position] for row in self.sample]

    def is_number(self, position: int) -> bool:
        """Whether every value of a column in the sample is written as a number."""
        texts = [str(value) for value in self.values(position) if value not in (None, "")]
        return bool(texts) and all(NUMBER.fullmatch(text) for text in texts)


def look(files: Files, options: TableOptions) -> Layout:
    """The layout of a table from the options; the rest is detected from its first lines.

    Raises:
        TableError: the format is not known.
    """
    first = files.paths[0]
    endings = {ending.lower() for ending in Path(first).suffixes}
    kind = options.format or next((ENDINGS[name] for name in ENDINGS if name in endings), None)
    if kind in (None, "parquet") and files.head(first) == PARQUET:
        return _parquet_layout(files, first)
    if kind == "parquet":
        raise TableError(f"{first}: not a Parquet file")
    lines = _first_lines(files, first)
    if not lines:
        raise TableError(f"{first}: the file is empty")
    objects = sum(line.lstrip().startswith("{") for line in lines)
    if kind == "jsonl" or (kind is None and 2 * objects > len(lines)):
        return _jsonl_layout(first, lines)
    if kind is None and re.fullmatch(r"\[\s*(\{.*)?", lines[0].strip()):
        raise TableError(f"{first}: one JSON array; write one object per line (jq -c '.[]')")
    return _csv_layout(lines, options)


def _parquet_layout(files: Files, path: str) -> Layout:
    with named(path), pq.ParquetFile(files.open_file(path)) as file:
        batch = next(file.iter_batches(SAMPLE_LINES), None)
        names = tuple(file.schema_arrow.names)
    if batch is None:
        return Layout("parquet", names)
    try:
        columns = [_in_microseconds(column).to_pylist() for column in batch.columns]
    except UnicodeDecodeError:
        return Layout("parquet", names)
    return Layout("parquet", names, sample=list(zip(*columns, strict=True)))


def _in_microseconds(column: pa.Array) -> pa.Array:
    """Times in microseconds, because Python's types have no nanoseconds."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    return column


def _first_lines(files: Files, path: str) -> list[str]:
    blocks = read_lines(files, path, SAMPLE_BYTES)
    raw = (line.as_py() for block in blocks for line in block.raw)
    lines = [line.decode(errors="replace").rstrip("\r\n") for line in islice(raw, SAMPLE_LINES)]
    if lines and sum("\ufffd" in line or "\0" in line for line in lines) > len(lines) / 2:
        raise TableError(f"{path}: neither text in UTF-8 nor Parquet")
    return lines


def _jsonl_layout(path: str, lines: Sequence[str]) -> Layout:
    objects: list[dict[str, Any]] = []
    for line in lines:
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(line)
            objects += [value] if isinstance(value, dict) else []
    if not objects:
        raise TableError(f"{path}: none of the first {len(lines)} lines is a JSON object")
    names = tuple(dict.fromkeys(name for value in objects for name in value))
    sample = [[value.get(name) for name in names] for value in objects]
    return Layout("jsonl", names, sample=sample)


def _csv_layout(lines: Sequence[str], options: TableOptions) -> Layout:
    delimiter = options.delimiter
    if delimiter is None:
        delimiter = _delimiter(lines, options.item_separator)
    rows = [split(line, delimiter) for line in lines]
    header = options.header
    if header is None:
        asked = [options.user, options.item, options.time, options.history, options.rating]
        asked += [name for name, _ in options.click_columns]
        named = {name for name in asked if name is not None and not name.isdecimal()}
        values = any(VALUE.fullmatch(field.strip()) for field in rows[0])
        header = not values or not named.isdisjoint(header_names(lines[0], delimiter))
    names = (
        header_names(lines[0], delimiter)
        if header
        else [f"column{n + 1}" for n in range(len(rows[0]))]
    )
    sample = [row for row in rows[header:] if len(row) == len(names)]
    return Layout("csv", tuple(names), delimiter, header, sample)


def header_names(line: str, delimiter: str) -> list[str]:
    """The names of the columns, without RecBole's types."""
    header = split(line, delimiter)
    typed = [TYPED_NAME.fullmatch(name) for name in header]
    return [match[1] for match in typed if match] if all(typed) else list(header)


def _delimiter(lines: Sequence[str], item_separator: str | None) -> str:
    """The delimiter that occurs in most lines as often as in the first; empty if there is none."""
    plain = [QUOTED.sub("", line) for line in lines]
    shares = {}
    for delimiter in DELIMITERS:
        counts = [line.count(delimiter) for line in plain]
        if counts[0] and delimiter != item_separator:
            shares[delimiter] = counts.count(counts[0]) / len(counts)
    best = max(shares, key=lambda delimiter: shares[delimiter], default="")
    if best and shares[best] > 0.5:
        return best
    # No line is like the first. The header may still show the delimiter.
    likely = [name for name in shares if name != " " and not VALUE.match(plain[0])]
    return likely[0] if likely else ""


def split(line: str, delimiter: str) -> list[str]:
    """The fields of one line, for the sample."""
    if len(delimiter) != 1:
        return line.split(delimiter) if delimiter else [line]
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error:
        return line.split(delimiter)
