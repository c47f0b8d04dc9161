"""The states of recent histories, so that their next click costs one click.

A keyed digest of the raw ids finds a history, before any id is looked up. The key is random and
never leaves the process, so digests reveal nothing and cannot be forged. Ids are not kept: only an
embedding and the states that later clicks read.

A history and its continuations share one array of states, a `Line`. A click adds a position, and
existing positions never change. A history that continues from the middle of a line gets a copy of
its beginning. Only one event loop may use this module's objects.
"""

import asyncio
import os
import time
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from persona.contract import Floats, ItemId

MOST_NEW = 8  # clicks by which a history may have grown since it was kept
ROOM = 8  # spare positions of a line, so that it is seldom copied
ENTRY_BYTES = 512  # of a kept history's digest and objects, without embedding and line
POSITIONS_A_TOKEN = 64  # reading so many kept positions takes as long as computing a token
SWEEPS = 8  # checks for old lines within `max_seconds`


@dataclass(slots=True, eq=False)
class Line:
    """The states of a history's positions, shared with the histories that continue it."""

    born: float
    states: Floats  # (parts, C, D)
    filled: int = 0  # positions of C that are in use
    keys: list[bytes] = field(default_factory=list)  # of all histories that were kept on it
    users: int = 0  # histories that are kept on it now


@dataclass(slots=True, eq=False)
class Kept:
    """A kept history: the first positions of a line, and their embedding."""

    line: Line
    positions: int  # the start token and the clicks
    unknown: int  # clicks of unknown items
    embedding: Floats  # (D,)


@dataclass(slots=True, eq=False)
class Found:
    """The result of looking for a history: its key, and the kept history that it continues."""

    key: bytes
    length: int  # clicks
    new: int  # newest clicks that `before` lacks
    before: Kept | None
    unknown: int = 0  # clicks of unknown items

    @property
    def tokens(self) -> int:
        """The remaining work, as a number of tokens."""
        if self.before is None:
            return 1 + self.length
        return 2 + self.new + self.before.positions // POSITIONS_A_TOKEN


@dataclass(slots=True)
class Counts:
    """Outcomes of looking for histories."""

    whole: int = 0  # histories that were kept
    continued: int = 0  # histories whose new clicks were computed alone
    new: int = 0
    saved_clicks: int = 0
    computed_clicks: int = 0


