"""Clicks of every known format, read into `Histories` by one function."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from model.clicks.grouping import BrokenRow, ReadReport, count_repeated_clicks, open_lines
from model.clicks.histories import Histories
from model.clicks.public_formats import (
    MIND_TIME,
    read_mind,
    read_msnbc,
    read_sasrec,
    read_wikispeedia,
)
from model.clicks.tables import read_table
from model.errors import DataError
from persona.tables import TableOptions

__all__ = ["FORMATS", "BrokenRow", "ClickFormat", "ReadReport", "detect_format", "read_clicks"]

ClickFormat = Literal["msnbc", "sasrec", "wikispeedia", "mind", "parquet", "csv", "jsonl"]
FORMATS: tuple[str, ...] = get_args(ClickFormat)
LINE_READERS: dict[str, Callable[[Path, int | None, ReadReport], Histories]] = {
    "msnbc": read_msnbc,
    "sasrec": read_sasrec,
    "wikispeedia": read_wikispeedia,
    "mind": read_mind,
}
HEAD_BYTES = 65_536


def read_clicks(
    source: str | Path,
    format: str | None = None,  # noqa: A002  # the word that users know
    options: TableOptions = TableOptions(),  # noqa: B008  # it is frozen
    *,
    limit: int | None = None,
) -> tuple[Histories, ReadReport]:
    """Reads clicks or histories; broken rows are left out and reported.

    Args:
        source: a file; of tables also a folder, a glob or a URL.
        format: one of `FORMATS`; by default detected from the content.
        options: of tables.
        limit: how many rows to read at most.

    Returns:
        The histories and a report of the rows. Users of click tables are sorted, others stay in
        their order. The catalogue is sorted; MSNBC keeps the order of its section numbers.

    Raises:
        DataError: the format is unknown, or no row is usable.
        TableError: the source is missing or empty, or a column is missing.
    """
    kind = known_format(source, format, options)
    report = ReadReport(str(source), kind or "")
    if kind in LINE_READERS and options.click_columns:
        raise DataError(f"{source}: the format {kind} has no columns of clicks, a table has")
    if kind in LINE_READERS:
        histories = _read_lines(Path(source), kind, limit, report)
    else:
        histories = read_table(source, replace(options, format=kind), limit, report)
    if len(histories.items) == 0:
        raise DataError(_nothing_usable(report))
    report.repeated_clicks = count_repeated_clicks(histories)
    report.empty_users = int(np.sum(histories.lengths == 0))
    return histories, report


def known_format(
    source: str | Path,
    format: str | None,  # noqa: A002  # as above
    options: TableOptions,
) -> Any:
    """The given or detected format; None for a table that shows its own.

    Raises:
        DataError: the given one is unknown.
    """
    if format is not None and format not in FORMATS:
        raise DataError(f"{source}: unknown format {format!r}, known are {', '.join(FORMATS)}")
    # Who names columns means a table.
    return format or (detect_format(Path(source)) if options == TableOptions() else None)


def _read_lines(path: Path, kind: str, limit: int | None, report: ReadReport) -> Histories:
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        return LINE_READERS[kind](path, limit, report)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _nothing_usable(report: ReadReport) -> str:
    """The message for a file without a single click."""
    message = f"{report.path}: nothing usable in {report.rows} rows read as {report.format}"
    if report.broken:
        message += f"; {report.broken[0].place}: {report.broken[0].reason}"
    return message


def detect_format(path: Path) -> ClickFormat | None:
    """The public format that the first lines of a file have; None for a table."""
    if not path.is_file():
        return None
    if path.suffix.lower() == ".seq":
        return "msnbc"
    with open_lines(path) as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"% Different categories"):
        return "msnbc"
    lines = [line for line in head.decode(errors="replace").splitlines() if line.strip()]
    if len(head) == HEAD_BYTES:
        del lines[-1:]  # it may be half a line
    data = [line for line in lines if not line.startswith("#")]
    if data and is_sasrec(data[0]) and 2 * sum(map(is_longer, data)) < len(data):
        return "sasrec"
    if data and is_wikispeedia(data[0]):
        return "wikispeedia"
    return "mind" if data and is_mind(data[0]) else None


def is_sasrec(line: str) -> bool:
    """Whether the line is two integers."""
    words = line.split(" ")
    return len(words) == 2 and all(word.isdecimal() for word in words)


def is_longer(line: str) -> bool:
    """Whether the line is more than two integers: a history."""
    words = line.split(" ")
    return len(words) > 2 and all(word.isdecimal() for word in words)


def is_wikispeedia(line: str) -> bool:
    """Whether the line is a path, finished or not."""
    fields = line.split("\t")
    if not (len(fields) in (5, 6) and fields[1].isdecimal() and fields[2].isdecimal()):
        return False
    rated = fields[4] == "NULL" or fields[4].isdecimal()
    return fields[5] in ("timeout", "restart") if len(fields) == 6 else rated


def is_mind(line: str) -> bool:
    """Whether the line is an impression."""
    fields = line.split("\t")
    return len(fields) == 5 and is_mind_time(fields[2])


def is_mind_time(text: str) -> bool:
    """Whether the text is a time as MIND writes it."""
    try:
        datetime.strptime(text, MIND_TIME)
    except ValueError:
        return False
    return True
