"""Click files of every known format, read into `Histories` by one function."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from model.clicks.grouping import BrokenRow, ReadReport, count_repeated_clicks
from model.clicks.histories import Histories
from model.clicks.parquet import read_parquet
from model.clicks.public_formats import (
    MIND_TIME,
    read_mind,
    read_msnbc,
    read_sasrec,
    read_wikispeedia,
)
from model.clicks.tables import Columns, read_csv, read_jsonl
from model.errors import DataError

__all__ = ["FORMATS", "BrokenRow", "ClickFormat", "ReadReport", "detect_format", "read_clicks"]

ClickFormat = Literal["msnbc", "sasrec", "wikispeedia", "mind", "parquet", "csv", "jsonl"]
FORMATS: tuple[str, ...] = get_args(ClickFormat)
ENDINGS = {
    ".seq": "msnbc",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
LINE_READERS: dict[str, Callable[[Path, int | None, ReadReport], Histories]] = {
    "msnbc": read_msnbc,
    "sasrec": read_sasrec,
    "wikispeedia": read_wikispeedia,
    "mind": read_mind,
}
TABLE_READERS: dict[str, Callable[[Path, Columns, int | None, ReadReport], Histories]] = {
    "csv": read_csv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}


def read_clicks(
    path: str | Path,
    format: str | None = None,  # noqa: A002  # the word that users know
    *,
    user: str = "user",
    item: str = "item",
    time: str = "time",
    limit: int | None = None,
) -> tuple[Histories, ReadReport]:
    """Reads the clicks of a file; broken rows are left out and reported.

    Args:
        path: the file.
        format: one of `FORMATS`; by default detected from the name or the content.
        user: column of the user, in Parquet, CSV and JSONL.
        item: column of the item.
        time: column of the time; a file without a column "time" is read in its own order.
        limit: how many rows to read at most.

    Returns:
        The histories and a report of the rows. Users are in order of appearance. The catalogue
        is sorted; MSNBC keeps the order of its section numbers.

    Raises:
        DataError: the file is missing or empty, its format is unknown, a column is missing, or
            no row is usable.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: this is a folder, not a click file")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        histories, report = _read(path, format, Columns(user, item, time), limit)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if len(histories.items) == 0:
        raise DataError(_nothing_usable(report))
    report.repeated_clicks = count_repeated_clicks(histories)
    report.empty_users = int(np.sum(histories.lengths == 0))
    return histories, report


def _read(
    path: Path, kind: str | None, columns: Columns, limit: int | None
) -> tuple[Histories, ReadReport]:
    kind = kind or detect_format(path)
    report = ReadReport(str(path), kind)
    if kind in LINE_READERS:
        return LINE_READERS[kind](path, limit, report), report
    if kind in TABLE_READERS:
        return TABLE_READERS[kind](path, columns, limit, report), report
    raise DataError(f"{path}: unknown format {kind!r}, known are {', '.join(FORMATS)}")


def _nothing_usable(report: ReadReport) -> str:
    """The message for a file without a single click."""
    message = f"{report.path}: nothing usable in {report.rows} rows read as {report.format}"
    if report.broken:
        message += f"; line {report.broken[0].line}: {report.broken[0].reason}"
    return message


def detect_format(path: Path) -> str:
    """The format of a file, by the ending of its name or else by its first line with data.

    Raises:
        DataError: neither is known.
    """
    if path.suffix.lower() in ENDINGS:
        return ENDINGS[path.suffix.lower()]
    with path.open("rb") as file:
        head = file.read(65_536)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"% Different categories"):
        return "msnbc"
    lines = [line for line in head.decode(errors="replace").splitlines() if line.strip()]
    data = [line for line in lines if not line.startswith("#")]
    kind = format_of_line(data[0]) if data else None
    if kind is None:
        raise DataError(f"{path}: format not recognised, name one of {', '.join(FORMATS)}")
    return kind


def format_of_line(line: str) -> str | None:
    """The only format that the line fits, or None."""
    fields, words = line.split("\t"), line.split()
    if line.lstrip().startswith("{"):
        return "jsonl"
    if len(fields) in (5, 6) and fields[1].isdecimal() and fields[2].isdecimal():
        return "wikispeedia"
    if len(fields) == 5 and is_mind_time(fields[2]):
        return "mind"
    if len(words) == 2 and all(word.isdecimal() for word in words):
        return "sasrec"
    return "csv" if "," in line or len(fields) > 1 else None


def is_mind_time(text: str) -> bool:
    """Whether the text is a time as MIND writes it."""
    try:
        datetime.strptime(text, MIND_TIME)
    except ValueError:
        return False
    return True
