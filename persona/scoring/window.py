"""How many requests are on their way to a service: one more while it keeps up, half when it fails.

Additive increase, multiplicative decrease: what TCP does (Chiu and Jain, 1989).
"""

import threading
import time
from collections.abc import Callable

from persona.contract import DeadlineExceeded, PersonaError

FIRST_SIZE = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
MAX_MISSED_DEADLINES = 20  # in a row


class Closed(Exception):
    """No more requests are wanted."""


class Window:
    """The requests of several threads to one service."""

    def __init__(self, largest: int, patience_s: float, notice: Callable[[str], None]) -> None:
        """At most `largest` requests at a time; they may fail for `patience_s` seconds in a row."""
        self._largest, self._patience_s, self._notice = largest, patience_s, notice
        self._size = float(min(FIRST_SIZE, largest))
        self._under_way = 0
        self._failures = self._missed_deadlines = 0  # in a row
        self._answered_at = self._halved_at = self._opens_at = time.monotonic()
        self._closed = False
        self._changed = threading.Condition()

    def enter(self) -> float:
        """Waits until a request may be sent; returns the time.

        Raises:
            Closed: no more requests are wanted.
        """
        with self._changed:
            while not self._closed and (pause_s := self._pause_s()) != 0:
                self._changed.wait(pause_s)
            if self._closed:
                raise Closed
            self._under_way += 1
            return time.monotonic()

    def answered(self) -> None:
        """Takes note that a request was answered."""
        with self._changed:
            self._leave()
            self._size = min(self._largest, self._size + 1 / self._size)
            self._failures = self._missed_deadlines = 0
            self._answered_at = time.monotonic()

    def failed(self, error: PersonaError, sent: float) -> None:
        """Takes note that a request, sent at that time, found no service or too much work there.

        Raises:
            PersonaError: the error, if nothing was answered for too long.
        """
        with self._changed:
            self._leave()
            now = time.monotonic()
            self._missed_deadlines += isinstance(error, DeadlineExceeded)
            is_first = sent >= self._halved_at  # others were sent before it, at the old size
            if is_first:
                self._size, self._halved_at = max(1.0, self._size / 2), now
                self._failures += 1
            pause_s = error.retry_after_s
            if pause_s is None:
                pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10))
            self._opens_at = max(self._opens_at, now + pause_s)
            overdue = self._opens_at - self._answered_at > self._patience_s
            if overdue or self._missed_deadlines >= MAX_MISSED_DEADLINES:
                raise error
        if is_first:
            self._notice(f"{error}; trying again in {pause_s:.1f} s")

    def close(self) -> None:
        """Sends no more requests."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pause_s(self) -> float | None:
        """Seconds to wait: 0 if a request may be sent, None if another one has to end before."""
        if self._under_way >= int(self._size):
            return None
        return max(0.0, self._opens_at - time.monotonic())

    def _leave(self) -> None:
        self._under_way -= 1
        self._changed.notify_all()
