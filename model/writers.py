"""Histories as a table with one row a user: columns `id` and `history`."""

import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import DataError
from model.histories import Histories, ItemId


def write_histories(histories: Histories, path: Path) -> None:
    """Writes .parquet, .jsonl or .csv, by the name's ending, all or nothing.

    In CSV a history is a JSON list.

    Raises:
        DataError: another ending, or ids that are strings and integers mixed, in Parquet.
    """
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise DataError(f"{path}: cannot write {path.suffix!r}, only {', '.join(WRITERS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: replacing is atomic only within a file system.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".write-") as scratch:
        file = Path(scratch) / path.name
        write(histories, file)
        file.replace(path)


def rows(histories: Histories) -> Iterator[tuple[ItemId, list[ItemId | None]]]:
    """Each user's id and item ids; an unknown item is None."""
    names = [*histories.item_ids, None]
    for u, user in enumerate(histories.user_ids):
        yield user, [names[item] for item in histories[u]]


def write_parquet(histories: Histories, path: Path) -> None:
    """An id column and a column of lists."""
    try:
        names = pa.array([*histories.item_ids, None])
        ids = pa.array(list(histories.user_ids))
    except pa.ArrowException:
        message = "ids mix strings and integers, which Parquet cannot hold: write .jsonl"
        raise DataError(f"{path.name}: {message}") from None
    offsets = pa.array(histories.offsets.astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, names.take(pa.array(histories.items)))
    pq.write_table(pa.table({"id": ids, "history": lists}), path)


def write_jsonl(histories: Histories, path: Path) -> None:
    """An object a line."""
    with path.open("wb") as file:
        for user, items in rows(histories):
            file.write(orjson.dumps({"id": user, "history": items}) + b"\n")


def write_csv(histories: Histories, path: Path) -> None:
    """A header and a row a user."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "history"])
        for user, items in rows(histories):
            writer.writerow([user, json.dumps(items, ensure_ascii=False)])


WRITERS: dict[str, Callable[[Histories, Path], None]] = {
    ".parquet": write_parquet,
    ".jsonl": write_jsonl,
    ".csv": write_csv,
}
