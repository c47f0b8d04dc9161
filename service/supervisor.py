"""Starts the workers, replaces those that die or hang, and ends them.

docs/decisions/0014-own-supervisor.md explains why we use no other process manager.
"""

import logging.config
import os
import signal
import socket
import time
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path

from service.board import Board, Report, Seat
from service.errors import CannotServe
from service.log_format import log_config
from service.metrics import forget_worker
from service.settings import Settings
from service.shared_folder import shared_folder
from service.shared_state import shared_state
from service.workers import grace_s, work

LOOK_S = 0.5
STEADY_S = 2.0  # a worker that was ready this long has not failed to start
FIRST_DELAY_S = 0.5  # pause after a failed start
LAST_DELAY_S = 30.0

logger = logging.getLogger("service")


def run(settings: Settings, workers: int, held: socket.socket) -> None:
    """Serves until the process gets a signal to end.

    Raises:
        CannotShare: there is no room for the shared folder.
        NoStateFolder: `state_folder` cannot be used.
        CannotServe: no worker becomes ready.
    """
    logging.config.dictConfig(log_config(settings.log_level, settings.log_format))
    with shared_folder(workers) as folder, shared_state(settings) as shared:
        _Supervisor(shared, workers, held, folder).run()


@dataclass(eq=False)
class _Place:
    """A worker, or the wait for the next one."""

    number: int
    process: SpawnProcess | None = None
    starts_at: float = 0.0  # times are of time.monotonic
    ready_since: float | None = None
    failures: int = 0  # to start, in a row
    cause: str | None = None  # why the previous worker was replaced

    def delay_s(self) -> float:
        """Pause before the next worker starts."""
        if not self.failures:
            return 0.0
        return min(LAST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.failures - 1, 10))


# Settings of the workers' allocator (glibc). By default it keeps the gaps left by large bodies.
# After two minutes of mixed requests, each worker held 95 MB more; with these settings, 30 to 70.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}


class _Supervisor:
    def __init__(self, settings: Settings, workers: int, held: socket.socket, folder: Path) -> None:
        self._settings = settings
        self._address = held.family, held.getsockname()
        self._folder, self._board = folder, Board(folder)
        self._places = [_Place(number) for number in range(workers)]
        self._failed_starts = 0  # in a row, over all places
        self._ending = False

    def run(self) -> None:
        """Returns after a signal to end, when all workers have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        for name, value in MALLOC.items():
            os.environ.setdefault(name, value)
        try:
            while not self._ending:
                self._look()
                processes = [place.process for place in self._places if place.process is not None]
                connection.wait([process.sentinel for process in processes], LOOK_S)
        finally:
            self._terminate()
            self._join()

    def _look(self) -> None:
        reports = {report.worker: report for report in self._board.read()}
        for place in self._places:
            if self._ending:
                return
            if place.process is None:
                if time.monotonic() >= place.starts_at:
                    self._start(place)
            elif not place.process.is_alive():
                self._replace(place, place.process, "ended", _how(place.process.exitcode))
            elif (report := reports.get(place.number)) is not None:
                self._heed(place, place.process, report)

    def _start(self, place: _Place) -> None:
        others_answer = any(other.ready_since is not None for other in self._places)
        seat = Seat(place.number, self._folder, place.cause, holds_back=others_answer)
        place.process = get_context("spawn").Process(
            target=work, args=(self._settings, seat, *self._address)
        )
        place.process.start()
        self._tell(place, "starting", takes_requests=not others_answer)

    def _heed(self, place: _Place, process: SpawnProcess, report: Report) -> None:
        """Notes that a worker is ready; kills it if it hangs."""
        if report.state == "ready" and place.ready_since is None:
            place.ready_since = time.monotonic()
            self._failed_starts = 0
        silent = report.is_silent(self._settings)
        if silent or report.state == "stalled":
            process.kill()
            process.join()
            reason = f"has not reported for {report.age_s():.0f} s" if silent else report.reason
            self._replace(place, process, "hung", f"hung and was killed: {reason}")

    def _replace(self, place: _Place, process: SpawnProcess, cause: str, how: str) -> None:
        """Schedules the next worker.

        Raises:
            CannotServe: too many in a row have not become ready, and no other worker is.
        """
        now, ready_since = time.monotonic(), place.ready_since
        steady = ready_since is not None and now - ready_since >= STEADY_S
        place.failures = 0 if steady else place.failures + 1
        place.process, place.ready_since, place.cause = None, None, cause
        place.starts_at = now + place.delay_s()
        forget_worker(process.pid or 0)
        words = f"{how}; another starts in {place.delay_s():g} s"
        logger.error("worker %d (process %s) %s", place.number, process.pid, words)
        self._tell(place, words, takes_requests=False)
        self._failed_starts += ready_since is None
        nobody = all(other.ready_since is None for other in self._places)
        if nobody and self._failed_starts >= self._settings.max_failed_starts:
            raise CannotServe(
                f"{self._failed_starts} workers in a row ended before they were ready; "
                f"the last one {how}"
            )

    def _tell(self, place: _Place, reason: str, *, takes_requests: bool) -> None:
        """Writes the report of a worker that cannot do so yet, or any more."""
        process_id = place.process.pid if place.process is not None else None
        report = Report(
            worker=place.number,
            process_id=process_id or 0,
            state="starting",
            reason=reason,
            since=time.time(),
            beat=max(time.monotonic(), place.starts_at),
            takes_requests=takes_requests,
        )
        self._board.write(report)

    def _end(self, *_: object) -> None:
        self._ending = True
        self._terminate()

    def _terminate(self) -> None:
        for place in self._places:
            if place.process is not None and place.process.is_alive():
                place.process.terminate()

    def _join(self) -> None:
        grace = grace_s(self._settings)
        last = time.monotonic() + grace
        for place in self._places:
            if (worker := place.process) is None:
                continue
            worker.join(max(0.0, last - time.monotonic()))
            if worker.is_alive():
                logger.error("worker %d did not end within %g s: killed", place.number, grace)
                worker.kill()
                worker.join()


def _how(status: int | None) -> str:
    """Describes how a process ended."""
    if status is None or status >= 0:
        return f"ended with status {status}"
    number = signal.Signals(-status)
    room = ": is the folder that the workers share full?" if number is signal.SIGBUS else ""
    return f"ended by {number.name}{room}"
