"""Histories in CSV and JSONL, and embeddings written to them.

One line is one row, in CSV too, so that a broken quote can never swallow the rows behind it.
Empty lines are no rows.
"""

import csv
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import orjson

from client.errors import FileError
from client.results import ItemId
from client.rows import (
    BadRow,
    Columns,
    Reader,
    Reject,
    Row,
    ScoredRows,
    Writer,
    as_history,
    kind_of,
    no_histories,
    shown,
)

MAX_LINE_BYTES = 16 * 2**20
LINES_LOOKED_AT = 100
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OUTPUT_COLUMNS = ("row", "id", "embedding", "used", "truncated", "unknown")


class _LineReader(Reader):
    """What CSV and JSONL share."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns = path, columns
        self._size = max(path.stat().st_size, 1)
        with path.open("rb") as file:
            self._look_at(raw for _, raw in islice(_filled_lines(file), LINES_LOOKED_AT))
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
    def _look_at(self, first_lines: Iterator[bytes]) -> None:
        """Finds the columns, or raises what is wrong with them."""

    @abstractmethod
    def _parse(self, text: str) -> tuple[ItemId | None, list[ItemId]]:
        """The row's id and history."""


class JsonlReader(_LineReader):
    """One JSON object a line."""

    def _look_at(self, first_lines: Iterator[bytes]) -> None:
        keys: dict[str, None] = {}
        for raw in first_lines:
            with suppress(BadRow):
                keys |= dict.fromkeys(_object(_text(raw)))
        for column in (self.columns.history, self.columns.id):
            if keys and column is not None and column not in keys:
                raise no_histories(self.path, list(keys), column)

    def _parse(self, text: str) -> tuple[ItemId | None, list[ItemId]]:
        row = _object(text)
        row_id = row.get(self.columns.id or "id")
        if row_id is None or type(row_id) is str or type(row_id) is int:
            return row_id, as_history(row.get(self.columns.history))
        raise BadRow(f"the id is {kind_of(row_id)}, not text or an integer")


class CsvReader(_LineReader):
    """Comma-separated, with a header; the history is a JSON list in one field."""

    def __init__(self, path: Path, columns: Columns) -> None:
        # Python refuses fields above 128 KiB unless told otherwise, for the whole process.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
        super().__init__(path, columns)
        next(self._lines, None)  # the header

    def _look_at(self, first_lines: Iterator[bytes]) -> None:
        try:
            self._header = _fields(_text(next(first_lines, b"")))
        except BadRow as error:
            raise FileError(f"{self.path}: the header: {error}") from error
        self._history = self._position(self.columns.history)
        has_ids = self.columns.id is not None or "id" in self._header
        self._id = self._position(self.columns.id or "id") if has_ids else None

    def _position(self, name: str) -> int:
        if self._header.count(name) > 1:
            raise FileError(f"{self.path}: more than one column is named '{name}'")
        if name not in self._header:
            raise no_histories(self.path, self._header, name)
        return self._header.index(name)

    def _parse(self, text: str) -> tuple[ItemId | None, list[ItemId]]:
        fields = _fields(text)
        if len(fields) != len(self._header):
            raise BadRow(f"{len(fields)} fields, the header has {len(self._header)}")
        cell = fields[self._history].strip()
        row_id = None if self._id is None else fields[self._id]
        return row_id, as_history(_json(cell) if cell else None)


class JsonlWriter(Writer):
    """One JSON object a user."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, scored: ScoredRows) -> None:
        """As in `Writer`."""
        for row, embedding, user in zip(scored.rows, scored.embeddings, scored.users, strict=True):
            values = (row.number, row.id, embedding, user.used, user.truncated, user.unknown)
            line = dict(zip(OUTPUT_COLUMNS, values, strict=True))
            self._file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    def close(self) -> None:
        """As in `Writer`."""
        self._file.close()


class CsvWriter(Writer):
    """One line a user; the embedding is a JSON list in one field."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file)
        self._csv.writerow(OUTPUT_COLUMNS)

    def write(self, scored: ScoredRows) -> None:
        """As in `Writer`."""
        for row, embedding, user in zip(scored.rows, scored.embeddings, scored.users, strict=True):
            numbers = orjson.dumps(embedding, option=orjson.OPT_SERIALIZE_NUMPY).decode()
            self._csv.writerow(
                (row.number, row.id, numbers, user.used, user.truncated, user.unknown)
            )

    def close(self) -> None:
        """As in `Writer`."""
        self._file.close()


def _filled_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number, counted from 1, and bytes of each line that is not empty."""
    for number, line in enumerate(_lines(file), start=1):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if not text.isspace() and text:
            yield number, text


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines; of one that is too long only the beginning, so that memory stays bounded."""
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
