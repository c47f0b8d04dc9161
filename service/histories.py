"""From a person's clicks to what the encoder reads: rows of the item table, padding and mask."""

from array import array
from collections.abc import Sequence
from itertools import repeat
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.artifact import ItemId
from service.errors import InvalidRequest

UnknownItems = Literal["token", "drop", "error"]


class MappedHistory(NamedTuple):
    """A history as the encoder reads it, and what became of its clicks.

    `truncated` clicks are those older than the newest `max_length`. `unknown` clicks have an
    item that the model does not know: with "token" they are among the used ones, with "drop"
    all that were left out.
    """

    items: list[ItemId]  # the used clicks, oldest to newest
    rows: list[int]  # their rows in the item table
    truncated: int
    unknown: int


class ItemIndex:
    """Finds the row of every item id; ids match by value and type, as in training."""

    def __init__(self, item_ids: Sequence[ItemId], max_length: int) -> None:
        self._rows = {item_id: row for row, item_id in enumerate(item_ids)}
        self._unknown = len(item_ids)
        self._max_length = max_length

    def map_history(
        self,
        history: list[ItemId],
        unknown_items: UnknownItems = "token",
        path: tuple[str | int, ...] = ("histories", 0),
    ) -> MappedHistory:
        """Maps a history, keeping its newest `max_length` clicks; `path` is where it stands.

        Raises:
            InvalidRequest: an item is unknown and `unknown_items` is "error".
        """
        kept = history
        if unknown_items == "error":
            self._refuse_unknown(history, path)
        elif unknown_items == "drop":
            kept = [item for item in history if item in self._rows]
        used = kept[-self._max_length :]
        rows = list(map(self._rows.get, used, repeat(self._unknown)))
        left_out = len(history) - len(kept)
        return MappedHistory(
            used, rows, len(kept) - len(used), left_out or rows.count(self._unknown)
        )

    def map_candidates(self, candidates: list[ItemId], path: tuple[str | int, ...]) -> list[int]:
        """The rows of candidates; every one must be known.

        Raises:
            InvalidRequest: a candidate is unknown; `path` is where the list stands.
        """
        rows = list(map(self._rows.get, candidates, repeat(self._unknown)))
        if self._unknown in rows:
            at = rows.index(self._unknown)
            place = f"history {path[1]}, candidate {at}" if len(path) > 1 else f"candidate {at}"
            raise InvalidRequest(f"{place}: unknown item {candidates[at]!r}", path=(*path, at))
        return rows

    def _refuse_unknown(self, history: list[ItemId], path: tuple[str | int, ...]) -> None:
        for at, item in enumerate(history):
            if item not in self._rows:
                raise InvalidRequest(
                    f"history {path[1]}, item {at}: unknown item {item!r}", path=(*path, at)
                )


def pad_rows(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pads on the right to the longest: item_ids (B, L) and key_mask (B, L), L at least 1.

    Bytes are padded and joined here: each operation of NumPy costs some microseconds more right
    after a run of the graph, which leaves the processor's caches without it.
    """
    lengths = [len(row) for row in rows]
    longest = max(1, *lengths)
    ids = b"".join([array("q", row).tobytes().ljust(8 * longest, b"\0") for row in rows])
    mask = b"".join([(b"\1" * length).ljust(longest, b"\0") for length in lengths])
    shape = (len(rows), longest)
    return np.frombuffer(ids, np.int64).reshape(shape), np.frombuffer(mask, np.bool_).reshape(shape)
