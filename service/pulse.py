"""The pulse of a worker: sends its models a test query through the queue, and reports the result.

A worker is `stalled` while it computes nothing although queries wait. It is `broken` while one of
its models gives a wrong answer or none.
"""

import asyncio
import logging
from contextlib import suppress
from functools import partial

from prometheus_client import Gauge

from persona.contract import NotReady, Overloaded
from persona.engine.model import Model
from service.board import Board
from service.lifecycle import Service

BEAT_S = 0.5
TASKS = Gauge("persona_tasks", "Tasks of the event loops", multiprocess_mode="livesum")

logger = logging.getLogger(__name__)


class Pulse:
    """Checks one worker."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._limit_s = service.settings.hang_seconds
        self._board = Board(service.seat.folder) if service.seat.folder is not None else None
        self._asked: dict[Model, asyncio.Future[None]] = {}
        self._problems: dict[Model, str] = {}
        self._could_write = True

    async def beat(self) -> None:
        """Checks and reports until it is cancelled."""
        while True:
            TASKS.set(len(asyncio.all_tasks()))
            self._look()
            self._service.changed.clear()
            self._write()
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._service.changed.wait()

    def _look(self) -> None:
        try:
            models = self._service.engine().registry.loaded
        except NotReady:
            return
        for gone in self._problems.keys() - models:
            del self._problems[gone]
        for model in models:
            if model not in self._asked:
                self._ask(model)
        if (waited := max((model.waiting_s() for model in models), default=0.0)) > self._limit_s:
            self._service.doubt("stalled", f"nothing was computed for {waited:.0f} s")
        elif self._problems:
            self._service.doubt("broken", "; ".join(self._problems.values()))
        else:
            self._service.trust()

    def _ask(self, model: Model) -> None:
        try:
            future = model.probe(self._limit_s)
        except Overloaded:
            return  # it does compute; otherwise `waiting_s` shows it
        self._asked[model] = future
        future.add_done_callback(partial(self._hear, model))

    def _hear(self, model: Model, future: asyncio.Future[None]) -> None:
        del self._asked[model]
        self._problems.pop(model, None)
        if not future.cancelled() and (error := future.exception()) is not None:
            name = f"{model.manifest.name}, version {model.manifest.version}"
            self._problems[model] = f"{name}: {error}"

    def _write(self) -> None:
        if self._board is None:
            return
        try:
            self._board.write(self._service.report())
        except OSError as error:
            if self._could_write:
                logger.warning("cannot report to the other workers: %s", error)
            self._could_write = False
        else:
            self._could_write = True
