"""One request on its way through the service: its id, its key, and the time of each stage.

The border creates a visit for each request if a log, a trace or a response header needs one. The
code on the way marks the end of each stage. Without a visit, a mark costs 40 ns.
"""

import itertools
import os
import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["read", "parse", "queue", "compute", "render"]

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
# Unique without random bytes for each request: a process, and a number within it.
_PROCESS = os.urandom(6).hex()
_NUMBERS = itertools.count()


@dataclass(slots=True)
class Visit:
    """A request; times are of `time.perf_counter`."""

    request_id: str
    started: float
    key: str | None = None  # the name of its key
    model: str | None = None
    version: str | None = None
    trace_id: str | None = None
    charge: Callable[[int], None] | None = None  # counts histories against the limits of its key
    ends: dict[Stage, float] = field(default_factory=dict)  # ends of stages, in order

    def milliseconds(self) -> dict[Stage, float]:
        """Milliseconds of each stage."""
        last = self.started
        took: dict[Stage, float] = {}
        for stage, end in self.ends.items():
            took[stage], last = (end - last) * 1000, end
        return took


_current: ContextVar[Visit | None] = ContextVar("visit", default=None)


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's `x-request-id` if it may be logged, otherwise a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _WELL_FORMED.fullmatch(value):
            return value.decode("ascii")
    return f"{_PROCESS}-{next(_NUMBERS):x}"


def current() -> Visit | None:
    """The visit of the request that is being answered."""
    return _current.get()


def begin(visit: Visit) -> None:
    """Makes a visit the current one for this task."""
    _current.set(visit)


def mark(stage: Stage) -> None:
    """Ends a stage of the current visit."""
    if (visit := _current.get()) is not None:
        visit.ends[stage] = time.perf_counter()


def charge(histories: int) -> None:
    """Counts the histories of the current visit's request, if its key has such a limit.

    Raises:
        RateLimited: the limit is reached.
        RequestTooLarge: the request alone has more than the limit.
    """
    if (visit := _current.get()) is not None and visit.charge is not None:
        visit.charge(histories)


def mark_computed(model: str, version: str, computed_s: float) -> None:
    """Ends the stages of queue and computing; computing took this long."""
    if (visit := _current.get()) is not None:
        now = time.perf_counter()
        visit.model, visit.version = model, version
        visit.ends["queue"] = max(visit.ends.get("parse", visit.started), now - computed_s)
        visit.ends["compute"] = now
