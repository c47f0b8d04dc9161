"""Acts on futures that take too long, with one timer for all of them.

A timer of the event loop for each query costs more than its place in the queue, and nearly all of
these timers are cancelled. So futures are entries of a list, which is swept every `TICK_S`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

TICK_S = 0.02


class Timeouts:
    """Acts on futures that are not done in time; belongs to one event loop."""

    def __init__(self) -> None:
        self._watched: list[tuple[asyncio.Future[Any], float, Callable[[], object]]] = []

    def watch(self, future: asyncio.Future[Any], seconds: float, act: Callable[[], object]) -> None:
        """Calls `act` once, `seconds` from now or a tick later, unless the future is done."""
        loop = future.get_loop()
        if not self._watched:
            loop.call_later(TICK_S, self._sweep, loop)
        self._watched.append((future, loop.time() + seconds, act))

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        watched = [entry for entry in self._watched if not entry[0].done()]
        self._watched = [entry for entry in watched if entry[1] > now]
        if self._watched:
            loop.call_later(TICK_S, self._sweep, loop)
        for future, time, act in watched:
            if time <= now and not future.done():
                act()
