"""Finds the rows of item ids: in memory or, of a large catalogue, in files that workers share.

A dict of a million ids takes every worker half of what the item table takes all of them together.
A large catalogue's artifact therefore carries the dict as files, which workers map and share: an
open hash table. An id's key is its text with an end mark. The search begins at the slot that the
key's checksum names, and goes on from slot to slot to one whose row has that very key, or to a
free one. Several ids may begin at one slot, unknown ones too: only an equal key ends the search.
"""

import mmap
import zlib
from array import array
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from service.artifact import ITEM_KEY_STARTS, ITEM_KEYS, ITEM_SLOTS, Artifact, ItemId
from service.bulk_lookup import BulkRows
from service.errors import ArtifactError
from service.row_table import RowTable, Unfit

# A dict finds a click in 0.03 µs, the files in 0.4 µs; up to here it and the tables
# beside it take 25 MB a worker (ids of 11 bytes).
LARGE_CATALOGUE = 100_000
Found = tuple["array[int]", int]  # the rows of a history's items, and how many are unknown
# Ids of a request, from which it is faster to search them all at once, and to hash them so too.
MANY, THOUSANDS = 32, 2048


class ItemRows(Protocol):
    """The rows of a catalogue's items; ids match by value and type, as in training."""

    n_items: int

    def find(self, item_ids: Sequence[ItemId]) -> "array[int]":
        """The row of every item, "q"; `n_items` is that of unknown ones."""

    def find_all(self, histories: Sequence[Sequence[ItemId]]) -> list[Found]:
        """The same of several histories, and how many items of each are unknown."""


class _RowsById(dict[ItemId, int]):
    """A dict that has a row for everything: asking it takes a quarter less than `dict.get`."""

    unknown: int

    def __missing__(self, _item_id: ItemId) -> int:
        return self.unknown


class RowsInMemory:
    """The rows of a catalogue of any size: in a dict, and in tables for larger requests."""

    def __init__(self, item_ids: Sequence[ItemId]) -> None:
        self.n_items = len(item_ids)
        self._rows = _RowsById(zip(item_ids, range(self.n_items), strict=True))
        self._rows.unknown = self.n_items
        self._table: RowTable | None = None
        self._bulk: BulkRows | None = None
        with suppress(Unfit):
            self._table = RowTable(self._rows)
        with suppress(Unfit):
            self._bulk = BulkRows(item_ids)

    def find(self, item_ids: Sequence[ItemId]) -> "array[int]":
        """The row of every item; `n_items` is that of unknown ones."""
        if self._table is not None and len(item_ids) >= MANY:
            with suppress(Unfit):
                return self._table.find(item_ids)
        return array("q", map(self._rows.__getitem__, item_ids))

    def find_all(self, histories: Sequence[Sequence[ItemId]]) -> list[Found]:
        """The same of several histories, and how many items of each are unknown."""
        if len(histories) == 1:
            return _one_by_one(self, histories)
        return _split(self._find_joined(histories), histories, self.n_items)

    def _find_joined(self, histories: Sequence[Sequence[ItemId]]) -> "array[int]":
        if self._bulk is not None and sum(map(len, histories)) >= THOUSANDS:
            with suppress(Unfit):
                return self._bulk.find(histories)
        return self.find(list(chain.from_iterable(histories)))


class RowsInFiles:
    """The rows of a large catalogue, in the files that `write_rows` left in a folder."""

    def __init__(self, folder: Path) -> None:
        # Python takes an integer out of a memoryview in a third of the time that an array needs.
        self._slots = memoryview(np.load(folder / ITEM_SLOTS, mmap_mode="r"))
        self._starts = memoryview(np.load(folder / ITEM_KEY_STARTS, mmap_mode="r"))
        with (folder / ITEM_KEYS).open("rb") as file:
            self._keys = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.n_items = len(self._starts)

    def find(self, item_ids: Sequence[ItemId]) -> "array[int]":
        """The row of every item, "q"; `n_items` is that of unknown ones."""
        slots, starts, keys, unknown = self._slots, self._starts, self._keys, self.n_items
        n_slots = len(slots)
        rows = array("q")
        for key in map(_key, item_ids):
            slot = zlib.crc32(key) % n_slots
            while (row := slots[slot]) != unknown:
                start = starts[row]
                if keys[start : start + len(key)] == key:
                    break
                slot = (slot + 1) % n_slots
            rows.append(row)
        return rows

    def find_all(self, histories: Sequence[Sequence[ItemId]]) -> list[Found]:
        """The same of several histories, and how many items of each are unknown."""
        return _one_by_one(self, histories)


def _one_by_one(rows: ItemRows, histories: Sequence[Sequence[ItemId]]) -> list[Found]:
    return [(found, found.count(rows.n_items)) for found in map(rows.find, histories)]


def _split(rows: "array[int]", histories: Sequence[Sequence[ItemId]], unknown: int) -> list[Found]:
    ends = [0, *accumulate(map(len, histories))]
    pieces = [rows[start:end] for start, end in pairwise(ends)]
    if not (np.frombuffer(rows, np.int64) == unknown).any():
        return [(piece, 0) for piece in pieces]
    return [(piece, piece.count(unknown)) for piece in pieces]


def write_rows(item_ids: Sequence[ItemId], folder: Path) -> None:
    """Writes the three files of `RowsInFiles` for distinct ids, at least one.

    `item_keys.bin`: all keys, by row. `item_key_starts.npy` (n_items,) int64: where each begins.
    `item_slots.npy` (2 * n_items + 1,) int32: rows, n_items where a slot is free.
    """
    keys = [_key(item_id) for item_id in item_ids]
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    np.save(folder / ITEM_KEY_STARTS, np.cumsum(lengths) - lengths)
    np.save(folder / ITEM_SLOTS, np.array(_slots(keys), np.int32))
    (folder / ITEM_KEYS).write_bytes(b"".join(keys))


def _slots(keys: Sequence[bytes]) -> "array[int]":
    free = len(keys)
    # Half of them free, so that searches are short: 1.5 slots for an item that is known. An odd
    # number, because the low bits alone of the checksums of n1, n2, ... lie close together.
    n_slots = 2 * len(keys) + 1
    slots = array("i", [free]) * n_slots
    for row, key in enumerate(keys):
        slot = zlib.crc32(key) % n_slots
        while slots[slot] != free:
            slot = (slot + 1) % n_slots
        slots[slot] = row
    return slots


def open_rows(artifact: Artifact) -> ItemRows:
    """The rows of an artifact's items.

    Raises:
        ArtifactError: it has more or fewer items than its manifest says.
    """
    if ITEM_SLOTS not in artifact.manifest.files:
        return RowsInMemory(artifact.item_ids)
    rows = RowsInFiles(artifact.folder)
    if rows.n_items != artifact.manifest.n_items:
        raise ArtifactError(
            f"{artifact.folder / ITEM_KEY_STARTS}: {rows.n_items} items, "
            f"the manifest says {artifact.manifest.n_items}"
        )
    return rows


def _key(item_id: ItemId) -> bytes:
    """UTF-8 has neither 0xFF, which tells integers from strings, nor 0xFE, which ends a key."""
    if isinstance(item_id, str):
        return item_id.encode("utf-8", "surrogatepass") + b"\xfe"
    return b"\xff%d\xfe" % item_id
