"""Counts of requests in windows of time, added up over the workers through a folder in memory.

A key's connections spread unevenly over the workers, so a limit that is divided among them would
refuse too early, and one that each holds for itself would let through a multiple. Each worker
writes what it counted to a file of its own and reads those of the others.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson
from limits.storage import Storage

EXCHANGE_S = 0.05  # how much later the other workers know what this one counted

Place = tuple[str, int]  # what is counted, and the number of the window


class SharedCounts(Storage):
    """A storage for the strategies of `limits`; its windows begin at multiples of their length."""

    STORAGE_SCHEME = None

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Counts for this process, and where there is a folder, with others that use it."""
        super().__init__()
        self._folder = folder
        self._clock = clock
        self._own: dict[Place, int] = {}
        self._ends: dict[Place, float] = {}
        self._others: dict[Place, int] = {}
        self._newest: dict[str, Place] = {}
        self._exchanged = 0.0
        self._scheduled = False

    @property
    def base_exceptions(self) -> type[Exception]:
        """What can go wrong: files."""
        return OSError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Counts in the window that is open, and returns what all workers counted in it."""
        now = self._clock()
        place = (key, int(now // expiry))
        if place not in self._own:
            self._forget(now)
            self._ends[place], self._newest[key] = (place[1] + 1) * expiry, place
        self._own[place] = count = self._own.get(place, 0) + amount
        if self._folder is not None:
            self._share(now)
        return count + self._others.get(place, 0)

    def get(self, key: str) -> int:
        """What all workers counted in the window that is open."""
        place = self._newest.get(key)
        if place is None or self._ends[place] <= self._clock():
            return 0
        return self._own[place] + self._others.get(place, 0)

    def get_expiry(self, key: str) -> float:
        """When the window ends."""
        place = self._newest.get(key)
        return self._clock() if place is None else self._ends[place]

    def check(self) -> bool:
        """Whether the folder is there."""
        return self._folder is None or self._folder.is_dir()

    def reset(self) -> int:
        """Forgets what this worker counted."""
        count = len(self._own)
        self._own, self._ends, self._newest = {}, {}, {}
        return count

    def clear(self, key: str) -> None:
        """Forgets what this worker counted of a key."""
        for place in [place for place in self._own if place[0] == key]:
            del self._own[place], self._ends[place]
        self._newest.pop(key, None)

    def _forget(self, now: float) -> None:
        """Drops the windows that have ended."""
        for place in [place for place, end in self._ends.items() if end <= now]:
            del self._own[place], self._ends[place]
            if self._newest.get(place[0]) == place:
                del self._newest[place[0]]

    def _share(self, now: float) -> None:
        """At once after a pause; while requests come, once in `EXCHANGE_S` and after the last."""
        if now - self._exchanged > EXCHANGE_S:
            self._exchange()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(EXCHANGE_S, self._exchange)

    def _exchange(self) -> None:
        assert self._folder is not None  # noqa: S101  # its callers look
        self._scheduled, self._exchanged = False, self._clock()
        with suppress(OSError):  # a full disk makes limits looser, and stops nobody
            self._others = self._told_by_others(self._tell(self._folder))

    def _tell(self, folder: Path) -> Path:
        own = folder / f"requests-{os.getpid()}.json"
        written = own.with_suffix(".new")
        written.write_bytes(orjson.dumps([[*place, n] for place, n in self._own.items()]))
        return written.replace(own)

    @staticmethod
    def _told_by_others(own: Path) -> dict[Place, int]:
        """Also by workers that have ended: what they let through counts."""
        told: dict[Place, int] = {}
        for path in own.parent.glob("requests-*.json"):
            if path != own:
                for key, window, count in orjson.loads(path.read_bytes()):
                    told[key, window] = told.get((key, window), 0) + count
        return told
