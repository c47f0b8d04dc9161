"""Groups single clicks in any order into `Histories`, and reports repeated and broken rows."""

import gzip
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from model.clicks.histories import Histories, Int
from persona.contract import ItemId

BROKEN_ROWS_KEPT = 1000
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class BrokenRow:
    """A row that a reader left out."""

    line: int  # counted from 1, the header included; in Parquet the number of the row
    reason: str
    file: str = ""  # where there are several

    @property
    def place(self) -> str:
        """Where the row stands, for a message."""
        return f"{self.file} line {self.line}" if self.file else f"line {self.line}"


@dataclass
class ReadReport:
    """Counts of a reader. Readers keep repeated rows and clicks, and leave out broken rows."""

    path: str
    format: str
    rows: int = 0  # rows with data, the broken ones included
    broken_rows: int = 0
    broken: list[BrokenRow] = field(default_factory=list)  # the first BROKEN_ROWS_KEPT
    repeated_rows: int = 0  # same user, time and item (or path, or impression) as an earlier row
    tied_clicks: int = 0  # at the same time as another click of the user
    repeated_clicks: int = 0  # same item as the user's click right before
    empty_users: int = 0  # users without a click, kept with an empty history

    def reject(self, line: int, reason: str, file: str = "") -> None:
        """Counts a broken row, and records the reason of the first BROKEN_ROWS_KEPT."""
        self.broken_rows += 1
        if len(self.broken) < BROKEN_ROWS_KEPT:
            self.broken.append(BrokenRow(line, reason, file))


def open_lines(path: Path) -> BinaryIO:
    """Opens a file, packed with gzip or not.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return cast("BinaryIO", gzip.open(path)) if packed else path.open("rb")


def data_lines(
    path: Path, limit: int | None, report: ReadReport, comment: str | None = None
) -> Iterator[tuple[int, str]]:
    """Lines with data and their numbers, without blank lines and comments."""
    with open_lines(path) as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip() or (comment and raw.startswith(comment.encode())):
                continue
            if limit is not None and report.rows >= limit:
                return
            report.rows += 1
            try:
                yield number, raw.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                report.reject(number, "not UTF-8")


def count_repeats(rows: Sequence[Hashable]) -> int:
    """Number of rows that equal an earlier row."""
    return len(rows) - len(set(rows))


def first_seen(values: Sequence[ItemId]) -> tuple[Int, list[ItemId]]:
    """The distinct values in order of appearance, and the index of each value among them."""
    distinct = list(dict.fromkeys(values))
    index = {value: position for position, value in enumerate(distinct)}
    return np.fromiter(map(index.__getitem__, values), np.int64, len(values)), distinct


def sorted_catalogue(codes: Int, ids: Sequence[ItemId]) -> tuple[Int, list[ItemId]]:
    """Sorts the distinct ids, integers before strings, and renumbers the codes with them.

    A sorted catalogue makes an item's index independent of the order of the clicks.
    """
    order = sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))
    place = np.empty(len(ids), np.int64)
    place[order] = np.arange(len(ids))
    return place[codes], [ids[i] for i in order]


def group_clicks(
    users: tuple[Int, list[ItemId]], items: tuple[Int, list[ItemId]], times: NDArray[Any] | None
) -> Histories:
    """One history per user in order of time; clicks of equal or no time stay in file order.

    Args:
        users: index of each click's user (clicks,), and the user ids in order of appearance.
        items: index of each click's item (clicks,), and the distinct item ids in any order.
        times: (clicks,) of any sortable dtype.
    """
    user_of_click, user_ids = users
    item_of_click, item_ids = sorted_catalogue(*items)
    # lexsort is stable: an unstable sort would reorder clicks of the same second.
    keys = (user_of_click,) if times is None else (times, user_of_click)
    order = np.lexsort(keys)
    lengths = np.bincount(user_of_click, minlength=len(user_ids))
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    columns = {} if times is None else {"time": times[order]}
    return Histories(user_ids, item_ids, item_of_click[order].astype(np.int32), offsets, columns)


def count_repeated_clicks(histories: Histories) -> int:
    """Clicks on the item that the same user clicked right before."""
    same = histories.items[1:] == histories.items[:-1]
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    return int(np.sum(same & (user[1:] == user[:-1])))


def count_repeated_rows(users: Int, items: Int, times: NDArray[Any], report: ReadReport) -> None:
    """Counts clicks of the same user and time, and those of the same item as well.

    Args:
        users: index of each click's user (clicks,), ascending.
        items: index of each click's item (clicks,).
        times: (clicks,), ascending for each user.
        report: gets the counts.
    """
    same = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    tied = np.concatenate((same, [False])) | np.concatenate(([False], same))
    report.tied_clicks = int(tied.sum())
    # Sorted by item within the same time, so that equal clicks are neighbours.
    moment = np.cumsum(np.concatenate(([True], ~same)))[tied] if len(users) else users
    order = np.lexsort((items[tied], moment))
    pairs = np.stack((moment[order], items[tied][order]))
    report.repeated_rows = int(np.sum(np.all(pairs[:, 1:] == pairs[:, :-1], axis=0)))
