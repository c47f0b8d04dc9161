"""Counts in windows of time, summed over the workers through a folder in memory.

A key's connections spread unevenly over the workers. A limit divided among them would refuse too
early, and a full limit per worker would admit a multiple of it. So each worker writes its counts to
a file and reads the files of the others.

(The library `limits` has strategies for this. They take 3 to 7 µs per request; its in-memory
storage works for a single process, and its other storages need a server. We use only its notation.)
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson

EXCHANGE_S = 0.05  # delay until the other workers see the counts


class SharedCounts:
    """Counts by name, in windows that start at multiples of their length."""

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Counts for this process and, if there is a folder, for all processes that use it."""
        self._folder = folder
        self._clock = clock
        self._own: dict[str, tuple[int, int]] = {}  # the newest window, and its counts
        self._others: dict[tuple[str, int], int] = {}
        self._exchanged = 0.0
        self._scheduled = False

    def add(self, name: str, seconds: int, amount: int = 1) -> int:
        """Counts in the current window, and returns the counts of all workers in it.

        A negative amount undoes a count.
        """
        now = self._clock()
        window = int(now // seconds)
        counted_in, count = self._own.get(name, (window, 0))
        count = count + amount if counted_in == window else amount
        self._own[name] = window, count
        if self._folder is not None:
            self._share(now)
        return count + self._others.get((name, window), 0)

    def seconds_left(self, seconds: int) -> float:
        """Seconds until the current window of this length ends."""
        return seconds - self._clock() % seconds

    def _share(self, now: float) -> None:
        """Exchanges counts: at once after a pause, then every `EXCHANGE_S` during requests."""
        if now - self._exchanged > EXCHANGE_S:
            self._exchange()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(EXCHANGE_S, self._exchange)

    def _exchange(self) -> None:
        assert self._folder is not None  # noqa: S101  # its callers look
        self._scheduled, self._exchanged = False, self._clock()
        with suppress(OSError):  # a full disk loosens limits, but stops nobody
            self._others = self._told_by_others(self._tell(self._folder))

    def _tell(self, folder: Path) -> Path:
        own = folder / f"requests-{os.getpid()}.json"
        written = own.with_suffix(".new")
        told = [[name, window, count] for name, (window, count) in self._own.items()]
        written.write_bytes(orjson.dumps(told))
        return written.replace(own)

    @staticmethod
    def _told_by_others(own: Path) -> dict[tuple[str, int], int]:
        """The counts of the others, including ended workers."""
        told: dict[tuple[str, int], int] = {}
        for path in own.parent.glob("requests-*.json"):
            if path != own:
                for name, window, count in orjson.loads(path.read_bytes()):
                    told[name, window] = told.get((name, window), 0) + count
        return told
