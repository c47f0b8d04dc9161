"""From a person's clicks to what the encoder reads: rows of the item table, padding and mask."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.artifact import ItemId
from service.catalogue import ItemRows
from service.errors import InvalidRequest, Place

UnknownItems = Literal["token", "drop", "error"]


UNSEARCHED = array("q")


@dataclass(slots=True)
class MappedHistory:
    """A history as the encoder reads it, and what became of its clicks.

    `truncated` clicks are those older than the newest `max_length`. `unknown` clicks have an
    item that the model does not know: with "token" they are among the used ones, with "drop"
    all that were left out.
    """

    items: list[ItemId]  # the used clicks, oldest to newest
    truncated: int
    rows: "array[int]"  # of the used clicks in the item table, "q"; at first UNSEARCHED
    unknown: int  # with "token" found with the rows


class ItemIndex:
    """Maps histories and candidates to the rows of their items."""

    def __init__(self, rows: ItemRows, max_length: int) -> None:
        self._rows = rows
        self._max_length = max_length

    def map_history(self, history: list[ItemId]) -> MappedHistory:
        """Maps one history, and finds its rows; unknown items are the unknown item."""
        mapped = self.map_histories([history], "token", lambda number: ("histories", number))
        self.find_rows(mapped)
        return mapped[0]

    def map_histories(
        self,
        histories: Sequence[list[ItemId]],
        unknown_items: UnknownItems,
        path: Callable[[int], Place],
    ) -> list[MappedHistory]:
        """Maps histories, keeping the newest `max_length` clicks of each.

        With "token" nothing is asked of the catalogue: `find_rows` does, of many at once.

        Args:
            histories: items, oldest to newest.
            unknown_items: what to do about items that the model does not know.
            path: where a history stands in the request.

        Raises:
            InvalidRequest: an item is unknown and `unknown_items` is "error".
        """
        if unknown_items == "token":
            longest = self._max_length
            # Copied only where something is left out: a list of texts is slow to copy.
            return [
                MappedHistory(history, 0, UNSEARCHED, 0)
                if len(history) <= longest
                else MappedHistory(history[-longest:], len(history) - longest, UNSEARCHED, 0)
                for history in histories
            ]
        found = list(zip(histories, self._rows.find_all(histories), strict=True))
        if unknown_items == "error":
            for number, (history, (rows, _)) in enumerate(found):
                place = f"history {number}, item"
                _refuse_unknown(rows, self._rows.n_items, history, place, path(number))
        return [self._without_unknown(history, rows) for history, (rows, _) in found]

    def find_rows(self, histories: Sequence[MappedHistory]) -> None:
        """Finds the rows of histories that have none yet; unknown items are the unknown item."""
        new = [history for history in histories if history.rows is UNSEARCHED]
        found = self._rows.find_all([history.items for history in new])
        for history, (rows, unknown) in zip(new, found, strict=True):
            history.rows, history.unknown = rows, unknown

    def _without_unknown(self, history: list[ItemId], rows: "array[int]") -> MappedHistory:
        known = [at for at, row in enumerate(rows) if row != self._rows.n_items]
        newest = known[-self._max_length :]
        return MappedHistory(
            [history[at] for at in newest],
            len(known) - len(newest),
            array("q", [rows[at] for at in newest]),
            len(history) - len(known),
        )

    def map_candidates(self, candidates: list[ItemId], path: Place) -> "array[int]":
        """The rows of candidates; every one must be known.

        Raises:
            InvalidRequest: a candidate is unknown; `path` is where the list stands.
        """
        rows = self._rows.find(candidates)
        place = f"history {path[1]}, candidate" if len(path) > 1 else "candidate"
        _refuse_unknown(rows, self._rows.n_items, candidates, place, path)
        return rows


def _refuse_unknown(
    rows: "array[int]", unknown: int, items: list[ItemId], place: str, path: Place
) -> None:
    if unknown in rows:
        at = rows.index(unknown)
        raise InvalidRequest(f"{place} {at}: unknown item {items[at]!r}", path=(*path, at))


def pad_rows(rows: Sequence["array[int]"]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pads on the right to the longest: item_ids (B, L) and key_mask (B, L), L at least 1.

    Bytes are padded and joined here: each operation of NumPy costs some microseconds more right
    after a run of the graph, which leaves the processor's caches without it.
    """
    lengths = [len(row) for row in rows]
    longest = max(1, *lengths)
    ids = b"".join([row.tobytes().ljust(8 * longest, b"\0") for row in rows])
    mask = b"".join([(b"\1" * length).ljust(longest, b"\0") for length in lengths])
    shape = (len(rows), longest)
    return np.frombuffer(ids, np.int64).reshape(shape), np.frombuffer(mask, np.bool_).reshape(shape)
