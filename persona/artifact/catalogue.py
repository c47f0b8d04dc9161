"""Looks up the rows of item ids: in a dict or, for a large catalogue, in files that workers share.

A dict of a million ids takes half as much memory as the item table, but in every worker. The
artifact of a large catalogue therefore contains a hash table with open addressing, in files that
the workers map. An id's key is its text and an end mark. A lookup starts at the slot given by the
key's checksum. It moves from slot to slot until it finds a row with an equal key, or a free slot,
which means that the id is unknown.
"""

import mmap
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, overload
from weakref import WeakValueDictionary

import numpy as np

from persona.artifact.errors import ArtifactError
from persona.artifact.format import ITEM_IDS, ITEM_KEY_STARTS, ITEM_KEYS, ITEM_SLOTS
from persona.artifact.reading import Artifact
from persona.contract import ItemId

# Up to this size the dict takes a worker at most 15 MB (ids of 11 bytes), and finds an item in
# 0.03 µs; the files take 0.4 µs.
LARGE_CATALOGUE = 100_000


class Catalogue(Protocol):
    """The rows of a catalogue's items; ids match by value and type, as in training."""

    n_items: int

    def rows(self, item_ids: Sequence[ItemId]) -> "array[int]":
        """The row of every item, as 64-bit integers; `n_items` for an unknown item."""

    def ids(self, rows: Iterable[int]) -> list[ItemId]:
        """The item of every row."""


UNKNOWN_ITEM = 2**64  # stands for the row of unknown items: no id has more than 64 bits


class ItemsByRow(Sequence[ItemId]):
    """Items of which the rows are given: nobody looks their ids up unless somebody reads them.

    From rows to ids and back took a fifth of the time of a batch of 32 short histories.
    """

    def __init__(self, catalogue: Catalogue, rows: "array[int]") -> None:
        """Takes rows from 0 to `catalogue.n_items`, that of unknown items."""
        self.catalogue = catalogue
        self.rows = rows  # as 64-bit integers

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> ItemId: ...

    @overload
    def __getitem__(self, index: slice) -> "ItemsByRow": ...

    def __getitem__(self, index: int | slice) -> "ItemId | ItemsByRow":
        if isinstance(index, slice):
            return ItemsByRow(self.catalogue, self.rows[index])
        row = self.rows[index]
        return UNKNOWN_ITEM if row == self.catalogue.n_items else self.catalogue.ids([row])[0]

    def __iter__(self) -> Iterator[ItemId]:
        if self.catalogue.n_items in self.rows:
            return map(self.__getitem__, range(len(self.rows)))
        return iter(self.catalogue.ids(self.rows))


def rows_of(catalogue: Catalogue, items: Sequence[ItemId]) -> "array[int]":
    """The row of every item in a catalogue; its `n_items` for an unknown item."""
    if isinstance(items, ItemsByRow) and items.catalogue is catalogue:
        return items.rows
    return catalogue.rows(items)


class _RowsById(dict[ItemId, int]):
    """A dict with a value for every key: `d[key]` takes a quarter less time than `d.get`."""

    unknown: int

    def __missing__(self, _item_id: ItemId) -> int:
        return self.unknown


class CatalogueInMemory:
    """A catalogue as a dict."""

    def __init__(self, item_ids: Sequence[ItemId]) -> None:
        self.n_items = len(item_ids)
        self._rows = _RowsById(zip(item_ids, range(self.n_items), strict=True))
        self._rows.unknown = self.n_items
        self._ids = item_ids

    def rows(self, item_ids: Sequence[ItemId]) -> "array[int]":
        """The row of every item; `n_items` for an unknown item."""
        return array("q", map(self._rows.__getitem__, item_ids))

    def ids(self, rows: Iterable[int]) -> list[ItemId]:
        """The item of every row."""
        return [self._ids[row] for row in rows]


# By checksum and number of items.
_in_memory: WeakValueDictionary[tuple[str, int], CatalogueInMemory] = WeakValueDictionary()


