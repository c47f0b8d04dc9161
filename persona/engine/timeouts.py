"""Acts on futures that take too long, with one timer for all of them.

A timer of the event loop for each query costs more than its place in the queue, and nearly all of
these timers are cancelled. So all futures are looked at every `TICK_S`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

TICK_S = 0.02


class Timeouts:
    """Acts on futures that are not done in time; belongs to one event loop."""

    def __init__(self) -> None:
        self._watched: dict[asyncio.Future[Any], tuple[float, Callable[[], object]]] = {}
        self._looks = False  # a look is scheduled

    def watch(self, future: asyncio.Future[Any], seconds: float, act: Callable[[], object]) -> None:
        """Calls `act` once, `seconds` from now or a tick later, unless the future is forgotten."""
        loop = future.get_loop()
        self._watched[future] = loop.time() + seconds, act
        if not self._looks:
            self._looks = True
            loop.call_later(TICK_S, self._look, loop)

    def forget(self, future: asyncio.Future[Any]) -> None:
        """Leaves it alone. What it holds would otherwise be kept until the next look."""
        self._watched.pop(future, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        late = [(one, act) for one, (time, act) in self._watched.items() if time <= now]
        for future, act in late:
            del self._watched[future]
            if not future.done():
                act()
        self._looks = bool(self._watched)
        if self._looks:
            loop.call_later(TICK_S, self._look, loop)
