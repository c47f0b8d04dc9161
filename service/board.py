"""The latest report of each worker, readable by every worker and the supervisor.

A report is a small file of fixed size in a folder in memory. It is written in place,
which needs no new space. So a worker is not taken for dead if something else fills the folder.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import orjson

from service.settings import Settings

State = Literal["starting", "ready", "broken", "stalled", "draining"]

FILE_BYTES = 4096
ATTEMPTS = 3  # to read a report while it is being written


@dataclass(frozen=True)
class Seat:
    """A worker's place in the service."""

    number: int = 0
    folder: Path | None = None  # folder of the board; None: this worker is alone
    restarts: str | None = None  # why the previous worker was replaced; None: it is the first
    holds_back: bool = False  # takes no requests before it is ready, because others answer


@dataclass(frozen=True)
class Report:
    """The state of one worker."""

    worker: int  # its number, from 0
    process_id: int
    state: State
    reason: str
    since: float  # start of this state, in seconds since 1970
    beat: float  # time of writing by time.monotonic, which all processes share
    takes_requests: bool = True
    models: Sequence[str] = field(default_factory=list)  # "name/version"

    def age_s(self) -> float:
        """Seconds since it was written."""
        return time.monotonic() - self.beat

    def is_silent(self, settings: Settings) -> bool:
        """Whether a living worker would have written again."""
        limit = settings.start_seconds if self.state == "starting" else settings.hang_seconds
        return self.age_s() > limit


class Board:
    """The reports of all workers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, report: Report) -> None:
        """Replaces a worker's report.

        Raises:
            OSError: the folder is full.
        """
        content = orjson.dumps(report)
        if len(content) > FILE_BYTES:
            content = orjson.dumps(_shortened(report))
        path = self._path(report.worker)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(content.ljust(FILE_BYTES))

    def read(self) -> list[Report]:
        """All reports, by number of the worker."""
        reports = [_read(path) for path in self._folder.glob("worker-*.json")]
        return sorted(filter(None, reports), key=lambda report: report.worker)

    def _path(self, worker: int) -> Path:
        return self._folder / f"worker-{worker}.json"


def _read(path: Path) -> Report | None:
    for _ in range(ATTEMPTS):
        with suppress(orjson.JSONDecodeError):
            return Report(**orjson.loads(path.read_bytes()))
    return None


def _shortened(report: Report) -> Report:
    facts = {**vars(report), "models": report.models[:20], "reason": report.reason[:500]}
    return Report(**facts)
