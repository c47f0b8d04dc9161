"""Histories of many users as arrays: the distinct ids, and each click as an index into them.

Clicks are then not Python objects. They pass between processes as bytes, and each id is looked up
once.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, compress, count, pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from persona.contract import ItemId

Positions = Sequence[int] | NDArray[np.int64]  # of histories


class CodedHistories(Sequence[list[ItemId]]):
    """Histories, oldest click first; as a sequence, lists of ids."""

    def __init__(
        self, words: Sequence[ItemId], codes: NDArray[np.int32], offsets: NDArray[np.int64]
    ) -> None:
        """Takes arrays as they are.

        Args:
            words: ids, each once.
            codes: (clicks,) the place of each click's id in `words`.
            offsets: (B + 1,) where each history begins in `codes`, and where the last one ends.
        """
        self.words, self.codes, self.offsets = words, codes, offsets

    @classmethod
    def of(cls, histories: Sequence[Sequence[ItemId]]) -> "CodedHistories":
        """The same histories as arrays."""
        if isinstance(histories, CodedHistories):
            return histories
        clicks = list(chain.from_iterable(histories))
        words = list(dict.fromkeys(clicks))
        places = dict(zip(words, range(len(words)), strict=True))
        codes = np.array(array("i", map(places.__getitem__, clicks)), np.int32)
        return cls(words, codes, _offsets(np.fromiter(map(len, histories), np.int64)))

    @classmethod
    def joined(cls, pieces: Sequence["CodedHistories"]) -> "CodedHistories":
        """Pieces one behind the other; each id that a click has is in `words` once."""
        places = defaultdict[ItemId, int](count().__next__)
        codes, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for piece in pieces:
            first, last = piece.offsets[[0, -1]]
            own = piece.codes[first:last]
            used = np.bincount(own, minlength=len(piece.words)) > 0
            found = map(places.__getitem__, compress(piece.words, used.tolist()))
            joint = np.zeros(len(used), np.int32)
            joint[used] = np.fromiter(found, np.int32)
            codes.append(joint[own])
            lengths.append(piece.lengths)
        return cls(list(places), np.concatenate(codes), _offsets(np.concatenate(lengths)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Clicks of each history, (B,)."""
        return np.diff(self.offsets)

    def take(self, positions: Positions) -> "CodedHistories":
        """Some of the histories; `words` are shared."""
        at = np.asarray(positions, np.int64)
        starts, lengths = self.offsets[at], self.offsets[at + 1] - self.offsets[at]
        offsets = _offsets(lengths)
        clicks = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return CodedHistories(self.words, self.codes[clicks], offsets)

    def __reduce__(self) -> tuple[object, ...]:
        """How it is pickled: texts in one piece, as pickle takes note of every single object."""
        words: Sequence[ItemId] | str = self.words
        with suppress(TypeError):  # of integers
            text = "\0".join(words)  # type: ignore[arg-type]  # the same
            words = text if text.count("\0") == len(words) - 1 else words
        return _unpickled, (words, self.codes, self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[list[ItemId]]:
        first, last = self.offsets[[0, -1]].tolist()
        items = list(map(self.words.__getitem__, self.codes[first:last].tolist()))
        for start, end in pairwise((self.offsets - first).tolist()):
            yield items[start:end]

    @overload
    def __getitem__(self, at: int) -> list[ItemId]: ...
    @overload
    def __getitem__(self, at: slice) -> "CodedHistories": ...
    def __getitem__(self, at: int | slice) -> "list[ItemId] | CodedHistories":
        positions = range(len(self))[at]
        if isinstance(positions, range):
            return self.take(positions)
        start, end = self.offsets[positions : positions + 2]
        return [self.words[code] for code in self.codes[start:end].tolist()]


def _unpickled(
    words: Sequence[ItemId] | str, codes: NDArray[np.int32], offsets: NDArray[np.int64]
) -> CodedHistories:
    return CodedHistories(words.split("\0") if isinstance(words, str) else words, codes, offsets)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