class CatalogueInFiles:
    """A large catalogue, in files written by `write_catalogue`."""

    def __init__(self, folder: Path) -> None:
        # Python reads an integer from a memoryview three times as fast as from an array.
        self._slots = memoryview(np.load(folder / ITEM_SLOTS, mmap_mode="r"))
        self._starts = memoryview(np.load(folder / ITEM_KEY_STARTS, mmap_mode="r"))
        with (folder / ITEM_KEYS).open("rb") as file:
            self._keys = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.n_items = len(self._starts)

    def rows(self, item_ids: Sequence[ItemId]) -> "array[int]":
        """The row of every item; `n_items` for an unknown item."""
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

    def ids(self, rows: Iterable[int]) -> list[ItemId]:
        """The item of every row."""
        starts, keys, last = self._starts, self._keys, self.n_items - 1
        ends = ((row, starts[row + 1] if row < last else len(keys)) for row in rows)
        return [_item_id(keys[starts[row] : end]) for row, end in ends]


def open_catalogue(artifact: Artifact) -> Catalogue:
    """The catalogue of an artifact; versions with the same items share one in memory.

    Raises:
        ArtifactError: a file is malformed, or has more or fewer items than the manifest says.
    """
    files = artifact.manifest.files
    if ITEM_SLOTS not in files:
        key = files[ITEM_IDS].sha256, artifact.manifest.n_items
        if (shared := _in_memory.get(key)) is None:
            shared = _in_memory[key] = CatalogueInMemory(artifact.item_ids)
        return shared
    for name in (ITEM_KEY_STARTS, ITEM_KEYS):
        if name not in files:
            raise ArtifactError(f"{artifact.folder / name}: missing beside {ITEM_SLOTS}")
    try:
        catalogue = CatalogueInFiles(artifact.folder)
    except (ValueError, TypeError, OSError) as error:
        raise ArtifactError(f"{artifact.folder / ITEM_SLOTS}: {error}") from None
    if catalogue.n_items != artifact.manifest.n_items:
        raise ArtifactError(
            f"{artifact.folder / ITEM_KEY_STARTS}: {catalogue.n_items} items, "
            f"the manifest says {artifact.manifest.n_items}"
        )
    return catalogue


def write_catalogue(item_ids: Sequence[ItemId], folder: Path) -> None:
    """Writes the three files of `CatalogueInFiles` for distinct ids, at least one.

    `item_keys.bin`: all keys, by row. `item_key_starts.npy` (n_items,) int64: their offsets.
    `item_slots.npy` (2 * n_items + 1,) int32: rows; n_items marks a free slot.
    """
    keys = [_key(item_id) for item_id in item_ids]
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    np.save(folder / ITEM_KEY_STARTS, np.cumsum(lengths) - lengths)
    np.save(folder / ITEM_SLOTS, np.array(_slots(keys), np.int32))
    (folder / ITEM_KEYS).write_bytes(b"".join(keys))


def _slots(keys: Sequence[bytes]) -> "array[int]":
    free = len(keys)
    # Half of the slots are free, so searches are short: 1.5 slots for a known item. Their number
    # is odd, because the low bits of the checksums of n1, n2, ... lie close together.
    n_slots = 2 * len(keys) + 1
    slots = array("i", [free]) * n_slots
    for row, key in enumerate(keys):
        slot = zlib.crc32(key) % n_slots
        while slots[slot] != free:
            slot = (slot + 1) % n_slots
        slots[slot] = row
    return slots


def _key(item_id: ItemId) -> bytes:
    """0xFF marks integers and 0xFE ends a key; UTF-8 contains neither."""
    if isinstance(item_id, str):
        return item_id.encode("utf-8", "surrogatepass") + b"\xfe"
    return b"\xff%d\xfe" % item_id


def _item_id(key: bytes) -> ItemId:
    if key[:1] == b"\xff":
        return int(key[1:-1])
    return key[:-1].decode("utf-8", "surrogatepass")
