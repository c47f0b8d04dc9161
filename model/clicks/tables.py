"""Readers for a user's own clicks: CSV and JSONL with one click per row.

Ids are strings or integers. A CSV column holds integers if every id in it is written like one.
Times are Unix seconds or any other number, or ISO 8601 (UTC if the time names no zone).
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model.clicks.grouping import ReadReport, count_repeated_rows, first_seen, group_clicks
from model.clicks.histories import Histories
from model.errors import DataError
from persona.contract import ItemId

INTEGER = re.compile(r"0|-?[1-9]\d{0,17}")
Record = dict[str, object]


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read.

    The column "time" may be missing: the file is then in click order. Every other column must
    exist.
    """

    user: str = "user"
    item: str = "item"
    time: str = "time"

    def check(self, path: Path, found: Iterable[str]) -> bool:
        """Whether the file has times.

        Raises:
            DataError: a column is missing.
        """
        names = list(found)
        needed = [self.user, self.item] + ([self.time] if self.time != "time" else [])
        for name in needed:
            if name not in names:
                raise DataError(f"{path}: no column {name!r} among {', '.join(map(repr, names))}")
        return self.time in names


def read_csv(path: Path, columns: Columns, limit: int | None, report: ReadReport) -> Histories:
    """A header, then one click per row; separated by tabs if the header has one, else by commas."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        tabs = "\t" in file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter="\t" if tabs else ",", strict=True)
        header = next((row for row in reader if row), None)
        if header is None:
            raise DataError(f"{path}: the file is empty")
        timed = columns.check(path, header)
        records = csv_records(reader, header, limit, report)
        users, items, times = parse_records(records, columns, timed, report)
    user_of_click, user_ids = first_seen(users)
    item_of_click, item_ids = first_seen(items)
    count_repeated_rows(user_of_click, item_of_click, times, report)
    return group_clicks(
        (user_of_click, as_integers(user_ids)), (item_of_click, as_integers(item_ids)), times
    )


def csv_records(
    reader: Any, header: list[str], limit: int | None, report: ReadReport
) -> Iterator[tuple[int, Record]]:
    """Rows as dictionaries with the number of their first line; reports malformed rows."""
    while limit is None or report.rows < limit:
        line = reader.line_num + 1
        try:
            row = next(reader)
            if not row:
                continue
            report.rows += 1
            "".join(row).encode()  # fails where the bytes were not UTF-8
        except StopIteration:
            return
        except csv.Error as error:
            report.rows += 1
            report.reject(line, str(error))
        except UnicodeEncodeError:
            report.reject(line, "not UTF-8")
        else:
            if len(row) == len(header):
                yield line, dict(zip(header, row, strict=True))
            else:
                report.reject(line, f"{len(row)} fields, the header has {len(header)}")


def as_integers(ids: list[ItemId]) -> list[ItemId]:
    """The ids as integers if all of them are written like integers."""
    if all(INTEGER.fullmatch(str(text)) for text in ids):
        return [int(text) for text in ids]
    return ids


def read_jsonl(path: Path, columns: Columns, limit: int | None, report: ReadReport) -> Histories:
    """One click per line, as an object. The first object decides whether there are times."""
    with path.open("rb") as file:
        records = jsonl_records(file, limit, report)
        first = next(records, None)
        if first is None:
            return Histories([], [], np.zeros(0, np.int32), np.zeros(1, np.int64))
        timed = columns.check(path, first[1])
        rows = (row for part in ([first], records) for row in part)
        users, items, times = parse_records(rows, columns, timed, report)
    user_of_click, item_of_click = first_seen(users), first_seen(items)
    count_repeated_rows(user_of_click[0], item_of_click[0], times, report)
    return group_clicks(user_of_click, item_of_click, times)


def jsonl_records(
    file: Iterable[bytes], limit: int | None, report: ReadReport
) -> Iterator[tuple[int, Record]]:
    """Objects with their line numbers; reports the lines that hold no object."""
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        if limit is not None and report.rows >= limit:
            return
        report.rows += 1
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            report.reject(number, f"not JSON: {error.msg}")
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            report.reject(number, "not a JSON object")


def parse_records(
    records: Iterable[tuple[int, Record]], columns: Columns, timed: bool, report: ReadReport
) -> tuple[list[ItemId], list[ItemId], NDArray[Any] | None]:
    """Users, items and, if timed, times of the complete rows; reports the other rows."""
    users: list[ItemId] = []
    items: list[ItemId] = []
    times: list[float] = []
    for line, record in records:
        try:
            user = check_id(record.get(columns.user), columns.user)
            item = check_id(record.get(columns.item), columns.item)
            if timed:
                times.append(parse_time(record.get(columns.time), columns.time))
        except ValueError as error:
            report.reject(line, str(error))
            continue
        users.append(user)
        items.append(item)
    return users, items, np.array(times) if timed else None


def check_id(value: object, column: str) -> ItemId:
    """The value, if it is a non-empty string or an integer.

    Raises:
        ValueError: it is neither.
    """
    if value is None or value == "":
        raise ValueError(f"no {column}")
    if isinstance(value, str | int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{column} {value!r} is neither a string nor an integer")


def parse_time(value: object, column: str) -> float:
    """A number unchanged, ISO 8601 as Unix seconds.

    Raises:
        ValueError: the value is no time.
    """
    if value is None or value == "":
        raise ValueError(f"no {column}")
    if isinstance(value, str):
        return parse_time_text(value, column)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    raise ValueError(f"{column} {value!r} is not a time")


def parse_time_text(text: str, column: str) -> float:
    """The number, or the ISO 8601 time as Unix seconds."""
    if INTEGER.fullmatch(text):
        return int(text)  # exact; a float would round nanoseconds
    try:
        return parse_time(float(text), column)
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{column} {text!r} is neither a number nor ISO 8601") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
