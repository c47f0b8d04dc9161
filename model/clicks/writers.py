"""Writes histories as a table with one row per user: columns `id` and `history`."""

import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from model.clicks.histories import Histories
from model.errors import DataError
from persona.contract import ItemId


def write_histories(histories: Histories, path: Path) -> None:
    """Writes .parquet, .jsonl or .csv, by the file's extension; a failure leaves no partial file.

    In CSV a history is a JSON list.

    Raises:
        DataError: the extension is unknown, the folder cannot be created, or the file is Parquet
            and the ids mix strings and integers.
    """
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise DataError(f"{path}: cannot write {path.suffix!r}, only {', '.join(WRITERS)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the target's folder: replacing is atomic only within a file system.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".write-") as scratch:
            file = Path(scratch) / path.name
            write(histories, file)
            file.replace(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def rows(histories: Histories) -> Iterator[tuple[ItemId, list[ItemId | None]]]:
    """Each user's id and item ids; an unknown item is None."""
    names = [*histories.item_ids, None]
    for u, user in enumerate(histories.user_ids):
        yield user, [names[item] for item in histories[u]]


def write_parquet(histories: Histories, path: Path) -> None:
    """Writes an id column and a column of lists."""
    try:
        names = pa.array([*histories.item_ids, None])
        ids = pa.array(list(histories.user_ids))
    except pa.ArrowException:
        message = "the ids mix strings and integers, which Parquet cannot hold; write .jsonl"
        raise DataError(f"{path.name}: {message}") from None
    offsets = pa.array(histories.offsets.astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, names.take(pa.array(histories.items)))
    pq.write_table(pa.table({"id": ids, "history": lists}), path)


def write_jsonl(histories: Histories, path: Path) -> None:
    """Writes one object per line."""
    with path.open("wb") as file:
        for user, items in rows(histories):
            file.write(orjson.dumps({"id": user, "history": items}) + b"\n")


def write_csv(histories: Histories, path: Path) -> None:
    """Writes a header and one row per user."""
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
