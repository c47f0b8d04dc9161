"""Reads histories from CSV and JSONL, and writes embeddings to them.

One line is one row, in CSV too, so that a broken quote spoils one row and not the rest of the
file. Empty lines are skipped.
"""

import csv
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import orjson

from persona.contract import ItemId
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
    kind_of,
    position_of,
    shown,
)

MAX_LINE_BYTES = 16 * 2**20
HEAD_LINES = 100  # a column of JSONL must be in one of these
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OUTPUT_COLUMNS = ("row", "id", "embedding", "used", "truncated", "unknown")


class _LineReader(Reader):
    """What CSV and JSONL share."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns = path, columns
        self._size = max(path.stat().st_size, 1)
        with path.open("rb") as file:
            self._find_columns(raw for _, raw in islice(_filled_lines(file), HEAD_LINES))
        self._file = path.open("rb")
        self._lines = _filled_lines(self._file)

    def __iter__(self) -> Iterator[Row | Reject]:
        for number, (line, raw) in enumerate(self._lines):
            try:
                row_id, history = self._parse(_text(raw))
                yield Row(number, line, row_id, history)
            except BadRow as error:
                yield Reject(number, line, str(error), shown(raw))

    def fraction_read(self) -> float:
        """As in `Reader`."""
        return min(self._file.tell() / self._size, 1.0)

    def close(self) -> None:
        """As in `Reader`."""
        self._file.close()

    @abstractmethod
    def _find_columns(self, first_lines: Iterator[bytes]) -> None:
        """Finds the columns, or raises `FileError`."""

    @abstractmethod
    def _parse(self, text: str) -> tuple[ItemId | None, list[ItemId]]:
        """The row's id and history, or raises `BadRow`."""


class JsonlReader(_LineReader):
    """Reads one JSON object from each line."""

    def _find_columns(self, first_lines: Iterator[bytes]) -> None:
        keys: dict[str, None] = {}
        for raw in first_lines:
            with suppress(BadRow):
                keys |= dict.fromkeys(_object(_text(raw)))
        for column in (self.columns.history, self.columns.id):
            if keys and column is not None:
                position_of(column, list(keys), self.path)

    def _parse(self, text: str) -> tuple[ItemId | None, list[ItemId]]:
        row = _object(text)
        row_id = row.get(self.columns.id or "id")
        if row_id is None or type(row_id) is str or type(row_id) is int:
            return row_id, as_history(row.get(self.columns.history))
        raise BadRow(f"the id is {kind_of(row_id)}, not text or an integer")


class CsvReader(_LineReader):
    """Reads a header and rows; the history is a JSON list in one field."""

    def __init__(self, path: Path, columns: Columns) -> None:
        # Python refuses fields above 128 KiB; only the whole process can have another limit.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
        super().__init__(path, columns)
        next(self._lines, None)  # the header

    def _find_columns(self, first_lines: Iterator[bytes]) -> None:
        header = next(first_lines, None)
        if header is None:
            raise FileError(f"{self.path} is empty")
        try:
            self._header = _fields(_text(header))
        except BadRow as error:
            raise FileError(f"{self.path}: the header: {error}") from error
        self._history = position_of(self.columns.history, self._header, self.path)
        self._id = None
        if self.columns.id is not None or "id" in self._header:
            self._id = position_of(self.columns.id or "id", self._header, self.path)

    def _parse(self, text: str) -> tuple[ItemId | None, list[ItemId]]:
        fields = _fields(text)
        if len(fields) != len(self._header):
            raise BadRow(f"{len(fields)} fields, the header has {len(self._header)}")
        cell = fields[self._history].strip()
        row_id = None if self._id is None else fields[self._id]
        return row_id, as_history(_json(cell) if cell else None)


class JsonlWriter(Writer):
    """Writes one JSON object for each user."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, scored: ScoredRows) -> None:
        """As in `Writer`."""
        for values in _output_rows(scored):
            line = dict(zip(OUTPUT_COLUMNS, values, strict=True))
            self._file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    def close(self) -> None:
        """As in `Writer`."""
        self._file.close()


class CsvWriter(Writer):
    """Writes one line for each user; the embedding is a JSON list in one field."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file)
        self._csv.writerow(OUTPUT_COLUMNS)

    def write(self, scored: ScoredRows) -> None:
        """As in `Writer`."""
        for number, row_id, embedding, *counts in _output_rows(scored):
            numbers = orjson.dumps(embedding, option=orjson.OPT_SERIALIZE_NUMPY).decode()
            self._csv.writerow((number, row_id, numbers, *counts))

    def close(self) -> None:
        """As in `Writer`."""
        self._file.close()


def _output_rows(scored: ScoredRows) -> Iterator[tuple[object, ...]]:
    """The values of `OUTPUT_COLUMNS` for each row."""
    encoded = scored.encoded
    for row, embedding, user in zip(scored.rows, encoded.embeddings, encoded.users, strict=True):
        yield row.number, row.id, embedding, user.used, user.truncated, user.unknown


def _filled_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number, counted from 1, and bytes of each line that is not empty."""
    for number, line in enumerate(_lines(file), start=1):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if not text.isspace() and text:
            yield number, text


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines; only the beginning of one that is too long, so that memory stays bounded."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
        yield line


def _text(raw: bytes) -> str:
    if len(raw) > MAX_LINE_BYTES:
        raise BadRow(f"the line has more than {MAX_LINE_BYTES} bytes")
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 at byte {error.start}") from error


def _json(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRow(f"broken JSON: {error}") from error


def _object(text: str) -> dict[str, object]:
    row = _json(text)
    if not isinstance(row, dict):
        raise BadRow(f"the line is {kind_of(row)}, not an object")
    return row


def _fields(text: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise BadRow(f"broken CSV: {error}") from error
