"""Watches the artifacts folder and the choices for one worker, and follows their changes."""

import asyncio
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from persona.contract import DeadlineExceeded
from persona.engine.engine import OnRun
from service.settings import Settings
from service.versions.choices import CHOICES, Choices, change_choices, read_choices
from service.versions.copies import COPIES, Copies
from service.versions.opening import Opener
from service.versions.reports import REPORTS, Report, forget_report, read_reports, write_report
from service.versions.rollout import Rollout, State

TICK_S = 0.25  # interval between checks of the file of choices
POLL_S = 0.05
ALL_WORKERS_S = 60.0  # time for all workers to follow a choice

Value = TypeVar("Value")


def clear(folder: Path) -> None:
    """Prepares a state folder for a new service; of an earlier service, only the choices stay.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (COPIES, REPORTS):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()


class Watcher:
    """Keeps a worker in line with the two folders."""

    def __init__(self, settings: Settings, on_run: OnRun) -> None:
        self._settings = settings
        self._own_folder = settings.state_folder is None
        self.folder = settings.state_folder or Path(tempfile.mkdtemp(prefix="persona-state-"))
        if self._own_folder:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._copies = Copies(self.folder, settings.max_copy_bytes)
        opener = Opener(self._copies, settings.limits(), on_run, settings.max_quality_loss)
        self.rollout = Rollout(settings.artifacts, opener, self.folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="versions")
        self._woken = asyncio.Event()
        self._mark: tuple[int, int] | None = None  # of the choices that were last followed

    async def follow(self) -> bool:
        """Follows the folders once; returns whether something changed."""
        self._mark = self._choices_mark()
        state = await self._apart(self._follow)
        if state is not None:
            self.rollout.adopt(state)
            await self._apart(lambda: write_report(self.folder, self.rollout.report()))
        await self._apart(self._copies.sweep)
        return state is not None

    async def watch(self, changed: Callable[[], None]) -> None:
        """Follows the folders for ever, and calls `changed` after each change."""
        every = self._settings.watch_seconds or float("inf")
        last = time.monotonic()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(TICK_S, every))
            self._woken.clear()
            due = time.monotonic() - last >= every
            if due or self._choices_mark() != self._mark:
                if await self.follow():
                    changed()
                last = time.monotonic()

    async def choose(self, change: Callable[[Choices], None]) -> list[Report]:
        """Changes the choices; returns all reports when all workers have followed.

        Raises:
            DeadlineExceeded: a worker has not followed.
        """
        choices = await asyncio.to_thread(change_choices, self.folder, change)
        self._woken.set()
        deadline = time.monotonic() + ALL_WORKERS_S
        while True:
            reports = await self.reports()
            if all(report.revision >= choices.revision for report in reports):
                return reports
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"a worker has not followed within {ALL_WORKERS_S:g} s")
            await asyncio.sleep(POLL_S)

    async def choices(self) -> Choices:
        """The current choices."""
        return await asyncio.to_thread(read_choices, self.folder)

    async def reports(self) -> list[Report]:
        """The reports of all workers."""
        return await asyncio.to_thread(read_reports, self.folder)

    def close(self) -> None:
        """Ends the thread, and removes this worker's report."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        forget_report(self.folder)

    def _follow(self) -> State | None:
        return self.rollout.follow(read_choices(self.folder), read_reports(self.folder))

    async def _apart(self, work: Callable[[], Value]) -> Value:
        """Runs a function in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _choices_mark(self) -> tuple[int, int] | None:
        with suppress(FileNotFoundError):
            found = (self.folder / CHOICES).stat()
            return found.st_ino, found.st_mtime_ns
        return None