class KeptHistories:
    """Recent histories within a budget; the least recently used leave first.

    Args:
        max_bytes: budget of everything kept.
        max_seconds: longest time that a click's state is kept, even if it is used.
        min_clicks: of a history; a shorter one takes no longer to compute than to find and keep.
        clock: in seconds.
    """

    def __init__(
        self,
        max_bytes: int,
        max_seconds: float,
        min_clicks: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes, self.max_seconds, self._clock = max_bytes, max_seconds, clock
        self.min_clicks = min_clicks
        self.bytes = 0
        self._counts = Counts()
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()  # the most recently used at the end
        self._lines: dict[Line, None] = {}  # the oldest first
        self._texts, self._numbers = (blake2b(digest_size=16, key=os.urandom(32)) for _ in "ab")
        self._sweeps = False
        self.empty: Kept | None = None  # the start token alone, which every history continues

    def __len__(self) -> int:
        """The number of lines."""
        return len(self._lines)

    def take_counts(self) -> Counts:
        """The outcomes since the last call."""
        counts, self._counts = self._counts, Counts()
        return counts

    def find(self, items: Sequence[ItemId]) -> Found | None:
        """What is kept of a history; None if it is too short or cannot be told from others.

        That is so without a click, and where ids are neither all texts, without a NUL, nor all
        integers of 64 bits.
        """
        if len(items) < self.min_clicks or (data := _as_bytes(items)) is None:
            return None
        start = self._texts if isinstance(items[0], str) else self._numbers
        length, new = len(items), 0
        end = _without_newest(items, data, len(data))
        digest = start.copy()
        digest.update(data[:end])
        shorter = digest.digest()
        digest.update(data[end:])
        before = self._use(key := digest.digest())
        least = max(1, self.min_clicks)
        if before is None and length > least:
            new, before = 1, self._use(shorter)
        while before is None and new < min(MOST_NEW, length - least):
            new, end = new + 1, _without_newest(items, data, end)
            digest = start.copy()
            digest.update(data[:end])
            before = self._use(digest.digest())
        if before is None and length <= MOST_NEW:
            new, before = length, self.empty
        if before is None:
            return self._counted(Found(key, length, length, None))
        return self._counted(Found(key, length, new, before, before.unknown))

    def known(self, found: Found) -> Floats | None:
        """The embedding of a history, if it has been kept meanwhile."""
        kept = self._kept.get(found.key)
        return None if kept is None else kept.embedding

    def keep(self, found: Found, embedding: Floats, line: Line) -> None:
        """Keeps a history, and removes others if there is no room."""
        if (old := self._kept.pop(found.key, None)) is not None:
            self._release(old)
        self._kept[found.key] = kept = Kept(line, 1 + found.length, found.unknown, embedding.copy())
        line.keys.append(found.key)
        line.users += 1
        self.bytes += _bytes_of(kept)
        if line.users == 1:
            self._lines[line] = None
            self.bytes += line.states.nbytes
        while self.bytes > self.max_bytes:
            self._release(self._kept.popitem(last=False)[1])
        self._sweep_later()

    def begin(self, states: Floats) -> Line:
        """A new line with the states (parts, n, D) of all positions of a history."""
        return _line(self._clock(), states)

    def continued(self, before: Kept, states: Floats) -> Line:
        """A kept history's line with the states (parts, n, D) of its new clicks added."""
        line = before.line
        if line.filled > before.positions or not line.users:
            # Another history already continues from here, or this line is no longer kept.
            born = self._clock() if before is self.empty else line.born
            line = _line(born, line.states[:, : before.positions])
        end = line.filled + states.shape[1]
        if end > line.states.shape[1]:
            larger = _line(line.born, line.states[:, : line.filled], end).states
            self.bytes += larger.nbytes - line.states.nbytes if line.users else 0
            line.states = larger
        line.states[:, line.filled : end] = states
        line.filled = end
        return line

    def sweep(self) -> None:
        """Removes lines that would be too old before the next sweep."""
        oldest = self._clock() - self.max_seconds * (1 - 1 / SWEEPS)
        for line in [line for line in self._lines if line.born <= oldest]:
            for key in line.keys:
                kept = self._kept.get(key)
                if kept is not None and kept.line is line:
                    self._release(self._kept.pop(key))

    def _use(self, key: bytes) -> Kept | None:
        kept = self._kept.get(key)
        if kept is None or self._clock() - kept.line.born >= self.max_seconds:
            return None
        self._kept.move_to_end(key)
        return kept

    def _release(self, kept: Kept) -> None:
        line = kept.line
        line.users -= 1
        self.bytes -= _bytes_of(kept)
        if not line.users:
            del self._lines[line]
            self.bytes -= line.states.nbytes

    def _counted(self, found: Found) -> Found:
        counts = self._counts
        if found.before is None:
            counts.new += 1
        elif found.new:
            counts.continued += 1
        else:
            counts.whole += 1
        counts.computed_clicks += found.new
        counts.saved_clicks += found.length - found.new
        return found

    def _sweep_later(self) -> None:
        if self._sweeps:
            return
        with suppress(RuntimeError):  # no event loop runs: whoever keeps histories there sweeps
            loop = asyncio.get_running_loop()
            loop.call_later(self.max_seconds / SWEEPS, _sweep, weakref.ref(self))
            self._sweeps = True

    def swept(self) -> None:
        """Sweeps, as scheduled on the event loop."""
        self._sweeps = False
        self.sweep()
        if self._kept:
            self._sweep_later()


def _sweep(histories: "weakref.ref[KeptHistories]") -> None:
    """Sweeps if the version still exists: the event loop must not keep it alive."""
    if (found := histories()) is not None:
        found.swept()


def _line(born: float, states: Floats, positions: int = 0) -> Line:
    """A line that holds some states, with room for `positions` and `ROOM` more."""
    parts, filled, width = states.shape
    line = Line(born, np.empty((parts, max(filled, positions) + ROOM, width), np.float32), filled)
    line.states[:, :filled] = states
    return line


def _bytes_of(kept: Kept) -> int:
    return ENTRY_BYTES + kept.embedding.nbytes


def _as_bytes(items: Sequence[ItemId]) -> bytes | None:
    """The ids as bytes, unique among histories of texts, or of integers."""
    try:
        if not isinstance(items[0], str):
            return array("q", items).tobytes()  # type: ignore[type-var]  # or a TypeError
        data = "\0".join(items).encode("utf-8", "surrogatepass")  # type: ignore[arg-type]  # the same
    except (IndexError, TypeError, OverflowError):
        return None
    return data if data.count(0) == len(items) - 1 else None


def _without_newest(items: Sequence[ItemId], data: bytes, end: int) -> int:
    """The end of a history's bytes without its last click, which ends at `end`."""
    return max(0, data.rfind(b"\0", 0, end)) if isinstance(items[0], str) else end - 8
